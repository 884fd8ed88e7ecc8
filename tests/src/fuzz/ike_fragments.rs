//! Parts of IKE messages: the place of each is read, opened with a key, and put together with others
//! of any number, total and length.

use std::time::Instant;

use evergate::ike::crypto::AeadKey;
use evergate::ike::fragment::{self, Added, Reassembly};
use evergate::ike::payload::header::{HEADER, Header};
use evergate::ike::payload::skf::{self, Place};
use evergate::ike::{IkeCipher, Secret};
use zeroize::Zeroizing;

pub fn ike_fragments(data: &[u8]) {
    let material = Secret::new(&[7; 36]);
    let key = AeadKey::new(IkeCipher::Aes256Gcm16, &material).expect("the right length");
    let read = Header::parse(data);
    if let Ok(header) = &read {
        // Nobody guesses a tag.
        assert!(skf::open(header, data, &key).is_err());
    }
    let _ = Place::parse(data);

    let header = Header {
        spi_i: 1,
        spi_r: 2,
        next: 0,
        version: 0x20,
        exchange: 35,
        initiator: true,
        response: false,
        message_id: 1,
    };
    // A message that is cut comes back.
    let room = 130 + usize::from(data.first().copied().unwrap_or(0));
    let plain = Zeroizing::new(data.to_vec());
    let cut = fragment::seal(header, 33, plain, &key, &mut 0, Some(room)).expect("short");
    if cut.len() > 1 {
        let mut whole = Reassembly::new(&header, Instant::now(), fragment::MOST_BYTES);
        let mut complete = None;
        for datagram in cut.iter().rev() {
            let place = Place::parse(datagram).expect("ours");
            let header = Header::parse(datagram).expect("ours");
            let (first, part) = skf::open(&header, datagram, &key).expect("ours");
            if let Added::Complete(_, all, _) = whole.add(place, datagram, first, part) {
                complete = Some(all.to_vec());
            }
        }
        match cut.len() <= usize::from(fragment::MOST_FRAGMENTS) {
            true => assert_eq!(complete.as_deref(), Some(data)),
            false => assert_eq!(complete, None),
        }
    }
    // Parts that say anything of themselves keep within the bounds.
    let most = 4096;
    let mut any = Reassembly::new(&header, Instant::now(), most);
    for said in data.chunks_exact(6) {
        let word = |at: usize| u16::from_be_bytes([said[at], said[at + 1]]);
        let (total, length) = (word(2).max(1), usize::from(word(4)) % 2048);
        let number = word(0).clamp(1, total);
        let part = Zeroizing::new(vec![0; length]);
        match any.add(Place { number, total }, &[0; HEADER], 33, part) {
            Added::Waits => {}
            Added::Complete(_, all, _) => assert!(all.len() <= most),
            Added::TooMuch => break,
        }
        assert!(any.bytes() <= most);
    }
}
