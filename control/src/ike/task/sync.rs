//! Peers that lose count (RFC 6311): a member of a cluster that goes on with another one's IKE SA does
//! not know which message IDs were used last, nor how far the sequence numbers of ESP have come.
//!
//! ```text
//! HDR (message ID 0), SK {N(IKEV2_MESSAGE_ID_SYNC), [N(IPSEC_REPLAY_COUNTER_SYNC)]} -->
//!                                <-- HDR (message ID 0), SK {N(IKEV2_MESSAGE_ID_SYNC)}
//! ```

use super::super::payload::Payload;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::reader::Reader;
use super::super::settings::Settings;
use super::notify;

/// Bytes of the nonce.
pub(crate) const NONCE: usize = 4;

/// What both sides of an IKE SA can bring into step again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Abilities {
    /// Message IDs.
    pub(crate) ids: bool,
    /// Sequence numbers of ESP.
    pub(crate) counters: bool,
}

impl Abilities {
    /// What a responder says to an initiator that can do so.
    pub(super) fn answer(self) -> impl Iterator<Item = Payload> {
        let kinds = [
            (self.ids, kind::IKEV2_MESSAGE_ID_SYNC_SUPPORTED),
            (self.counters, kind::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED),
        ];
        let can = kinds.into_iter().filter(|(can, _)| *can);
        can.map(|(_, kind)| Payload::Notify(Notify::new(kind, [])))
    }
}

/// What an initiator says in IKE_AUTH.
pub(super) fn announce(settings: &Settings) -> impl Iterator<Item = Payload> {
    let (ids, counters) = (settings.sync, settings.sync);
    Abilities { ids, counters }.answer()
}

/// Takes in what the peer's IKE_AUTH says of it.
pub(super) fn learn(settings: &Settings, payloads: &[Payload]) -> Abilities {
    let can = |kind| settings.sync && notify(payloads, kind).is_some();
    Abilities {
        ids: can(kind::IKEV2_MESSAGE_ID_SYNC_SUPPORTED),
        counters: can(kind::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED),
    }
}

/// The data of IKEV2_MESSAGE_ID_SYNC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sync {
    pub(crate) nonce: [u8; NONCE],
    /// Of the sender's next request: M1 of a request, P2 of a response.
    pub(crate) send: u32,
    /// Of the other side's next request, as the sender expects it: P1 of a request, M2 of a response.
    pub(crate) receive: u32,
}

impl Sync {
    pub(crate) fn payload(self) -> Payload {
        let ids = [self.send, self.receive].map(u32::to_be_bytes);
        let data = [self.nonce, ids[0], ids[1]].concat();
        Payload::Notify(Notify::new(kind::IKEV2_MESSAGE_ID_SYNC, data))
    }

    /// What a message with ID 0 says of message IDs, and by how much the receiver's outbound sequence
    /// numbers are to go on higher. `None`: it is no such message, with which nothing else goes (section
    /// 5.1).
    pub(crate) fn of(payloads: &[Payload]) -> Option<(Sync, Option<u64>)> {
        let alone = payloads.iter().all(|payload| match payload {
            Payload::Notify(n) => matches!(
                n.kind,
                kind::IKEV2_MESSAGE_ID_SYNC | kind::IPSEC_REPLAY_COUNTER_SYNC
            ),
            _ => false,
        });
        let sync = notify(payloads, kind::IKEV2_MESSAGE_ID_SYNC).filter(|_| alone)?;
        let mut r = Reader::new(&sync.data);
        let mut read = || {
            let sync = Sync {
                nonce: r.array("nonce")?,
                send: r.u32("next request")?,
                receive: r.u32("expected request")?,
            };
            r.finish("IKEV2_MESSAGE_ID_SYNC")?;
            Ok::<_, super::super::payload::Malformed>(sync)
        };
        let sync = read().ok()?;
        let by = match notify(payloads, kind::IPSEC_REPLAY_COUNTER_SYNC) {
            Some(delta) => Some(delta_of(&delta.data)?),
            None => None,
        };
        Some((sync, by))
    }
}

/// Has the peer go on with sequence numbers that are so much higher. With extended ones it has eight
/// bytes, else four (section 6.4).
pub(crate) fn ahead(by: u64, esn: bool) -> Payload {
    let data = match u32::try_from(by) {
        Ok(by) if !esn => by.to_be_bytes().to_vec(),
        _ => by.to_be_bytes().to_vec(),
    };
    Payload::Notify(Notify::new(kind::IPSEC_REPLAY_COUNTER_SYNC, data))
}

fn delta_of(data: &[u8]) -> Option<u64> {
    match data.len() {
        4 => data.try_into().ok().map(u32::from_be_bytes).map(u64::from),
        _ => data.try_into().ok().map(u64::from_be_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_wire() {
        let sync = Sync {
            nonce: [1, 2, 3, 4],
            send: 0x0506_0708,
            receive: 9,
        };
        let payload = sync.payload();
        let Payload::Notify(n) = &payload else {
            panic!("{payload:?}");
        };
        assert_eq!((n.kind, n.protocol, n.spi.len()), (0x4026, 0, 0));
        assert_eq!(n.data, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9]);
        assert_eq!(Sync::of(std::slice::from_ref(&payload)), Some((sync, None)));
        for (esn, length) in [(false, 4), (true, 8)] {
            let more = ahead(1 << 28, esn);
            let Payload::Notify(n) = &more else {
                panic!("{more:?}");
            };
            assert_eq!((n.kind, n.data.len()), (0x4027, length));
            let both = [more, payload.clone()];
            assert_eq!(Sync::of(&both), Some((sync, Some(1 << 28))));
        }
        // Anything else beside it, or of another length.
        let more = Payload::Notify(Notify::new(kind::IPSEC_REPLAY_COUNTER_SYNC, [0; 5]));
        assert_eq!(Sync::of(&[payload.clone(), more]), None);
        let other = Payload::Notify(Notify::new(kind::COOKIE2, [0; 8]));
        assert_eq!(Sync::of(&[payload, other]), None);
        for length in [0, 11, 13] {
            let data = vec![0; length];
            let odd = Payload::Notify(Notify::new(kind::IKEV2_MESSAGE_ID_SYNC, data));
            assert_eq!(Sync::of(&[odd]), None);
        }
        assert_eq!(Sync::of(&[]), None);
    }
}
