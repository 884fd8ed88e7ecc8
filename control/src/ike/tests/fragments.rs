//! Messages in parts, with the wire above each step.

use super::super::crypto::{AeadKey, Secret};
use super::super::fragment::{self, Added, Reassembly};
use super::super::payload::header::{HEADER, Header, exchange};
use super::super::payload::notify::{Notify, kind};
use super::super::payload::skf::{self, Place};
use super::super::payload::{Payload, parse_chain, sk};
use super::life::Say;
use super::network::{Fate, fate, run};
use super::*;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

type Heard = Arc<Mutex<Option<Vec<Payload>>>>;

/// Both sides with packets of at most so many bytes.
fn pair(size: u16) -> Pair {
    Pair::with(|a, b| {
        a.fragment_size = Some(size);
        b.fragment_size = Some(size);
    })
}

/// A wish whose IKE_AUTH is long: 200 selectors on each side.
fn long_wish(pair: &mut Pair) -> Initiate {
    let host = |n: u32| TrafficSelector::host((0x0a00_0000 + 2 * n).to_be_bytes());
    pair.b.owner.local_ts = (0..200).map(host).collect();
    Initiate {
        remote_ts: (0..200).map(host).collect(),
        ..pair.wish()
    }
}

/// Delivers all, and yields all that is sent in return.
fn deliver(pair: &mut Pair, datagrams: &[Transmit]) -> Vec<Transmit> {
    datagrams.iter().flat_map(|t| pair.deliver(t)).collect()
}

fn place(t: &Transmit) -> (u16, u16) {
    assert_eq!(t.data[16], payload::kind::ENCRYPTED_FRAGMENT);
    let Place { number, total } = Place::parse(&t.data).unwrap();
    (number, total)
}

/// Has the client say something long in an established session.
fn say(pair: &mut Pair, id: SaId, bytes: usize) -> (Vec<Transmit>, Heard) {
    let heard = Heard::default();
    let task = Say {
        exchange: exchange::INFORMATIONAL,
        payloads: vec![Payload::Vendor(vec![7; bytes])],
        heard: Arc::clone(&heard),
    };
    pair.a.engine.start(pair.now, id, Box::new(task));
    (pair.a.take(), heard)
}

#[test]
fn a_long_authentication_goes_in_parts() {
    for v6 in [false, true] {
        let mut pair = pair(1280);
        if v6 {
            pair.a.address = "[2001:db8::7]:4500".parse().unwrap();
            pair.b.address = "[2001:db8::1]:4500".parse().unwrap();
        }
        let wish = long_wish(&mut pair);
        pair.initiate(wish);
        // HDR, …, N(IKEV2_FRAGMENTATION_SUPPORTED) --> <-- HDR, …, N(IKEV2_FRAGMENTATION_SUPPORTED)
        let first = pair.a.take();
        let second = deliver(&mut pair, &first);
        // HDR(IKE_AUTH, 1), SKF(1 of 3) {…} --> and so on
        let parts = deliver(&mut pair, &second);
        assert_eq!(
            parts.iter().map(place).collect::<Vec<_>>(),
            [(1, 3), (2, 3), (3, 3)]
        );
        // IP, UDP, and the marker that port 4500 wants: the packet is full, but for the last one.
        let headers = if v6 { 40 } else { 20 } + 8 + 4;
        let lengths: Vec<usize> = parts.iter().map(|t| t.data.len() + headers).collect();
        assert_eq!(lengths[..2], [1280; 2]);
        assert!(lengths[2] <= 1280);
        // Only the first part tells what is inside.
        let next: Vec<u8> = parts.iter().map(|t| t.data[HEADER]).collect();
        assert_eq!(next, [payload::kind::ID_I, 0, 0]);
        // Nothing happens before the last part, whatever the order.
        assert_eq!(
            deliver(&mut pair, &[parts[2].clone(), parts[0].clone()]),
            []
        );
        assert!(pair.b.events.is_empty());
        let answer = pair.deliver(&parts[1]);
        assert_eq!(
            answer.iter().map(place).collect::<Vec<_>>(),
            [(1, 3), (2, 3), (3, 3)]
        );
        assert_eq!(deliver(&mut pair, &answer), []);
        let (a, b) = (pair.a.established().unwrap(), pair.b.established().unwrap());
        assert_mirrored(a.1, b.1);
        assert_eq!(a.1.remote_ts.len(), 200);
        assert_eq!(pair.b.engine.stats().fragments_received, 3);
    }
}

#[test]
fn what_fits_goes_whole() {
    let mut pair = pair(1280);
    let (a, _) = pair.up();
    // IP (20), UDP (8), marker (4), HDR, SK, IV, the vendor ID's header, pad length, tag.
    let fits = 1280 - 20 - 8 - 4 - HEADER - 4 - 8 - 4 - 1 - 16;
    let (sent, heard) = say(&mut pair, a, fits);
    assert_eq!((sent.len(), sent[0].data.len()), (1, 1280 - 32));
    let answer = deliver(&mut pair, &sent);
    deliver(&mut pair, &answer);
    assert_eq!(*heard.lock().unwrap(), Some(vec![]));
    let (sent, heard) = say(&mut pair, a, fits + 1);
    assert_eq!(sent.iter().map(place).collect::<Vec<_>>(), [(1, 2), (2, 2)]);
    let answer = deliver(&mut pair, &sent);
    assert_eq!(answer.len(), 1);
    deliver(&mut pair, &answer);
    assert_eq!(*heard.lock().unwrap(), Some(vec![]));
}

#[test]
fn both_sides_must_take_parts() {
    for (a, b) in [(Some(576), None), (None, Some(576)), (None, None)] {
        let mut pair = Pair::with(|client, gateway| {
            client.fragment_size = a;
            gateway.fragment_size = b;
        });
        let wish = long_wish(&mut pair);
        pair.initiate(wish);
        let first = pair.a.take();
        let says = |t: &Transmit| {
            let payloads = parse_chain(t.data[16], &t.data[HEADER..]).unwrap();
            let supported = Notify::new(kind::IKEV2_FRAGMENTATION_SUPPORTED, []);
            payloads.contains(&Payload::Notify(supported))
        };
        assert_eq!(says(&first[0]), a.is_some());
        let second = deliver(&mut pair, &first);
        // A responder says it only to who has said it.
        assert!(!says(&second[0]));
        let third = deliver(&mut pair, &second);
        let fourth = deliver(&mut pair, &third);
        assert_eq!((third.len(), fourth.len()), (1, 1));
        deliver(&mut pair, &fourth);
        let (id, _) = pair.a.established().unwrap();
        // Parts that were not agreed on are no protected message.
        let (sent, _) = say(&mut pair, id, 10);
        let mut part = sent[0].clone();
        part.data[16] = payload::kind::ENCRYPTED_FRAGMENT;
        assert_eq!(pair.deliver(&part), []);
        let stats = pair.b.engine.stats();
        assert_eq!((stats.unprotected, stats.fragments_received), (1, 0));
    }
}

#[test]
fn all_parts_are_sent_again_and_answered_once() {
    let mut pair = pair(576);
    let (a, _) = pair.up();
    let (sent, heard) = say(&mut pair, a, 2000);
    assert_eq!(sent.len(), 5);
    // The third part is lost: after a while all of them come again, bit by bit the same.
    let (kept, lost): (Vec<_>, Vec<_>) = sent.iter().cloned().partition(|t| place(t).0 != 3);
    assert_eq!(deliver(&mut pair, &kept), []);
    assert!(pair.wait());
    let again = pair.a.take();
    assert_eq!(again, sent);
    // What is here already is not even opened; the one that was lost completes the message.
    let answer = deliver(&mut pair, &again);
    assert_eq!((answer.len(), lost.len()), (1, 1));
    let stats = pair.b.engine.stats();
    assert_eq!((stats.fragments_unwanted, stats.fragments_received), (2, 5));
    // Parts 4 and 5 came after it was answered: only part 1 asks for the answer again.
    assert_eq!(stats.repeated, 0);
    for t in &again {
        let expected = if place(t).0 == 1 { &answer[..] } else { &[] };
        assert_eq!(pair.deliver(t), expected);
    }
    assert_eq!(pair.b.engine.stats().repeated, 1);
    deliver(&mut pair, &answer);
    assert_eq!(*heard.lock().unwrap(), Some(vec![]));
}

#[test]
fn a_long_answer_is_kept_in_parts() {
    let mut pair = pair(576);
    let wish = long_wish(&mut pair);
    pair.initiate(wish);
    let first = pair.a.take();
    let second = deliver(&mut pair, &first);
    let third = deliver(&mut pair, &second);
    let fourth = deliver(&mut pair, &third);
    assert!(fourth.len() > 5);
    // Lost as a whole. The request comes again, and gets all of its answer again, once.
    pair.wait();
    let again = pair.a.take();
    assert_eq!(again, third);
    assert_eq!(deliver(&mut pair, &again), fourth);
    let mut shuffled = fourth.clone();
    shuffled.reverse();
    assert_eq!(deliver(&mut pair, &shuffled), []);
    assert!(pair.a.established().is_some());
    assert_eq!(pair.b.events.len(), 1);
}

#[test]
fn forged_parts_take_no_room() {
    let mut pair = pair(576);
    let (a, _) = pair.up();
    let (sent, heard) = say(&mut pair, a, 1500);
    // Each part with another number, total, or bit: first, so that they would be in the way.
    for whole in &sent {
        for (at, byte) in [(HEADER + 5, 9), (HEADER + 7, 9), (60, 0xff), (80, 0xff)] {
            let mut forged = whole.clone();
            forged.data[at] ^= byte;
            assert_eq!(pair.deliver(&forged), []);
        }
        let mut none = whole.clone();
        none.data[HEADER + 4..HEADER + 6].fill(0);
        assert_eq!(pair.deliver(&none), []);
    }
    let stats = pair.b.engine.stats();
    assert_eq!((stats.fragments_received, stats.fragments_refused), (0, 0));
    assert!(stats.bad_tag > 0 && stats.malformed > 0);
    // No timer either: nothing is kept.
    assert_eq!(pair.b.engine.next_timeout(), None);
    let answer = deliver(&mut pair, &sent);
    assert_eq!(answer.len(), 1);
    deliver(&mut pair, &answer);
    assert_eq!(*heard.lock().unwrap(), Some(vec![]));
}

#[test]
fn an_unfinished_message_is_given_up() {
    let mut pair = pair(576);
    let (a, _) = pair.up();
    let (sent, _) = say(&mut pair, a, 1500);
    deliver(&mut pair, &sent[1..]);
    let (at, why) = pair.b.engine.next_timeout().unwrap();
    assert_eq!((at - pair.now, why), (fragment::PATIENCE, "fragments"));
    pair.now = at;
    pair.b.engine.handle_timeout(pair.now, &mut pair.b.owner);
    assert_eq!(pair.b.engine.stats().fragments_expired, 1);
    assert_eq!(pair.b.engine.next_timeout(), None);
    // The rest alone makes no message of it; all of it does.
    assert_eq!(pair.deliver(&sent[0]), []);
    assert_eq!(deliver(&mut pair, &sent[1..]).len(), 1);
}

#[test]
fn a_stranger_gets_less_room_than_a_peer() {
    let identity = |length| {
        let mut pair = pair(1280);
        let mut settings = pair.a.engine.settings().clone();
        settings.local_id = Identity::KeyId(vec![7; length]);
        pair.a = Node::new(settings, "198.51.100.7:500", 1);
        let wish = pair.wish();
        pair.initiate(wish);
        let first = pair.a.take();
        let second = deliver(&mut pair, &first);
        let third = deliver(&mut pair, &second);
        let answer = deliver(&mut pair, &third);
        (answer.len(), pair.b.engine.stats().fragments_refused)
    };
    // Refused for its length (an identity has 512 bytes at most), but read.
    assert_eq!(identity(16_000), (1, 0));
    // Not read: dropped at the part that is too much, and at each that would begin anew with it.
    let (answers, refused) = identity(17_000);
    assert_eq!((answers, refused > 0), (0, true));
    let mut pair = pair(1280);
    let (a, _) = pair.up();
    let (sent, _) = say(&mut pair, a, 60_000);
    assert_eq!(deliver(&mut pair, &sent).len(), 1);
}

#[test]
fn whole_and_in_parts_are_the_same_message() {
    // A peer that found its parts lost sends the message whole, or the other way round.
    for whole_first in [true, false] {
        let mut one = pair(576);
        let (a, _) = one.up();
        let (parts, heard) = say(&mut one, a, 1000);
        assert_eq!(parts.len(), 3);
        let whole = one
            .a
            .engine
            .join(&parts.iter().map(|t| &t.data[..]).collect::<Vec<_>>());
        let whole = Transmit {
            data: whole.unwrap(),
            ..parts[0].clone()
        };
        let answer = if whole_first {
            assert_eq!(one.deliver(&parts[2]), []);
            let answer = one.deliver(&whole);
            // The parts are repetitions now, and what had come of them is gone.
            assert_eq!(one.b.engine.next_timeout(), None);
            assert_eq!(deliver(&mut one, &parts), answer);
            answer
        } else {
            let answer = deliver(&mut one, &parts);
            assert_eq!(one.deliver(&whole), answer);
            answer
        };
        assert_eq!(answer.len(), 1);
        deliver(&mut one, &answer);
        assert_eq!(*heard.lock().unwrap(), Some(vec![]));
    }
}

fn key() -> AeadKey {
    AeadKey::new(IkeCipher::ChaCha20Poly1305, &Secret::new(&[5; 36])).unwrap()
}

fn header_of(message_id: u32) -> Header {
    Header {
        spi_i: 1,
        spi_r: 2,
        next: 0,
        version: 0x20,
        exchange: exchange::IKE_AUTH,
        initiator: true,
        response: false,
        message_id,
    }
}

/// Cuts a message for packets with so much room.
fn cut(plain: &[u8], room: usize) -> Vec<Vec<u8>> {
    let plain = Zeroizing::new(plain.to_vec());
    fragment::seal(header_of(1), 35, plain, &key(), &mut 0, Some(room)).unwrap()
}

/// Hands a part over as an SA does.
fn add(reassembly: &mut Reassembly, datagram: &[u8]) -> Added {
    let header = Header::parse(datagram).unwrap();
    let place = Place::parse(datagram).unwrap();
    if !reassembly.wants(place) {
        return Added::Waits;
    }
    let (first, part) = skf::open(&header, datagram, &key()).unwrap();
    reassembly.add(place, datagram, first, part)
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn parts_come_back_in_any_order(
        plain in prop::collection::vec(any::<u8>(), 1..6000),
        room in 130..1300_usize,
        order in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let datagrams = cut(&plain, room);
        prop_assert!(datagrams.iter().all(|d| d.len() <= room));
        if let [whole] = &datagrams[..] {
            let header = Header::parse(whole).unwrap();
            let (first, opened) = sk::open(&header, whole, &key()).unwrap();
            prop_assert_eq!((first, &opened[..]), (35, &plain[..]));
            return Ok(());
        }
        // Each comes at least once, some more often, in any order.
        let mut wire: Vec<&Vec<u8>> = datagrams.iter().collect();
        wire.push(order.get(&datagrams));
        let mut state = seed;
        for at in (1..wire.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            wire.swap(at, (state >> 33) as usize % (at + 1));
        }
        let header = Header::parse(&datagrams[0]).unwrap();
        let mut reassembly = Reassembly::new(&header, Instant::now(), fragment::MOST_BYTES);
        let mut complete = None;
        for datagram in wire {
            if let Added::Complete(first, whole, head) = add(&mut reassembly, datagram) {
                prop_assert!(complete.is_none() || complete == Some(whole.to_vec()));
                prop_assert_eq!((first, &head[..]), (35, &datagrams[0][..HEADER]));
                complete = Some(whole.to_vec());
            }
        }
        prop_assert_eq!(complete, Some(plain));
    }

    /// The sender cuts anew, into smaller parts each time, and the cuts mix on their way.
    #[test]
    fn a_finer_cut_takes_the_place_of_a_coarser_one(
        plain in prop::collection::vec(any::<u8>(), 2000..4000),
        picks in prop::collection::vec((0..3_usize, any::<prop::sample::Index>()), 0..60),
    ) {
        let cuts = [1300, 700, 300].map(|room| cut(&plain, room));
        let mut reassembly = Reassembly::new(&header_of(1), Instant::now(), fragment::MOST_BYTES);
        let (mut finest, mut done) = (0, false);
        for (which, at) in &picks {
            let datagram: &Vec<u8> = at.get(&cuts[*which]);
            let added = add(&mut reassembly, datagram);
            finest = finest.max(*which);
            if let Added::Complete(_, whole, _) = added {
                prop_assert_eq!(&whole[..], &plain[..]);
                prop_assert_eq!(*which, finest);
                done = true;
            }
        }
        // What is left of the finest cut completes it.
        for datagram in &cuts[2] {
            if let Added::Complete(_, whole, _) = add(&mut reassembly, datagram) {
                prop_assert_eq!(&whole[..], &plain[..]);
                done = true;
            }
        }
        prop_assert!(done);
    }

    #[test]
    fn any_numbers_keep_within_bounds(
        parts in prop::collection::vec((1..300_u16, 1..300_u16, 0..2000_usize), 0..200),
        most in 0..20_000_usize,
    ) {
        let mut reassembly = Reassembly::new(&header_of(1), Instant::now(), most);
        for (number, total, length) in parts {
            let place = Place { number: number.min(total), total };
            let part = Zeroizing::new(vec![1; length]);
            match reassembly.add(place, &[0; HEADER], 33, part) {
                Added::Complete(_, whole, _) => prop_assert!(whole.len() <= most),
                Added::TooMuch => break,
                Added::Waits => {}
            }
            prop_assert!(reassembly.bytes() <= most);
        }
    }

    #[test]
    fn any_bytes_after_a_fragments_header(
        body in prop::collection::vec(any::<u8>(), 0..200),
        response in any::<bool>(),
    ) {
        let mut pair = pair(576);
        let (a, _) = pair.up();
        let (sent, _) = say(&mut pair, a, 1000);
        let mut t = sent[0].clone();
        t.data.truncate(HEADER);
        t.data[19] ^= u8::from(response) << 5;
        t.data.extend_from_slice(&body);
        payload::header::set_length(&mut t.data);
        prop_assert_eq!(pair.deliver(&t), []);
        prop_assert_eq!(pair.b.engine.stats().fragments_received, 0);
        prop_assert!(pair.b.events.is_empty());
    }

    /// A whole session over a network that loses, doubles and reorders parts.
    #[test]
    fn a_long_session_comes_about_over_a_bad_network(
        fates in prop::collection::vec(fate(), 0..60),
        size in prop::sample::select(vec![576, 800, 1280]),
    ) {
        let mut pair = Pair::with(|a, b| {
            for s in [a, b] {
                s.fragment_size = Some(size);
                s.retransmit.tries = 80;
                s.half_open_timeout = Duration::from_secs(3000);
            }
        });
        let wish = long_wish(&mut pair);
        pair.initiate(wish);
        run(&mut pair, &fates, true, |_| true);
        let (a, b) = (pair.a.established(), pair.b.established());
        prop_assert!(a.is_some() && b.is_some(), "{:?} {:?}", pair.a.events, pair.b.events);
        assert_mirrored(a.unwrap().1, b.unwrap().1);
        prop_assert_eq!((pair.a.events.len(), pair.b.events.len()), (1, 1));
    }
}

#[test]
fn each_part_lost_once() {
    for lost in 2..20 {
        let mut pair = pair(800);
        let wish = long_wish(&mut pair);
        pair.initiate(wish);
        let mut fates = [Fate::Arrive; 20];
        fates[lost] = Fate::Lose;
        run(&mut pair, &fates, true, |_| true);
        let (a, b) = (pair.a.established(), pair.b.established());
        assert_mirrored(a.unwrap().1, b.unwrap().1);
    }
}
