//! The key that says that there is a writer: it lives as long as the writer's lease.
//!
//! It keeps others waiting, and no more. What refuses the writes of one who was taken for dead is the chain of its own
//! (see the parent module): no clock and no lease has to be right for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, PutOptions, Txn, TxnOp, TxnOpResponse};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::worker::Failure;
use super::keys::Keys;
use super::members::Members;

/// After so many seconds without its writer, another may take the repository over.
pub(super) const LEASE: i64 = 5;

/// Time between two signs of life.
const BEAT: Duration = Duration::from_millis(1500);

/// How much of the past etcd has to remember. Each write is remembered until somebody says that it need not be.
const COMPACT: Duration = Duration::from_secs(300);

/// What is known of the writer's place.
pub(super) type Health = watch::Sender<Option<Failure>>;

/// The lease that is held now.
#[derive(Clone, Default)]
pub(super) struct Lease(Arc<AtomicI64>);

impl Lease {
    pub(super) fn of(id: i64) -> Self {
        Self(Arc::new(AtomicI64::new(id)))
    }

    pub(super) fn id(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps the writer's place until its handle is gone or another has it.
pub(super) async fn keep(
    mut members: Members,
    keys: Arc<Keys>,
    owner: String,
    lease: Lease,
    health: Health,
) {
    let mut compacted = (Instant::now(), None);
    loop {
        sleep(BEAT).await;
        let id = lease.id();
        let beat = members
            .ask(async |client: &mut Client| {
                match client.lease_keep_alive(id).await {
                    Ok((_, _)) => Ok(true),
                    // There is no such lease any more.
                    Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await;
        let kept = match beat {
            Ok(true) => Ok(()),
            Ok(false) => again(&mut members, &keys, &owner, &lease).await,
            Err(why) => Err(Failure::Away(why)),
        };
        let new = kept.err();
        let lost = matches!(new, Some(Failure::Lost(_)));
        // One that goes on is told once.
        health.send_if_modified(|health| {
            let changed = health.is_some() != new.is_some() || lost;
            *health = new;
            changed
        });
        if lost {
            return;
        }
        if compacted.0.elapsed() >= COMPACT {
            compacted = (
                Instant::now(),
                compact(&mut members, &keys, compacted.1).await,
            );
        }
    }
}

/// Takes the place anew, if nobody else was there meanwhile.
async fn again(
    members: &mut Members,
    keys: &Keys,
    owner: &str,
    lease: &Lease,
) -> Result<(), Failure> {
    let new = members
        .ask(async |client: &mut Client| Ok(client.lease_grant(LEASE, None).await?.id()))
        .await
        .map_err(Failure::Away)?;
    let txn = Txn::new()
        .when([
            Compare::version(keys.writer(), CompareOp::Equal, 0),
            Compare::value(keys.owner(), CompareOp::Equal, owner),
        ])
        .and_then([TxnOp::put(
            keys.writer(),
            owner,
            Some(PutOptions::new().with_lease(new)),
        )])
        .or_else([TxnOp::get(keys.owner(), None)]);
    let answer = members
        .ask(async |client: &mut Client| client.txn(txn.clone()).await)
        .await
        .map_err(Failure::Away)?;
    lease.0.store(new, Ordering::Relaxed);
    if answer.succeeded() {
        return Ok(());
    }
    match answer.op_responses().first() {
        // It was there under an earlier lease: the next beat shows under which.
        Some(TxnOpResponse::Get(get))
            if get.kvs().iter().any(|kv| kv.value() == owner.as_bytes()) =>
        {
            Ok(())
        }
        _ => Err(Failure::Lost(super::TAKEN.to_owned())),
    }
}

/// Has the cluster forget what was before this revision, as of the last time, and says which one there is now.
async fn compact(members: &mut Members, keys: &Keys, before: Option<i64>) -> Option<i64> {
    if let Some(revision) = before {
        let compacted = members
            .ask(async |client: &mut Client| client.compact(revision, None).await)
            .await;
        if let Err(why) = compacted {
            tracing::debug!("etcd does not forget what was before revision {revision}: {why}");
        }
    }
    let get = members
        .ask(async |client: &mut Client| client.get(keys.owner(), None).await)
        .await;
    Some(get.ok()?.header()?.revision())
}
