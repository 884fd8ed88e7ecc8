//! The one list of counters: what the XDP programs and the workers did with a packet, and why.
//!
//! One line here gives the counter, its label in metrics, its text in the command line and in the
//! documentation. Append; the numbers are indexes into BPF maps of the same build only.

/// What a counter says about the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The packet was dropped.
    Drop,
    /// The packet was left to the kernel.
    Pass,
    /// The packet was served.
    Info,
}

macro_rules! counters {
    ($($variant:ident $kind:ident $label:literal $text:literal)*) => {
        /// One counter. As a number: its index in `OUTSIDE_COUNTERS` and `INSIDE_COUNTERS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Counter {
            $(#[doc = $text] $variant,)*
        }

        impl Counter {
            /// Every counter, in order of its number.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant),*];
            /// How many counters there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in metrics and JSON, in snake case.
            pub const fn label(self) -> &'static str {
                match self { $(Counter::$variant => $label),* }
            }

            /// What it counts, in a few words.
            pub const fn text(self) -> &'static str {
                match self { $(Counter::$variant => $text),* }
            }

            /// Whether it counts drops, packets left to the kernel, or packets served.
            #[inline(always)]
            pub const fn kind(self) -> Kind {
                match self { $(Counter::$variant => Kind::$kind),* }
            }

            /// Index in an array of [`Counter::COUNT`] counters.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

counters! {
    // Both XDP programs.
    Passed Pass "passed" "left to the kernel: nothing of evergate's"
    Malformed Pass "malformed" "left to the kernel: headers cut short or lengths wrong"
    NoSocket Drop "no_socket" "no AF_XDP socket serves the receive queue"
    // Program `outside`: ESP.
    EspSteered Info "esp_steered" "ESP with a known SPI, handed to a worker"
    UnknownSpi Drop "unknown_spi" "ESP with an SPI that no security association has"
    EspFragment Drop "esp_fragment" "a fragment of an ESP packet"
    EspShort Drop "esp_short" "ESP too short for its header"
    // Program `outside`: heartbeats.
    HeartbeatPlain Info "heartbeat_plain" "plain heartbeat answered"
    HeartbeatKeyed Info "heartbeat_keyed" "keyed heartbeat answered"
    HeartbeatAnswer Info "heartbeat_answer" "answer to a heartbeat, handed to a worker"
    HeartbeatAnswerStranger Drop "heartbeat_answer_stranger" "answer to a heartbeat from a node that is no peer"
    HeartbeatForm Drop "heartbeat_form" "heartbeat in a form that this node does not answer"
    HeartbeatStranger Drop "heartbeat_stranger" "plain heartbeat from a node that is no peer"
    HeartbeatOwn Drop "heartbeat_own" "heartbeat from one of the cluster's own addresses"
    HeartbeatMartian Drop "heartbeat_martian" "heartbeat from or to an address that is not unicast"
    HeartbeatRouted Drop "heartbeat_routed" "heartbeat with a source route"
    HeartbeatTtl Drop "heartbeat_ttl" "heartbeat whose TTL has run out"
    HeartbeatDead Drop "heartbeat_dead" "heartbeat not answered: no worker renewed the dead-man switch"
    HeartbeatSilent Drop "heartbeat_silent" "heartbeat not answered: the node is silenced, for instance by a dead link"
    HeartbeatUnknownSpi Drop "heartbeat_unknown_spi" "keyed heartbeat for an SPI that no security association has"
    HeartbeatPeer Drop "heartbeat_peer" "keyed heartbeat from another address or port than the session's peer"
    HeartbeatMac Drop "heartbeat_mac" "keyed heartbeat whose MAC is wrong"
    // Program `inside`.
    InsideSteered Info "inside_steered" "packet for a tunnel, handed to a worker"
    InsideArp Info "inside_arp" "ARP about an inner address, handed to a worker"
    InsideNd Info "inside_nd" "neighbour discovery about an inner address, handed to a worker"
    // Workers: opening.
    HandedOver Info "handed_over" "packet handed to the worker that has its SA"
    HandOverFull Drop "hand_over_full" "dropped: the worker that has its SA is too far behind"
    EspOpened Info "esp_opened" "ESP packet opened"
    EspDummy Info "esp_dummy" "ESP dummy packet opened (next header 59)"
    BadLength Drop "bad_length" "ESP packet of an impossible length"
    Replayed Drop "replayed" "sequence number already seen or too old"
    BadIcv Drop "bad_icv" "ESP packet that does not authenticate"
    BadPadding Drop "bad_padding" "ESP padding that is not 1, 2, 3, ..."
    BadNextHeader Drop "bad_next_header" "ESP next header that is neither IPv4, IPv6 nor a dummy"
    InnerMalformed Drop "inner_malformed" "inner packet with headers cut short or lengths wrong"
    InnerSource Drop "inner_source" "inner source address that the session does not own"
    InnerDestination Drop "inner_destination" "inner destination address that the session may not reach"
    EcnIllegal Drop "ecn_illegal" "outer congestion mark on an inner packet that cannot carry one"
    // Workers: sealing.
    EspSealed Info "esp_sealed" "ESP packet sealed"
    InnerFragmented Info "inner_fragmented" "packet cut into fragments that the path carries"
    SequenceExhausted Drop "sequence_exhausted" "the security association has no sequence number left"
    SaExpired Drop "sa_expired" "the security association has expired"
    TooBig Drop "too_big" "packet bigger than the path carries"
    TtlExpired Drop "ttl_expired" "inner packet whose TTL has run out"
    NoSession Drop "no_session" "no session for the tunnel"
    Rejected Drop "rejected" "no gateway of the cluster could be reached"
    // Workers: ports.
    NoRoute Drop "no_route" "no route to the next hop"
    NoNeighbour Drop "no_neighbour" "the next hop's link address is not known"
    QueueFull Drop "queue_full" "a waiting queue is full"
    TxRingFull Drop "tx_ring_full" "the transmit ring is full"
    NoFrame Drop "no_frame" "no free frame"
    NotOurs Drop "not_ours" "packet that no rule of the worker takes"
    SlowPath Info "slow_path" "packet handed to the kernel's own forwarding"
    HeartbeatHeard Info "heartbeat_heard" "answer to one of our heartbeats that verifies"
    HeartbeatSent Info "heartbeat_sent" "heartbeat sent to the active gateway"
    TooOld Drop "too_old" "sequence number below the replay window"
    LeaseExhausted Drop "lease_exhausted" "the lease of sequence numbers is used up"
    NoRoom Drop "no_room" "frame with too little room around the packet"
    NoTunnel Drop "no_tunnel" "packet to an address that no tunnel range of the policy has"
    LocalDestination Drop "local_destination" "inner packet for the gateway itself"
    InsideUnread Drop "inside_unread" "packet that could not be taken from the TUN device: too long, or no frame free"
    InsideRefused Drop "inside_refused" "packet that the TUN device did not take"
    SlowPathFull Drop "slow_path_full" "too many packets wait for the kernel to resolve a next hop"
    IcmpSent Info "icmp_sent" "ICMP error sent about a packet that could not go"
    AnnounceFull Info "announce_full" "inner address that could not be announced: the table is full"
    EventLost Info "event_lost" "report of a worker that the node's core had no time for"
    NatKeepAlive Info "nat_keep_alive" "keep-alive of a peer behind a NAT"
    PeerMoved Info "peer_moved" "a session follows its peer, whose NAT gave it another address or port"
    HeartbeatBadAnswer Drop "heartbeat_bad_answer" "answer to a heartbeat that does not verify"
    // Program `outside`: the guard before IKE.
    IkeCookie Pass "ike_cookie" "first message of IKE with a right cookie, left to the kernel by the guard"
    IkeAsked Info "ike_asked" "first message of IKE that the guard answered with a cookie"
    IkeGuarded Drop "ike_guarded" "first message of IKE that the guard could not answer"
    // Program `outside`: gateways that share an address.
    SteerSent Info "steer_sent" "packet for another gateway of the shared address, sent to it on the segment"
    SteerWrapped Info "steer_wrapped" "packet for another gateway of the shared address, sent to it in IP"
    SteerUnwrapped Info "steer_unwrapped" "packet that another gateway sent in IP, taken out of it; what becomes of it is counted as well"
    SteerHeartbeat Info "steer_heartbeat" "keyed heartbeat that another gateway sent on, handed to the worker to be answered"
    SteerSilent Drop "steer_silent" "packet for another gateway of the shared address whose link address, or route, is not known"
    SteerAstray Drop "steer_astray" "packet that another gateway sent on, and that is not for this one"
    SteerTtl Drop "steer_ttl" "packet for another gateway of the shared address whose TTL has run out"
    SteerTooBig Drop "steer_too_big" "packet for another gateway of the shared address that is too big for IP in IP"
    HeartbeatSteered Info "heartbeat_steered" "keyed heartbeat that another gateway sent on, answered by the worker"
    // Workers: how long packets outside may be.
    IcmpHeard Info "icmp_heard" "a router said that a packet of a session was too long"
    IcmpIgnored Info "icmp_ignored" "somebody said so of a packet that was not sent lately"
    MtuProbeSent Info "mtu_probe_sent" "probe of a path's MTU sent"
    MtuProbeAnswered Info "mtu_probe_answered" "probe of a path's MTU answered"
    // ESP in fragments.
    EspFragmentPassed Pass "esp_fragment_passed" "a fragment of a peer's ESP packet, left to the kernel to put together"
    EspReassembled Info "esp_reassembled" "ESP packet that the kernel put together of fragments"
    ReassembledLong Drop "reassembled_long" "ESP packet put together of fragments that no frame has room for"
    ReassembledFull Drop "reassembled_full" "ESP packet put together of fragments that the worker had no time for"
    // Gateways that share security associations.
    EspUnknown Info "esp_unknown" "ESP with an SPI that no security association has, handed to a worker, where it waits for one"
    ParkedLate Drop "parked_late" "packet of a shared session that has waited too long for sequence numbers"
    ParkedFull Drop "parked_full" "packet of a shared session that may not be carried yet, and too many wait already"
    // Program `outside`: the packet filter.
    FilterTunnel Drop "filter_tunnel" "packet past the tunnel, of a user who must use it"
    FilterUnlisted Drop "filter_unlisted" "packet past the tunnel to a network that its user's class does not have directly"
    FilterService Drop "filter_service" "IKE or ESP of a user whose class has no encryption service"
    // The relay of IKE by address translation.
    IkeFirstTranslated Pass "ike_first_translated" "message of IKE to nobody yet that got an authority's address as its destination, left to the kernel to be forwarded"
    IkeTranslated Pass "ike_translated" "other message of IKE that got an authority's address as its destination, left to the kernel to be forwarded"
    IkeReturned Pass "ike_returned" "message of IKE from an authority that got the edges' address as its source, left to the kernel to be forwarded"
    IkeNoAuthority Drop "ike_no_authority" "message of IKE for an authority that the edge is not connected to"
    // Program `outside`: a front before encryption nodes.
    FrontNoNode Drop "front_no_node" "packet for the shared address while no encryption node lives"
    // Workers: what the kernel could not give them.
    RxRingFull Drop "rx_ring_full" "packet for a worker that is behind: its receive ring was full"
    RxNoFrame Drop "rx_no_frame" "packet for a worker that the kernel had no frame for: the worker is behind, or the packet too long"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_are_indexes_and_labels_are_unique() {
        let mut labels = HashSet::new();
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter.index(), index);
            let label = counter.label();
            assert!(labels.insert(label), "{label} twice");
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{label}"
            );
            assert!(!counter.text().is_empty());
        }
    }
}
