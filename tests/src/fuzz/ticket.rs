//! A ticket (RFC 5723) as a client sends it, and the state inside one that opens.

use evergate::fuzzing::{opens_ticket, ticket_state};
use evergate::ike::TicketKey;

pub fn ticket(data: &[u8]) {
    let key = || TicketKey::new(&[7; 32]).expect("32 bytes are a key");
    // Nobody guesses a tag, not even with the right name of the key.
    assert!(!opens_ticket(key(), data), "a forged ticket opens");
    // A gateway that shares the ticket key has sealed it. What is read is written so that it can be
    // read again, and then the same.
    if let Some(written) = ticket_state(data) {
        assert_eq!(ticket_state(&written).as_ref(), Some(&written));
    }
}
