use thiserror::Error;

/// Why a packet was not sealed, opened or let through. Each reason has a counter of its own.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// Less than an ESP header, an IV, one block of trailer and an ICV.
    #[error("the packet is shorter than the smallest ESP packet")]
    TooShort,
    /// Longer than the length field of the outer header can say.
    #[error("the packet is longer than an IP packet can be")]
    TooBig,
    /// The buffer has too little room before or after the packet.
    #[error("the buffer has too little room around the packet")]
    NoRoom,
    /// The SPI is not the one of this SA.
    #[error("the SPI is not that of the security association")]
    WrongSpi,
    /// The sequence number was accepted before.
    #[error("the sequence number was seen before")]
    Replayed,
    /// The sequence number lies below the replay window.
    #[error("the sequence number lies below the replay window")]
    TooOld,
    /// The integrity check value does not fit the packet.
    #[error("the integrity check failed")]
    BadIcv,
    /// The padding is longer than the packet or not 1, 2, 3, ….
    #[error("the padding is not 1, 2, 3, …")]
    BadPadding,
    /// The next header is neither IPv4 (4), IPv6 (41) nor dummy (59).
    #[error("the next header is neither IPv4, IPv6 nor dummy")]
    BadNextHeader,
    /// The inner packet is no whole IP packet of the announced version.
    #[error("the inner packet is malformed")]
    InnerMalformed,
    /// The session does not own the inner source address.
    #[error("the inner source address does not belong to the session")]
    InnerSource,
    /// The session may not send to the inner destination address.
    #[error("the inner destination address is not allowed for the session")]
    InnerDestination,
    /// The last sequence number of the SA was used (RFC 4303 section 3.3.3).
    #[error("the sequence numbers of the security association are used up")]
    SequenceExhausted,
    /// The last sequence number that was lent to this sender was used.
    #[error("the lease of sequence numbers is used up")]
    LeaseExhausted,
    /// The outer header says congestion experienced, the inner that it does not understand ECN.
    #[error("congestion was marked on a packet that does not support ECN")]
    EcnIllegal,
    /// The TTL or hop limit of the inner packet would become zero.
    #[error("the TTL of the inner packet ran out")]
    TtlExpired,
}

impl Refused {
    /// Every reason, in the order of the packet's way.
    pub const ALL: [Self; 16] = [
        Self::TooShort,
        Self::TooBig,
        Self::NoRoom,
        Self::WrongSpi,
        Self::Replayed,
        Self::TooOld,
        Self::BadIcv,
        Self::BadPadding,
        Self::BadNextHeader,
        Self::InnerMalformed,
        Self::InnerSource,
        Self::InnerDestination,
        Self::SequenceExhausted,
        Self::LeaseExhausted,
        Self::EcnIllegal,
        Self::TtlExpired,
    ];

    /// The name of the reason in metrics and in the CLI: snake case, stable.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooBig => "too_big",
            Self::NoRoom => "no_room",
            Self::WrongSpi => "wrong_spi",
            Self::Replayed => "replayed",
            Self::TooOld => "too_old",
            Self::BadIcv => "bad_icv",
            Self::BadPadding => "bad_padding",
            Self::BadNextHeader => "bad_next_header",
            Self::InnerMalformed => "inner_malformed",
            Self::InnerSource => "inner_source",
            Self::InnerDestination => "inner_destination",
            Self::SequenceExhausted => "sequence_exhausted",
            Self::LeaseExhausted => "lease_exhausted",
            Self::EcnIllegal => "ecn_illegal",
            Self::TtlExpired => "ttl_expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Refused;

    #[test]
    fn every_reason_has_its_own_label_and_a_line_in_the_docs() {
        let docs = include_str!("../../../docs/esp.md");
        let labels: HashSet<_> = Refused::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Refused::ALL.len());
        for label in labels {
            assert!(
                docs.contains(&format!("| `{label}` |")),
                "{label} is missing in docs/esp.md"
            );
        }
    }
}
