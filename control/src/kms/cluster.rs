//! What the service knows of each gateway and each cluster.

use std::net::IpAddr;
use std::time::Instant;

use super::SessionHandle;
use super::damping::Damping;
use super::refresh::Refresh;
use crate::policy::ClusterId;

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) address: IpAddr,
    /// The cached session: one per gateway, shared by every cluster that lists the gateway.
    pub(super) session: Option<(SessionHandle, Instant)>,
    /// An exchange that we started runs with it; node-wide there is at most one.
    pub(super) authenticating: bool,
    /// The session is to be made anew.
    pub(super) refresh: Option<Refresh>,
    /// Failed exchanges and lost sessions since it was last well for a while.
    pub(super) failures: u32,
    /// Background attempts leave it alone until then; requests do not.
    pub(super) hold_until: Instant,
    /// Requests leave it alone too if it dies over and over.
    pub(super) damping: Damping,
}

impl Gateway {
    pub(super) fn new(address: IpAddr, now: Instant) -> Gateway {
        Gateway {
            address,
            session: None,
            authenticating: false,
            refresh: None,
            failures: 0,
            hold_until: now,
            damping: Damping::default(),
        }
    }
}

/// A key request that is being worked on.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) after: Option<IpAddr>,
    /// The gateway whose exchange decides what comes next.
    pub(super) current: Option<IpAddr>,
    /// Every gateway that failed in this request, with its reason; none is asked twice.
    pub(super) tried: Vec<(IpAddr, String)>,
}

#[derive(Debug)]
pub(super) enum Job {
    Idle,
    Running(Run),
    /// The last request was rejected. If it is to be made again at `until`, because no gateway is
    /// keyed or because another one came, `wanted` has the gateway to go on from.
    BackOff {
        until: Instant,
        wanted: Option<Option<IpAddr>>,
    },
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) id: ClusterId,
    /// As drawn at the last read of the policy, without repetitions.
    pub(super) order: Vec<IpAddr>,
    /// The gateway that traffic uses, as far as we were told.
    pub(super) active: Option<IpAddr>,
    pub(super) job: Job,
    /// A gateway has sent us to this one: the next exchange is with it.
    pub(super) preferred: Option<IpAddr>,
    /// Requests rejected in a row.
    pub(super) failures: u32,
    pub(super) failed_at: Option<Instant>,
    /// When the next background attempt is due.
    pub(super) standby_at: Option<Instant>,
}

impl Cluster {
    pub(super) fn new(id: ClusterId, mut order: Vec<IpAddr>) -> Cluster {
        dedup(&mut order);
        Cluster {
            id,
            order,
            active: None,
            job: Job::Idle,
            preferred: None,
            failures: 0,
            failed_at: None,
            standby_at: None,
        }
    }

    /// Takes the order of a new policy; true if gateways came or went.
    pub(super) fn set_order(&mut self, mut order: Vec<IpAddr>) -> bool {
        dedup(&mut order);
        let same = order.len() == self.order.len() && order.iter().all(|gw| self.has(*gw));
        self.order = order;
        let order = &self.order;
        let still = |gateway: Option<IpAddr>| gateway.filter(|gateway| order.contains(gateway));
        if self.active.is_some() && still(self.active).is_none() {
            self.active = None;
            // As when the monitor says so, which it will.
            self.preferred = None;
        }
        // The monitor forgets it too: if it comes back to the list, it is like any other.
        match &mut self.job {
            Job::Running(run) => run.after = still(run.after),
            Job::BackOff { wanted, .. } => *wanted = wanted.map(still),
            Job::Idle => {}
        }
        !same
    }

    pub(super) fn has(&self, gateway: IpAddr) -> bool {
        self.order.contains(&gateway)
    }

    /// All gateways, round robin: from the one behind `after` to `after` itself; from the first
    /// one if there is no `after` or the list does not have it.
    pub(super) fn round_from(&self, after: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        let start = after
            .and_then(|after| self.order.iter().position(|gw| *gw == after))
            .map_or(0, |at| at + 1);
        let (head, tail) = self.order.split_at(start);
        tail.iter().chain(head).copied()
    }

    pub(super) fn running(&self) -> Option<&Run> {
        match &self.job {
            Job::Running(run) => Some(run),
            _ => None,
        }
    }
}

fn dedup(order: &mut Vec<IpAddr>) {
    let mut seen = Vec::with_capacity(order.len());
    order.retain(|gateway| {
        let new = !seen.contains(gateway);
        seen.push(*gateway);
        new
    });
}
