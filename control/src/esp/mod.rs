//! Room `esp`: sealing and opening of ESP packets in tunnel mode (RFC 4303) with AES-GCM (RFC 4106)
//! and ChaCha20-Poly1305 (RFC 7634), sequence numbers, replay windows, and what tunnelling does to IP
//! headers. No I/O, no clock, no allocation once an SA is made: every function works in place on a
//! buffer of the caller.
//!
//! Sending: [`Marks::of`] the inner packet, [`OutboundSa::seal`], [`Outer::write`].
//! Receiving: [`InboundSa::open`], [`check_inner`], [`apply_ecn`], [`decrement_ttl`].

mod aead;
mod inbound;
mod inner;
#[cfg(feature = "ipsec-mb")]
mod ipsec_mb;
mod key;
mod outbound;
mod outer;
mod refused;
mod replay;
mod rewrite;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use aead::{Aead, Backend, Cipher, NONCE_LEN, TAG_LEN, WrongKeyLength};
pub use inbound::{InboundSa, Opened};
pub use inner::{Inner, check_inner, parse_inner};
pub(crate) use key::decode as decode_hex;
pub use key::{BadSecret, Key, Salt, Secret};
pub use outbound::OutboundSa;
pub use outer::{DfRule, DscpRule, MixedFamilies, Outer, OuterConfig, UdpEncap};
pub use refused::Refused;
pub use replay::{BadWindow, Window};
pub use rewrite::{Ecn, Marks, apply_ecn, decapsulate_ecn, decrement_ttl};

/// SPI (4) and sequence number (4), RFC 4303 section 2.
pub const ESP_HEADER_LEN: usize = 8;
/// The explicit IV, RFC 4106 section 3.1 and RFC 7634 section 2.
pub const IV_LEN: usize = 8;
/// Bytes that [`OutboundSa::seal`] writes in front of the inner packet.
pub const SEAL_HEADROOM: usize = ESP_HEADER_LEN + IV_LEN;
/// The most bytes that [`OutboundSa::seal`] writes behind the inner packet: 3 of padding, pad
/// length, next header, ICV.
pub const SEAL_TAILROOM: usize = 3 + 2 + TAG_LEN;

/// Next header: an IPv4 packet.
pub const NEXT_IPV4: u8 = 4;
/// Next header: an IPv6 packet.
pub const NEXT_IPV6: u8 = 41;
/// Next header: a dummy packet, RFC 4303 section 2.6.
pub const NEXT_DUMMY: u8 = 59;

/// Length in bytes of the ESP packet, from SPI to ICV, that seals `inner` bytes.
#[must_use]
pub const fn sealed_len(inner: usize) -> usize {
    SEAL_HEADROOM + (inner + 2).next_multiple_of(4) + TAG_LEN
}
