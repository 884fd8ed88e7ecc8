//! Sessions as words, in the manner of `ip xfrm state`; docs/esp.md has the table.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{
    Cipher, Direction, HeartbeatKey, Key, Producer, SaSpec, Salt, SessionSpec, TextError, UdpEncap,
};
use crate::esp::BadSecret;

const WORD: &str = "in, out, spi, cipher, key, esn, window, seq, sel, local, remote, encap, peer, \
                    gateway or hbkey";
const CIPHER: &str = "aes-256-gcm, aes-128-gcm or chacha20-poly1305";
const ADDRESS: &str = "an IP address";

/// Whether [`SessionSpec::words`] shows keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Whoever reads the words can read the traffic.
    Shown,
    /// The words name the place of a key only, and can not be parsed.
    Hidden,
}

impl SessionSpec {
    /// Reads the words of a hand-written session and checks what they say. Words come in any
    /// order; those of one SA come after its `in` or `out`.
    ///
    /// # Errors
    /// Which word is wrong and what was expected, or what is wrong with the session.
    pub fn from_words<W: AsRef<str>>(
        words: impl IntoIterator<Item = W>,
    ) -> Result<Self, TextError> {
        let mut draft = Draft::default();
        let mut words = Words {
            words: words.into_iter(),
            position: 0,
            last: "sa add",
        };
        while let Some(word) = words.next() {
            draft.take(word.as_ref(), &mut words)?;
        }
        let spec = draft.finish()?;
        spec.check()?;
        Ok(spec)
    }

    /// The session as words: [`SessionSpec::from_words`] reads them back, id and origin aside.
    #[must_use]
    pub fn words(&self, secrets: Secrets) -> Vec<String> {
        let mut words = Vec::new();
        for (direction, sa) in self.sas() {
            let key = match secrets {
                Secrets::Shown => hex(&[sa.key.expose(), sa.salt.expose()]),
                Secrets::Hidden => "hidden".to_owned(),
            };
            let esn = if sa.esn { "on" } else { "off" };
            words.extend([direction.name(), "spi"].map(str::to_owned));
            words.push(format!("{:#x}", sa.spi));
            words.extend(["cipher", sa.cipher.name(), "key", &key, "esn", esn].map(str::to_owned));
            words.extend(["window".to_owned(), sa.replay_window.to_string()]);
            words.extend(["seq".to_owned(), sa.sequence.to_string()]);
        }
        // The selectors are those of the last direction named.
        let last = if self.outbound.is_some() {
            Direction::Out
        } else {
            Direction::In
        };
        let (src, dst) = self.selectors(last);
        words.extend(["sel".to_owned(), list(src), list(dst)]);
        words.extend(["local".to_owned(), self.outside_local.to_string()]);
        words.extend(["remote".to_owned(), self.outside_remote.to_string()]);
        if let Some(encap) = self.encap {
            words.extend(["encap", "udp"].map(str::to_owned));
            words.extend([encap.local_port.to_string(), encap.remote_port.to_string()]);
        }
        words.extend(["peer".to_owned(), self.peer.to_string()]);
        if let Some(gateway) = self.gateway {
            words.extend(["gateway".to_owned(), gateway.to_string()]);
        }
        if let Some(key) = &self.heartbeat_key {
            let key = match secrets {
                Secrets::Shown => hex(&[key.expose()]),
                Secrets::Hidden => "hidden".to_owned(),
            };
            words.extend(["hbkey".to_owned(), key]);
        }
        words
    }
}

impl FromStr for SessionSpec {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_words(text.split_whitespace())
    }
}

struct Words<I> {
    words: I,
    /// Of the word taken last, from 1.
    position: usize,
    last: &'static str,
}

impl<W: AsRef<str>, I: Iterator<Item = W>> Words<I> {
    fn next(&mut self) -> Option<W> {
        self.position += 1;
        self.words.next()
    }

    fn required(&mut self, expected: &'static str) -> Result<W, TextError> {
        let after = self.last;
        self.next().ok_or(TextError::Ended { after, expected })
    }

    /// The next word, read by `read`.
    fn read<T>(
        &mut self,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, TextError> {
        let word = self.required(expected)?;
        read(word.as_ref()).ok_or_else(|| self.unexpected(word.as_ref(), expected))
    }

    fn parse<T: FromStr>(&mut self, expected: &'static str) -> Result<T, TextError> {
        self.read(expected, |word| word.parse().ok())
    }

    fn secret<T>(
        &mut self,
        expected: &'static str,
        read: impl FnOnce(&str) -> Result<T, BadSecret>,
    ) -> Result<T, TextError> {
        let word = self.required(expected)?;
        read(word.as_ref()).map_err(|error| TextError::Secret {
            position: self.position,
            error,
        })
    }

    fn unexpected(&self, word: &str, expected: &'static str) -> TextError {
        // A key in the wrong place must not turn up in a log.
        let digits = word.chars().filter(char::is_ascii_hexdigit).count();
        let found = if digits < 24 {
            format!("`{word}`")
        } else {
            "a long word, not shown".to_owned()
        };
        TextError::Unexpected {
            position: self.position,
            found,
            expected,
        }
    }
}

#[derive(Default)]
struct Draft {
    inbound: Option<SaDraft>,
    outbound: Option<SaDraft>,
    current: Option<Direction>,
    local: Option<IpAddr>,
    remote: Option<IpAddr>,
    encap: Option<UdpEncap>,
    /// Remote and local inner prefixes.
    selectors: Option<(Vec<IpNet>, Vec<IpNet>)>,
    peer: Option<String>,
    gateway: Option<IpAddr>,
    heartbeat_key: Option<HeartbeatKey>,
}

#[derive(Default)]
struct SaDraft {
    spi: Option<u32>,
    cipher: Option<Cipher>,
    key: Option<(Key, Salt)>,
    esn: Option<bool>,
    window: Option<u32>,
    sequence: Option<u64>,
}

impl Draft {
    fn take<W: AsRef<str>>(
        &mut self,
        word: &str,
        words: &mut Words<impl Iterator<Item = W>>,
    ) -> Result<(), TextError> {
        let at = words.position;
        match word {
            "in" => self.begin(Direction::In, at)?,
            "out" => self.begin(Direction::Out, at)?,
            "spi" => {
                words.last = "spi";
                let spi = words.read("an SPI such as 0x1000", number)?;
                once(&mut self.sa(at, "spi")?.spi, spi, at, "spi")?;
            }
            "cipher" => {
                words.last = "cipher";
                let cipher = words.read(CIPHER, cipher)?;
                once(&mut self.sa(at, "cipher")?.cipher, cipher, at, "cipher")?;
            }
            "key" => {
                words.last = "key";
                let key = words.secret("a key and its salt in hexadecimal", key_and_salt)?;
                once(&mut self.sa(at, "key")?.key, key, at, "key")?;
            }
            "esn" => {
                words.last = "esn";
                let esn = words.read("on or off", switch)?;
                once(&mut self.sa(at, "esn")?.esn, esn, at, "esn")?;
            }
            "window" => {
                words.last = "window";
                let window = words.read("a number of packets", number)?;
                once(&mut self.sa(at, "window")?.window, window, at, "window")?;
            }
            "seq" => {
                words.last = "seq";
                let sequence = words.parse("a sequence number")?;
                once(&mut self.sa(at, "seq")?.sequence, sequence, at, "seq")?;
            }
            "sel" => {
                words.last = "sel";
                self.sa(at, "sel")?;
                let src = words.read("source prefixes such as 10.99.0.7 or 10.0.0.0/8", nets)?;
                let dst = words.read("destination prefixes such as 10.0.0.0/8,fd00::/8", nets)?;
                let pair = match self.current {
                    Some(Direction::Out) => (dst, src),
                    _ => (src, dst),
                };
                once(&mut self.selectors, pair, at, "sel")?;
            }
            "local" => {
                words.last = "local";
                once(&mut self.local, words.parse(ADDRESS)?, at, "local")?;
            }
            "remote" => {
                words.last = "remote";
                once(&mut self.remote, words.parse(ADDRESS)?, at, "remote")?;
            }
            "encap" => {
                words.last = "encap";
                words.read("udp", |word| (word == "udp").then_some(()))?;
                let local_port = words.parse("our UDP port")?;
                let remote_port = words.parse("the UDP port of the peer")?;
                once(
                    &mut self.encap,
                    UdpEncap {
                        local_port,
                        remote_port,
                    },
                    at,
                    "encap",
                )?;
            }
            "peer" => {
                words.last = "peer";
                let peer = words.required("a name")?.as_ref().to_owned();
                once(&mut self.peer, peer, at, "peer")?;
            }
            "gateway" => {
                words.last = "gateway";
                once(&mut self.gateway, words.parse(ADDRESS)?, at, "gateway")?;
            }
            "hbkey" => {
                words.last = "hbkey";
                let key = words.secret("16 bytes in hexadecimal", HeartbeatKey::from_hex)?;
                once(&mut self.heartbeat_key, key, at, "hbkey")?;
            }
            other => return Err(words.unexpected(other, WORD)),
        }
        Ok(())
    }

    fn begin(&mut self, direction: Direction, position: usize) -> Result<(), TextError> {
        self.current = Some(direction);
        let (place, word) = match direction {
            Direction::In => (&mut self.inbound, "in"),
            Direction::Out => (&mut self.outbound, "out"),
        };
        once(place, SaDraft::default(), position, word)
    }

    fn sa(&mut self, position: usize, word: &'static str) -> Result<&mut SaDraft, TextError> {
        let current = match self.current {
            Some(Direction::In) => self.inbound.as_mut(),
            Some(Direction::Out) => self.outbound.as_mut(),
            None => None,
        };
        current.ok_or(TextError::NoDirection { position, word })
    }

    fn finish(self) -> Result<SessionSpec, TextError> {
        if self.current.is_none() {
            return Err(TextError::Missing {
                of: "sa add",
                word: "in` or `out",
            });
        }
        let missing = |word| TextError::Missing { of: "sa add", word };
        let local = self.local.ok_or(missing("local"))?;
        let remote = self.remote.ok_or(missing("remote"))?;
        let mut spec = SessionSpec::new(local, remote, Producer::Manual);
        let (remote, local) = self.selectors.ok_or(missing("sel"))?;
        (spec.remote_inner, spec.local_inner) = (remote.into(), local.into());
        spec.inbound = self.inbound.map(|sa| sa.finish("in")).transpose()?;
        spec.outbound = self.outbound.map(|sa| sa.finish("out")).transpose()?;
        spec.encap = self.encap;
        spec.gateway = self.gateway;
        spec.heartbeat_key = self.heartbeat_key;
        if let Some(peer) = self.peer {
            spec.peer = peer.into();
        }
        Ok(spec)
    }
}

impl SaDraft {
    fn finish(self, of: &'static str) -> Result<SaSpec, TextError> {
        let spi = self.spi.ok_or(TextError::Missing { of, word: "spi" })?;
        let (key, salt) = self.key.ok_or(TextError::Missing { of, word: "key" })?;
        let mut spec = SaSpec::new(spi, self.cipher.unwrap_or_default(), key, salt);
        spec.esn = self.esn.unwrap_or(spec.esn);
        spec.replay_window = self.window.unwrap_or(spec.replay_window);
        spec.sequence = self.sequence.unwrap_or(0);
        Ok(spec)
    }
}

fn once<T>(
    place: &mut Option<T>,
    value: T,
    position: usize,
    word: &'static str,
) -> Result<(), TextError> {
    match place {
        Some(_) => Err(TextError::Twice { position, word }),
        None => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        // from_str_radix takes a sign, which no SPI has.
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn cipher(word: &str) -> Option<Cipher> {
    Cipher::ALL.into_iter().find(|cipher| cipher.name() == word)
}

fn switch(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// The key, and behind it the salt, as in `ip xfrm state … aead`.
fn key_and_salt(word: &str) -> Result<(Key, Salt), BadSecret> {
    let bytes = crate::esp::decode_hex(word)?;
    let expected = "20 (16 of key and 4 of salt) or 36 (32 and 4)";
    let wrong = BadSecret::Length {
        expected,
        found: bytes.len(),
    };
    let (key, salt) = bytes.split_last_chunk::<4>().ok_or(wrong.clone())?;
    Ok((Key::new(key).map_err(|_| wrong)?, Salt::from(*salt)))
}

fn nets(word: &str) -> Option<Vec<IpNet>> {
    let net = |word: &str| {
        let address = || word.parse::<IpAddr>().ok().map(IpNet::from);
        word.parse().ok().or_else(address)
    };
    word.split(',').map(net).collect()
}

fn list(nets: &[IpNet]) -> String {
    nets.iter()
        .map(IpNet::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

fn hex(parts: &[&[u8]]) -> String {
    let mut text = String::from("0x");
    for byte in parts.iter().copied().flatten() {
        // Writing into a string can not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
