//! The states of a path's search as one table, after RFC 8899 section 5.2.
//!
//! `docs/mtu.md` prints this table; a test keeps the two equal.

/// What is known of the size that a path carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is probed; what ICMP and the peer say is followed (RFC 8899: disabled).
    Followed,
    /// The size in use was lost; whether the least one goes through is being tried (base).
    Base,
    /// Larger sizes are being tried (searching).
    Searching,
    /// The largest one is in use (search complete).
    Complete,
    /// Not even the least one goes through (error).
    Error,
}

/// What moves a search from one phase to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The session carries traffic, and its peer answers probes.
    Begun,
    /// A probe was answered where nothing was known to go through.
    Passed,
    /// There is nothing left to try.
    Found,
    /// A size in use does not go through any more.
    Lost,
    /// Nor does the least one.
    BaseLost,
    /// There may be more to find, or less: time, a route or ICMP says so.
    Again,
}

impl Phase {
    /// Every phase, in the order of the documentation.
    pub const ALL: [Phase; 5] = [
        Phase::Followed,
        Phase::Base,
        Phase::Searching,
        Phase::Complete,
        Phase::Error,
    ];

    /// One lower-case word for status pages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Phase::Followed => "followed",
            Phase::Base => "base",
            Phase::Searching => "searching",
            Phase::Complete => "complete",
            Phase::Error => "error",
        }
    }

    /// The table: where `event` leads from here, or `None` where it changes nothing.
    pub(super) fn after(self, event: Event) -> Option<Phase> {
        use Phase::*;
        Some(match (event, self) {
            (Event::Begun, Followed) => Searching,
            (Event::Passed, Base | Error) => Searching,
            (Event::Found, Searching) => Complete,
            (Event::Lost, Searching | Complete) => Base,
            (Event::BaseLost, Base | Searching | Complete) => Error,
            (Event::Again, Base | Complete | Error) => Searching,
            _ => return None,
        })
    }
}

impl Event {
    /// Every event, in the order of the documentation, with its word there.
    #[cfg(test)]
    pub(super) const ALL: [(Event, &'static str); 6] = [
        (Event::Begun, "begun"),
        (Event::Passed, "passed"),
        (Event::Found, "found"),
        (Event::Lost, "lost"),
        (Event::BaseLost, "base lost"),
        (Event::Again, "again"),
    ];
}
