//! The repository in an etcd cluster.
//!
//! | key | value |
//! | --- | --- |
//! | `about` | format, name of the key; written by the first writer |
//! | `writer` | who is the writer; goes with its lease |
//! | `owner` | who became the writer last; stays |
//! | `last` | the owner, and how many batches it has written |
//! | `pair/…`, `kept/…`, `ike/…` | records, by SPI in hexadecimal digits |
//! | `run` | how many writers there were |
//!
//! Each batch is one transaction that finds in `last` the one before it and puts itself there. Who becomes the writer puts
//! its own name there. So a batch of a writer that was taken for dead finds another's name; one that was tried twice because no
//! answer came is written once; and one that a member held back and forwards late finds that others followed it.

mod keys;
mod members;
mod presence;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use rand::Rng as _;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};

use super::plan::{Batch, Change};
use super::seal::{FORMAT, Kind, Opener, Sealer};
use super::worker::{Failure, Store};
use super::{Contents, RepositoryError, RepositoryKey, Tls, User};
use keys::{Keys, Table};
use members::Members;
use presence::{LEASE, Lease};
pub use reader::Reader;

/// What a deposed writer is told.
const TAKEN: &str = "another authority has taken the repository over";

/// How long a cluster may be away when the repository is opened.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two tries to open, and two looks at whether the writer is still there.
const AGAIN: Duration = Duration::from_millis(200);

/// Records that are read at once: well below 4 MB.
const PAGE: i64 = 1000;

/// Records in an etcd cluster. No other authority writes there.
pub(super) struct Etcd {
    members: Members,
    keys: Arc<Keys>,
    owner: String,
    /// Batches that were written.
    written: u64,
    lease: Lease,
    health: watch::Receiver<Option<Failure>>,
    keeper: JoinHandle<()>,
}

impl Etcd {
    /// Waits until there is no other writer, becomes it, reads all, and forgets what has expired at this time.
    pub(super) async fn open(
        (endpoints, prefix): (&[String], &str),
        tls: Option<&Tls>,
        user: Option<&User>,
        key: &RepositoryKey,
        now: u64,
    ) -> Result<(Self, Contents), RepositoryError> {
        let keys = Arc::new(Keys::new(prefix));
        let mut members = Members::new(endpoints, tls, user);
        check(&mut members, &keys, key).await?;
        let mut owner = [0; 16];
        rand::rng().fill_bytes(&mut owner);
        let owner = format!("{:032x}", u128::from_be_bytes(owner));
        let lease = become_writer(&mut members, &keys, key, &owner).await?;
        let lease = Lease::of(lease);
        let (health, told) = watch::channel(None);
        let keep = presence::keep(
            members.clone(),
            keys.clone(),
            owner.clone(),
            lease.clone(),
            health,
        );
        let mut etcd = Self {
            members,
            keys,
            owner,
            written: 0,
            lease,
            health: told,
            keeper: spawn_local(keep),
        };
        // Somebody else may have been the first one meanwhile, with another key.
        let opened = match check(&mut etcd.members, &etcd.keys, key).await {
            Ok(()) => etcd.read(key, now).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(stored) => Ok((etcd, stored)),
            Err(error) => {
                etcd.close().await;
                Err(error)
            }
        }
    }

    async fn read(&mut self, key: &RepositoryKey, now: u64) -> Result<Contents, RepositoryError> {
        let keys = Arc::clone(&self.keys);
        let of = |table| {
            let keys = Arc::clone(&keys);
            move |key: &[u8]| keys.spi(table, key)
        };
        let table = |table| keys.table(table);
        let pairs = self.table(table(Table::Pairs), of(Table::Pairs)).await?;
        let kept = self.table(table(Table::Kept), of(Table::Kept)).await?;
        let ike_spi = |key: &[u8]| keys.ike_spi(key);
        let records = self.table(keys.all_ike(), ike_spi).await?;
        let last = patiently(&mut self.members, &keys, async |client: &mut Client| {
            client.get(keys.run(), None).await
        })
        .await?;
        let last = last.kvs().first().map(|kv| kv.value().to_vec());
        let mut opener = Opener::new(key);
        let stored = opener.all(pairs, kept).map_err(|(spi, kind)| {
            let what = kind.name().to_owned();
            damaged(&keys, Some(spi), what)
        })?;
        let ike = opener.ike(&records).map_err(|spi| {
            let what = format!("{} {spi:016x}", Kind::Ike.name());
            damaged(&keys, None, what)
        })?;
        let run = opener.next_run(last.as_deref(), !records.is_empty());
        let run = run.ok_or_else(|| damaged(&keys, None, Kind::Run.name().to_owned()))?;
        let (stored, expired): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|s| s.pair.expires > now);
        let expired: Vec<_> = expired.iter().map(|s| s.pair.spi()).collect();
        let (ike, over): (Vec<_>, Vec<_>) = ike.into_iter().partition(|s| s.expires > now);
        let mut first = Batch::default();
        first.run = Some(Sealer::new(key).seal(Kind::Run, 0_u32, &run));
        let mut batches = vec![first];
        for some in expired.chunks(Self::RECORDS / super::plan::MOST) {
            let mut batch = Batch::default();
            batch.changes = some.iter().map(|spi| (*spi, Change::Erase)).collect();
            batches.push(batch);
        }
        for some in over.chunks(Self::RECORDS) {
            let mut batch = Batch::default();
            batch.ike = some.iter().map(|s| (s.spi, None)).collect();
            batches.push(batch);
        }
        for batch in &batches {
            // The same until it is known: another batch must not have the name of one that may be written.
            let mut tries = 0;
            while let Err(failure) = self.commit(batch).await {
                tries += 1;
                match failure {
                    Failure::Away(_) if tries < TRIES => sleep(AGAIN).await,
                    Failure::Away(why) | Failure::Lost(why) => {
                        return Err(unavailable(&self.keys, why));
                    }
                }
            }
        }
        let pairs = stored;
        Ok(Contents { pairs, ike, run })
    }

    /// All records whose keys begin so, in the order of their SPIs.
    async fn table<S>(
        &mut self,
        begin: String,
        spi_of: impl Fn(&[u8]) -> Option<S>,
    ) -> Result<Vec<(S, Vec<u8>)>, RepositoryError> {
        let begin = begin.into_bytes();
        // What comes behind all that begins so.
        let mut end = begin.clone();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let (mut from, mut records) = (begin, Vec::new());
        loop {
            let keys = &self.keys;
            let page = patiently(&mut self.members, keys, async |client: &mut Client| {
                let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
                client.get(from.clone(), Some(options)).await
            })
            .await?;
            for kv in page.kvs() {
                let Some(spi) = spi_of(kv.key()) else {
                    let name = String::from_utf8_lossy(kv.key()).into_owned();
                    return Err(damaged(&self.keys, None, name));
                };
                records.push((spi, kv.value().to_vec()));
            }
            match page.kvs().last().filter(|_| page.more()) {
                Some(last) => {
                    from = last.key().to_vec();
                    from.push(0);
                }
                None => return Ok(records),
            }
        }
    }

    fn batch(&self, number: u64) -> String {
        format!("{}/{number}", self.owner)
    }

    fn operations(&self, batch: &Batch) -> Vec<TxnOp> {
        let mut operations = Vec::with_capacity(Self::RECORDS + 1);
        for (spi, change) in &batch.changes {
            let (pair_key, kept_key) = (
                self.keys.record(Table::Pairs, *spi),
                self.keys.record(Table::Kept, *spi),
            );
            match change {
                Change::Put { pair, kept } => {
                    if let Some(pair) = pair {
                        operations.push(TxnOp::put(pair_key, pair.clone(), None));
                    }
                    operations.push(TxnOp::put(kept_key, kept.clone(), None));
                }
                Change::Erase => {
                    operations.push(TxnOp::delete(pair_key, None));
                    operations.push(TxnOp::delete(kept_key, None));
                }
            }
        }
        for (spi, record) in &batch.ike {
            let key = self.keys.ike(*spi);
            operations.push(match record {
                Some(record) => TxnOp::put(key, record.clone(), None),
                None => TxnOp::delete(key, None),
            });
        }
        let run = batch.run.clone();
        operations.extend(run.map(|run| TxnOp::put(self.keys.run(), run, None)));
        operations
    }
}

/// How often what has expired is tried to be removed at the start.
const TRIES: u32 = 50;

impl Store for Etcd {
    /// etcd takes 128 operations in one transaction; one of them says that it was this one.
    const RECORDS: usize = 126;

    async fn commit(&mut self, batch: &Batch) -> Result<(), Failure> {
        let (before, this) = (self.batch(self.written), self.batch(self.written + 1));
        let mut operations = self.operations(batch);
        operations.push(TxnOp::put(self.keys.last(), this.as_str(), None));
        let txn = Txn::new()
            .when([Compare::value(self.keys.last(), CompareOp::Equal, before)])
            .and_then(operations)
            .or_else([TxnOp::get(self.keys.last(), None)]);
        let answer = self
            .members
            .ask(async |client: &mut Client| client.txn(txn.clone()).await)
            .await
            .map_err(|why| Failure::Away(format!("{}: {why}", place(&self.keys))))?;
        // It was written by an earlier try whose answer was lost.
        if answer.succeeded() || found(&answer).as_deref() == Some(this.as_bytes()) {
            self.written += 1;
            return Ok(());
        }
        Err(Failure::Lost(TAKEN.to_owned()))
    }

    async fn watch(&mut self) -> Failure {
        loop {
            if self.health.changed().await.is_err() {
                return Failure::Lost("nobody keeps the writer's place".to_owned());
            }
            if let Some(failure) = self.health.borrow_and_update().clone() {
                return failure;
            }
        }
    }

    async fn close(mut self) {
        self.keeper.abort();
        let lease = self.lease.id();
        // Without an answer it goes when its time is over.
        let _ = self
            .members
            .ask(async |client: &mut Client| client.lease_revoke(lease).await)
            .await;
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Whether the repository is of this key, if there is one.
async fn check(
    members: &mut Members,
    keys: &Keys,
    key: &RepositoryKey,
) -> Result<(), RepositoryError> {
    let about = patiently(members, keys, async |client: &mut Client| {
        client.get(keys.about(), None).await
    })
    .await?;
    let Some(about) = about.kvs().first() else {
        return Ok(());
    };
    match about.value().split_first() {
        Some((&FORMAT, id)) if key.is(id) => Ok(()),
        Some((&FORMAT, _)) => Err(RepositoryError::WrongKey { place: place(keys) }),
        found => Err(RepositoryError::Format {
            place: place(keys),
            found: found.map_or_else(|| "none".to_owned(), |(format, _)| format.to_string()),
            known: FORMAT,
        }),
    }
}

/// Waits for the writer's place. Returns the lease that it is held with.
async fn become_writer(
    members: &mut Members,
    keys: &Keys,
    key: &RepositoryKey,
    owner: &str,
) -> Result<i64, RepositoryError> {
    let mut told = false;
    loop {
        let writer = patiently(members, keys, async |client: &mut Client| {
            client.get(keys.writer(), None).await
        })
        .await?;
        if !writer.kvs().is_empty() {
            if !std::mem::replace(&mut told, true) {
                let place = place(keys);
                tracing::info!("the repository {place} has a writer; waiting for its place");
            }
            sleep(AGAIN).await;
            continue;
        }
        let lease = patiently(members, keys, async |client: &mut Client| {
            client.lease_grant(LEASE, None).await
        })
        .await?
        .id();
        let with = PutOptions::new().with_lease(lease);
        let about = [[FORMAT].as_slice(), &key.id()].concat();
        let txn = Txn::new()
            .when([Compare::version(keys.writer(), CompareOp::Equal, 0)])
            .and_then([
                TxnOp::put(keys.writer(), owner, Some(with)),
                TxnOp::put(keys.owner(), owner, None),
                TxnOp::put(keys.last(), format!("{owner}/0"), None),
                TxnOp::txn(
                    Txn::new()
                        .when([Compare::version(keys.about(), CompareOp::Equal, 0)])
                        .and_then([TxnOp::put(keys.about(), about, None)]),
                ),
            ])
            .or_else([TxnOp::get(keys.writer(), None)]);
        let answer = patiently(members, keys, async |client: &mut Client| {
            client.txn(txn.clone()).await
        })
        .await?;
        // By this try, or by one whose answer was lost.
        if answer.succeeded() || found(&answer).as_deref() == Some(owner.as_bytes()) {
            return Ok(lease);
        }
        let _ = members
            .ask(async |client: &mut Client| client.lease_revoke(lease).await)
            .await;
    }
}

/// The value that a transaction found instead of what it expected.
fn found(answer: &TxnResponse) -> Option<Vec<u8>> {
    match answer.op_responses().first()? {
        TxnOpResponse::Get(get) => Some(get.kvs().first()?.value().to_vec()),
        _ => None,
    }
}

/// Asks again for a while if there is no answer.
async fn patiently<T>(
    members: &mut Members,
    keys: &Keys,
    question: impl AsyncFn(&mut Client) -> Result<T, etcd_client::Error>,
) -> Result<T, RepositoryError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match members.ask(&question).await {
            Ok(answer) => return Ok(answer),
            Err(why) if Instant::now() >= until => return Err(unavailable(keys, why)),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

fn place(keys: &Keys) -> String {
    format!("{} in etcd", keys.prefix())
}

fn unavailable(keys: &Keys, why: String) -> RepositoryError {
    RepositoryError::Unavailable {
        place: place(keys),
        why,
    }
}

fn damaged(keys: &Keys, spi: Option<u32>, what: String) -> RepositoryError {
    RepositoryError::Damaged {
        place: place(keys),
        spi,
        what,
        remedy: format!("delete all keys that begin with {}/", keys.prefix()),
    }
}
