//! An ESP packet, and what it holds once opened: the first byte says which of them.

use evergate::esp::{
    Aead, Backend, Cipher, InboundSa, Key, Marks, OutboundSa, Salt, Window, apply_ecn,
    decrement_ttl, parse_inner,
};

const HEADROOM: usize = 64;

fn aead() -> Aead {
    let key = Key::new(&[7; 16]).expect("16 bytes are a key");
    Aead::new(Backend::RustCrypto, Cipher::Aes128Gcm, &key).expect("the key fits its cipher")
}

pub fn esp_packet(data: &[u8]) {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    let salt = || Salt::from([1, 2, 3, 4]);
    let window = Window::new(Window::MIN).expect("the narrowest window");
    let mut inbound = InboundSa::new(0x1000, aead(), salt(), which & 1 == 1, window);
    if which & 2 == 0 {
        // Bytes from the network, and a forger has no key.
        let mut buf = data.to_vec();
        let end = buf.len();
        assert!(inbound.open(&mut buf, 0..end).is_err());
        return;
    }
    // The inside of a packet of a peer that has one.
    let mut packet = data.to_vec();
    let _ = parse_inner(&packet);
    let _ = Marks::of(&packet);
    let _ = apply_ecn(&mut packet, *which);
    let _ = decrement_ttl(&mut packet);
    let mut outbound = OutboundSa::new(0x1000, aead(), salt(), which & 1 == 1, 0);
    let mut buf = vec![0; HEADROOM];
    buf.extend_from_slice(&packet);
    buf.resize(buf.len() + HEADROOM, 0);
    if let Ok(sealed) = outbound.seal(&mut buf, HEADROOM..HEADROOM + packet.len(), which >> 2) {
        let _ = inbound.open(&mut buf, sealed);
    }
}
