//! From a configuration to a running authority.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::distribution::Shared;
use super::edges::Edge;
use super::held::Held;
use super::stand_ins::StandIns;
use super::status::{Board, blank};
use super::{Authority, Inputs};
use crate::api::server::{ApiServer, Shared as Served};
use crate::cluster::channel::{Credentials, Known, Listener};
use crate::cluster::repository::{
    Repository, RepositoryError, RepositoryKey, Settings as Kept, Stored, Tls,
};
use crate::cluster::wire::{Carrier, Succession};
use crate::cluster::{Ledger, Terms, Volumes};
use crate::ike::{Engine, Identity, Settings};
use crate::node::config::{ChannelEnd, Config, EtcdTls, Store};
use crate::node::connectivity::Connectivity;
use crate::node::departures::Departures;
use crate::node::events::{EventKind, EventLog, NewEvent};
use crate::node::gateway::Clients;
use crate::node::hooks::{Answers, Side};
use crate::node::keylog::KeyLog;
use crate::node::peers::{Peer, Peers, pool_key};
use crate::node::pool::Pool;
use crate::node::sessions::Table;
use crate::node::start::{COMMANDS, ike_settings};
use crate::node::threads::Threads;
use crate::privilege::{Confinement, capabilities};
use crate::sadb::{Change, Sadb};

fn etcd_tls(files: &EtcdTls) -> Result<Tls, RepositoryError> {
    let identity = files.identity.as_ref();
    let identity = identity.map(|(cert, key)| (cert.as_path(), key.as_path()));
    Tls::read(&files.ca, identity, files.name.clone())
}

/// Starts an authority.
pub(in crate::node) async fn start(
    config: Config,
    keylog: Option<PathBuf>,
    confinement: &Confinement,
) -> Result<Authority> {
    let started = Instant::now();
    let events = EventLog::new();
    let mut keylog = KeyLog::new(keylog, events.clone());
    keylog.begin().context("keys can not be written")?;
    let (Some(address), Some(channel), Some(kept)) =
        (config.outside.address, &config.channel, &config.repository)
    else {
        bail!("an authority needs outside.address, [channel] and [repository]");
    };
    let ChannelEnd::Authority {
        listen,
        edges,
        distribution,
        number,
    } = &channel.end
    else {
        bail!("an authority needs channel.listen");
    };
    let distribution = *distribution;
    let credentials = Credentials::read(&channel.cert, &channel.key, &channel.ca)?;
    let key = RepositoryKey::read(&kept.key)?;
    let settings = match &kept.store {
        Store::Embedded(file) => Kept::Embedded { file: file.clone() },
        Store::Etcd {
            endpoints,
            prefix,
            tls,
            user,
        } => Kept::Etcd {
            endpoints: endpoints.clone(),
            prefix: prefix.clone(),
            tls: tls.as_ref().map(etcd_tls).transpose()?,
            user: user.clone(),
        },
    };
    // It may have to wait for another one that was the writer before.
    let (mut repository, stored) = Repository::open(&settings, key).await?;
    let (run, ike) = (repository.run(), repository.take_ike());
    let known = edges.iter().map(|edge| Known {
        edge: edge.number,
        name: edge.name.clone(),
    });
    let listener = Listener::bind(*listen, &credentials, known.collect()).await?;
    let known = edges
        .iter()
        .map(|edge| (edge.number, Edge::new(edge.name.clone(), edge.chosen)));
    let connectivity = Connectivity::bind(config.connectivity.as_ref()).await?;
    let stand_ins = StandIns::bind(edges, address).await?;
    let board = Arc::new(Board::new(blank(&config, 0), started));
    let (sender, commands) = mpsc::channel(COMMANDS);
    let shown = Arc::clone(&board);
    let api = ApiServer::start(
        &config.socket,
        confinement.socket_group,
        Served {
            status: Arc::new(move || shown.status()),
            events: events.clone(),
            commands: sender,
        },
    )?;
    let peers: Vec<Peer> = config.peers.iter().map(Peer::new).collect();
    let fixed = peers
        .iter()
        .map(|p| (pool_key(&p.identity), p.inner.clone()));
    let users = config.users.iter();
    let users = users.map(|u| (pool_key(&u.identity), u.inner.clone()));
    let pool = Pool::new(config.pool.clone(), fixed.chain(users));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = config.ike.threads.unwrap_or((cores / 2).clamp(1, 8));
    let settings = Settings {
        export_keys: keylog.is_on(),
        // Edges have one worker for each pair; further pairs are of no use to them.
        lanes: 1,
        ..ike_settings(&config)
    };
    let mut authority = Authority {
        address,
        distribution,
        engine: Engine::new(settings, StdRng::from_rng(&mut rand::rng())),
        threads: Threads::new(threads)?,
        keylog,
        answers: Answers {
            peers: Peers::from(peers),
            users: config.users.clone(),
            groups: config.groups.clone(),
            sadb: Sadb::for_workers(config.esp.workers, false)
                .with_number(number.unwrap_or(0))
                .with_run(run),
            rng: StdRng::from_rng(&mut rand::rng()),
            side: Side::Gateway { pool },
            elsewhere: None,
        },
        clients: Clients::default(),
        table: Table::default(),
        shared: BTreeMap::new(),
        ledger: Ledger::new(Terms::default()),
        listener,
        edges: known.collect(),
        stand_ins,
        repository,
        is_away: false,
        storing: HashMap::new(),
        writes: 0,
        unwritten: Vec::new(),
        write_by: None,
        batch: HashMap::new(),
        heard_by: HashMap::new(),
        at: HashMap::new(),
        places: HashMap::new(),
        held: Held::default(),
        cookies: None,
        dying: Departures::default(),
        retired: Departures::default(),
        inputs: Inputs {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            commands,
            connectivity: connectivity.as_ref().map(|c| c.socket()),
        },
        connectivity,
        api,
        board,
        events,
        started,
        tick: started,
        tell_at: None,
        post_at: None,
        post_earliest: started,
        config,
    };
    let kept = authority.engine.keep(run);
    kept.context("the repository has been opened too often: begin with an empty one")?;
    let count = stored.len();
    for pair in stored {
        authority.restore(pair);
    }
    let sessions = authority.restore_ike(ike);
    let text = format!(
        "authority {} is up on {} for {address}, with {count} pairs of SAs and {sessions} IKE SAs of before",
        authority.config.name,
        authority.listener.local_addr(),
    );
    authority.note(NewEvent::new(EventKind::NodeStarted, text));
    confinement.seal(capabilities::CapabilitySet::empty())?;
    Ok(authority)
}

impl Authority {
    /// A pair that an earlier run negotiated: edges may go on with it until it expires.
    fn restore(&mut self, stored: Stored) {
        let Stored { pair, kept } = stored;
        let spi = pair.spi();
        let spec = match pair.session() {
            Ok(spec) => spec,
            Err(error) => return tracing::error!("the pair {spi:#010x} can not be used: {error}"),
        };
        let esn = pair.esn;
        // Its addresses are its client's, also before that comes anew.
        if let Ok(client) = pair.client.parse::<Identity>() {
            let Side::Gateway { pool } = &mut self.answers.side else {
                return;
            };
            let families = |v4| pair.inner.iter().any(|address| address.is_ipv4() == v4);
            let wants = (families(true), families(false));
            if let Err(error) = pool.assign(&pool_key(&client), &pair.inner, wants, |_| true) {
                tracing::warn!("{client} does not keep its inner address: {error}");
            }
            self.clients
                .know(&client, &pair.inner, Some(spec.peer_at()));
            self.clients.set_inner(&client, &pair.inner);
        }
        let added = match self.answers.sadb.insert(spec) {
            Ok(added) => added,
            Err(error) => return tracing::error!("the pair {spi:#010x} can not be used: {error}"),
        };
        for change in added {
            let Change::Add(spec) = change else { continue };
            let shared = Shared {
                told: spec.peer_at(),
                session: spec.id,
                sa: None,
                top: kept.hard.saturating_sub(Terms::default().reserve),
                volumes: Volumes::default(),
                carrier: Carrier {
                    stamp: 0,
                    sequence: 0,
                    succession: Succession::First,
                    pair: pair.clone(),
                },
            };
            self.shared.insert(spi, shared);
        }
        self.ledger.add(spi, esn, Some(kept));
    }
}
