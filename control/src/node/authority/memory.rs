//! IKE SAs outlive the process: each is in the repository beside the pairs that it has made, and the next
//! run goes on with it.

use std::sync::Arc;
use std::time::Instant;

use super::Authority;
use crate::cluster::Bytes;
use crate::cluster::repository::{StoredIke, Write};
use crate::ike::{BadSnapshot, Changed, Identity, SaId, Snapshot};
use crate::node::clock::millis;
use crate::node::establish::AFTERLIFE;
use crate::node::sessions::Live;

impl Authority {
    /// Gives the repository what is new of IKE SAs. What is queued for their peers waits for that, unless
    /// only message IDs are new. Says whether there was anything.
    pub(super) fn keep_ike(&mut self, now: Instant) -> bool {
        let mut worked = false;
        while let Some(changed) = self.engine.poll_changed(now, millis()) {
            worked = true;
            let Changed {
                spi,
                snapshot,
                urgent,
                ..
            } = changed;
            let bytes = snapshot.as_ref().map(Snapshot::to_bytes).transpose();
            let bytes = bytes.unwrap_or_else(|error| {
                tracing::warn!("an IKE SA will not outlive this process: {error}");
                None
            });
            let (Some(snapshot), Some(bytes)) = (snapshot, bytes) else {
                self.write(Write::EraseIke { spi });
                continue;
            };
            // They are asked for, whatever is written; and what waits has a bound.
            if self.is_away && !urgent {
                continue;
            }
            let number = self.write(Write::Ike(StoredIke {
                spi,
                expires: snapshot.ends_at().unwrap_or(u64::MAX),
                state: Bytes::from(&bytes[..]),
            }));
            if urgent {
                self.held.wait_for_write(snapshot.remote(), number, now);
            }
        }
        worked
    }

    /// Gives the repository all that it does not have exactly.
    pub(super) fn keep_all_ike(&mut self) {
        self.engine.note_all();
        self.keep_ike(Instant::now());
    }

    /// Goes on with the IKE SAs of earlier runs. Says with how many.
    pub(super) fn restore_ike(&mut self, stored: Vec<StoredIke>) -> usize {
        let mut count = 0;
        for StoredIke { spi, state, .. } in stored {
            match self.restore_one(state.expose()) {
                Ok(()) => count += 1,
                Err(error) => {
                    tracing::error!("the IKE SA {spi:016x} can not be gone on with: {error}");
                    self.write(Write::EraseIke { spi });
                }
            }
        }
        count
    }

    fn restore_one(&mut self, state: &[u8]) -> Result<(), BadSnapshot> {
        let now = Instant::now();
        let snapshot = Snapshot::from_bytes(state)?;
        let peer = self.answers.configured(snapshot.peer()?);
        let sa = self.engine.restore(now, millis(), &snapshot)?;
        if snapshot.is_replaced() {
            return Ok(());
        }
        let known = self.answers.inner_of(&peer).is_some();
        let mut used = false;
        // Those that are in use last: they take the others' place.
        for turn in [false, true] {
            let children = snapshot.children().iter();
            let children = children.filter(|c| known && c.is_in_use() == turn);
            for child in children {
                used |= self.adopt(child.spi_in, sa, &peer, !turn, now) && turn;
            }
        }
        if !used {
            // Nobody has its keys, or nobody knows the client any more: it is told, and comes anew.
            self.engine.close(now, sa);
            return Ok(());
        }
        self.now_at(snapshot.remote(), sa);
        self.retire_earlier(&peer.to_string(), now + AFTERLIFE);
        Ok(())
    }

    /// A pair of an earlier run belongs to an IKE SA again. False if there is no such pair.
    fn adopt(&mut self, spi: u32, sa: SaId, peer: &Identity, retired: bool, now: Instant) -> bool {
        let Some(shared) = self.shared.get_mut(&spi) else {
            return false;
        };
        let Some(spec) = self.answers.sadb.get(shared.session) else {
            return false;
        };
        let spec = Arc::clone(spec);
        shared.sa = Some(sa);
        let inner = &shared.carrier.pair.inner;
        let (group, _) = self.clients.know(peer, inner, Some(spec.peer_at()));
        self.table.insert(Live {
            retired,
            ..Live::new(sa, peer.clone(), spec, group, now)
        });
        if !retired && self.ledger.kept(spi).is_some_and(|kept| kept.rekey) {
            self.engine.rekey_child(now, sa, spi);
        }
        true
    }
}
