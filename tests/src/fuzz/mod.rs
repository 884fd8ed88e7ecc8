//! The bodies of the fuzz targets: each takes any bytes, and panics if something does not hold. The
//! targets of `fuzz/` call them for libFuzzer; `tests/fuzz_corpus.rs` with the corpus, and changes of
//! it, wherever there is a stable compiler.

mod esp_packet;
mod heartbeat;
mod ike_fragments;
mod ike_message;
mod ike_proof;
mod ike_proposals;
mod ike_session;
mod packet_parser;
mod policy;
mod sa_words;

pub use esp_packet::esp_packet;
pub use heartbeat::heartbeat;
pub use ike_fragments::ike_fragments;
pub use ike_message::ike_message;
pub use ike_proof::ike_proof;
pub use ike_proposals::ike_proposals;
pub use ike_session::ike_session;
pub use packet_parser::packet_parser;
pub use policy::policy;
pub use sa_words::sa_words;

/// The body of a target.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("esp_packet", esp_packet),
    ("heartbeat", heartbeat),
    ("ike_fragments", ike_fragments),
    ("ike_message", ike_message),
    ("ike_proof", ike_proof),
    ("ike_proposals", ike_proposals),
    ("ike_session", ike_session),
    ("packet_parser", packet_parser),
    ("policy", policy),
    ("sa_words", sa_words),
];
