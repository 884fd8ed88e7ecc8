//! Makes the corpus of the fuzz targets of recorded exchanges: `corpus RECORDINGS CORPUS`. Below
//! RECORDINGS each folder has a `capture.pcapng`, the keys of one node as `evergate run --keylog`
//! writes them, and what else lies there of its configuration. `cargo xtask corpus` makes them and
//! calls this.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::Instant;

use evergate::esp::{Aead, Backend, Cipher, InboundSa, Key, Salt, Window};
use evergate::ike::crypto::{AeadKey, sha256};
use evergate::ike::fragment::{Added, MOST_BYTES, Reassembly};
use evergate::ike::payload::header::{Header, exchange};
use evergate::ike::payload::skf::{self, Place};
use evergate::ike::payload::{Payload, kind, parse_chain, sk};
use evergate::ike::{EspProposal, IkeCipher, IkeProposal};
use evergate_common::heartbeat;

/// Longer ones say nothing that shorter ones do not, and a fuzzer works slowly on them.
const MOST_OF_ONE: usize = 2048;

/// What the text targets begin with, beside what a node offers and is configured with.
const PROPOSALS: &[&str] = &[
    "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha256-prfsha384-prfsha512-x25519-ecp256-ecp384",
    "aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none",
    "aes256gcm16-chacha20poly1305-esn-noesn-x25519",
];
const SA_WORDS: &[&str] = &[
    "in spi 0x1000 key 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223 \
     sel 10.99.0.7 10.0.0.0/8 local 192.0.2.1 remote 198.51.100.7",
    "in spi 4096 cipher aes-128-gcm key 0x000102030405060708090a0b0c0d0e0f10111213 window 1024 seq 7 out \
     spi 0x2000 cipher chacha20-poly1305 key \
     0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212224 esn off sel fd00::/8 \
     2001:db8::1,10.0.0.0/8 local 192.0.2.1 remote 198.51.100.7 encap udp 4500 4500 peer gw-a.example \
     hbkey 0x000102030405060708090a0b0c0d0e0f",
];

/// The corpus: for each target, what it is fed, by what it is an example of.
#[derive(Default)]
struct Corpus(BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>);

impl Corpus {
    /// The first example of its kind stays.
    fn add(&mut self, target: &'static str, kind: impl Into<String>, data: impl Into<Vec<u8>>) {
        let mut data = data.into();
        data.truncate(MOST_OF_ONE);
        let examples = self.0.entry(target).or_default();
        examples.entry(kind.into()).or_insert(data);
    }

    /// A whole IKE datagram.
    fn add_ike(&mut self, kind: &str, datagram: &[u8]) {
        for target in ["ike_message", "ike_responder"] {
            self.add(target, kind, datagram);
        }
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(recordings), Some(out)) = (words.next(), words.next()) else {
        eprintln!("usage: corpus RECORDINGS CORPUS");
        std::process::exit(2);
    };
    let mut corpus = Corpus::default();
    for (n, text) in PROPOSALS.iter().enumerate() {
        corpus.add("ike_proposals", format!("{n}"), *text);
    }
    corpus.add("ike_proposals", "ike", IkeProposal::default().to_string());
    corpus.add("ike_proposals", "esp", EspProposal::default().to_string());
    for (n, text) in SA_WORDS.iter().enumerate() {
        corpus.add("sa_words", format!("{n}"), *text);
    }
    let folders = fs::read_dir(&recordings).expect("the folder of recordings");
    let folders: BTreeSet<_> = folders
        .map(|entry| entry.expect("a folder").path())
        .collect();
    for folder in folders {
        read(&mut corpus, &folder);
    }
    for (target, examples) in &corpus.0 {
        let dir = Path::new(&out).join(target);
        fs::create_dir_all(&dir).expect("the folder of a target");
        // What a fuzzer has found stays.
        for old in fs::read_dir(&dir).expect("it was made") {
            let old = old.expect("a file").path();
            if old
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("real-"))
            {
                fs::remove_file(old).expect("a file of an earlier run");
            }
        }
        let different: BTreeSet<&Vec<u8>> = examples.values().collect();
        let bytes: usize = different.iter().map(|data| data.len()).sum();
        for data in &different {
            let hash = sha256(&[&data[..]]);
            let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(dir.join(format!("real-{hash}")), data).expect("a file of the corpus");
        }
        println!("{target}: {} files, {bytes} bytes", different.len());
    }
}

/// One recording.
fn read(corpus: &mut Corpus, folder: &Path) {
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let policy = text("policy.conf");
    if !policy.is_empty() {
        corpus.add("policy", policy.clone(), policy);
    }
    let mut ike = IkeReader::new(&text("ikev2_decryption_table"));
    let mut esp = EspReader::new(&text("esp_sa"));
    let capture = fs::read(folder.join("capture.pcapng")).expect("a recording");
    for frame in frames(&capture) {
        let Some(packet) = Packet::of(frame) else {
            corpus.add(
                "packet_parser",
                format!("other {}", frame.len().min(64)),
                frame,
            );
            continue;
        };
        let shape = format!(
            "{:?} {} {}",
            packet.carries,
            packet.version,
            frame.len() / 256
        );
        match packet.carries {
            Carries::Ike => {
                corpus.add("packet_parser", shape, frame);
                ike.take(corpus, &name, packet.payload);
            }
            Carries::Esp if packet.payload.starts_with(&[0xff; 4]) => {
                corpus.add("packet_parser", format!("heartbeat {shape}"), frame);
                corpus.add("heartbeat", format!("frame {shape}"), frame);
                corpus.add("heartbeat", format!("alone {shape}"), packet.payload);
                // The same as the session of the target would have sealed it.
                if let Some(mut keyed) = heartbeat::decode(packet.payload) {
                    keyed.mac = keyed.expected_mac(&[9; 16]);
                    let answer = heartbeat::is_answer(keyed.sequence);
                    let what = format!("authentic {answer}");
                    corpus.add("heartbeat", what, keyed.to_bytes());
                }
            }
            Carries::Esp => {
                corpus.add("packet_parser", shape, frame);
                esp.take(corpus, packet.payload);
            }
            Carries::Other(_) => corpus.add("packet_parser", shape, frame),
        }
    }
}

/// The frames of a recording (pcapng, little endian, as dumpcap writes it): those of its Enhanced
/// Packet Blocks.
fn frames(capture: &[u8]) -> impl Iterator<Item = &[u8]> {
    const ENHANCED_PACKET: u32 = 6;
    let word = |at: &[u8], place: usize| -> Option<u32> {
        Some(u32::from_le_bytes(
            at.get(place..place + 4)?.try_into().ok()?,
        ))
    };
    let mut rest = capture;
    std::iter::from_fn(move || {
        loop {
            let (kind, length) = (word(rest, 0)?, word(rest, 4)? as usize);
            let block = rest.get(..length.max(12))?;
            rest = &rest[block.len()..];
            if kind == ENHANCED_PACKET {
                let captured = word(block, 20)? as usize;
                return block.get(28..28 + captured);
            }
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carries {
    Ike,
    Esp,
    /// Its protocol.
    Other(u8),
}

/// An IP packet of a frame, as far as it matters here.
struct Packet<'a> {
    version: u8,
    carries: Carries,
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    fn of(frame: &'a [u8]) -> Option<Packet<'a>> {
        let (kind, ip) = (frame.get(12..14)?, frame.get(14..)?);
        let (version, protocol, body) = match kind {
            [0x08, 0x00] => {
                let header = usize::from(ip.first()? & 15) * 4;
                let total = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
                (4, *ip.get(9)?, ip.get(header..total)?)
            }
            [0x86, 0xdd] => (6, *ip.get(6)?, ip.get(40..)?),
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
        let (carries, payload) = match protocol {
            50 => (Carries::Esp, body),
            17 if port(0)? == 500 || port(2)? == 500 => (Carries::Ike, body.get(8..)?),
            17 if port(0)? == 4500 || port(2)? == 4500 => {
                let payload = body.get(8..)?;
                match payload.strip_prefix(&[0; 4]) {
                    Some(ike) => (Carries::Ike, ike),
                    None => (Carries::Esp, payload),
                }
            }
            other => (Carries::Other(other), body),
        };
        Some(Packet {
            version,
            carries,
            payload,
        })
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim_start_matches("0x");
    let pairs = (0..digits.len() / 2).filter_map(|n| digits.get(2 * n..2 * n + 2));
    pairs
        .filter_map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect()
}

/// The columns of a table of Wireshark's.
fn columns(line: &str) -> Vec<&str> {
    line.split(',').map(|cell| cell.trim_matches('"')).collect()
}

/// Opens IKE messages, those in parts too.
struct IkeReader {
    /// By SPIs: of an additional key exchange there are two.
    keys: HashMap<(u64, u64), Vec<[AeadKey; 2]>>,
    parts: HashMap<(u64, u64, bool, u32), Reassembly>,
}

impl IkeReader {
    fn new(table: &str) -> IkeReader {
        let mut keys: HashMap<_, Vec<_>> = HashMap::new();
        for line in table.lines() {
            let [spi_i, spi_r, sk_ei, sk_er, cipher, ..] = columns(line)[..] else {
                continue;
            };
            let cipher = match cipher {
                "AES-GCM-128 with 16 octet ICV [RFC5282]" => IkeCipher::Aes128Gcm16,
                "AES-GCM-256 with 16 octet ICV [RFC5282]" => IkeCipher::Aes256Gcm16,
                _ => IkeCipher::ChaCha20Poly1305,
            };
            let [initiator, responder] =
                [sk_ei, sk_er].map(|key| AeadKey::new(cipher, &unhex(key)));
            let spis = [spi_i, spi_r].map(|spi| u64::from_str_radix(spi, 16).unwrap_or_default());
            if let (Some(initiator), Some(responder)) = (initiator, responder) {
                let of_sa = keys.entry(spis.into()).or_default();
                of_sa.push([initiator, responder]);
            }
        }
        IkeReader {
            keys,
            parts: HashMap::new(),
        }
    }

    fn take(&mut self, corpus: &mut Corpus, name: &str, datagram: &[u8]) {
        let Ok(header) = Header::parse(datagram) else {
            corpus.add_ike(&format!("odd {}", datagram.len()), datagram);
            return;
        };
        if header.exchange == exchange::IKE_SA_INIT {
            corpus.add_ike(&format!("{name} {}", header.response), datagram);
            return;
        }
        let what = format!("{} {} {}", header.exchange, header.response, header.next);
        corpus.add_ike(&what, datagram);
        let of_sa = self.keys.get(&(header.spi_i, header.spi_r));
        let place = match header.next {
            kind::ENCRYPTED_FRAGMENT => Place::parse(datagram).ok(),
            _ => None,
        };
        let opened = of_sa.into_iter().flatten().find_map(|keys| {
            let [initiator, responder] = keys;
            let key = if header.initiator {
                initiator
            } else {
                responder
            };
            match place {
                Some(_) => skf::open(&header, datagram, key).ok(),
                None => sk::open(&header, datagram, key).ok(),
            }
        });
        let Some((mut first, mut plain)) = opened else {
            eprintln!("{name}: a message could not be opened");
            return;
        };
        if let Some(place) = place {
            corpus.add(
                "ike_fragments",
                format!("{what} {}", place.number),
                datagram,
            );
            let id = (
                header.spi_i,
                header.spi_r,
                header.response,
                header.message_id,
            );
            let begin = || Reassembly::new(&header, Instant::now(), MOST_BYTES);
            let parts = self.parts.entry(id).or_insert_with(begin);
            match parts.add(place, datagram, first, plain) {
                Added::Complete(begins, all, _) => (first, plain) = (begins, all),
                _ => return,
            }
        }
        inside(corpus, &header, first, &plain);
    }
}

/// What was inside a protected message.
fn inside(corpus: &mut Corpus, header: &Header, first: u8, plain: &[u8]) {
    let Ok(payloads) = parse_chain(first, plain) else {
        eprintln!("a real message can not be read");
        return;
    };
    let kinds: Vec<u8> = payloads.iter().map(Payload::kind).collect();
    let about_child = kinds.contains(&kind::TS_I);
    let answer = 2 * u8::from(header.response);
    // As `ike_session` numbers the messages of its conversation.
    let which = match header.exchange {
        exchange::IKE_AUTH => u8::from(header.response),
        exchange::CREATE_CHILD_SA if about_child => 6 + answer,
        exchange::CREATE_CHILD_SA => 10 + answer,
        _ => 2 + answer,
    };
    let by_responder = u8::from(header.initiator == header.response && which > 1);
    let which = which + by_responder;
    let mut data = vec![which, header.exchange, first];
    data.extend_from_slice(plain);
    corpus.add("ike_session", format!("{which} {kinds:?}"), data);
    corpus.add(
        "ike_fragments",
        format!("{} {kinds:?}", header.exchange),
        plain,
    );
    let certificate = payloads.iter().find_map(|payload| match payload {
        Payload::Cert(cert) => Some(&cert.data),
        _ => None,
    });
    for payload in &payloads {
        if let Payload::Auth(auth) = payload {
            let certificate = certificate.map(Vec::as_slice).unwrap_or_default();
            let length = u16::try_from(certificate.len()).unwrap_or_default();
            let mut data = vec![auth.method];
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(certificate);
            data.extend_from_slice(&auth.data);
            let what = format!("{} {length} {}", auth.method, header.response);
            corpus.add("ike_certificate", what.clone(), &data[1..]);
            corpus.add("ike_proof", what, data);
        }
    }
}

/// Opens ESP packets.
struct EspReader(HashMap<u32, InboundSa>);

impl EspReader {
    fn new(table: &str) -> EspReader {
        let sa = |line: &str| {
            let [_, _, _, spi, _, key, ..] = columns(line)[..] else {
                return None;
            };
            let spi = u32::from_str_radix(spi.trim_start_matches("0x"), 16).ok()?;
            let material = unhex(key);
            let (key, salt) = material.split_at_checked(material.len().checked_sub(4)?)?;
            let cipher = match key.len() {
                16 => Cipher::Aes128Gcm,
                _ => Cipher::Aes256Gcm,
            };
            let aead = Aead::new(Backend::Ring, cipher, &Key::new(key).ok()?).ok()?;
            let salt = Salt::from(<[u8; 4]>::try_from(salt).ok()?);
            let window = Window::new(Window::MIN).ok()?;
            Some((spi, InboundSa::new(spi, aead, salt, false, window)))
        };
        EspReader(table.lines().filter_map(sa).collect())
    }

    fn take(&mut self, corpus: &mut Corpus, packet: &[u8]) {
        // Bytes from the network; then, with bit 1 set, what is inside.
        let outer = [&[0], packet].concat();
        corpus.add("esp_packet", format!("outer {}", packet.len() / 64), outer);
        let spi = packet.get(..4).and_then(|spi| spi.try_into().ok());
        let spi = spi.map(u32::from_be_bytes).unwrap_or_default();
        let mut buffer = packet.to_vec();
        let range = 0..buffer.len();
        let opened = self.0.get_mut(&spi).map(|sa| sa.open(&mut buffer, range));
        if let Some(Ok(opened)) = opened {
            let inner = buffer.get(opened.inner).unwrap_or_default();
            let data = [&[2 | opened.next_header << 2], inner].concat();
            let what = format!("inner {} {}", opened.next_header, inner.len() / 64);
            corpus.add("esp_packet", what, data);
        }
    }
}
