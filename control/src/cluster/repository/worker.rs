//! The thread behind a repository: takes what waits, has it written in one go, tells what has become of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::embedded::Embedded;
#[cfg(feature = "etcd")]
use super::etcd::Etcd;
use super::plan::{Batch, MOST, Planner};
use super::seal::Sealer;
use super::{Contents, Outcome, RepositoryError, RepositoryKey, Settings, Write};

/// How long what has expired may stay, if nothing is written.
const EXPIRY: Duration = Duration::from_secs(60);

/// Time between two tries to write.
const RETRY: Duration = Duration::from_millis(250);

/// Why something was not written, or not for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is to be tried again, as it is.
    Away(String),
    /// It must not be.
    Lost(String),
}

/// Where batches are written to.
pub(super) trait Store {
    /// The most records that one batch may change.
    const RECORDS: usize;

    /// Writes all of the batch or nothing. May be called with the same one again. An empty one shows
    /// whether it would be possible.
    async fn commit(&mut self, batch: &Batch) -> Result<(), Failure>;

    /// Ends when something becomes of the store with nothing being written. Cancel safe.
    async fn watch(&mut self) -> Failure;

    /// Lets another one become the writer.
    async fn close(self);
}

/// What `Repository::open` waits for.
pub(super) type Opened = oneshot::Sender<Result<Contents, RepositoryError>>;

type Queue = UnboundedReceiver<(u64, Write)>;
type Told = UnboundedSender<Outcome>;

/// Opens the repository and serves it until its handle is gone.
pub(super) fn run(
    settings: &Settings,
    key: RepositoryKey,
    #[cfg_attr(not(feature = "etcd"), expect(unused_mut))] mut opened: Opened,
    queue: Queue,
    told: Told,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = opened.send(Err(RepositoryError::Thread(error)));
            return;
        }
    };
    LocalSet::new().block_on(&runtime, async {
        match settings {
            Settings::Embedded { file } => {
                let store = Embedded::open(file, &key, now());
                begin(store, key, opened, queue, told).await;
            }
            #[cfg(feature = "etcd")]
            Settings::Etcd {
                endpoints,
                prefix,
                tls,
                user,
            } => {
                let place = (&**endpoints, &**prefix);
                let open = Etcd::open(place, tls.as_ref(), user.as_ref(), &key, now());
                let store = tokio::select! {
                    store = open => store,
                    // Nobody waits for it any more.
                    () = opened.closed() => return,
                };
                begin(store, key, opened, queue, told).await;
            }
            #[cfg(not(feature = "etcd"))]
            Settings::Etcd { .. } => {
                let _ = opened.send(Err(RepositoryError::NoEtcd));
            }
        }
    });
}

async fn begin<S: Store>(
    store: Result<(S, Contents), RepositoryError>,
    key: RepositoryKey,
    opened: Opened,
    queue: Queue,
    told: Told,
) {
    let (store, stored) = match store {
        Ok(store) => store,
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    let planner = Planner::new(Sealer::new(&key), &stored.pairs).with_ike(&stored.ike);
    drop(key);
    match opened.send(Ok(stored)) {
        Ok(()) => serve(store, planner, queue, &told).await,
        // Nobody waits for it any more.
        Err(_) => store.close().await,
    }
}

async fn serve<S: Store>(mut store: S, mut planner: Planner, mut queue: Queue, told: &Told) {
    let mut away = false;
    loop {
        let mut first = None;
        tokio::select! {
            write = queue.recv() => match write {
                Some(write) => first = Some(write),
                None => break,
            },
            failure = store.watch() => {
                if !failed(failure, &mut away, told) {
                    return;
                }
            }
            () = sleep(EXPIRY) => (),
        }
        let mut batch = Batch::default();
        planner.expire(&mut batch, now(), S::RECORDS / 4);
        while let Some((number, write)) = first.take().or_else(|| queue.try_recv().ok()) {
            planner.add(&mut batch, number, &write);
            if batch.records() + MOST > S::RECORDS {
                break;
            }
        }
        if batch.is_empty() && !away {
            continue;
        }
        while let Err(failure) = store.commit(&batch).await {
            if !failed(failure, &mut away, told) {
                return;
            }
            if queue.is_closed() {
                store.close().await;
                return;
            }
            sleep(RETRY).await;
        }
        if std::mem::take(&mut away) {
            let _ = told.send(Outcome::Back);
        }
        for number in batch.numbers {
            let _ = told.send(Outcome::Done { number });
        }
    }
    store.close().await;
}

/// Tells it. Whether it may be tried again.
fn failed(failure: Failure, away: &mut bool, told: &Told) -> bool {
    let outcome = match failure {
        Failure::Lost(why) => {
            let _ = told.send(Outcome::Deposed { why });
            return false;
        }
        Failure::Away(why) => Outcome::Away { why },
    };
    if !std::mem::replace(away, true) {
        let _ = told.send(outcome);
    }
    true
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
