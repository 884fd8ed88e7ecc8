//! What an authority keeps beyond its own death: the SA pairs that it negotiated, and how far their numbers
//! may have been used. What is done here is durable, and there is one writer at a time; the ledger relies on both.
//!
//! The work is done by a thread of its own ([`worker`]): a slow disk stops no negotiation, and no busy negotiation
//! costs a lease. [`plan`] makes of what is to be written what changes, for whichever store is behind.

mod embedded;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod file;
mod plan;
mod seal;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;

use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::{Bytes, Kept, Pair};

pub use error::RepositoryError;
#[cfg(feature = "etcd")]
pub use etcd::Reader;
pub use seal::RepositoryKey;

/// Writes that may wait for the store.
pub const WAITING: usize = 65_536;

/// What a repository has of one SA pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub pair: Pair,
    pub kept: Kept,
}

/// What a repository has of one IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredIke {
    /// The authority's.
    pub spi: u64,
    /// Seconds since 1970 after which nobody goes on with it any more.
    pub expires: u64,
    /// Its [snapshot](crate::ike::Snapshot).
    pub state: Bytes,
}

/// All that is in a repository.
#[derive(Debug, Default)]
struct Contents {
    pairs: Vec<Stored>,
    ike: Vec<StoredIke>,
    run: u32,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new pair, or one in the place of another with its SPI.
    Pair { pair: Box<Pair>, kept: Kept },
    /// What is known of a pair's numbers. Of a pair that is not there: nothing is written.
    Kept { spi: u32, kept: Kept },
    /// The pair is to be forgotten.
    Erase { spi: u32 },
    /// A new IKE SA, or one as it is now.
    Ike(StoredIke),
    /// The IKE SA is to be forgotten.
    EraseIke { spi: u64 },
}

/// Where the repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// In a file of this machine.
    Embedded { file: PathBuf },
    /// In an etcd cluster, for several authorities of which one writes. Needs the feature `etcd`.
    Etcd {
        /// The members: `HOST:PORT`, or URLs.
        endpoints: Vec<String>,
        /// What all keys begin with, before a slash. Authorities of different edges must not have the same.
        prefix: String,
        tls: Option<Tls>,
        user: Option<User>,
    },
}

/// How members of an etcd cluster are known, and how they know this authority.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that theirs go back to, in PEM.
    pub authority: Vec<u8>,
    /// A certificate of our own and its key, in PEM.
    pub identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    /// The name in their certificates, if it is not the host's.
    pub name: Option<String>,
}

impl Tls {
    /// Reads certificates and key from files. The key's must not be open to everybody.
    ///
    /// # Errors
    /// A file can not be read.
    pub fn read(
        authority: &Path,
        identity: Option<(&Path, &Path)>,
        name: Option<String>,
    ) -> Result<Self, RepositoryError> {
        let read = |path: &Path| {
            let failed = |e| RepositoryError::Tls(format!("cannot read {}: {e}", path.display()));
            std::fs::read(path).map_err(failed)
        };
        let identity = match identity {
            Some((certificate, key)) => {
                let key = crate::files::read_private(key, 1 << 16).map_err(RepositoryError::Tls)?;
                Some((read(certificate)?, key))
            }
            None => None,
        };
        Ok(Self {
            authority: read(authority)?,
            identity,
            name,
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls(name: {:?}, ..)", self.name)
    }
}

/// A user of an etcd cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password: Zeroizing<String>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User(name: {:?}, ..)", self.name)
    }
}

/// What has become of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write of this number is durable. They come in the order of the writes.
    Done { number: u64 },
    /// Nothing can be written for now. It is told once; writes go on waiting, and are tried again.
    Away { why: String },
    /// It can again.
    Back,
    /// Nothing will be written any more: another authority writes now, or what was written is not certain. The process must end.
    Deposed { why: String },
}

/// A repository that this process, and no other, writes to.
#[derive(Debug)]
pub struct Repository {
    writes: mpsc::UnboundedSender<(u64, Write)>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    /// Writes whose end was not told yet: bounds both channels.
    waiting: usize,
    /// Why nothing is written any more.
    deposed: Option<String>,
    ike: Vec<StoredIke>,
    run: u32,
}

impl Repository {
    /// Becomes the one writer of a repository, and reads all that is there and has not expired. In etcd it waits, for
    /// ever if need be, until there is no writer.
    ///
    /// # Errors
    /// It can not be reached or opened, somebody else writes to it, the key is another one, or a record is damaged.
    /// What is stored is as it was then.
    pub async fn open(
        settings: &Settings,
        key: RepositoryKey,
    ) -> Result<(Self, Vec<Stored>), RepositoryError> {
        let (opened, answer) = oneshot::channel();
        let (writes, queue) = mpsc::unbounded_channel();
        let (told, outcomes) = mpsc::unbounded_channel();
        let settings = settings.clone();
        let work = move || worker::run(&settings, key, opened, queue, told);
        let name = "repository".to_owned();
        thread::Builder::new()
            .name(name)
            .spawn(work)
            .map_err(RepositoryError::Thread)?;
        let stored = answer.await.map_err(|_| RepositoryError::Ended)??;
        let Contents { pairs, ike, run } = stored;
        let repository = Self {
            writes,
            outcomes,
            waiting: 0,
            deposed: None,
            ike,
            run,
        };
        Ok((repository, pairs))
    }

    /// The IKE SAs that were there, once.
    pub fn take_ike(&mut self) -> Vec<StoredIke> {
        std::mem::take(&mut self.ike)
    }

    /// How often the repository has been opened to write, this time included: no two writers have the same
    /// number. It is durable.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Has this written, after all that was given before. Never blocks. With [`WAITING`] writes on their way
    /// the repository counts as lost: a write that was left out must not be followed by another.
    pub fn write(&mut self, number: u64, write: Write) {
        if self.deposed.is_some() {
            return;
        }
        if self.waiting >= WAITING {
            self.deposed = Some(format!("{WAITING} writes wait for the repository"));
            return;
        }
        self.waiting += 1;
        // Without the thread: `next` will say so.
        let _ = self.writes.send((number, write));
    }

    /// What happens next. Cancel safe. Once it is [`Outcome::Deposed`] it stays so.
    pub async fn next(&mut self) -> Outcome {
        if let Some(why) = &self.deposed {
            return Outcome::Deposed { why: why.clone() };
        }
        let ended = || Outcome::Deposed {
            why: "the repository's thread has ended".to_owned(),
        };
        let outcome = self.outcomes.recv().await.unwrap_or_else(ended);
        match &outcome {
            Outcome::Done { .. } => self.waiting = self.waiting.saturating_sub(1),
            Outcome::Deposed { why } => self.deposed = Some(why.clone()),
            Outcome::Away { .. } | Outcome::Back => (),
        }
        outcome
    }

    /// Writes whose end [`Repository::next`] has not told yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Ends it: what waits is tried once more, then another may become the writer. Who only drops it does not wait for that.
    pub async fn close(self) {
        let Self {
            writes,
            mut outcomes,
            ..
        } = self;
        drop(writes);
        while outcomes.recv().await.is_some() {}
    }
}
