//! An edge's part in the connectivity protocol: whom it asks for the pairs that it lacks, and what it tells
//! those who ask it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::pairs::Known;
use crate::cluster::connectivity::{AUTHORITY, Asked, CARRIERS, Introduction, Output, Party};
use crate::cluster::wire::{Carrier, Relayed, Up};
use crate::cluster::{EdgeId, Pair};
use crate::dataplane::WorkerEvent;
use crate::node::clock::{millis, seconds};
use crate::node::config::Channel;
use crate::node::core::{Node, Role};
use crate::sadb::SessionId;

/// The channel as its parties have it.
fn number_of(link: usize) -> u16 {
    u16::try_from(link).unwrap_or(u16::MAX)
}

/// How long a list of all clients is good enough.
const BY_CLIENT: Duration = Duration::from_secs(1);

/// Pairs by the outside address of their client, as it was when this was made.
#[derive(Default)]
pub(super) struct ByClient {
    made: Option<Instant>,
    spis: HashMap<IpAddr, Vec<u32>>,
}

impl Node {
    fn is_connected(&self, link: usize) -> bool {
        let link = self.edge.as_ref().and_then(|edge| edge.links.get(link));
        link.is_some_and(|link| link.at.is_some())
    }

    /// There is a new channel: its authority says anew who takes part.
    pub(super) fn take_part(&mut self, link: usize, now: Instant) {
        let channel = self.config.channel.as_ref();
        let messages = channel.is_some_and(Channel::by_messages);
        let Some(connectivity) = &mut self.connectivity else {
            return;
        };
        connectivity.core.part_all(number_of(link), now);
        let at = connectivity.at();
        self.tell(link, Up::Here { at, messages });
    }

    pub(super) fn acquaint(&mut self, link: usize, introduction: &Introduction, now: Instant) {
        let Some(connectivity) = &mut self.connectivity else {
            return;
        };
        let core = &mut connectivity.core;
        if !core.introduce(number_of(link), introduction, now) {
            tracing::warn!("{} was made known by a key of no use", introduction.number);
        }
    }

    pub(super) fn part_from(&mut self, link: usize, number: EdgeId, now: Instant) {
        if let Some(connectivity) = &mut self.connectivity {
            let link = number_of(link);
            connectivity.core.part(Party { link, number }, now);
        }
    }

    /// An IKE message goes to an authority: in a datagram if the configuration says so and it can be, else by
    /// the channel.
    pub(super) fn relay_one(&mut self, link: usize, mut relayed: Relayed) {
        let channel = self.config.channel.as_ref();
        let messages = channel.is_some_and(Channel::by_messages);
        if let Some(connectivity) = self.connectivity.as_mut().filter(|_| messages) {
            let party = Party {
                link: number_of(link),
                number: AUTHORITY,
            };
            match connectivity.core.relay(party, relayed) {
                Ok(()) => return,
                Err(back) => relayed = back,
            }
        }
        self.tell(link, Up::Ike(relayed));
    }

    /// The edge lacks something: other edges are asked first, and its authority if they do not have it.
    pub(super) fn ask(&mut self, link: usize, what: Asked, now: Instant) {
        // Without an authority nobody grants numbers, and a pair would be of no use.
        let connected = self.is_connected(link);
        match self.connectivity.as_mut().filter(|_| connected) {
            Some(connectivity) => connectivity.core.ask(Some(number_of(link)), what, now),
            None => self.ask_authority(link, what),
        }
    }

    /// The same for all pairs of whoever is at this address. False: there is nobody to ask.
    pub(super) fn ask_of_client(&mut self, link: usize, address: IpAddr) -> bool {
        let connected = self.is_connected(link);
        if connected {
            self.ask(link, Asked::Client(address), Instant::now());
        }
        connected
    }

    fn ask_authority(&mut self, link: usize, what: Asked) {
        let question = match what {
            Asked::Spi(spi) => Up::Query { spi },
            Asked::Client(address) => Up::Associated { address },
        };
        self.tell(link, question);
    }

    /// Something has come, or time has passed. `ticked`: it is time for what is done now and then.
    pub(in crate::node) fn poll_connectivity(&mut self, now: Instant, ticked: bool) {
        let Some(connectivity) = &mut self.connectivity else {
            return;
        };
        connectivity.receive();
        if let Some(edge) = self.edge.as_ref().filter(|_| ticked) {
            let (pairs, owned) = (edge.pairs.len() as u64, edge.owned() as u64);
            connectivity.core.have(pairs, owned, now);
        }
        connectivity.core.poll(now);
    }

    /// Does what the connectivity protocol wants to be done. Says whether there was anything.
    pub(in crate::node) async fn pump_connectivity(&mut self) -> Result<bool> {
        let mut worked = false;
        while let Some(output) = self.connectivity.as_mut().and_then(|c| c.next()) {
            worked = true;
            match output {
                Output::Send { .. } => {}
                Output::Ike { relayed, .. } => self.send_relayed(relayed).await?,
                Output::Asked { from, id, what } => {
                    let carriers = self.carriers(from.link.into(), what);
                    if let Some(connectivity) = &mut self.connectivity {
                        connectivity.core.answer(from, id, carriers);
                    }
                }
                Output::Found {
                    link,
                    what,
                    carriers,
                } => {
                    if !self.take_found(carriers).await? {
                        self.ask_authority(link.unwrap_or(0).into(), what);
                    }
                }
                Output::Lacking { link, what } => {
                    self.ask_authority(link.unwrap_or(0).into(), what);
                }
            }
        }
        Ok(worked)
    }

    /// Installs what others had, of each pair the first that can be. Whether there was one.
    async fn take_found(&mut self, carriers: Vec<(Party, Carrier)>) -> Result<bool> {
        let (now, mut here) = (Instant::now(), HashSet::new());
        for (from, carrier) in carriers {
            let (spi, sequence, link) = (carrier.pair.spi(), carrier.sequence, from.link.into());
            let Some(edge) = &self.edge else { break };
            // The authority may have sent it meanwhile.
            if edge.pairs.contains_key(&spi) {
                here.insert(spi);
            }
            let own = edge.issuer(spi) == Some(link) && self.is_connected(link);
            if here.contains(&spi) || !own {
                continue;
            }
            match self.install_pair(link, carrier, now).await? {
                Ok(()) => {
                    here.insert(spi);
                    // It says so if the pair is not to be used any more.
                    self.tell(link, Up::Fetched { spi, sequence });
                }
                Err(why) => {
                    tracing::warn!("the pair {spi:#010x} of {from} can not be used here: {why}");
                }
            }
        }
        Ok(!here.is_empty())
    }

    /// The pairs of an authority that are asked for, as far as they are here.
    fn carriers(&mut self, link: usize, what: Asked) -> Vec<Carrier> {
        let spis = match what {
            Asked::Spi(spi) => vec![spi],
            Asked::Client(address) => self.spis_of(address),
        };
        let Some(edge) = &self.edge else {
            return Vec::new();
        };
        let seconds = seconds();
        let carriers = spis.into_iter().filter_map(|spi| {
            let known = edge.pairs.get(&spi)?;
            let own = known.link == link && known.expires > seconds;
            let carrier = self.carrier(spi, known).filter(|_| own)?;
            what.is_for(&carrier).then_some(carrier)
        });
        carriers.take(CARRIERS).collect()
    }

    /// The pairs of the clients at an address, as it was a moment ago: no table is kept of what is asked for
    /// so seldom, and many questions at once do not go through all pairs each.
    fn spis_of(&mut self, address: IpAddr) -> Vec<u32> {
        let Some(edge) = &mut self.edge else {
            return Vec::new();
        };
        let now = Instant::now();
        if edge.by_client.made.is_none_or(|at| now >= at + BY_CLIENT) {
            edge.by_client = ByClient {
                made: Some(now),
                spis: HashMap::new(),
            };
            for (spi, known) in &edge.pairs {
                if let Some(live) = self.table.live.get(&known.session) {
                    let spis = &mut edge.by_client.spis;
                    spis.entry(live.spec.outside_remote).or_default().push(*spi);
                }
            }
        }
        edge.by_client
            .spis
            .get(&address)
            .cloned()
            .unwrap_or_default()
    }

    /// A pair as it is here.
    fn carrier(&self, spi: u32, known: &Known) -> Option<Carrier> {
        let live = self.table.live.get(&known.session)?;
        let Role::Gateway(gateway) = &self.role else {
            return None;
        };
        let inner = gateway.inner(&live.peer).to_vec();
        let class = self.edge.as_ref()?.class_of(&live.peer);
        let client = live.peer.to_string();
        let pair = Pair::of(&live.spec, client, inner, class, known.expires).ok()?;
        (pair.spi() == spi).then_some(Carrier {
            stamp: known.stamp,
            sequence: known.sequence,
            succession: known.succession,
            pair,
        })
    }

    /// Notes which pairs are in use: of several edges the one that used a pair last knows most of it.
    pub(super) fn note_use(&mut self, event: &WorkerEvent) {
        let WorkerEvent::Progress(all) = event else {
            return;
        };
        let Some(edge) = self.edge.as_mut().filter(|_| self.connectivity.is_some()) else {
            return;
        };
        let now = millis();
        for progress in all {
            if let Some(known) = edge.pairs.get_mut(&progress.spi) {
                known.stamp = known.stamp.max(now);
            }
        }
    }

    /// Whether a session is another one than this pair, which has its SPI now.
    pub(super) fn is_another(&self, id: SessionId, pair: &Pair) -> bool {
        let live = self.table.live.get(&id);
        let inbound = live.and_then(|live| live.spec.inbound.as_ref());
        inbound.is_some_and(|sa| sa.key.expose() != pair.inbound.key.expose())
    }
}
