//! The key of a repository, and records under it.
//!
//! A record is a salt (16 bytes), a counter (8), and what AES-256-GCM makes of the content, tag last. Each writer
//! draws a salt when it opens the repository, and derives a key of its own from it; the nonce is its counter. So no
//! nonce comes twice under one key, however many records are written in how many years, where nonces drawn
//! at random would run into the bound of 2^32 for one key.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use hmac::{Hmac, Mac as _};
use rand::Rng as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Bytes, Pair, RepositoryError, Stored, StoredIke};

/// The one form of records there is. Whoever changes what is in them must count it up.
pub(super) const FORMAT: u8 = 1;

const KEY: usize = 32;
const SALT: usize = 16;
const COUNTER: usize = 8;
const TAG: usize = 16;

/// The key that a repository is encrypted with: wiped when dropped, never shown.
pub struct RepositoryKey(Zeroizing<[u8; KEY]>);

impl RepositoryKey {
    /// Reads a key of 64 hexadecimal digits from a file that is not open to everybody.
    ///
    /// # Errors
    /// The file can not be read, is open to everybody, or holds something else.
    pub fn read(path: &Path) -> Result<Self, RepositoryError> {
        let bytes = crate::files::read_private(path, 4096).map_err(RepositoryError::Key)?;
        let wrong = || {
            let shown = path.display();
            RepositoryError::Key(format!("{shown}: expected 64 hexadecimal digits"))
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong())?.trim_end();
        let key = crate::esp::decode_hex(text).map_err(|_| wrong())?;
        let key: [u8; KEY] = key.as_slice().try_into().map_err(|_| wrong())?;
        Ok(Self::from(key))
    }

    /// What shows that two keys are one, and nothing else of them.
    pub(super) fn id(&self) -> [u8; SALT] {
        let mut id = [0; SALT];
        let made = self.derive(b"evergate repository: name of a key", &[]);
        id.copy_from_slice(made.first_chunk::<SALT>().unwrap_or(&[0; SALT]));
        id
    }

    /// Whether this is the name of this key.
    pub(super) fn is(&self, id: &[u8]) -> bool {
        self.id().as_slice().ct_eq(id).into()
    }

    fn derive(&self, label: &[u8], salt: &[u8]) -> Zeroizing<[u8; KEY]> {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&*self.0)
            .expect("HMAC takes a key of any length");
        mac.update(label);
        mac.update(salt);
        let mut made = mac.finalize().into_bytes();
        let mut key = Zeroizing::new([0; KEY]);
        key.copy_from_slice(&made);
        made.as_mut_slice().zeroize();
        key
    }

    fn cipher(&self, salt: &[u8; SALT]) -> Aes256Gcm {
        let key = self.derive(b"evergate repository: records of a writer", salt);
        Aes256Gcm::new_from_slice(&*key).expect("the key has the cipher's length")
    }
}

impl From<[u8; KEY]> for RepositoryKey {
    fn from(key: [u8; KEY]) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RepositoryKey(..)")
    }
}

/// What a record is about. Bound to it, with its SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pair = 1,
    Kept = 2,
    Ike = 3,
    Run = 4,
}

impl Kind {
    /// Format, kind, SPI: a record in another's place is not opened.
    fn bind(self, spi: u64) -> Vec<u8> {
        let mut bound = vec![FORMAT, self as u8];
        match (self, u32::try_from(spi)) {
            (Self::Pair | Self::Kept, Ok(spi)) => bound.extend_from_slice(&spi.to_be_bytes()),
            _ => bound.extend_from_slice(&spi.to_be_bytes()),
        }
        bound
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pair => "the keys",
            Self::Kept => "the numbers",
            Self::Ike => "an IKE SA",
            Self::Run => "the number of the last run",
        }
    }
}

/// Records by SPI.
pub(super) type Records = Vec<(u32, Vec<u8>)>;

/// Writes records.
pub(super) struct Sealer {
    salt: [u8; SALT],
    cipher: Aes256Gcm,
    counter: u64,
}

impl Sealer {
    pub(super) fn new(key: &RepositoryKey) -> Self {
        let mut salt = [0; SALT];
        rand::rng().fill_bytes(&mut salt);
        Self {
            cipher: key.cipher(&salt),
            salt,
            counter: 0,
        }
    }

    pub(super) fn seal<T: Serialize>(
        &mut self,
        kind: Kind,
        spi: impl Into<u64>,
        content: &T,
    ) -> Vec<u8> {
        let plain = postcard::experimental::serialized_size(content)
            .expect("the content is of our own types, which have a form");
        let mut record = Vec::with_capacity(SALT + COUNTER + plain + TAG);
        record.extend_from_slice(&self.salt);
        record.extend_from_slice(&self.counter.to_be_bytes());
        // There is room: no copy of it is left behind by a vector that grows.
        let mut record = postcard::to_extend(content, record)
            .expect("the content is of our own types, which have a form");
        let text = record.get_mut(SALT + COUNTER..).unwrap_or_default();
        let (nonce, bind) = (nonce(self.counter), kind.bind(spi.into()));
        let tag = self
            .cipher
            .encrypt_inout_detached((&nonce).into(), &bind, InOutBuf::from(text))
            .expect("a record is shorter than 2^36 bytes");
        record.extend_from_slice(&tag);
        self.counter += 1;
        record
    }
}

/// Reads records, of all writers there were.
pub(super) struct Opener<'a> {
    key: &'a RepositoryKey,
    ciphers: HashMap<[u8; SALT], Aes256Gcm>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(key: &'a RepositoryKey) -> Self {
        Self {
            key,
            ciphers: HashMap::new(),
        }
    }

    /// What is in a record; `None`: nothing that was sealed as this.
    pub(super) fn open<T: DeserializeOwned>(
        &mut self,
        kind: Kind,
        spi: impl Into<u64>,
        record: &[u8],
    ) -> Option<T> {
        let (salt, rest) = record.split_first_chunk::<SALT>()?;
        let (counter, rest) = rest.split_first_chunk::<COUNTER>()?;
        let (text, tag) = rest.split_last_chunk::<TAG>()?;
        let new = || self.key.cipher(salt);
        let cipher = self.ciphers.entry(*salt).or_insert_with(new);
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = nonce(u64::from_be_bytes(*counter));
        let buffer = InOutBuf::from(text.as_mut_slice());
        cipher
            .decrypt_inout_detached((&nonce).into(), &kind.bind(spi.into()), buffer, tag.into())
            .ok()?;
        let (content, rest) = postcard::take_from_bytes(&text).ok()?;
        rest.is_empty().then_some(content)
    }
}

impl Opener<'_> {
    /// What the records of both kinds hold, each in the order of its SPIs. Otherwise: which record is damaged or missing.
    pub(super) fn all(
        &mut self,
        pairs: Records,
        kept: Records,
    ) -> Result<Vec<Stored>, (u32, Kind)> {
        let mut kept = kept.into_iter().peekable();
        let mut all = Vec::with_capacity(pairs.len());
        for (spi, pair) in pairs {
            // Numbers of a pair that is not there.
            if let Some((other, _)) = kept.next_if(|(other, _)| *other < spi) {
                return Err((other, Kind::Pair));
            }
            let numbers = kept.next_if(|(other, _)| *other == spi);
            all.push(self.stored(spi, &pair, numbers.as_ref().map(|(_, record)| &**record))?);
        }
        match kept.next() {
            Some((other, _)) => Err((other, Kind::Pair)),
            None => Ok(all),
        }
    }

    /// The IKE SAs. Otherwise: the one whose record is damaged.
    pub(super) fn ike(&mut self, records: &[(u64, Vec<u8>)]) -> Result<Vec<StoredIke>, u64> {
        let open = |(spi, record): &(u64, Vec<u8>)| {
            let content: Option<(u64, Bytes)> = self.open(Kind::Ike, *spi, record);
            let (expires, state) = content.ok_or(*spi)?;
            Ok(StoredIke {
                spi: *spi,
                expires,
                state,
            })
        };
        records.iter().map(open).collect()
    }

    /// The number of the run that begins, of that of the last one. `None`: the record is damaged, or missing where
    /// there must be one.
    pub(super) fn next_run(&mut self, last: Option<&[u8]>, needed: bool) -> Option<u32> {
        match last {
            Some(record) => self.open::<u32>(Kind::Run, 0_u32, record)?.checked_add(1),
            None => (!needed).then_some(1),
        }
    }

    /// A pair with its numbers, of whose records there must be both.
    fn stored(
        &mut self,
        spi: u32,
        pair: &[u8],
        kept: Option<&[u8]>,
    ) -> Result<Stored, (u32, Kind)> {
        let pair: Option<Pair> = self.open(Kind::Pair, spi, pair);
        let pair = pair.filter(|pair| pair.spi() == spi);
        let kept = kept.and_then(|record| self.open(Kind::Kept, spi, record));
        Ok(Stored {
            pair: pair.ok_or((spi, Kind::Pair))?,
            kept: kept.ok_or((spi, Kind::Kept))?,
        })
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    let [.., a, b, c, d, e, f, g, h] = &mut nonce;
    for (to, from) in [a, b, c, d, e, f, g, h]
        .into_iter()
        .zip(counter.to_be_bytes())
    {
        *to = from;
    }
    nonce
}
