//! A datagram on port 500: the parser reads and writes it back the same.

use evergate::ike::payload::header::{HEADER, Header};
use evergate::ike::payload::skf::Place;
use evergate::ike::payload::{parse_chain, write_chain};

pub fn ike_message(data: &[u8]) {
    if let (Ok(header), Some(body)) = (Header::parse(data), data.get(HEADER..))
        && let Ok(payloads) = parse_chain(header.next, body)
    {
        // Reserved bits, foreign attributes and selectors are left out on reading; what is written
        // then is read and written the same.
        let mut out = Vec::new();
        let first = write_chain(&payloads, &mut out).expect("what was read can be written");
        let again = parse_chain(first, &out).expect("what was written can be read");
        let mut same = Vec::new();
        assert_eq!(write_chain(&again, &mut same), Ok(first));
        assert_eq!(out, same);
    }
    let _ = Place::parse(data);
}
