//! What an engine counts.

/// What an engine has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// IKE SAs of any kind, now.
    pub sas: usize,
    /// Sessions half open as responder, now.
    pub half_open: usize,
    /// Established in all.
    pub established: u64,
    /// By a ticket among them.
    pub resumed: u64,
    /// Tickets issued.
    pub tickets_issued: u64,
    /// Tickets not taken: changed, made up, of other keys, expired, used, or of a peer that may not
    /// have a session any more.
    pub tickets_refused: u64,
    /// Requests of forgotten IKE SAs answered with a token.
    pub tokens_sent: u64,
    /// Such requests not answered, because there were too many.
    pub tokens_withheld: u64,
    /// Messages in the clear that could not be read, and were not answered because there were too
    /// many.
    pub complaints_withheld: u64,
    /// Sessions whose peer has proven that it has forgotten them.
    pub crashes: u64,
    /// Child SAs that took the place of another.
    pub children_rekeyed: u64,
    /// IKE SAs that took the place of another.
    pub ike_rekeyed: u64,
    /// Rekeyings and further child SAs of ours that failed.
    pub rekeyings_failed: u64,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Keep-alives among them.
    pub keep_alives: u64,
    /// Requests of ours sent again.
    pub retransmits: u64,
    /// Requests of ours given up.
    pub given_up: u64,
    /// Requests that came again and got their answer again.
    pub repeated: u64,
    /// First messages dropped because their sender had too many half-open sessions.
    pub half_open_refused: u64,
    /// Half-open sessions dropped for newer ones, because there were too many in all.
    pub half_open_evicted: u64,
    /// Sessions that were over and forgotten before their time, because there were too many.
    pub last_answers_evicted: u64,
    /// Sessions dropped because they stayed half open for too long.
    pub half_open_expired: u64,
    /// Cookies asked for.
    pub cookies_sent: u64,
    /// Cookies that came back wrong or too late.
    pub cookies_wrong: u64,
    /// Sessions refused, as responder, for a wrong key or an unknown identity.
    pub authentication_failed: u64,
    /// First messages answered by a REDIRECT.
    pub redirected: u64,
    /// First messages refused because the owner takes nobody.
    pub turned_away: u64,
    /// Refusals without an event, because there were too many.
    pub untold_refusals: u64,
    /// No IKE message, or one with a wrong length.
    pub bad_header: u64,
    /// Of another major version.
    pub bad_version: u64,
    /// For an IKE SA that does not exist.
    pub unknown_spi: u64,
    /// Without protection where it must have it.
    pub unprotected: u64,
    /// With a wrong authentication tag.
    pub bad_tag: u64,
    /// With wrong payloads.
    pub malformed: u64,
    /// Parts of messages that were waited for.
    pub fragments_received: u64,
    /// Parts that were here already, or cut more coarsely than others of the same message.
    pub fragments_unwanted: u64,
    /// Messages in parts given up because they were too long, or had too many.
    pub fragments_refused: u64,
    /// Messages in parts given up because the rest did not come in time.
    pub fragments_expired: u64,
    /// A request out of the window.
    pub bad_message_id: u64,
    /// A response that no request waits for.
    pub stale_response: u64,
    /// Anything else that has no place at its time.
    pub unexpected: u64,
}

impl Stats {
    /// Counts what was counted elsewhere too; what there is now is nobody's count.
    pub(super) fn add(&mut self, other: &Stats) {
        let Stats {
            sas: _,
            half_open: _,
            established,
            resumed,
            tickets_issued,
            tickets_refused,
            tokens_sent,
            tokens_withheld,
            complaints_withheld,
            crashes,
            children_rekeyed,
            ike_rekeyed,
            rekeyings_failed,
            received,
            sent,
            keep_alives,
            retransmits,
            given_up,
            repeated,
            half_open_refused,
            half_open_evicted,
            last_answers_evicted,
            half_open_expired,
            cookies_sent,
            cookies_wrong,
            authentication_failed,
            redirected,
            turned_away,
            untold_refusals,
            bad_header,
            bad_version,
            unknown_spi,
            unprotected,
            bad_tag,
            malformed,
            fragments_received,
            fragments_unwanted,
            fragments_refused,
            fragments_expired,
            bad_message_id,
            stale_response,
            unexpected,
        } = other;
        self.established += established;
        self.resumed += resumed;
        self.tickets_issued += tickets_issued;
        self.tickets_refused += tickets_refused;
        self.tokens_sent += tokens_sent;
        self.tokens_withheld += tokens_withheld;
        self.complaints_withheld += complaints_withheld;
        self.crashes += crashes;
        self.children_rekeyed += children_rekeyed;
        self.ike_rekeyed += ike_rekeyed;
        self.rekeyings_failed += rekeyings_failed;
        self.received += received;
        self.sent += sent;
        self.keep_alives += keep_alives;
        self.retransmits += retransmits;
        self.given_up += given_up;
        self.repeated += repeated;
        self.half_open_refused += half_open_refused;
        self.half_open_evicted += half_open_evicted;
        self.last_answers_evicted += last_answers_evicted;
        self.half_open_expired += half_open_expired;
        self.cookies_sent += cookies_sent;
        self.cookies_wrong += cookies_wrong;
        self.authentication_failed += authentication_failed;
        self.redirected += redirected;
        self.turned_away += turned_away;
        self.untold_refusals += untold_refusals;
        self.bad_header += bad_header;
        self.bad_version += bad_version;
        self.unknown_spi += unknown_spi;
        self.unprotected += unprotected;
        self.bad_tag += bad_tag;
        self.malformed += malformed;
        self.fragments_received += fragments_received;
        self.fragments_unwanted += fragments_unwanted;
        self.fragments_refused += fragments_refused;
        self.fragments_expired += fragments_expired;
        self.bad_message_id += bad_message_id;
        self.stale_response += stale_response;
        self.unexpected += unexpected;
    }
}
