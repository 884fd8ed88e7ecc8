//! Messages out of bytes, however these come.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::frames::Frames;
use crate::cluster::tests::wire::{down, up};
use crate::cluster::wire::{Down, LONGEST, Relayed, Up, WireError, encode};

fn put(frames: &mut Frames, bytes: &[u8]) {
    let room = frames.room();
    room[..bytes.len()].copy_from_slice(bytes);
    frames.filled(bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn they_come_in_any_pieces(messages in vec(up(), 0..30), sizes in vec(1..5000usize, 1..50)) {
        let bytes: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap().to_vec()).collect();
        let (mut frames, mut found) = (Frames::new(), Vec::<Up>::new());
        let (mut rest, mut sizes) = (bytes.as_slice(), sizes.into_iter().cycle());
        while !rest.is_empty() {
            let room = frames.room().len();
            prop_assert!(room > 0);
            let (piece, behind) = rest.split_at(sizes.next().unwrap().min(rest.len()).min(room));
            put(&mut frames, piece);
            rest = behind;
            while let Some(message) = frames.next().unwrap() {
                found.push(message);
            }
        }
        prop_assert_eq!(found, messages);
        prop_assert!(frames.wiped(), "keys are left behind");
    }

    #[test]
    fn nothing_panics(bytes in vec(any::<u8>(), 0..2000), message in down()) {
        let mut frames = Frames::new();
        put(&mut frames, &encode(&message).unwrap());
        put(&mut frames, &bytes);
        prop_assert_eq!(frames.next::<Down>(), Ok(Some(message)));
        while let Ok(Some(_)) = frames.next::<Down>() {}
    }
}

fn long(length: usize) -> Up {
    Up::Ike(Relayed {
        local: "192.0.2.1:500".parse().unwrap(),
        remote: "198.51.100.1:500".parse().unwrap(),
        data: vec![7; length],
    })
}

#[test]
fn a_long_message_gets_room_and_gives_it_back() {
    let mut frames = Frames::new();
    let usual = frames.room().len();
    let (short, long) = (long(10), long(LONGEST - 100));
    let bytes = [&short, &long, &short]
        .map(|m| encode(m).unwrap().to_vec())
        .concat();
    let mut found = Vec::<Up>::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(frames.room().len().min(rest.len()));
        put(&mut frames, piece);
        rest = behind;
        while let Some(message) = frames.next().unwrap() {
            found.push(message);
        }
    }
    assert_eq!(found, [short.clone(), long, short]);
    assert_eq!(frames.room().len(), usual);
}

#[test]
fn too_long_a_message_is_refused_by_its_length() {
    let mut frames = Frames::new();
    let found = LONGEST + 1;
    put(&mut frames, &u32::try_from(found).unwrap().to_be_bytes());
    assert_eq!(frames.next::<Up>(), Err(WireError::TooLong { found }));
}
