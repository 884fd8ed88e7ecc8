//! A gateway that is an edge: it shares its outside address with others, carries the IKE messages of
//! clients to an authority and back, and uses the SAs that the authority negotiated, as far as it is told.
//! There may be several authorities, each with clients, SPIs and numbers of its own.

mod associations;
mod connectivity;
mod numbers;
mod pairs;
mod relay;
mod translation;
mod volumes;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use evergate_common::steering::number_of;
use futures_util::FutureExt;
use rand::Rng as _;

use super::config::NamedAuthority;
use super::core::Node;
use super::departures::Departures;
use super::events::{EventKind, NewEvent};
use super::notary::Notary;
use super::roaming::Witness;
use super::sockets::Datagram;
use crate::api::model;
use crate::cluster::channel::{Credentials, News, Uplink};
use crate::cluster::wire::{Down, Relayed, Succession, Up};
use crate::cluster::{self, Run, Terms, Volume};
use crate::dataplane::net::icmp::RateLimit;
use crate::ike::{CookieKeys, Identity, Transmit};

use connectivity::ByClient;
use pairs::Known;
use relay::Addressee;
pub(super) use relay::{Limits, addressee};
pub(super) use translation::translation;

/// Without its authority for so long, an edge gives up pairs that their clients want to use here and may not.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Messages of the channel that are taken at once.
const BATCH: usize = 256;

/// An edge's own.
pub(super) struct Edge {
    links: Vec<Link>,
    /// By inbound SPI.
    pairs: HashMap<u32, Known>,
    /// Pairs in whose place another authority's have come, and when they go.
    replaced: Departures,
    /// Of the packet filter, by client.
    classes: HashMap<Identity, String>,
    limits: Limits,
    /// The index of its outside interface, and how many stations there authorities are told of.
    outside: u32,
    arrivals: RateLimit,
    by_client: ByClient,
    /// When authorities are told how many bytes pairs have carried.
    volumes_at: Instant,
    /// As long as it is here, the notary keeps silent.
    _notary: Option<Notary>,
}

/// An authority as an edge knows it, with those that take its place when it is gone.
pub(super) struct Link {
    /// In the SPIs that it issues; none: it is the only one.
    number: Option<u8>,
    /// Which of its numbers may be used here.
    core: cluster::Edge,
    /// Where it is, while there is a connection.
    at: Option<SocketAddr>,
    /// When the last connection ended, or the edge began.
    lost_at: Instant,
    /// What it makes cookies with.
    cookies: Option<CookieKeys>,
    /// New pairs that it waits for.
    unconfirmed: Vec<u32>,
}

impl Link {
    fn new(number: Option<u8>, notary: Option<&Notary>) -> Self {
        let terms = Terms::default();
        Self {
            number,
            core: match notary {
                Some(notary) => cluster::Edge::new(terms, notary.run()).with_notary(),
                None => cluster::Edge::new(terms, Run(rand::rng().next_u64())),
            },
            at: None,
            lost_at: Instant::now(),
            cookies: None,
            unconfirmed: Vec::new(),
        }
    }

    /// Whether there has been no connection for so long that its pairs are not waited for any more.
    fn given_up(&self, now: Instant) -> bool {
        self.at.is_none() && now >= self.lost_at + GIVE_UP
    }
}

impl Edge {
    /// An edge with these authorities, and its ways to them; to be called within a runtime. `outside`: the
    /// index of its interface.
    pub(super) fn start(
        authorities: &[NamedAuthority],
        credentials: &Credentials,
        outside: u32,
        notary: Option<Notary>,
    ) -> (Self, Vec<Uplink>) {
        let mut numbers: Vec<_> = authorities.iter().map(|at| at.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let uplink = |number: &Option<u8>| {
            let same = authorities.iter().filter(|at| at.number == *number);
            let same = same.map(|at| (at.address, at.name.clone()));
            Uplink::start(same.collect(), credentials)
        };
        let uplinks = numbers.iter().map(uplink).collect();
        let now = Instant::now();
        let edge = Self {
            links: numbers
                .into_iter()
                .map(|number| Link::new(number, notary.as_ref()))
                .collect(),
            pairs: HashMap::new(),
            replaced: Departures::default(),
            classes: HashMap::new(),
            limits: Limits::new(now),
            outside,
            arrivals: RateLimit::new(associations::TOLD.0, associations::TOLD.1, now),
            by_client: ByClient::default(),
            volumes_at: now,
            _notary: notary,
        };
        (edge, uplinks)
    }

    /// What the guard asks for cookies with: those of the first authority that is there.
    pub(super) fn cookies(&self) -> Option<CookieKeys> {
        let mut there = self.links.iter().filter(|link| link.at.is_some());
        there.find_map(|link| link.cookies.clone())
    }

    /// First messages that have come to user space.
    pub(super) fn first_messages(&self) -> u64 {
        self.limits.first_messages
    }

    /// The class of the packet filter that a client has.
    pub(super) fn class_of(&self, client: &Identity) -> Option<String> {
        self.classes.get(client).cloned()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let cores = self.links.iter().filter_map(|link| link.core.deadline());
        cores.chain(self.replaced.next()).min()
    }

    /// Pairs that may be used here.
    pub(super) fn owned(&self) -> usize {
        self.links.iter().map(|link| link.core.owned()).sum()
    }

    /// Pairs that the data plane may still be using.
    fn holds(&self) -> usize {
        self.links.iter().map(|link| link.core.holds()).sum()
    }

    /// Who looks after the numbers of a pair.
    fn core_of(&mut self, spi: u32) -> Option<&mut cluster::Edge> {
        let link = self.issuer(spi)?;
        self.links.get_mut(link).map(|link| &mut link.core)
    }

    /// Gives everything back, or takes pairs again.
    pub(super) fn give_back(&mut self, undo: bool) {
        for link in &mut self.links {
            match undo {
                true => link.core.take_again(),
                false => link.core.give_back(),
            }
        }
    }

    /// Its authority is told that a pair can be received on, once it can.
    fn confirm(&mut self, link: usize, spi: u32) {
        if let Some(link) = self.links.get_mut(link) {
            link.unconfirmed.push(spi);
        }
    }

    /// The authority whose SPIs carry this number.
    fn numbered(&self, number: u8) -> Option<usize> {
        let is = |link: &Link| link.number.is_none_or(|own| own == number);
        self.links.iter().position(is)
    }

    /// The authority that has issued an SPI.
    fn issuer(&self, spi: u32) -> Option<usize> {
        self.numbered(number_of(spi.to_be_bytes()))
    }

    /// The authority that an IKE message goes to, if one may.
    fn way_of(&mut self, datagram: &Datagram, now: Instant) -> Option<usize> {
        let addressee = addressee(&datagram.data)?;
        if !self.limits.allow(addressee, now) {
            return None;
        }
        match addressee {
            Addressee::Number(number) => self.numbered(number),
            Addressee::Anybody => {
                let links = self.links.iter().enumerate();
                let there = links.filter(|(_, link)| link.at.is_some());
                let there = there.map(|(index, link)| (index, link.number.unwrap_or(0)));
                relay::choose(datagram.remote.ip(), there)
            }
        }
    }
}

impl Node {
    /// What an edge knows of its authorities.
    pub(super) fn authorities_view(&self) -> Vec<model::Authority> {
        let Some(edge) = &self.edge else {
            return Vec::new();
        };
        let view = |(index, link): (usize, &Link)| {
            let pairs = edge.pairs.values().filter(|known| known.link == index);
            model::Authority {
                number: link.number,
                at: link.at,
                pairs: pairs.count() as u64,
                owned: link.core.owned() as u64,
            }
        };
        edge.links.iter().enumerate().map(view).collect()
    }

    /// Tells an authority something; false: there is no connection.
    fn tell(&mut self, link: usize, message: Up) -> bool {
        let uplink = self.inputs.uplinks.get_mut(link);
        uplink.is_some_and(|uplink| uplink.send(message))
    }

    /// IKE is the authority's. What can not be told it is lost, and will be repeated.
    pub(super) fn relay(&mut self, datagrams: Vec<Datagram>) {
        let now = Instant::now();
        for datagram in datagrams {
            let edge = self.edge.as_mut();
            let Some(link) = edge.and_then(|edge| edge.way_of(&datagram, now)) else {
                continue;
            };
            let relayed = Relayed {
                local: datagram.local,
                remote: datagram.remote,
                data: datagram.data,
            };
            self.relay_one(link, relayed);
        }
    }

    /// A channel has something, and mostly more: that new pairs can be received on is waited for once.
    pub(super) async fn on_all_news(&mut self, link: usize, first: News) -> Result<()> {
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(news) = next.take() else { break };
            self.on_news(link, news).await?;
            let more = self.inputs.uplinks.get_mut(link).map(|link| link.next());
            next = more.and_then(FutureExt::now_or_never);
        }
        // What was taken out must not be lost.
        match next {
            Some(news) => self.on_news(link, news).await,
            None => Ok(()),
        }
    }

    /// A channel has something.
    async fn on_news(&mut self, index: usize, news: News) -> Result<()> {
        let now = Instant::now();
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        let Some(link) = edge.links.get_mut(index) else {
            return Ok(());
        };
        let turned = matches!(news, News::Connected { .. } | News::Ended { .. });
        let which = link.number.map_or_else(String::new, |n| format!(" {n}"));
        match news {
            News::Connected { authority } => {
                link.at = Some(authority);
                link.core.connected(now);
                let pairs = edge.pairs.values_mut();
                for known in pairs.filter(|known| known.link == index) {
                    known.stale = true;
                    // This authority may be another one, or have begun again.
                    known.told = Volume::default();
                }
                let text = format!("connected to the authority{which} at {authority}");
                self.note(NewEvent::new(EventKind::EdgeUp, text));
                self.take_part(index, now);
            }
            News::Ended { why } => {
                (link.at, link.lost_at) = (None, now);
                link.core.disconnected();
                let text = format!("no authority{which} any more, traffic goes on as it is: {why}");
                self.note(NewEvent::new(EventKind::EdgeDown, text));
            }
            News::Failed { authority, why } => {
                let text = format!("the authority{which} at {authority} can not be reached: {why}");
                self.note(NewEvent::new(EventKind::EdgeRefused, text));
            }
            News::Message(message) => self.on_down(index, *message, now).await?,
        }
        match turned {
            true => self.translate_anew(index),
            false => Ok(()),
        }
    }

    async fn on_down(&mut self, index: usize, message: Down, now: Instant) -> Result<()> {
        let edge = self.edge.as_mut();
        let Some(link) = edge.and_then(|edge| edge.links.get_mut(index)) else {
            return Ok(());
        };
        match message {
            // The channel has seen to it. Who does not know a pair can not be asked for it.
            Down::Greeting { .. } | Down::Unknown { .. } => {}
            Down::Leaving => link.core.abandoned(),
            Down::Cookies { current, before } => {
                link.cookies = Some(CookieKeys { current, before })
            }
            Down::Numbers(numbers) => link.core.hear(numbers, now),
            Down::Ike(relayed) => self.send_relayed(relayed).await?,
            Down::Acquaint(introduction) => self.acquaint(index, &introduction, now),
            Down::Part { number } => self.part_from(index, number, now),
            Down::Install(carrier) => self.take_pair(index, *carrier, now).await?,
            Down::Forget { spi } => self.drop_pair_of(index, spi)?,
            Down::Complete => {
                self.drop_pairs(|known| known.link == index && known.stale)?;
                self.note_complete(index);
            }
            Down::Moved { spi, remote } => {
                if let Some(id) = self.pair(index, spi) {
                    self.peer_moved(id, remote, Witness::Ike)?;
                }
            }
            Down::SendOn { spi } => {
                if let Some(id) = self.pair(index, spi) {
                    self.dataplane.send_on(id);
                    let known = self.edge.as_mut().and_then(|edge| edge.pairs.get_mut(&spi));
                    if let Some(known) = known {
                        known.succession = Succession::AtOnce;
                    }
                }
            }
        }
        Ok(())
    }

    /// Says that it has all that it gets by itself.
    fn note_complete(&self, index: usize) {
        let Some(edge) = &self.edge else { return };
        let number = edge.links.get(index).and_then(|link| link.number);
        let which = number.map_or_else(String::new, |n| format!(" {n}"));
        let pairs = edge.pairs.values().filter(|pair| pair.link == index);
        let text = format!(
            "the SAs of the authority{which} are here: {} pairs",
            pairs.count()
        );
        self.note(NewEvent::new(EventKind::EdgeComplete, text));
    }

    /// Sends a client what its authority has for it.
    async fn send_relayed(&mut self, relayed: Relayed) -> Result<()> {
        let Relayed {
            local,
            remote,
            data,
        } = relayed;
        let transmit = Transmit {
            local,
            remote,
            data,
        };
        // Its pair must be received on before the client learns of it.
        self.dataplane.let_all_in().await?;
        if let Err(error) = self.sockets.send(&transmit).await {
            tracing::debug!("IKE to {remote}: {error}");
        }
        Ok(())
    }

    /// The authority hears of a client that its NAT has moved.
    pub(super) fn tell_moved(&mut self, spec: &crate::sadb::SessionSpec, remote: SocketAddr) {
        let Some(spi) = spec.inbound.as_ref().map(|inbound| inbound.spi) else {
            return;
        };
        let known = self.edge.as_ref().and_then(|edge| edge.pairs.get(&spi));
        if let Some(link) = known.map(|known| known.link) {
            self.tell(link, Up::Moved { spi, remote });
        }
    }
}
