//! An independent ESP implementation, scapy's, opens what we seal and seals what we open.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use evergate::esp::{
    Aead, Backend, Cipher, InboundSa, Key, Marks, NEXT_IPV4, NEXT_IPV6, OutboundSa, Outer,
    OuterConfig, Refused, Salt, UdpEncap, Window,
};
use serde_json::{Value, json};

const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scapy/esp.py");
const INSTALL: &str = "install the Debian packages python3-scapy and python3-cryptography";

const HEADROOM: usize = 128;
const SALT: [u8; 4] = [0xCA, 0xFE, 0xBA, 0xBE];
const PORTS: UdpEncap = UdpEncap {
    local_port: 4500,
    remote_port: 4500,
};

/// A python process that answers one request at a time.
struct Scapy {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Scapy {
    fn start() -> Self {
        let child = Command::new(PYTHON)
            .args(["-W", "ignore", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child =
            child.unwrap_or_else(|error| panic!("{PYTHON} does not start ({error}): {INSTALL}"));
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut scapy = Self {
            child,
            requests,
            answers,
        };
        let hello = scapy.answer();
        assert_eq!(
            hello,
            json!({"ready": true}),
            "scapy with AES-GCM and ChaCha20-Poly1305 is missing: {INSTALL}"
        );
        scapy
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests, "{request}").expect("python listens");
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("python answers");
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("python ended or said {line:?} ({error}): {INSTALL}"))
    }
}

impl Drop for Scapy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One way to send: cipher, extended sequence numbers, outer IP version, UDP or not.
#[derive(Clone, Copy, Debug)]
struct Way {
    cipher: Cipher,
    esn: bool,
    outer6: bool,
    udp: bool,
    /// The sequence number before the first packet.
    sequence: u64,
}

impl Way {
    fn all() -> Vec<Self> {
        let mut ways = Vec::new();
        for cipher in Cipher::ALL {
            for (esn, sequence) in [(false, 0), (true, 0), (true, (7 << 32) - 20)] {
                for (outer6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
                    ways.push(Self {
                        cipher,
                        esn,
                        outer6,
                        udp,
                        sequence,
                    });
                }
            }
        }
        ways
    }

    fn key(self) -> Vec<u8> {
        (0..self.cipher.key_len())
            .map(|at| at as u8 ^ 0xA5)
            .collect()
    }

    fn aead(self, backend: Backend) -> Aead {
        let key = Key::new(&self.key()).expect("an allowed length");
        Aead::new(backend, self.cipher, &key).expect("the right length")
    }

    fn addresses(self) -> [&'static str; 2] {
        match self.outer6 {
            false => ["192.0.2.1", "198.51.100.7"],
            true => ["2001:db8::1", "2001:db8:7::7"],
        }
    }

    fn outer(self) -> Outer {
        let [local, remote] = self
            .addresses()
            .map(|text| text.parse::<IpAddr>().expect("an address"));
        let config = OuterConfig::new(local, remote, self.udp.then_some(PORTS));
        Outer::new(&config).expect("one IP version")
    }

    fn outer_len(self) -> usize {
        self.outer().header_len()
    }

    fn request(self, what: &str, sequence: u64, packet: (&str, &[u8])) -> Value {
        let mut request = json!({
            "do": what,
            "spi": 0x1000,
            "cipher": match self.cipher {
                Cipher::Aes128Gcm | Cipher::Aes256Gcm => "AES-GCM",
                Cipher::ChaCha20Poly1305 => "CHACHA20-POLY1305",
            },
            "key": hex(&[&self.key()[..], &SALT].concat()),
            "esn": self.esn,
            "low": sequence & 0xFFFF_FFFF,
            "high": sequence >> 32,
            "outer": self.addresses(),
            "udp": self.udp.then_some([PORTS.local_port, PORTS.remote_port]),
        });
        request[packet.0] = hex(packet.1).into();
        request
    }
}

fn sizes() -> impl Iterator<Item = usize> {
    (48..56).chain([
        64, 65, 127, 128, 129, 255, 512, 1280, 1399, 1400, 1421, 9000,
    ])
}

/// A UDP packet of IPv4 or IPv6.
fn inner(v6: bool, len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
    let (header, udp) = packet.split_at_mut(if v6 { 40 } else { 20 });
    udp[..4].copy_from_slice(&[0x30, 0x39, 0xD4, 0x31]);
    let udp_len = u16::try_from(udp.len()).expect("64 KiB");
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    udp[6..8].fill(0);
    header.fill(0);
    if v6 {
        header[..4].copy_from_slice(&[0x6B, 0x90, 0, 0]);
        header[4..6].copy_from_slice(&u16::try_from(len - 40).expect("64 KiB").to_be_bytes());
        header[6..8].copy_from_slice(&[17, 64]);
        header[8] = 0xFD;
        header[24] = 0xFD;
        header[39] = 1;
    } else {
        header[..2].copy_from_slice(&[0x45, 0xB9]);
        header[2..4].copy_from_slice(&u16::try_from(len).expect("64 KiB").to_be_bytes());
        header[8..10].copy_from_slice(&[64, 17]);
        header[12..20].copy_from_slice(&[10, 99, 0, 7, 10, 0, 0, 1]);
        let sum: u32 = header
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text
        .as_str()
        .unwrap_or_else(|| panic!("hexadecimal digits, found {text}"));
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn scapy_opens_what_we_seal() {
    let mut scapy = Scapy::start();
    for way in Way::all() {
        let mut outer = way.outer();
        let mut sa = OutboundSa::new(
            0x1000,
            way.aead(Backend::Ring),
            SALT.into(),
            way.esn,
            way.sequence,
        );
        for (len, v6) in sizes().flat_map(|len| [(len, false), (len, true)]) {
            let plain = inner(v6, len);
            let mut buf = vec![0; HEADROOM + len + 64];
            let at = HEADROOM..HEADROOM + len;
            buf[at.clone()].copy_from_slice(&plain);
            let marks = Marks::of(&plain);
            let next_header = if v6 { NEXT_IPV6 } else { NEXT_IPV4 };
            let esp = sa.seal(&mut buf, at, next_header).expect("room");
            let packet = outer.write(&mut buf, esp, marks).expect("room");

            let sequence = sa.sequence();
            let answer =
                scapy.ask(&way.request("open", sequence, ("packet", &buf[packet.clone()])));
            let context = format!("{way:?}, {len} bytes, IPv6 {v6}, number {sequence}");
            assert!(unhex(&answer["inner"]) == plain, "{context}: {answer}");
            assert_eq!(answer["version"], if v6 { 6 } else { 4 }, "{context}");
            // Lengths and checksums of the outer headers as scapy computes them.
            assert_eq!(answer["rebuilt"], hex(&buf[packet.clone()]), "{context}");

            if len == 64 {
                buf[packet.end - 17] ^= 1;
                let request = way.request("open", sequence, ("packet", &buf[packet]));
                let answer = scapy.ask(&request);
                assert!(
                    answer["refused"].is_string(),
                    "{context}, damaged: {answer}"
                );
            }
        }
    }
}

#[test]
fn we_open_what_scapy_seals() {
    let mut scapy = Scapy::start();
    for way in Way::all() {
        let mut receivers = [Backend::Ring, Backend::RustCrypto].map(|backend| {
            let mut window = Window::new(Window::DEFAULT).expect("an allowed size");
            window.resume(way.sequence);
            InboundSa::new(0x1000, way.aead(backend), Salt::from(SALT), way.esn, window)
        });
        let mut sequence = way.sequence;
        for (len, v6) in sizes().flat_map(|len| [(len, false), (len, true)]) {
            sequence += 1;
            let plain = inner(v6, len);
            let answer = scapy.ask(&way.request("seal", sequence, ("inner", &plain)));
            let packet = unhex(&answer["packet"]);
            for sa in &mut receivers {
                let mut buf = packet.clone();
                let context = format!("{way:?}, {len} bytes, IPv6 {v6}, number {sequence}");
                let opened = sa.open(&mut buf, way.outer_len()..packet.len());
                let opened = opened.unwrap_or_else(|refused| panic!("{context}: {refused}"));
                assert!(buf[opened.inner] == plain, "{context}");
                assert_eq!(opened.next_header, if v6 { NEXT_IPV6 } else { NEXT_IPV4 });
                assert_eq!(opened.sequence, sequence);

                let again = sa.open(&mut packet.clone(), way.outer_len()..packet.len());
                assert_eq!(again, Err(Refused::Replayed), "{context}");
            }
        }
    }
}
