mod set;
mod words;

use super::*;

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts
        .iter()
        .map(|text| text.parse().expect("a prefix"))
        .collect()
}

pub(super) fn sa(spi: u32, key: u8) -> SaSpec {
    SaSpec::new(
        spi,
        Cipher::Aes128Gcm,
        Key::new(&[key; 16]).expect("16 bytes"),
        [1; 4].into(),
    )
}

pub(super) fn session(origin: Producer, number: u32) -> SessionSpec {
    let mut spec = SessionSpec::new(address("192.0.2.1"), address("198.51.100.7"), origin);
    spec.inbound = Some(sa(0x1000 + number, number as u8 * 2));
    spec.outbound = Some(sa(0x2000 + number, number as u8 * 2 + 1));
    spec.remote_inner = nets(&["10.99.0.7/32"]).into();
    spec.local_inner = nets(&["10.0.0.0/8"]).into();
    spec
}

pub(super) fn manual(number: u32) -> SessionSpec {
    session(Producer::Manual, number)
}
