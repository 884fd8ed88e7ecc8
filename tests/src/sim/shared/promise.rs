//! What clients are promised (docs/shared.md), and when they may begin a session anew.

use std::collections::VecDeque;
use std::time::Duration;

use evergate::ike::Lifetime;

use super::super::RETRANSMIT;
use super::super::scenario::lifetimes;
use super::client::{RETRY, SILENCE};
use super::line::Seat;
use super::{Trouble, World};

/// After a trouble of any other kind, for so long nothing is promised but that it is over some time.
const CALM: Duration = Duration::from_secs(3);
/// How often a client's way for IKE may have been shut: all that is remembered.
const SHUT: usize = 256;
/// How far apart a message and what is known of its way may be: the pace of looks, clocks, delays.
const APART: Duration = Duration::from_millis(150);

/// What is known of a client's way to the authority.
#[derive(Clone, Default)]
pub(super) struct Well {
    /// When IKE did not get there: from, until.
    shut: VecDeque<(Duration, Duration)>,
    is_shut: bool,
    /// The run of the authority that its session is with.
    run: u64,
    /// When it began that.
    begun: Option<Duration>,
}

impl World {
    /// Whether all is well that a client needs.
    pub(super) fn is_well(&self, client: usize) -> bool {
        let edge = self.routes[client];
        let links = &self.links[edge];
        self.scatter == 0
            && self.loss == 0
            && self.edges[edge].serves()
            && links.wan
            && links.lan
            && self.dials[edge].cut.is_none()
            && self.authority.is_some()
            && !self.authority_frozen
            && !self.authority_parts
            && !self.disk.full
    }

    /// Whether a client's session is with an authority that is no more, or has given it up: it goes on, and
    /// its client begins another one some time.
    pub(super) fn is_orphan(&self, client: usize) -> bool {
        let spi = self.clients[client].sends_on();
        let authority = self.authority.as_ref();
        spi.is_none_or(|spi| authority.is_none_or(|authority| !authority.knows(spi)))
    }

    fn is_connected(&self, edge: usize) -> bool {
        let line = self.seats[edge].and_then(|serial| self.lines.get(&serial));
        let current = self.dials[edge].current;
        current == self.seats[edge] && line.is_some_and(|line| line.seat == Seat::Taken)
    }

    /// Since when an edge has had its connection.
    fn connected_for(&self, edge: usize) -> Duration {
        match self.is_connected(edge) {
            true => self.now.saturating_sub(self.dials[edge].since),
            false => Duration::ZERO,
        }
    }

    /// Remembers when IKE gets from a client to the authority, and when it does not.
    pub(super) fn look_at_ike(&mut self, client: usize) {
        let (now, edge) = (self.now, self.routes[client]);
        let stalled = now < self.dials[edge].stalled;
        let shut = !self.is_well(client) || !self.is_connected(edge) || stalled;
        let well = &mut self.well[client];
        match (shut, well.shut.back_mut()) {
            (true, Some((_, until))) if well.is_shut => *until = now,
            (true, _) => {
                well.shut.push_back((now, now));
                if well.shut.len() > SHUT {
                    well.shut.pop_front();
                }
            }
            (false, Some((_, until))) if well.is_shut => *until = now,
            (false, _) => {}
        }
        well.is_shut = shut;
    }

    /// A client begins a session anew: only if its authority is another one, or an exchange was in vain.
    pub(super) fn began(&mut self, client: usize, times: u64) {
        let run = self.authority_run;
        let well = &mut self.well[client];
        let other = std::mem::replace(&mut well.run, run) != run;
        let Some(begun) = well.begun.replace(self.now) else {
            return;
        };
        self.report.anew += times;
        let excused = other || self.gave_up(client, begun);
        let why = format!("client {client} begins anew, and nothing was in its way");
        self.watch.holds(excused, &why);
    }

    /// Whether an exchange may have been given up since then, by either end, or was too late for the lifetime of what it
    /// was to replace: none of its messages until then had a way.
    fn gave_up(&self, client: usize, since: Duration) -> bool {
        let well = &self.well[client];
        let no_way = |at: Duration| {
            let mut shut = well.shut.iter();
            shut.any(|(from, until)| at + APART >= *from && at <= *until + APART)
        };
        let sent = (0..RETRANSMIT.tries).scan(Duration::ZERO, |at, time| {
            let sent = *at;
            *at += RETRANSMIT.first * (1 << time);
            Some(sent)
        });
        let sent: Vec<Duration> = sent.collect();
        // From the latest moment in which it is begun to the end.
        let left = |life: Lifetime| life.hard - life.rekey.mul_f64(1.0 + life.jitter);
        let (child, ike) = lifetimes(self.scenario.rekeying);
        let lifetimes = [child, ike].into_iter().flatten().map(left);
        let longest: Vec<Duration> = lifetimes.chain([Duration::MAX]).collect();
        let step = Duration::from_millis(20);
        let mut start = since;
        while start < self.now {
            let in_vain = |longest: &Duration| {
                let mut sent = sent.iter().take_while(|after| *after < longest);
                sent.all(|after| no_way(start + *after))
            };
            if longest.iter().any(in_vain) {
                return true;
            }
            start += step;
        }
        false
    }

    /// What clients are promised after something has happened.
    pub(super) fn promise(&mut self, trouble: Option<Trouble>) {
        self.watch.nothing_is_promised();
        for client in 0..self.clients.len() {
            let soon = trouble.and_then(|trouble| self.soon_through(client, trouble));
            let within = match soon {
                Some(within) => within,
                None if self.is_well(client) => self.some_time(),
                None => continue,
            };
            let time = [self.now, self.now + within];
            self.watch.promise(client, time, soon.is_some());
        }
        let elsewhere = |trouble| {
            matches!(
                trouble,
                Trouble::Route(..) | Trouble::Herd(_) | Trouble::Kill(_) | Trouble::Start(_)
            )
        };
        if trouble.is_none_or(|trouble| !elsewhere(trouble)) {
            self.troubled = self.now;
        }
    }

    fn round_trip(&self) -> Duration {
        2 * (self.scenario.delay + self.scenario.jitter) + Duration::from_millis(1)
    }

    /// Connections are there again, an exchange is in vain, and another one is not.
    fn some_time(&self) -> Duration {
        let connected = Duration::from_millis(1000 + 1500 + 3000 + 1000);
        let exchange = RETRANSMIT.total();
        let silent = SILENCE + exchange + RETRY;
        let all = connected + silent + 2 * exchange + self.scenario.pace;
        all + all / 20
    }

    /// How soon a client is through, where the rules say so.
    fn soon_through(&self, client: usize, trouble: Trouble) -> Option<Duration> {
        if self.now < self.troubled + CALM {
            return None;
        }
        let spi = self.clients[client].sends_on()?;
        let authority = self.authority.as_ref()?;
        let (edge, pace) = (self.routes[client], self.scenario.pace);
        let goes_on = self.edges[edge].owns(spi)
            && self.edges[edge].serves()
            && self.links[edge].wan
            && self.links[edge].lan
            && self.scatter == 0
            && self.loss == 0
            && self.scenario.rekeying.is_none()
            // A copy of a packet can have it asked back in this very moment.
            && (self.scenario.doubled, self.scenario.repeated) == (0, 0);
        match trouble {
            // Its edge goes on alone: after a second with all that it has.
            Trouble::AuthorityFrozen if goes_on => {}
            Trouble::Cut(at) if goes_on && at == edge => {}
            Trouble::Away if goes_on => {}
            Trouble::Route(..) | Trouble::Herd(_) | Trouble::Kill(_) => {
                return self.changes_hands(client, spi, authority.owner_of(spi));
            }
            _ => return None,
        }
        let alone = self.scenario.terms.alone;
        let all = alone + self.round_trip() + 2 * pace + Duration::from_millis(10);
        Some(all + all / 20)
    }

    /// Another edge gets what one that died, or lives, has had.
    fn changes_hands(&self, client: usize, spi: u32, owner: Option<usize>) -> Option<Duration> {
        let (edge, scenario) = (self.routes[client], &self.scenario);
        let known = self.authority.as_ref().is_some_and(|a| a.knows(spi));
        let proven = |edge: usize| self.connected_for(edge) > Duration::from_millis(1500);
        let owner_is_well = owner.is_none_or(|owner| {
            let owner = &self.edges[owner];
            !owner.is_frozen()
        });
        let here = proven(edge) && self.is_well(client) && known && owner_is_well;
        // Numbers that run out, and keys that change in this moment, take longer.
        let usual = scenario.terms == evergate::cluster::Terms::default();
        if !here || !usual || scenario.rekeying.is_some() || !scenario.everywhere {
            return None;
        }
        if let Some(owner) = owner.filter(|owner| *owner != edge)
            && !self.edges[owner].runs()
            && !self.died_proven(owner)
        {
            return None;
        }
        let terms = &scenario.terms;
        let asked = terms.tenure + 2 * terms.again;
        let said = 8 * scenario.channel + 3 * scenario.write;
        let reports = 2 * terms.interval;
        let lost = 4 * reports + 8 * scenario.pace;
        let silent = match scenario.notaries {
            true => terms.testimony,
            false => Duration::ZERO,
        };
        let all = asked + said + lost + silent + self.round_trip() + Duration::from_millis(30);
        Some(all + all / 20)
    }

    /// An edge that was killed while it was surely in contact.
    fn died_proven(&self, edge: usize) -> bool {
        self.deaths[edge].is_some_and(|(at, proven)| proven && self.now < at + CALM)
    }

    /// An edge is about to be killed.
    pub(super) fn dies(&mut self, edge: usize) {
        let proven = self.connected_for(edge) > Duration::from_millis(1500)
            && self.dials[edge].cut.is_none()
            && self.now >= self.troubled + CALM
            && !self.edges[edge].is_frozen();
        self.deaths[edge] = Some((self.now, proven));
    }
}
