//! Real messages, changed by chance: nothing panics, answers without measure, or leaves anything.
//! What is inside protected messages is changed before it is sealed: whoever has done a key
//! exchange with us can send that, before we know who it is.

use super::super::payload::header::{self, HEADER, exchange};
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Payload, delete};
use super::life::Say;
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::Arc;

/// One change of a string of bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    /// Where a length may stand.
    SetWord(Index, u16),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    Repeat(Index, u8),
    Truncate(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let byte = prop_oneof![3 => 0..64u8, 1 => any::<u8>()];
    let word = prop_oneof![0..80u16, Just(0xffff), any::<u16>()];
    prop_oneof![
        3 => (at(), byte).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (at(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        3 => (at(), word).prop_map(|(at, word)| Change::SetWord(at, word)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, b)| Change::Insert(at, b)),
        1 => (at(), 1..40u8).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (at(), 1..80u8).prop_map(|(at, count)| Change::Repeat(at, count)),
        1 => at().prop_map(Change::Truncate),
    ]
}

impl Change {
    fn apply(&self, data: &mut Vec<u8>) {
        let place = |at: &Index| at.index(data.len().max(1)).min(data.len());
        match self {
            Change::Set(at, byte) => {
                let at = place(at);
                data.iter_mut().skip(at).take(1).for_each(|b| *b = *byte);
            }
            Change::Flip(at, bit) => {
                let at = place(at);
                data.iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|b| *b ^= 1 << bit);
            }
            Change::SetWord(at, word) => {
                let at = place(at);
                let bytes = data.iter_mut().skip(at).zip(word.to_be_bytes());
                bytes.for_each(|(b, new)| *b = new);
            }
            Change::Insert(at, bytes) => {
                let at = place(at);
                data.splice(at..at, bytes.iter().copied());
            }
            Change::Remove(at, count) => {
                let at = place(at);
                let end = data.len().min(at + usize::from(*count));
                data.drain(at..end);
            }
            Change::Repeat(at, count) => {
                let at = place(at);
                let end = data.len().min(at + usize::from(*count));
                data.extend_from_within(at..end);
            }
            Change::Truncate(at) => {
                let at = place(at);
                data.truncate(at);
            }
        }
    }
}

/// Hands over a changed message; then the true one, and all that follows from both.
fn suffer(pair: &mut Pair, whole: &Transmit, changed: Vec<u8>) {
    for data in [changed, whole.data.clone()] {
        let datagram = Transmit {
            data,
            ..whole.clone()
        };
        let answers = pair.deliver(&datagram);
        assert!(answers.len() <= 1, "{} answers to one", answers.len());
        let mut wire = VecDeque::from(answers);
        for _ in 0..50 {
            let Some(t) = wire.pop_front() else { break };
            wire.extend(pair.deliver(&t));
        }
        assert!(wire.is_empty(), "an endless conversation");
    }
    // Whatever has come of it, both come to rest, and serve the next one.
    for _ in 0..1000 {
        pair.run();
        if !pair.wait() {
            break;
        }
    }
    assert_eq!(pair.a.engine.next_timeout(), None);
    assert_eq!(pair.b.engine.next_timeout(), None);
    pair.a.events.clear();
    pair.b.events.clear();
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    let (a, b) = (pair.a.established(), pair.b.established());
    assert_mirrored(a.unwrap().1, b.unwrap().1);
}

fn message(number: usize) -> (Pair, Transmit) {
    let mut pair = Pair::new();
    let wish = Initiate {
        request_addresses: Some(AddressRequest {
            v4: Some(None),
            v6: Some(Some([0xfd; 16].into())),
        }),
        remote_ts: Vec::new(),
        initial_contact: true,
        ..pair.wish()
    };
    pair.initiate(wish);
    let mut next = pair.a.take().remove(0);
    for _ in 0..number {
        next = pair.deliver(&next).remove(0);
    }
    (pair, next)
}

/// Seals a changed copy of a protected message.
fn resealed(pair: &Pair, whole: &Transmit, first: Option<u8>, changes: &[Change]) -> Vec<u8> {
    let sender = match whole.local == pair.a.address {
        true => &pair.a.engine,
        false => &pair.b.engine,
    };
    let changed = sender.tamper(&whole.data, |kind, plain| {
        *kind = first.unwrap_or(*kind);
        changes.iter().for_each(|change| change.apply(plain));
    });
    changed.expect("a message that it has sent")
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 1..5)
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn first_messages_changed(number in 0..2usize, fix_length in any::<bool>(), changes in changes()) {
        let (mut pair, whole) = message(number);
        let mut changed = whole.data.clone();
        if fix_length {
            // The header stays, and the payloads themselves are reached.
            let mut body = changed.split_off(HEADER);
            changes.iter().for_each(|change| change.apply(&mut body));
            changed.extend(body);
            header::set_length(&mut changed);
        } else {
            changes.iter().for_each(|change| change.apply(&mut changed));
        }
        suffer(&mut pair, &whole, changed);
    }

    #[test]
    fn authentication_changed_inside(
        number in 2..4usize,
        first in prop::option::weighted(0.1, 33..49u8),
        changes in changes(),
    ) {
        let (mut pair, whole) = message(number);
        let changed = resealed(&pair, &whole, first, &changes);
        suffer(&mut pair, &whole, changed);
    }

    #[test]
    fn intermediate_exchange_changed_inside(
        number in 2..3usize,
        first in prop::option::weighted(0.1, 33..49u8),
        changes in changes(),
    ) {
        let (mut pair, whole) = intermediate::before(number);
        let changed = resealed(&pair, &whole, first, &changes);
        suffer(&mut pair, &whole, changed);
    }

    #[test]
    fn intermediate_exchange_changed_outside(number in 0..6usize, changes in changes()) {
        let (mut pair, whole) = intermediate::before(number);
        let mut changed = whole.data.clone();
        changes.iter().for_each(|change| change.apply(&mut changed));
        suffer(&mut pair, &whole, changed);
    }

    #[test]
    fn an_established_peer_says_anything(
        by_client in any::<bool>(),
        exchange in prop_oneof![
            4 => exchange::CREATE_CHILD_SA..=exchange::INFORMATIONAL,
            1 => Just(exchange::IKE_INTERMEDIATE),
            1 => any::<u8>(),
        ],
        first in prop::option::weighted(0.1, 33..49u8),
        changes in changes(),
        answer in any::<bool>(),
    ) {
        let mut pair = Pair::new();
        let (a, b) = pair.up();
        let payloads = vec![
            Payload::Sa(vec![EspProposal::default().offer(1, 0x4242)]),
            Payload::Nonce(vec![9; 32]),
            Payload::TsI(vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()]),
            Payload::Notify(Notify::new(kind::INITIAL_CONTACT, [])),
            Payload::Delete(delete::Delete::Esp(vec![1, 2, 3])),
        ];
        let task = Say { exchange, payloads, heard: Arc::default() };
        let (from, id) = match by_client {
            true => (&mut pair.a, a),
            false => (&mut pair.b, b),
        };
        from.engine.start(pair.now, id, Box::new(task));
        let Some(mut whole) = from.take().pop() else { return Ok(()) };
        if answer {
            match pair.deliver(&whole).pop() {
                Some(response) => whole = response,
                None => return Ok(()),
            }
        }
        // These two are in the clear.
        if ![exchange::IKE_SA_INIT, exchange::IKE_SESSION_RESUME].contains(&whole.data[18]) {
            let changed = resealed(&pair, &whole, first, &changes);
            suffer(&mut pair, &whole, changed);
        }
    }

    #[test]
    fn rekeying_changed_inside(
        ike in any::<bool>(),
        answer in any::<bool>(),
        first in prop::option::weighted(0.1, 33..49u8),
        changes in changes(),
    ) {
        let mut pair = Pair::new();
        let wish = pair.wish();
        pair.initiate(wish);
        pair.run();
        let (a, spi) = pair.a.established().map(|(id, child)| (id, child.spi_in)).unwrap();
        match ike {
            true => pair.a.engine.rekey_ike(pair.now, a),
            false => pair.a.engine.rekey_child(pair.now, a, spi),
        }
        let mut whole = pair.a.due(pair.now).remove(0);
        if answer {
            whole = pair.deliver(&whole).remove(0);
        }
        let changed = resealed(&pair, &whole, first, &changes);
        suffer(&mut pair, &whole, changed);
    }
}
