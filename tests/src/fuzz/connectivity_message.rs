//! What a datagram between edges and authorities says, once it is opened.

use evergate::cluster::connectivity::{HEADER, decode, encode};

pub fn connectivity_message(data: &[u8]) {
    if let Ok(message) = decode(data) {
        let written = encode(&message).expect("what was read can be written");
        assert_eq!(decode(&written[HEADER..]), Ok(message));
    }
}
