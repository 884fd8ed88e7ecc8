//! What a monitor knows of each gateway, and of the heartbeats under way.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a "draining" or "overloaded" is believed of a gateway that has said nothing since.
/// Standby gateways get no heartbeats, so nothing would ever take the word back.
pub(super) const UNWELL_FOR: Duration = Duration::from_secs(30);

/// One gateway of a monitor, as a status page shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayView {
    /// The outside address, which is the gateway's name.
    pub address: IpAddr,
    /// Whether a session with it exists.
    pub keyed: bool,
    /// Whether traffic goes through it.
    pub active: bool,
    /// When the last authenticated packet came from it; a finished key exchange is one.
    pub last_heard: Option<Instant>,
    /// Round-trip time of the last heartbeat that was answered.
    pub rtt: Option<Duration>,
    /// The health byte of its last matched answer (0 = well).
    pub health: u8,
    /// Heartbeats sent to it.
    pub heartbeats_sent: u64,
    /// Heartbeats it answered, late answers included.
    pub heartbeats_answered: u64,
    /// Heartbeats whose response time passed without a sign of life.
    pub heartbeats_lost: u64,
}

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) address: IpAddr,
    pub(super) keyed: bool,
    pub(super) last_heard: Option<Instant>,
    pub(super) rtt: Option<Duration>,
    pub(super) health: u8,
    unwell_until: Option<Instant>,
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) lost: u64,
}

impl Gateway {
    pub(super) fn new(address: IpAddr) -> Gateway {
        Gateway {
            address,
            keyed: false,
            last_heard: None,
            rtt: None,
            health: 0,
            unwell_until: None,
            sent: 0,
            answered: 0,
            lost: 0,
        }
    }

    /// Takes the health byte of an answer; true if it differs from the one before.
    pub(super) fn set_health(&mut self, health: u8, now: Instant) -> bool {
        self.unwell_until = (health != 0).then(|| now + UNWELL_FOR);
        std::mem::replace(&mut self.health, health) != health
    }

    /// Whether it lately said that it would rather not be used.
    pub(super) fn unwell(&self, now: Instant) -> bool {
        self.unwell_until.is_some_and(|until| now < until)
    }

    pub(super) fn view(&self, active: bool) -> GatewayView {
        GatewayView {
            address: self.address,
            keyed: self.keyed,
            active,
            last_heard: self.last_heard,
            rtt: self.rtt,
            health: self.health,
            heartbeats_sent: self.sent,
            heartbeats_answered: self.answered,
            heartbeats_lost: self.lost,
        }
    }
}

/// The heartbeats that may still be answered: the last few, oldest overwritten first.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    slots: [Option<(IpAddr, u32, Instant)>; 4],
    next: usize,
}

impl Outstanding {
    pub(super) fn push(&mut self, gateway: IpAddr, counter: u32, now: Instant) {
        let at = self.next % self.slots.len();
        self.slots[at] = Some((gateway, counter, now));
        self.next = at + 1;
    }

    /// Takes out the heartbeat that this answers, and says when it was sent.
    pub(super) fn take(&mut self, gateway: IpAddr, counter: u32) -> Option<Instant> {
        self.slots.iter_mut().find_map(|slot| match *slot {
            Some((to, number, at)) if to == gateway && number == counter => {
                *slot = None;
                Some(at)
            }
            _ => None,
        })
    }

    /// Forgets those sent to `gateway`: its session is gone, so nothing can prove its life.
    pub(super) fn forget(&mut self, gateway: IpAddr) {
        for slot in &mut self.slots {
            if slot.is_some_and(|(to, ..)| to == gateway) {
                *slot = None;
            }
        }
    }
}
