//! Which authority an IKE message goes to, and how many of them may.

use std::net::IpAddr;
use std::time::Instant;

use evergate_common::maps::address;
use evergate_common::siphash::siphash24_of_3;
use evergate_common::steering::number_of;
use evergate_common::translation::client_slot;

use crate::dataplane::net::icmp::RateLimit;

/// IKE messages that an edge relays in a second, and at once: those that begin an exchange with nobody, which
/// anybody can send, and all others. More would keep the channel from what matters more.
const FIRST: (u32, u32) = (5_000, 1_000);
const OTHERS: (u32, u32) = (20_000, 4_000);

/// Of an IKE header (RFC 7296 section 3.1): bytes of an SPI, where the flags are, and who has begun the IKE SA.
const SPI: usize = 8;
const FLAGS: usize = 19;
const INITIATOR: u8 = 0x08;

/// All edges must choose the same.
const CHOICE_KEY: [u8; 16] = *b"evergate channel";

/// Who an IKE message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Addressee {
    /// Nobody yet: it begins a negotiation.
    Anybody,
    /// The authority whose SPIs carry this number.
    Number(u8),
}

/// Who the message is for; none: it is no IKE message.
pub(in crate::node) fn addressee(message: &[u8]) -> Option<Addressee> {
    let (initiator, rest) = message.split_first_chunk::<SPI>()?;
    let (responder, _) = rest.split_first_chunk::<SPI>()?;
    let flags = message.get(FLAGS)?;
    // What the one who has begun the IKE SA sends is for the responder, and the other way round.
    let own = match flags & INITIATOR {
        0 => initiator,
        _ => responder,
    };
    let [a, b, c, d, ..] = *own;
    match *responder {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Addressee::Anybody),
        _ => Some(Addressee::Number(number_of([a, b, c, d]))),
    }
}

/// The one of several authorities that negotiates with new clients at this address: the same one at all edges,
/// and another one for no more clients than must have one, when the choice changes (highest random weight).
pub(super) fn choose(client: IpAddr, among: impl Iterator<Item = (usize, u8)>) -> Option<usize> {
    choose_for(client_slot(&address(client)), among)
}

/// The same for all clients of a [slot](client_slot): they go together, as the XDP program needs it where
/// addresses are translated.
pub(super) fn choose_for(slot: u32, among: impl Iterator<Item = (usize, u8)>) -> Option<usize> {
    let weight = |number: u8| siphash24_of_3(&CHOICE_KEY, [slot.into(), number.into(), 0]);
    among
        .max_by_key(|(_, number)| weight(*number))
        .map(|(link, _)| link)
}

/// How many messages may be relayed.
pub(in crate::node) struct Limits {
    first: RateLimit,
    others: RateLimit,
    /// Since the start, relayed or not.
    pub(super) first_messages: u64,
    /// Messages that were not relayed since that was told last.
    pub(super) refused: u64,
}

impl Limits {
    pub(in crate::node) fn new(now: Instant) -> Self {
        Self {
            first: RateLimit::new(FIRST.0, FIRST.1, now),
            others: RateLimit::new(OTHERS.0, OTHERS.1, now),
            first_messages: 0,
            refused: 0,
        }
    }

    /// Whether a message for this addressee may go to its authority now.
    pub(in crate::node) fn allow(&mut self, addressee: Addressee, now: Instant) -> bool {
        let limit = match addressee {
            Addressee::Anybody => {
                self.first_messages += 1;
                &mut self.first
            }
            Addressee::Number(_) => &mut self.others,
        };
        let allowed = limit.allow(now);
        self.refused += u64::from(!allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn message(initiator: u8, responder: u8, flags: u8) -> Vec<u8> {
        let mut message = vec![0; 28];
        (message[0], message[8], message[FLAGS]) = (initiator, responder, flags);
        message
    }

    #[test]
    fn a_message_is_for_whom_its_spi_names() {
        let rules = [
            (message(0x11, 0, INITIATOR), Some(Addressee::Anybody)),
            (message(0x11, 2 << 2, INITIATOR), Some(Addressee::Number(2))),
            // The authority has begun this IKE SA, by a rekey.
            (message(3 << 2, 0x77, 0), Some(Addressee::Number(3))),
            (message(3 << 2, 0x77, 0)[..19].to_vec(), None),
            (Vec::new(), None),
        ];
        for (message, expected) in rules {
            assert_eq!(addressee(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn clients_are_shared_out_and_few_of_them_change() {
        let clients = || (0..10_000).map(|n| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n)));
        let of = |numbers: &[u8]| -> Vec<u8> {
            let among = || numbers.iter().copied().enumerate();
            let link = |client| choose(client, among()).unwrap();
            clients().map(|client| numbers[link(client)]).collect()
        };
        let (three, two) = (of(&[1, 2, 3]), of(&[3, 1]));
        for number in 1..=3 {
            let share = three.iter().filter(|n| **n == number).count();
            assert!((3_100..3_600).contains(&share), "{number}: {share}");
        }
        let moved = three.iter().zip(&two).filter(|(a, b)| a != b);
        assert!(moved.clone().all(|(before, _)| *before == 2));
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        let among = || [1, 2, 3].into_iter().enumerate();
        let v4 = choose(IpAddr::V4(Ipv4Addr::LOCALHOST), among());
        assert_eq!(choose(mapped, among()), v4);
        assert_eq!(choose(mapped, std::iter::empty()), None);
    }

    #[test]
    fn a_flood_of_first_messages_leaves_room_for_others() {
        let now = Instant::now();
        let mut limits = Limits::new(now);
        let first = (0..100_000).filter(|_| limits.allow(Addressee::Anybody, now));
        let relayed = first.count();
        assert!((1..=1001).contains(&relayed), "{relayed}");
        assert!(limits.allow(Addressee::Number(0), now));
        let later = now + Duration::from_millis(1);
        assert!(limits.allow(Addressee::Anybody, later));
        assert_eq!(limits.refused, 100_000 - relayed as u64);
    }
}
