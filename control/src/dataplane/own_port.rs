//! ESP in UDP from a port of this worker's own, for a client's further pairs of SAs (RFC 9611): so network
//! cards and kernels on the way can spread what one client sends and gets.
//!
//! A pair begins on the port that it shares with IKE. Keyed heartbeats from the worker's own port show whether
//! the gateway answers there; only then does the pair go that way, and back as soon as they are not answered any
//! more. They keep a NAT's mapping of the port alive too.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use evergate_common::heartbeat;
use evergate_common::reason::Counter;
use rand::RngExt;

use super::command::Sending;
use super::core::Core;
use super::xsk::Umem;

/// How often the way is asked about while it carries packets, or an answer is wanted.
const PACE: Duration = Duration::from_millis(500);

/// So many unanswered in a row, and it is no way.
const TRIES: u8 = 4;

/// So many sealed packets without content say which way a pair goes now: some may be lost with the way before.
const TELLS: u8 = 4;

/// One that was none is tried again after this time.
const AGAIN: Duration = Duration::from_secs(30);

/// The port of this worker's own, and to which gateways it is a way.
pub(super) struct OwnPort {
    port: u16,
    /// An idle way is asked about so often.
    rest: Duration,
    trials: Vec<Trial>,
    next: Instant,
}

/// What is known of the way from the port to one gateway.
#[derive(Debug)]
struct Trial {
    gateway: IpAddr,
    works: bool,
    unanswered: u8,
    /// When it was asked about last.
    asked: Option<Instant>,
    /// Packets of the pairs of SAs when it was looked at last.
    packets: usize,
    /// So often the gateway is still to be told which way they go.
    tells: u8,
}

impl Trial {
    fn new(gateway: IpAddr) -> Self {
        Self {
            gateway,
            works: false,
            unanswered: 0,
            asked: None,
            packets: 0,
            tells: 0,
        }
    }

    /// Judges what was not answered, and says whether to ask now. Called each [`PACE`].
    fn look(&mut self, packets: usize, rest: Duration, now: Instant) -> bool {
        let busy = std::mem::replace(&mut self.packets, packets) != packets;
        if self.unanswered >= TRIES {
            self.works = false;
        }
        let wait = match (self.unanswered, busy) {
            (TRIES.., _) => AGAIN,
            (0, false) => rest,
            _ => Duration::ZERO,
        };
        let asks = self.asked.is_none_or(|at| now >= at + wait);
        if asks {
            self.asked = Some(now);
            self.unanswered = self.unanswered.saturating_add(1).min(TRIES);
        }
        asks
    }

    fn answered(&mut self) {
        (self.works, self.unanswered) = (true, 0);
    }
}

impl OwnPort {
    /// `keep_alive`: silence after which a NAT's mapping has to be kept alive.
    pub(super) fn new(port: u16, keep_alive: Duration, now: Instant) -> Self {
        Self {
            port,
            rest: keep_alive * 3 / 4,
            trials: Vec::new(),
            next: now,
        }
    }

    /// The port, if it is a way to this gateway.
    fn toward(&self, gateway: IpAddr) -> Option<u16> {
        let trial = self.trials.iter().find(|trial| trial.gateway == gateway);
        trial.is_some_and(|trial| trial.works).then_some(self.port)
    }

    /// The gateway has to be told which way its pairs go.
    fn tell(&mut self, gateway: IpAddr) {
        let mut trials = self.trials.iter_mut();
        if let Some(trial) = trials.find(|trial| trial.gateway == gateway) {
            trial.tells = TELLS;
        }
    }
}

impl Core {
    /// The worker's own port is another one from now on: nothing is known of it.
    pub(super) fn set_own_port(&mut self, port: Option<u16>, now: Instant) {
        self.own_port = port.map(|port| OwnPort::new(port, self.keep_alive, now));
        for index in self.sessions.indexes() {
            if let Some(session) = self.sessions.get_mut(index) {
                session.use_port(None);
            }
        }
    }

    /// When [`Self::follow_own_port`] has something to do.
    pub(super) fn own_port_deadline(&self) -> Option<Instant> {
        let own = self.own_port.as_ref()?;
        let any = !own.trials.is_empty() || self.own_lanes().next().is_some();
        any.then_some(own.next)
    }

    /// Pairs of SAs that may have the port: where they are, their gateway, their packets.
    fn own_lanes(&self) -> impl Iterator<Item = (usize, IpAddr, usize)> {
        self.sessions.indexes().filter_map(|index| {
            let session = self.sessions.get(index)?;
            let gateway = session.spec.gateway.filter(|_| session.spec.own_port)?;
            session.sends_with()?;
            let packets = session.sent.packets + session.received.packets;
            Some((index, gateway, packets as usize))
        })
    }

    /// A pair that takes another's place goes the same way from its first packet on.
    pub(super) fn follow_own_port_at_once(&mut self, index: usize) {
        let Some(own) = &self.own_port else { return };
        if let Some(session) = self.sessions.get_mut(index)
            && let Some(gateway) = session.spec.gateway.filter(|_| session.spec.own_port)
        {
            session.use_port(own.toward(gateway));
        }
    }

    /// A gateway has come into use: it may know a way of before.
    pub(super) fn tell_own_port(&mut self, gateway: IpAddr, now: Instant) {
        if let Some(own) = &mut self.own_port {
            own.tell(gateway);
            own.next = now;
        }
    }

    /// Asks about the ways from the own port, and sends each pair of SAs by what is known.
    pub(super) fn follow_own_port(&mut self, umem: &mut Umem, now: Instant) {
        if self.own_port.as_ref().is_none_or(|own| now < own.next) {
            return;
        }
        let Some(mut own) = self.own_port.take() else {
            return;
        };
        own.next = now + PACE;
        // The newest of each gateway asks.
        let lanes: Vec<_> = self.own_lanes().collect();
        own.trials.retain(|trial| {
            lanes
                .iter()
                .any(|(_, gateway, _)| *gateway == trial.gateway)
        });
        for (_, gateway, _) in &lanes {
            if own.trials.iter().all(|trial| trial.gateway != *gateway) {
                own.trials.push(Trial::new(*gateway));
            }
        }
        for trial in &mut own.trials {
            let with = lanes
                .iter()
                .filter(|(_, gateway, _)| *gateway == trial.gateway);
            let packets = with.clone().map(|(.., packets)| packets).sum();
            let newest = with.max_by_key(|(index, ..)| {
                self.sessions
                    .get(*index)
                    .map(|session| (session.sending, session.spec.id))
            });
            if trial.look(packets, own.rest, now)
                && let Some((index, ..)) = newest
            {
                self.ask_from(*index, own.port, umem);
                trial.tells = trial.tells.max(u8::from(trial.works));
            }
        }
        for (index, gateway, _) in &lanes {
            let port = own.toward(*gateway);
            let session = self.sessions.get_mut(*index);
            if session.is_some_and(|session| session.use_port(port)) {
                own.tell(*gateway);
            }
        }
        // What comes back goes the way of the newest sealed packet, and whoever only receives sends none; nor
        // does a heartbeat's answer show where else the gateway would send. To a gateway that is not in use
        // such a packet would say that it is.
        for (index, gateway, _) in lanes {
            let mut trials = own.trials.iter();
            let told = trials.any(|trial| trial.gateway == gateway && trial.tells > 0);
            if told && self.is_in_use(index) {
                self.send_dummy(index, umem);
            }
        }
        for trial in &mut own.trials {
            trial.tells = trial.tells.saturating_sub(1);
        }
        self.own_port = Some(own);
    }

    fn is_in_use(&self, index: usize) -> bool {
        self.sessions.get(index).is_some_and(|session| {
            let group = self.groups.get(session.group());
            let using = group.and_then(|group| group.rare().using);
            session.sending == Sending::AtOnce && using == session.spec.gateway
        })
    }

    /// Sends a keyed heartbeat of a pair of SAs from this port.
    fn ask_from(&mut self, index: usize, port: u16, umem: &mut Umem) {
        let (token, count) = (self.rng.random::<[u8; 8]>(), self.rng.random::<u32>());
        let count = count & !heartbeat::ANSWER_BIT;
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let (Some(spi), Some(key)) = (session.sends_with(), &session.spec.heartbeat_key) else {
            return;
        };
        let bytes = heartbeat::encode_request(key.expose(), count, spi.to_be_bytes(), token);
        session.asked(count, token);
        let before = session.port();
        session.use_port(Some(port));
        if self.send_heartbeat_bytes(index, &bytes, bytes.len(), umem) {
            self.count(Counter::HeartbeatSent);
        }
        if let Some(session) = self.sessions.get_mut(index) {
            session.use_port(before);
        }
    }

    /// A heartbeat that came to the own port: the answer to one that was sent from there.
    pub(super) fn own_port_answered(
        &mut self,
        bytes: &[u8],
        source: IpAddr,
        now: Instant,
    ) -> Result<(), Counter> {
        let bad = Counter::HeartbeatBadAnswer;
        let keyed = heartbeat::decode(bytes).ok_or(bad)?;
        let spi = u32::from_be_bytes(keyed.spi);
        let index = self.sessions.sending_to(source, spi).ok_or(bad)?;
        let session = self.sessions.get_mut(index).ok_or(bad)?;
        let key = session.spec.heartbeat_key.as_ref().ok_or(bad)?;
        let count = u32::from_be_bytes(keyed.sequence) & !heartbeat::ANSWER_BIT;
        // Each answer counts once, however often somebody repeats it.
        if !heartbeat::is_answer(keyed.sequence)
            || !keyed.authentic(key.expose())
            || !session.was_asked(count, keyed.token)
        {
            return Err(bad);
        }
        session.last_heard = Some(now);
        let own = self.own_port.as_mut().ok_or(bad)?;
        let mut trials = own.trials.iter_mut();
        let trial = trials.find(|trial| trial.gateway == source).ok_or(bad)?;
        if !trial.works {
            own.next = now;
        }
        trial.answered();
        self.count(Counter::HeartbeatHeard);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(15);

    /// Looks each [`PACE`] for so long; yields when it asked, in half seconds.
    fn run(trial: &mut Trial, start: Instant, looks: std::ops::Range<u32>, busy: bool) -> Vec<u32> {
        let mut packets = trial.packets;
        looks
            .filter(|look| {
                packets += usize::from(busy);
                trial.look(packets, REST, start + PACE * *look)
            })
            .collect()
    }

    fn trial() -> Trial {
        Trial::new(IpAddr::from([192, 0, 2, 1]))
    }

    #[test]
    fn a_port_without_answers_is_asked_about_seldom_and_never_used() {
        let (mut trial, start) = (trial(), Instant::now());
        let asked = run(&mut trial, start, 0..130, true);
        assert_eq!(asked, [0, 1, 2, 3, 63, 123]);
        assert!(!trial.works);
        // What was in the way is gone.
        trial.answered();
        assert!(trial.works);
        assert_eq!(run(&mut trial, start, 130..133, true), [130, 131, 132]);
    }

    #[test]
    fn an_idle_way_is_kept_open_and_a_busy_one_is_watched() {
        let (mut trial, start) = (trial(), Instant::now());
        run(&mut trial, start, 0..1, false);
        trial.answered();
        assert_eq!(run(&mut trial, start, 1..31, false), [30]);
        trial.answered();
        assert_eq!(run(&mut trial, start, 31..32, true), [31]);
        trial.answered();
        assert!(trial.works);
        // From now on nothing gets through: two seconds, and the pair is back.
        assert_eq!(run(&mut trial, start, 32..36, true), [32, 33, 34, 35]);
        assert!(trial.works, "the last one may yet be answered");
        assert!(run(&mut trial, start, 36..37, true).is_empty());
        assert!(!trial.works);
    }
}
