//! The bodies of the fuzz targets: each takes any bytes, and panics if something does not hold. The
//! targets of `fuzz/` call them for libFuzzer; `tests/fuzz_corpus.rs` with the corpus, and changes of
//! it, wherever there is a stable compiler.

mod api_answer;
mod api_request;
mod cluster_message;
mod cluster_stream;
mod config;
mod connectivity;
mod connectivity_message;
mod esp_packet;
mod esp_stream;
mod failover;
mod heartbeat;
mod icmp_quote;
mod ike_certificate;
mod ike_eap;
mod ike_fragments;
mod ike_message;
mod ike_peer;
mod ike_proof;
mod ike_proposals;
mod ike_responder;
mod ike_session;
mod ike_snapshot;
mod inner_packet;
mod neighbour_frame;
mod neighbours;
mod netlink;
mod owner;
mod packet_parser;
mod policy;
mod sa_words;
mod script;
mod ticket;
mod verdicts;

pub use api_answer::api_answer;
pub use api_request::api_request;
pub use cluster_message::cluster_message;
pub use cluster_stream::cluster_stream;
pub use config::config;
pub use connectivity::connectivity;
pub use connectivity_message::connectivity_message;
pub use esp_packet::esp_packet;
pub use esp_stream::esp_stream;
pub use failover::failover;
pub use heartbeat::heartbeat;
pub use icmp_quote::icmp_quote;
pub use ike_certificate::ike_certificate;
pub use ike_eap::ike_eap;
pub use ike_fragments::ike_fragments;
pub use ike_message::ike_message;
pub use ike_peer::ike_peer;
pub use ike_proof::ike_proof;
pub use ike_proposals::ike_proposals;
pub use ike_responder::ike_responder;
pub use ike_session::ike_session;
pub use ike_snapshot::ike_snapshot;
pub use inner_packet::inner_packet;
pub use neighbour_frame::neighbour_frame;
pub use neighbours::neighbours;
pub use netlink::netlink;
pub use packet_parser::packet_parser;
pub use policy::policy;
pub use sa_words::sa_words;
pub use ticket::ticket;
pub use verdicts::verdicts;

/// The body of a target.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("api_answer", api_answer),
    ("api_request", api_request),
    ("cluster_message", cluster_message),
    ("cluster_stream", cluster_stream),
    ("config", config),
    ("connectivity", connectivity),
    ("connectivity_message", connectivity_message),
    ("esp_packet", esp_packet),
    ("esp_stream", esp_stream),
    ("failover", failover),
    ("heartbeat", heartbeat),
    ("icmp_quote", icmp_quote),
    ("ike_certificate", ike_certificate),
    ("ike_eap", ike_eap),
    ("ike_fragments", ike_fragments),
    ("ike_message", ike_message),
    ("ike_peer", ike_peer),
    ("ike_proof", ike_proof),
    ("ike_proposals", ike_proposals),
    ("ike_responder", ike_responder),
    ("ike_session", ike_session),
    ("ike_snapshot", ike_snapshot),
    ("inner_packet", inner_packet),
    ("neighbour_frame", neighbour_frame),
    ("neighbours", neighbours),
    ("netlink", netlink),
    ("packet_parser", packet_parser),
    ("policy", policy),
    ("sa_words", sa_words),
    ("ticket", ticket),
    ("verdicts", verdicts),
];
