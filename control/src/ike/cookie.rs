//! Cookies against floods of first messages (RFC 7296 section 2.6): whoever returns one receives at
//! the address that it sends from, and until it does it costs no memory.

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::CryptoRng;
use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret makes cookies for so long; they are accepted for once more of it.
const LIFETIME: Duration = Duration::from_secs(30);

/// Bytes of a nonce that a cookie covers: the fewest that one has (section 3.9).
const NONCE: usize = 16;

type SecretKey = Zeroizing<[u8; 16]>;

/// The keys of cookies. A cookie is SipHash-2-4 (8 bytes, little endian) over the initiator's address
/// (16 bytes, IPv4 mapped into IPv6), its SPI and the first 16 bytes of its nonce, so that a packet
/// filter that is given the keys can make and judge cookies too.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieKeys {
    /// Makes cookies.
    pub current: Zeroizing<[u8; 16]>,
    /// What it has made still counts; the current one if there is none.
    pub before: Zeroizing<[u8; 16]>,
}

/// Makes and judges cookies.
#[derive(Default)]
pub(crate) struct Cookies {
    current: Option<(Instant, SecretKey)>,
    before: Option<SecretKey>,
}

impl Cookies {
    /// The cookie for a first message.
    pub(crate) fn make(
        &mut self,
        now: Instant,
        rng: &mut dyn CryptoRng,
        remote: IpAddr,
        spi_i: u64,
        ni: &[u8],
    ) -> Vec<u8> {
        compute(self.turn(now, rng), remote, spi_i, ni).to_vec()
    }

    /// The keys of now. They change every half minute.
    pub(crate) fn keys(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> CookieKeys {
        let current = self.turn(now, rng).clone();
        let before = self.before.as_ref().unwrap_or(&current).clone();
        CookieKeys { current, before }
    }

    /// Whether a cookie came back from where it was sent to, with the same SPI and nonce.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        rng: &mut dyn CryptoRng,
        remote: IpAddr,
        spi_i: u64,
        ni: &[u8],
        cookie: &[u8],
    ) -> bool {
        let made = self.make(now, rng, remote, spi_i, ni);
        let older = self
            .before
            .as_ref()
            .map(|key| compute(key, remote, spi_i, ni));
        let older = older.is_some_and(|older| older.ct_eq(cookie).into());
        bool::from(made.ct_eq(cookie)) | older
    }

    /// The secret of now; an old one steps back, and is forgotten after another lifetime.
    fn turn(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> &SecretKey {
        let age = self
            .current
            .as_ref()
            .map(|(since, _)| now.saturating_duration_since(*since));
        if age.is_some_and(|age| age >= LIFETIME) {
            let old = self.current.take().map(|(_, key)| key);
            self.before = old.filter(|_| age < Some(2 * LIFETIME));
        }
        let (_, key) = self.current.get_or_insert_with(|| {
            let mut key = Zeroizing::new([0; 16]);
            rng.fill_bytes(&mut *key);
            (now, key)
        });
        key
    }
}

fn compute(key: &SecretKey, remote: IpAddr, spi_i: u64, ni: &[u8]) -> [u8; 8] {
    let ip = match remote {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut hash = SipHasher24::new_with_key(key);
    hash.write(&ip);
    hash.write(&spi_i.to_be_bytes());
    hash.write(ni.get(..NONCE).unwrap_or(ni));
    hash.finish().to_le_bytes()
}
