//! What happened on this node, newest last: a bounded log that the API serves and the journal sees.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How many events are kept; older ones are forgotten.
pub const CAPACITY: usize = 4096;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A session with a peer was authenticated and can carry traffic.
    SessionUp,
    /// A session, or one of its pairs of SAs, goes on with fresh keys.
    SessionRekeyed,
    /// A session ended, by request, by its peer or because its gateway died.
    SessionDown,
    /// Another gateway of a cluster carries the traffic from now on.
    Active,
    /// A gateway left a heartbeat and its repetition unanswered.
    GatewayDead,
    /// Traffic needs a key that is not there; the key management service was asked.
    KeyRequest,
    /// One gateway did not authenticate, or refused to.
    KeyFailed,
    /// No gateway of the cluster authenticated.
    KeyRejected,
    /// One heartbeat was not answered in time.
    HeartbeatLost,
    /// Our own outside address is another one now.
    Moved,
    /// A gateway wants to be left for another one.
    Redirected,
    /// This gateway lets go of its clients, has none any more, or takes clients again.
    Drain,
    /// The way to another gateway that has the same outside address is another one now, or there is none.
    Steering,
    /// Another encryption node has clients, or this one more or fewer than before.
    EncryptionNode,
    /// An encryption node does not answer any more.
    EncryptionNodeDead,
    /// A peer's NAT gave it another address or port; its session goes on there.
    PeerMoved,
    /// The path to a peer carries longer packets than before, or only shorter ones.
    PathMtu,
    /// The policy was read again.
    PolicyReloaded,
    /// Certificates and CRLs were read again.
    CertsReloaded,
    /// A link went down or came up.
    Link,
    /// An edge has connected to its authority; on an edge: it has an authority.
    EdgeUp,
    /// An edge has all pairs of SAs that its authority gives it when it connects.
    EdgeComplete,
    /// It has none any more.
    EdgeDown,
    /// Somebody who is no edge has tried to be one; on an edge: no authority takes it.
    EdgeRefused,
    /// Where an authority keeps SAs is away, or back.
    Repository,
    /// Keys are written for a debugger, or are not any more.
    Keylog,
    /// A flood of first messages of IKE began or is over.
    Flood,
    /// The node is ready.
    NodeStarted,
    /// The node was told to stop.
    NodeStopping,
}

impl EventKind {
    /// The name that the JSON form uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionUp => "session_up",
            Self::SessionRekeyed => "session_rekeyed",
            Self::SessionDown => "session_down",
            Self::Active => "active",
            Self::GatewayDead => "gateway_dead",
            Self::KeyRequest => "key_request",
            Self::KeyFailed => "key_failed",
            Self::KeyRejected => "key_rejected",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::Moved => "moved",
            Self::Redirected => "redirected",
            Self::Drain => "drain",
            Self::Steering => "steering",
            Self::EncryptionNode => "encryption_node",
            Self::EncryptionNodeDead => "encryption_node_dead",
            Self::PeerMoved => "peer_moved",
            Self::PathMtu => "path_mtu",
            Self::PolicyReloaded => "policy_reloaded",
            Self::CertsReloaded => "certs_reloaded",
            Self::Link => "link",
            Self::EdgeUp => "edge_up",
            Self::EdgeComplete => "edge_complete",
            Self::EdgeDown => "edge_down",
            Self::EdgeRefused => "edge_refused",
            Self::Repository => "repository",
            Self::Keylog => "keylog",
            Self::Flood => "flood",
            Self::NodeStarted => "node_started",
            Self::NodeStopping => "node_stopping",
        }
    }

    /// Whether an operator should look at it: logged as a warning.
    #[must_use]
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::GatewayDead
                | Self::EncryptionNodeDead
                | Self::KeyFailed
                | Self::KeyRejected
                | Self::HeartbeatLost
                | Self::EdgeDown
                | Self::EdgeRefused
                | Self::Repository
                | Self::Keylog
                | Self::Flood
        )
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 since the node started; a gap means that entries were forgotten.
    pub seq: u64,
    /// When it happened: `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    pub kind: EventKind,
    /// Number of the cluster in the policy.
    pub cluster: Option<u32>,
    /// Outside address of the gateway.
    pub gateway: Option<IpAddr>,
    /// One readable sentence. Holds no keys.
    pub text: String,
}

/// An event that has no number yet.
#[derive(Clone, Debug)]
pub struct NewEvent {
    kind: EventKind,
    text: String,
    cluster: Option<u32>,
    gateway: Option<IpAddr>,
    mono_ns: Option<u64>,
}

impl NewEvent {
    #[must_use]
    pub fn new(kind: EventKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            cluster: None,
            gateway: None,
            mono_ns: None,
        }
    }

    #[must_use]
    pub fn cluster(mut self, cluster: u32) -> Self {
        self.cluster = Some(cluster);
        self
    }

    #[must_use]
    pub fn gateway(mut self, gateway: IpAddr) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// When it happened, where that is known better than "now".
    #[must_use]
    pub fn at(mut self, when: Instant) -> Self {
        self.mono_ns = Some(mono_ns_of(when));
        self
    }
}

/// The bounded log; clones share it. Not for the packet path: recording takes a mutex.
#[derive(Clone, Debug)]
pub struct EventLog {
    shared: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ring: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl EventLog {
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            ring: Mutex::new(VecDeque::new()),
            newest: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(inner),
        }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Event>> {
        // A panic elsewhere leaves the ring whole: every change to it is a single push or pop.
        self.shared
            .ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an event, tells the journal, wakes those who [`wait`](Self::wait), and returns the
    /// event's number.
    pub fn push(&self, new: NewEvent) -> u64 {
        let NewEvent {
            kind,
            text,
            cluster,
            gateway,
            mono_ns,
        } = new;
        let at = mono_ns.unwrap_or_else(self::mono_ns);
        let gateway_shown = gateway.map(tracing::field::display);
        if kind.is_warning() {
            tracing::warn!(
                kind = kind.name(),
                cluster,
                gateway = gateway_shown,
                "{text}"
            );
        } else {
            tracing::info!(
                kind = kind.name(),
                cluster,
                gateway = gateway_shown,
                "{text}"
            );
        }
        let mut ring = self.ring();
        let seq = *self.shared.newest.borrow() + 1;
        if ring.len() >= CAPACITY {
            ring.pop_front();
        }
        ring.push_back(Event {
            seq,
            mono_ns: at,
            kind,
            cluster,
            gateway,
            text,
        });
        self.shared.newest.send_replace(seq);
        seq
    }

    /// The events after number `seq`, oldest first. A `seq` from the future belongs to an earlier
    /// run of the node, so all events of this run are new to whoever asks.
    #[must_use]
    pub fn since(&self, seq: u64) -> Vec<Event> {
        let ring = self.ring();
        let newest = ring.back().map_or(0, |event| event.seq);
        let after = if seq > newest { 0 } else { seq };
        ring.iter()
            .filter(|event| event.seq > after)
            .cloned()
            .collect()
    }

    /// Like [`since`](Self::since), but where that is empty, waits up to `patience` for an event.
    pub async fn wait(&self, seq: u64, patience: Duration) -> Vec<Event> {
        let mut newest = self.shared.newest.subscribe();
        newest.borrow_and_update();
        let events = self.since(seq);
        if !events.is_empty() {
            return events;
        }
        // Out of patience, or the log is gone: either way the answer is what is there now.
        let _ = tokio::time::timeout(patience, newest.changed()).await;
        self.since(seq)
    }
}

/// Now, on `CLOCK_MONOTONIC`, nanoseconds.
#[must_use]
pub fn mono_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The `CLOCK_MONOTONIC` nanoseconds of an instant.
#[must_use]
pub fn mono_ns_of(when: Instant) -> u64 {
    let now = mono_ns();
    let instant_now = Instant::now();
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    match instant_now.checked_duration_since(when) {
        Some(ago) => now.saturating_sub(nanos(ago)),
        None => now.saturating_add(nanos(when.duration_since(instant_now))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(text: &str) -> NewEvent {
        NewEvent::new(EventKind::Link, text)
    }

    #[test]
    fn numbers_start_at_one_and_since_is_exclusive() {
        let log = EventLog::new();
        assert_eq!(log.push(link("a")), 1);
        assert_eq!(log.push(link("b")), 2);
        let texts = |seq| {
            log.since(seq)
                .into_iter()
                .map(|e| e.text)
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(0), ["a", "b"]);
        assert_eq!(texts(1), ["b"]);
        assert!(texts(2).is_empty());
        assert_eq!(texts(99), ["a", "b"], "a number of an earlier run");
    }

    #[test]
    fn forgets_the_oldest_and_shows_it_by_the_numbers() {
        let log = EventLog::new();
        for _ in 0..CAPACITY + 3 {
            log.push(link("x"));
        }
        let events = log.since(0);
        assert_eq!(events.len(), CAPACITY);
        assert_eq!(events.first().map(|e| e.seq), Some(4));
        assert!(events.windows(2).all(|w| w[1].seq == w[0].seq + 1));
    }

    #[test]
    fn the_clock_is_that_of_instants() {
        let log = EventLog::new();
        let then = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        log.push(link("late report").at(then));
        let before = mono_ns();
        log.push(link("now"));
        let events = log.since(0);
        let late_by = before - events[0].mono_ns;
        assert!((19_000_000..2_000_000_000).contains(&late_by), "{late_by}");
        assert!(events[1].mono_ns >= before);
    }

    #[test]
    fn json_is_the_documented_one() {
        let log = EventLog::new();
        let gateway = "192.0.2.1".parse().unwrap();
        log.push(
            NewEvent::new(EventKind::GatewayDead, "gone")
                .cluster(1)
                .gateway(gateway),
        );
        let mut json = serde_json::to_value(&log.since(0)[0]).unwrap();
        assert!(json["mono_ns"].take().as_u64().unwrap() > 0);
        assert_eq!(
            json,
            serde_json::json!({ "seq": 1, "mono_ns": null, "kind": "gateway_dead", "cluster": 1,
                "gateway": "192.0.2.1", "text": "gone" })
        );
        for kind in [
            EventKind::KeyRequest,
            EventKind::NodeStopping,
            EventKind::PolicyReloaded,
            EventKind::CertsReloaded,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[tokio::test]
    async fn waiting_ends_at_the_event_or_when_patience_does() {
        let log = EventLog::new();
        let writer = log.clone();
        let waiter = tokio::spawn(async move { log.wait(0, Duration::from_secs(20)).await });
        tokio::task::yield_now().await;
        writer.push(link("woken"));
        assert_eq!(waiter.await.unwrap()[0].text, "woken");
        assert!(writer.wait(1, Duration::from_millis(10)).await.is_empty());
    }
}
