//! Time to seal and to open one ESP packet in place, by inner length, cipher and library. The
//! packets lie in one array of frames as a worker's do, so caches behave alike.

use std::net::IpAddr;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use evergate::esp::{
    Aead, Backend, Cipher, InboundSa, Key, Marks, NEXT_IPV4, OutboundSa, Outer, OuterConfig, Salt,
    Window, check_inner,
};

const HEADROOM: usize = 64;
const SPI: u32 = 0x1000;
const SIZES: [usize; 4] = [64, 256, 512, 1400];
const CIPHERS: [Cipher; 3] = Cipher::ALL;

fn main() {
    divan::main();
}

fn aead(backend: Backend, cipher: Cipher) -> Aead {
    let key = Key::new(&vec![7; cipher.key_len()]).expect("an allowed length");
    Aead::new(backend, cipher, &key).expect("the right length")
}

fn sender(backend: Backend, cipher: Cipher) -> OutboundSa {
    OutboundSa::new(SPI, aead(backend, cipher), Salt::from([1; 4]), true, 0)
}

fn receiver(backend: Backend, cipher: Cipher) -> InboundSa {
    let window = Window::new(Window::DEFAULT).expect("an allowed size");
    InboundSa::new(SPI, aead(backend, cipher), Salt::from([1; 4]), true, window)
}

fn frame(size: usize) -> [u8; 2048] {
    let mut frame = [0; 2048];
    let packet = &mut frame[HEADROOM..HEADROOM + size];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..20].copy_from_slice(&[10, 99, 0, 7, 10, 0, 0, 1]);
    frame
}

fn seal(bencher: Bencher, backend: Backend, cipher: Cipher, size: usize) {
    let mut sa = sender(backend, cipher);
    let mut frame = frame(size);
    bencher
        .counter(BytesCount::new(size))
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| {
            black_box(sa.seal(&mut frame, HEADROOM..HEADROOM + size, NEXT_IPV4)).expect("room")
        });
}

fn open(bencher: Bencher, backend: Backend, cipher: Cipher, size: usize) {
    let (mut out, mut inb) = (sender(backend, cipher), receiver(backend, cipher));
    let plain = frame(size);
    bencher
        .counter(BytesCount::new(size))
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            let mut frame = plain;
            let esp = out
                .seal(&mut frame, HEADROOM..HEADROOM + size, NEXT_IPV4)
                .expect("room");
            (frame, esp)
        })
        .bench_local_refs(|(frame, esp)| inb.open(frame, esp.clone()).expect("authentic"));
}

#[divan::bench(args = SIZES, consts = [0, 1, 2])]
fn seal_ring<const CIPHER: usize>(bencher: Bencher, size: usize) {
    seal(bencher, Backend::Ring, CIPHERS[CIPHER], size);
}

#[divan::bench(args = SIZES, consts = [0, 1, 2])]
fn seal_rust_crypto<const CIPHER: usize>(bencher: Bencher, size: usize) {
    seal(bencher, Backend::RustCrypto, CIPHERS[CIPHER], size);
}

#[divan::bench(args = SIZES, consts = [0, 1, 2])]
fn open_ring<const CIPHER: usize>(bencher: Bencher, size: usize) {
    open(bencher, Backend::Ring, CIPHERS[CIPHER], size);
}

#[divan::bench(args = SIZES, consts = [0, 1, 2])]
fn open_rust_crypto<const CIPHER: usize>(bencher: Bencher, size: usize) {
    open(bencher, Backend::RustCrypto, CIPHERS[CIPHER], size);
}

/// The library alone, for comparison: what sealing adds is the difference.
#[divan::bench(args = SIZES)]
fn aead_alone(bencher: Bencher, size: usize) {
    let mut aead = aead(Backend::Ring, Cipher::Aes256Gcm);
    let mut frame = frame(size);
    let data = &mut frame[HEADROOM..HEADROOM + size + 4];
    let mut counter = 0_u64;
    bencher
        .counter(BytesCount::new(size))
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| {
            counter += 1;
            let mut nonce = [1; 12];
            nonce[4..].copy_from_slice(&counter.to_be_bytes());
            black_box(aead.seal_in_place(&nonce, &[0; 12], data)).expect("short")
        });
}

/// The outer header alone.
#[divan::bench]
fn outer_write(bencher: Bencher) {
    let [local, remote] =
        ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().expect("an address"));
    let mut outer = Outer::new(&OuterConfig::new(local, remote, None)).expect("one family");
    let mut frame = frame(64);
    let marks = Marks::of(&frame[HEADROOM..]);
    bencher.bench_local(|| black_box(outer.write(&mut frame, 64..164, marks)).expect("room"));
}

/// The check of the inner addresses alone, for a session that owns one address.
#[divan::bench]
fn inner_check(bencher: Bencher) {
    let frame = frame(64);
    let owned = ["10.99.0.7/32".parse().expect("a prefix")];
    let allowed = ["10.0.0.0/8".parse().expect("a prefix")];
    bencher.bench_local(|| {
        check_inner(black_box(&frame[HEADROOM..HEADROOM + 64]), &owned, &allowed).expect("allowed")
    });
}
