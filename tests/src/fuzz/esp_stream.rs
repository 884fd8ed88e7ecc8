//! Packets of a peer on their way: reordered, repeated, damaged, cut and forged. Each is accepted once
//! at most, and only as it was sent.

use std::collections::BTreeSet;

use evergate::esp::{
    Aead, Backend, Cipher, InboundSa, Key, NEXT_DUMMY, NEXT_IPV4, OutboundSa, Salt, Window,
};

use super::script::Script;

const HEADROOM: usize = 64;

struct Sent {
    bytes: Vec<u8>,
    inner: Vec<u8>,
    dummy: bool,
}

/// An IPv4 packet with so many bytes of payload.
fn packet(payload: u8) -> Vec<u8> {
    let length = 20 + u16::from(payload);
    let mut packet = vec![payload; usize::from(length)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

/// Byte 0: extended sequence numbers, cipher, and where the sequence begins.
pub fn esp_stream(data: &[u8]) {
    let mut script = Script::new(data);
    let how = script.byte();
    let esn = how & 1 == 1;
    let cipher = match how >> 1 & 1 {
        0 => Cipher::Aes128Gcm,
        _ => Cipher::ChaCha20Poly1305,
    };
    let aead = || {
        let key = Key::new(&[7; 32][..cipher.key_len()]).expect("the key fits");
        Aead::new(Backend::RustCrypto, cipher, &key).expect("the key fits its cipher")
    };
    let salt = || Salt::from([1, 2, 3, 4]);
    // Near the ends of both halves of the numbers too.
    let begin = match how >> 2 & 3 {
        0 => 0,
        1 => u64::from(u32::MAX) - 3,
        2 if esn => (5 << 32) - 3,
        3 if esn => u64::MAX - 3,
        _ => 2000,
    };
    let mut window = Window::new(Window::MIN).expect("the narrowest window");
    window.resume(begin);
    let mut inbound = InboundSa::new(0x1000, aead(), salt(), esn, window);
    let mut outbound = OutboundSa::new(0x1000, aead(), salt(), esn, begin);
    let mut sent: Vec<Sent> = Vec::new();
    let mut accepted = BTreeSet::new();
    while !script.over() {
        let what = script.byte();
        let which = usize::from(script.byte());
        if what & 3 == 0 || sent.is_empty() {
            // Some are sent that never arrive.
            if what & 4 != 0 {
                let ahead = outbound.sequence().saturating_add(u64::from(script.word()));
                outbound.skip_to(ahead);
            }
            let dummy = what & 8 != 0;
            let inner = packet(which as u8);
            let mut buf = vec![0; HEADROOM + inner.len() + HEADROOM];
            buf[HEADROOM..HEADROOM + inner.len()].copy_from_slice(&inner);
            let next = if dummy { NEXT_DUMMY } else { NEXT_IPV4 };
            let range = HEADROOM..HEADROOM + inner.len();
            if let Ok(sealed) = outbound.seal(&mut buf, range, next) {
                let bytes = buf[sealed].to_vec();
                sent.push(Sent {
                    bytes,
                    inner,
                    dummy,
                });
            }
            continue;
        }
        let number = which % sent.len();
        let original = &sent[number];
        let mut bytes = original.bytes.clone();
        match what & 3 {
            // As it was sent, perhaps not for the first time.
            1 => {}
            2 => {
                let at = usize::from(script.word()) % bytes.len();
                bytes[at] ^= script.byte();
            }
            _ => bytes.truncate(usize::from(script.word())),
        }
        let whole = bytes == original.bytes;
        let before = inbound.sequence();
        let end = bytes.len();
        match inbound.open(&mut bytes, 0..end) {
            Ok(opened) => {
                assert!(whole, "a damaged packet was accepted");
                assert!(accepted.insert(number), "a packet was accepted twice");
                assert_eq!(opened.is_dummy(), original.dummy);
                if !original.dummy {
                    assert_eq!(bytes[opened.inner], original.inner[..]);
                }
            }
            // A stranger's packet moves nothing.
            Err(_) => assert_eq!(inbound.sequence(), before),
        }
    }
    assert_eq!(inbound.packets(), accepted.len() as u64);
}
