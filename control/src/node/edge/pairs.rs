//! The pairs of SAs that an edge has from its authorities.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use rustc_hash::FxBuildHasher;

use crate::cluster::Volume;
use crate::cluster::wire::{Carrier, Succession, Up};
use crate::dataplane::{GroupId, Sending};
use crate::ike::{Identity, SaId};
use crate::node::core::Node;
use crate::node::establish::AFTERLIFE;
use crate::node::sessions::Live;
use crate::sadb::{Change, Path, SessionId};

/// A pair that this edge has.
pub(super) struct Known {
    pub(super) session: SessionId,
    /// Whose it is.
    pub(super) link: usize,
    /// Of the carrier that brought it.
    pub(super) sequence: u64,
    /// Milliseconds since 1970 when it was used last, or told of.
    pub(super) stamp: u64,
    pub(super) succession: Succession,
    /// Seconds since 1970.
    pub(super) expires: u64,
    /// The authority has not spoken of it since it was connected to.
    pub(super) stale: bool,
    /// What it has carried here, as the authority was told last.
    pub(super) told: Volume,
}

impl Node {
    /// Forgets a pair, of which the authority may think that it is used here.
    pub(super) fn drop_pair(&mut self, spi: u32) -> Result<()> {
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        let Some(known) = edge.pairs.remove(&spi) else {
            return Ok(());
        };
        if let Some(link) = edge.links.get_mut(known.link) {
            link.core.forgotten(spi);
        }
        self.remove_pair(known.session).map(drop)
    }

    /// Forgets a pair, if it is this authority's.
    pub(super) fn drop_pair_of(&mut self, link: usize, spi: u32) -> Result<()> {
        match self.pair(link, spi) {
            Some(_) => self.drop_pair(spi),
            None => Ok(()),
        }
    }

    /// Forgets all pairs that are like that.
    pub(super) fn drop_pairs(&mut self, which: impl Fn(&Known) -> bool) -> Result<()> {
        let pairs = self.edge.iter().flat_map(|edge| &edge.pairs);
        let over = pairs.filter(|(_, known)| which(known));
        let over: Vec<u32> = over.map(|(spi, _)| *spi).collect();
        over.into_iter().try_for_each(|spi| self.drop_pair(spi))
    }

    /// Forgets what another authority's pairs have replaced for long enough, and tells whose it was.
    pub(super) fn drop_replaced(&mut self, now: Instant) -> Result<()> {
        while let Some(edge) = &mut self.edge
            && let Some(id) = edge.replaced.pop(now)
        {
            let live = self.table.live.get(&id);
            let inbound = live.and_then(|live| live.spec.inbound.as_ref());
            let Some(spi) = inbound.map(|inbound| inbound.spi) else {
                continue;
            };
            if let Some(link) = edge.pairs.get(&spi).map(|known| known.link) {
                self.drop_pair(spi)?;
                self.tell(link, Up::Superseded { spi });
            }
        }
        Ok(())
    }

    /// The session of an authority's pair.
    pub(super) fn pair(&self, link: usize, spi: u32) -> Option<SessionId> {
        let known = self.edge.as_ref()?.pairs.get(&spi)?;
        (known.link == link).then_some(known.session)
    }

    /// A pair has come: it is installed, or brought up to date.
    pub(super) async fn take_pair(
        &mut self,
        link: usize,
        carrier: Carrier,
        now: Instant,
    ) -> Result<()> {
        let spi = carrier.pair.spi();
        // Another edge may not have heard that what had this SPI is gone.
        let before = self.pair(link, spi);
        if before.is_some_and(|id| self.is_another(id, &carrier.pair)) {
            self.drop_pair(spi)?;
        }
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        if edge.issuer(spi) != Some(link) {
            let why = "its SPI has not the number of its authority (channel.number)".to_owned();
            self.refuse_pair(link, spi, why);
            return Ok(());
        }
        if let Some(known) = edge.pairs.get_mut(&spi) {
            // Of several the most current one counts.
            let news = carrier.sequence > known.sequence;
            if news {
                known.stamp = known.stamp.max(carrier.stamp);
                known.succession = carrier.succession;
            }
            known.sequence = known.sequence.max(carrier.sequence);
            known.stale = false;
            let id = known.session;
            edge.confirm(link, spi);
            if news {
                if carrier.succession == Succession::AtOnce {
                    self.dataplane.send_on(id);
                }
                let path = Path {
                    local: carrier.pair.local,
                    remote: carrier.pair.remote,
                    encap: carrier.pair.encap,
                    roams: carrier.pair.roams,
                };
                self.relocate_pair(id, &path)?;
            }
            return Ok(());
        }
        if let Err(why) = self.install_pair(link, carrier, now).await? {
            self.refuse_pair(link, spi, why);
        }
        Ok(())
    }

    fn refuse_pair(&mut self, link: usize, spi: u32, why: String) {
        tracing::warn!("the pair {spi:#010x} can not be used here: {why}");
        self.tell(link, Up::NotInstalled { spi, why });
    }

    /// The pairs of a client's group that other authorities have negotiated: the last seconds of the newest of
    /// them, and the sessions of all.
    fn of_others(&self, group: GroupId, link: usize) -> (u64, Vec<SessionId>) {
        let spi = |live: &Live| live.spec.inbound.as_ref().map(|sa| sa.spi);
        let spis = self.table.of_group(group).filter_map(spi);
        let known = |spi: u32| self.edge.as_ref()?.pairs.get(&spi);
        let others = spis.filter_map(known).filter(|known| known.link != link);
        let others: Vec<(u64, SessionId)> = others.map(|k| (k.expires, k.session)).collect();
        let newest = others.iter().map(|(expires, _)| *expires).max();
        let sessions = others.into_iter().map(|(_, session)| session);
        (newest.unwrap_or(0), sessions.collect())
    }

    pub(super) async fn install_pair(
        &mut self,
        link: usize,
        carrier: Carrier,
        now: Instant,
    ) -> Result<Result<(), String>> {
        let pair = &carrier.pair;
        let spi = pair.spi();
        let client: Identity = match pair.client.parse() {
            Ok(client) => client,
            Err(_) => return Ok(Err(format!("`{}` is no identity", pair.client))),
        };
        let spec = match pair.session() {
            Ok(spec) => spec,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let peer_at = spec.peer_at();
        let group = match self.know_client(&client, &pair.inner, Some(peer_at)) {
            Ok(group) => group,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let (newest, others) = self.of_others(group, link);
        if newest > pair.expires {
            // What an authority that was away still believes in.
            self.tell(link, Up::Superseded { spi });
            return Ok(Ok(()));
        }
        let beside = self.table.of_group(group).next().is_some();
        let changes = match self.answers.sadb.insert(spec) {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for change in changes {
            let Change::Add(spec) = change else { continue };
            self.keylog.esp(&spec);
            let id = spec.id;
            // Only what is shown hangs on it: the pair in use of each client.
            let sa = SaId(FxBuildHasher.hash_one((&pair.client, pair.lane)));
            let live = Live::new(sa, client.clone(), Arc::clone(&spec), group, now);
            self.table.insert(live);
            let sending = match carrier.succession {
                Succession::First => None,
                Succession::AtOnce => Some(Sending::AtOnce),
                Succession::WhenHeard => Some(Sending::WhenHeard),
                Succession::Never => Some(Sending::Told),
            };
            // What takes nobody's place here need not wait for it.
            let sending = sending.filter(|_| beside);
            self.carry(spec, group, sending, false).await?;
            if let (Some(edge), Some(class)) = (&mut self.edge, &pair.class) {
                edge.classes.insert(client.clone(), class.clone());
            }
            self.classify(id)?;
            if let Some(edge) = &mut self.edge {
                let known = Known {
                    session: id,
                    link,
                    sequence: carrier.sequence,
                    stamp: carrier.stamp,
                    succession: carrier.succession,
                    expires: pair.expires,
                    stale: false,
                    told: Volume::default(),
                };
                edge.pairs.insert(spi, known);
                edge.confirm(link, spi);
                for other in &others {
                    edge.replaced.insert(now + AFTERLIFE, *other);
                }
            }
        }
        Ok(Ok(()))
    }
}
