//! Cookies against floods of first messages (RFC 7296 section 2.6): whoever returns one receives at
//! the address that it sends from, and until it does it costs no memory.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::crypto::Prf;

/// A secret makes cookies for so long; they are accepted for once more of it.
const LIFETIME: Duration = Duration::from_secs(30);

type SecretKey = Zeroizing<[u8; 32]>;

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
        remote: SocketAddr,
        spi_i: u64,
        ni: &[u8],
    ) -> Vec<u8> {
        compute(self.turn(now, rng), remote, spi_i, ni)
    }

    /// Whether a cookie came back from where it was sent to, with the same SPI and nonce.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        rng: &mut dyn CryptoRng,
        remote: SocketAddr,
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
            let mut key = Zeroizing::new([0; 32]);
            rng.fill_bytes(&mut *key);
            (now, key)
        });
        key
    }
}

fn compute(key: &SecretKey, remote: SocketAddr, spi_i: u64, ni: &[u8]) -> Vec<u8> {
    let ip = match remote.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let parts: [&[u8]; 4] = [&ip, &remote.port().to_be_bytes(), &spi_i.to_be_bytes(), ni];
    Prf::HmacSha256.compute(&**key, &parts).to_vec()
}
