//! The states of a monitor as one table, and its timers as one enum.
//!
//! `docs/failover.md` prints this table; a test keeps the two equal.

/// What a [`Monitor`](super::Monitor) is doing about its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No gateway is active and no payload has asked for one.
    Idle,
    /// No gateway is active; a key request is under way. Payload may wait in a bounded queue.
    Asking,
    /// No gateway is active; the last key request was rejected. Payload is refused.
    Refused,
    /// As `Refused`, but payload came again and the key request was repeated. Payload is still
    /// refused: the service may be waiting out its back-off.
    Retrying,
    /// A gateway is active and counts as alive; the silence timer runs (not in mode NONE).
    Hearing,
    /// A gateway is active and silent; in mode DEFERRED the heartbeat waits for payload.
    Waiting,
    /// The first heartbeat is out; its response time runs.
    First,
    /// The second heartbeat is out; its response time runs.
    Second,
}

impl Phase {
    /// Every phase, in the order of the documentation.
    pub const ALL: [Phase; 8] = [
        Phase::Idle,
        Phase::Asking,
        Phase::Refused,
        Phase::Retrying,
        Phase::Hearing,
        Phase::Waiting,
        Phase::First,
        Phase::Second,
    ];

    /// One lower-case word for status pages and logs.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Asking => "asking",
            Phase::Refused => "refused",
            Phase::Retrying => "retrying",
            Phase::Hearing => "hearing",
            Phase::Waiting => "waiting",
            Phase::First => "first",
            Phase::Second => "second",
        }
    }

    /// Whether payload has a gateway to go to.
    pub fn has_active(self) -> bool {
        matches!(
            self,
            Phase::Hearing | Phase::Waiting | Phase::First | Phase::Second
        )
    }

    /// Whether an application that sends now should be told that the target is unreachable.
    pub fn refuses(self) -> bool {
        matches!(self, Phase::Refused | Phase::Retrying)
    }

    /// The table: where `event` leads from here, or `None` where it can not happen.
    pub(super) fn after(self, event: Event) -> Option<Phase> {
        use Phase::*;
        Some(match (event, self) {
            (Event::Wanted, Idle) => Asking,
            (Event::Wanted, Refused) => Retrying,
            (Event::Rejected, Asking | Retrying) => Refused,
            (Event::Activated, _) => Hearing,
            (Event::Lost, Hearing | Waiting | First | Second) => Asking,
            (Event::LostIdle, Hearing | Waiting | First | Second) => Idle,
            (Event::Heard | Event::Resumed, Hearing | Waiting | First | Second) => Hearing,
            (Event::Silent, Hearing) => First,
            (Event::SilentUnused, Hearing) => Waiting,
            (Event::Sent, Waiting) => First,
            (Event::Unanswered, First) => Second,
            (Event::Overslept, First | Second) => self,
            _ => return None,
        })
    }
}

/// What moves a monitor from one phase to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Payload wants the tunnel while no gateway is active.
    Wanted,
    /// The key management service rejected the whole request.
    Rejected,
    /// A gateway became the active one, whatever the cause.
    Activated,
    /// The active gateway is gone, none of the others is keyed, and a key request goes out.
    Lost,
    /// As `Lost`, but the tunnel has been idle for so long that payload shall ask first.
    LostIdle,
    /// An authenticated packet of the active gateway, an answer to a heartbeat included.
    Heard,
    /// The window starts afresh: our own link came back, or the timing changed.
    Resumed,
    /// The defer time passed in silence and the heartbeat may go.
    Silent,
    /// The defer time passed in silence, but no payload has gone out since (DEFERRED).
    SilentUnused,
    /// Payload went out after the silence (DEFERRED).
    Sent,
    /// The response time of the first heartbeat passed.
    Unanswered,
    /// A response time passed, but we looked at the clock too late to judge.
    Overslept,
}

/// The timers of a monitor. At most one is armed at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// `HeartbeatDeferTime` since the last sign of life (or since activation): then silence.
    Silence,
    /// `HeartbeatResponseTime` since the first heartbeat: then a second one.
    FirstAnswer,
    /// `HeartbeatResponseTime` since the second heartbeat: then the gateway is dead.
    SecondAnswer,
}

impl Timer {
    /// Why a monitor wants to be woken, for traces.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Timer::Silence => "silence",
            Timer::FirstAnswer => "first heartbeat unanswered",
            Timer::SecondAnswer => "second heartbeat unanswered",
        }
    }
}
