//! From a configuration to a running node. Everything that can be wrong is found here, before
//! anything is attached.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use evergate_common::steering::NUMBER_BITS;
use ipnet::IpNet;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::client::Client;
use super::config::{self, Config, HeartbeatForm};
use super::connectivity::Connectivity;
use super::core::{Node, Role};
use super::departures::Departures;
use super::edge::{self, Edge};
use super::events::{EventKind, EventLog, NewEvent};
use super::front::{self, Watch};
use super::gateway::Gateway;
use super::guard::Flood;
use super::hooks::{Answers, Side};
use super::inner::Inner;
use super::inputs::Inputs;
use super::interfaces::Interfaces;
use super::keylog::KeyLog;
use super::leaving::Leaving;
use super::life::{self, Wallet};
use super::notary::Notary;
use super::peers::{Peer, Peers, identity, pool_key};
use super::pool::Pool;
use super::reload::read_policy;
use super::routes::{Device, Routes};
use super::sessions::{Table, VENDOR_ID};
use super::sockets::Sockets;
use super::status::{Board, Fixed};
use super::steering::{Group, Links};
use super::threads::Threads;
use crate::api::server::{ApiServer, Shared};
use crate::cluster::channel::{Credentials, Uplink};
use crate::dataplane::loader::{OutsideSettings, XdpMode};
use crate::dataplane::net::fib_watch::FibWatch;
use crate::dataplane::net::links::{self, LinkInfo};
use crate::dataplane::net::overhead::Envelope;
use crate::dataplane::{
    Dataplane, Discovery, InsideOptions, MAX_SEGMENTS, Options, OutsideOptions, TUN_QUEUE,
};
use crate::ike::{Encapsulation, Engine, IkeProposal, Lifetime, Retransmit, Settings, SpiPrefix};
use crate::kms::{self, KeyManagement};
use crate::policy::Resolved;
use crate::privilege::{Confinement, capabilities};
use crate::sadb::Sadb;

/// SAs that a client's, and a gateway's, XDP program has room for.
const CLIENT_SAS: u32 = 4096;
const GATEWAY_SAS: u32 = 1 << 20;

/// The least time that is left for a rekeying that fails at first.
const MARGIN: Duration = Duration::from_secs(30);

/// TUN devices of gateways where the kernel forwards; it chooses the number.
const ROUTED: &str = "evergate%d";

/// Commands of the API that may wait for the core.
pub(super) const COMMANDS: usize = 64;

/// Starts a node.
pub(super) async fn start(
    config: Config,
    keylog: Option<PathBuf>,
    confinement: &Confinement,
    notary: Option<Notary>,
) -> Result<Node> {
    let started = Instant::now();
    let events = EventLog::new();
    let mut keylog = KeyLog::new(keylog, events.clone());
    keylog.begin().context("keys can not be written")?;
    let handle = links::connect()?;
    let outside = LinkInfo::by_name(&handle, &config.outside.interface).await?;
    if config.outside.xdp != config::XdpMode::Off {
        outside.mac()?;
    }
    let address = match config.outside.address.or(outside.v4.map(|(a, _)| a)) {
        Some(address) => address,
        None => outside.v6.map(|(a, _)| a).with_context(|| {
            format!(
                "interface {} has no global address",
                config.outside.interface
            )
        })?,
    };
    // A client's policy is read before anything is touched.
    let policy = match (&config.policy, config.role) {
        (Some(path), config::Role::Client) => Some(read_policy(path)?),
        _ => None,
    };
    let (sockets, port) = match xdp_mode(config.outside.xdp) {
        Some(mode) => (Sockets::bind(address).await?, OutsideOptions::Xdp(mode)),
        None => {
            let (sockets, share) = Sockets::bind_shared(address, config.esp.workers).await?;
            (sockets, OutsideOptions::Udp(share.sockets, share.messages))
        }
    };

    let mut names = vec![config.outside.interface.clone()];
    let inside = match config.role {
        // Authorities and fronts start elsewhere: they have no packets to carry.
        config::Role::Gateway | config::Role::Authority | config::Role::Front => {
            let lan = LinkInfo::by_name(&handle, &config.inside.interface).await?;
            lan.mac()?;
            names.push(config.inside.interface.clone());
            match xdp_mode(config.inside.xdp) {
                Some(mode) => InsideOptions::Lan {
                    interface: lan.interface,
                    mode,
                },
                None => InsideOptions::Routed {
                    interface: lan.interface,
                    tun: ROUTED.to_owned(),
                },
            }
        }
        config::Role::Client => {
            let gateways: Vec<IpAddr> = config.peers.iter().filter_map(|p| p.outside).collect();
            let path = outside.interface.mtu as usize;
            let fit = gateways
                .iter()
                // Room for UDP: whether there is a NAT on the way shows later, and may change.
                .map(|g| Envelope::toward(*g, true).largest_inner(path));
            let fit = u16::try_from(fit.min().unwrap_or(path)).unwrap_or(u16::MAX);
            let mtu = config.inside.mtu.unwrap_or(fit);
            if mtu > fit {
                tracing::warn!(
                    "mtu = {mtu} does not fit the path ({fit}): packets will be refused"
                );
            }
            // Made later; the watch waits for it.
            names.push(config.inside.interface.clone());
            InsideOptions::Tun {
                name: config.inside.interface.clone(),
                mtu,
            }
        }
    };
    for name in Links::names(&config) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let (watch, subscription) = FibWatch::open(&names).await?;
    let watch = tokio::spawn(watch.run());
    let fib = Arc::clone(&subscription.fib);
    let in_use = subscription.in_use.clone();
    let links = Links::find(&handle, &config, outside.interface.index).await?;
    let group = Group::of(&config, &links, in_use);
    let front_key = front::key_of(&config)?;
    let number = config.number().unwrap_or(0);
    let translation = edge::translation(&config, address)?;
    let (mut dataplane, reports) = Dataplane::start(Options {
        outside: outside.interface.clone(),
        outside_address: address,
        port,
        inside,
        reflect: OutsideSettings {
            reflect_plain: config.heartbeat.accept != HeartbeatForm::Keyed,
            reflect_keyed: config.heartbeat.accept != HeartbeatForm::Plain,
            strangers: config.heartbeat.strangers,
            number,
            shared: config.channel.is_some(),
            translates: translation.is_some(),
            front: config
                .front
                .as_ref()
                .and_then(|front| front.number)
                .unwrap_or(0),
            behind: config.front.is_some() || config.behind.is_some(),
            filter: config.filter.is_some(),
            max_sas: match config.role {
                config::Role::Client => CLIENT_SAS,
                _ => GATEWAY_SAS,
            },
        },
        translation,
        dead_man: config.heartbeat.dead_man,
        discovery: match config.outside.path_mtu {
            config::PathMtu::Probe => Discovery::Probe,
            config::PathMtu::Follow => Discovery::Follow,
            config::PathMtu::Off => Discovery::Off,
        },
        backend: config.esp.backend,
        fib: Arc::clone(&fib),
        in_use: subscription.in_use,
        logbook: notary.as_ref().map(Notary::logbook),
        workers: config.esp.workers,
        busy_poll: config.esp.busy_poll,
        keep_alive: config.ike.keep_alive,
    })?;
    for (interface, attached) in &dataplane.attached {
        if let Some(warning) = &attached.warning {
            tracing::warn!("{interface}: {warning}");
        }
    }
    for (interface, mode, instead) in [
        (
            &config.outside.interface,
            config.outside.xdp,
            "ESP goes in UDP port 4500, by a socket",
        ),
        (
            &config.inside.interface,
            config.inside.xdp,
            "the kernel forwards",
        ),
    ] {
        if mode == config::XdpMode::Off {
            tracing::info!("{interface}: no XDP program; {instead}");
        }
    }
    for (own, _) in &outside.interface.addresses {
        dataplane.never_reflect(*own)?;
    }
    if let Some(group) = &group {
        // The shared one may be no interface's, but the loopback's.
        dataplane.never_reflect(address)?;
        match &front_key {
            None => dataplane.join_group(group.own(), group.addresses())?,
            Some(key) => {
                let own = [address, group.own()];
                dataplane.join_fronts(own, group.addresses(), key.expose())?;
            }
        }
    }
    let front = match front_key {
        Some(key) => Watch::of_gateway(&config, key, &mut dataplane, &events)?,
        None => None,
    };

    if let Some(filter) = &config.filter {
        super::filter::set_up(&mut dataplane, filter, &handle).await?;
    }

    let workers = dataplane.workers();
    let inside_name = dataplane.inside_name().to_owned();
    let inside_link = LinkInfo::by_name(&handle, &inside_name).await?;
    let bound = [outside.interface.clone(), inside_link.interface.clone()]
        .map(|interface| (interface.name, interface.index));
    let board = Arc::new(Board::new(
        Fixed {
            name: config.name.clone(),
            role: config.role,
            identity: config.identity.to_string(),
            started,
        },
        dataplane.views(),
    ));
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let shown = Arc::clone(&board);
    let api = ApiServer::start(
        &config.socket,
        confinement.socket_group,
        Shared {
            status: Arc::new(move || shown.status()),
            events: events.clone(),
            commands: command_sender,
        },
    )?;

    let peers: Vec<Peer> = config.peers.iter().map(Peer::new).collect();
    let peers = Peers::from(peers);
    let mut rng = StdRng::from_rng(&mut rand::rng());
    let auto = outside.router_v4.or(outside.router_v6);
    let (side, role, resolved) = match (config.role, policy) {
        (config::Role::Client, Some(policy)) => {
            let resolved = policy.resolve(auto, &mut rng);
            let index = inside_link.interface.index;
            links::set_queue(&handle, index, MAX_SEGMENTS as u32, TUN_QUEUE).await?;
            let device = Device {
                links: handle,
                index,
            };
            let client = Client {
                kms: KeyManagement::new(
                    kms::Settings::default(),
                    StdRng::from_rng(&mut rand::rng()),
                ),
                resolved: Resolved::default(),
                policy: config.policy.clone().unwrap_or_default(),
                routes: Routes::new(device.clone()),
                device,
                inner: Inner::default(),
                active: HashMap::new(),
                wallet: Wallet::default(),
                anew: HashSet::new(),
                sources_stale: false,
                rng: StdRng::from_rng(&mut rand::rng()),
                auto,
                at_home: false,
                next_address: None,
                stays: None,
                leaving: Leaving::default(),
            };
            let side = Side::Client {
                inner: Vec::new(),
                ranges: Vec::new(),
            };
            (side, Role::Client(Box::new(client)), Some(resolved))
        }
        (config::Role::Client, None) => bail!("a client needs a policy"),
        (_, _) => {
            let fixed = peers
                .iter()
                .map(|p| (pool_key(&p.identity), p.inner.clone()));
            let users = config.users.iter();
            let users = users.map(|u| (pool_key(&u.identity), u.inner.clone()));
            let pool = Pool::new(config.pool.clone(), fixed.chain(users));
            let mut gateway = Gateway::default();
            if let Some(tun) = dataplane.tun_name() {
                gateway.routes = Some(routed(&config, handle, &inside_name, tun).await?);
            }
            (
                Side::Gateway { pool },
                Role::Gateway(Box::new(gateway)),
                None,
            )
        }
    };
    let connectivity = Connectivity::bind(config.connectivity.as_ref()).await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = config.ike.threads.unwrap_or((cores / 2).clamp(1, 8));
    let (edge, uplinks) = edge_of(&config, outside.interface.index, notary)?;
    let mut node = Node {
        threads: Threads::new(threads)?,
        engine: Engine::new(
            Settings {
                export_keys: keylog.is_on(),
                lanes: u16::try_from(workers).unwrap_or(u16::MAX),
                own_ports: dataplane.has_own_ports(),
                ..ike_settings(&config)
            },
            StdRng::from_rng(&mut rand::rng()),
        ),
        keylog,
        answers: Answers {
            peers,
            users: config.users.clone(),
            groups: config.groups.clone(),
            sadb: Sadb::for_workers(workers, config.role == config::Role::Client)
                .with_number(number),
            rng,
            side,
            elsewhere: None,
        },
        events,
        sockets,
        dataplane,
        inputs: Inputs {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            reports,
            links: subscription.changes,
            arrivals: subscription.arrivals,
            commands,
            uplinks,
            connectivity: connectivity.as_ref().map(|c| c.socket()),
            watch,
        },
        api,
        board,
        fib,
        inside_name,
        address,
        role,
        table: Table::default(),
        pending: HashMap::new(),
        dying: Departures::default(),
        retired: Departures::default(),
        interfaces: Interfaces::new(bound),
        flood: Flood::new(config.ike.guard),
        edge,
        connectivity,
        group,
        front,
        mappings: HashMap::new(),
        tick: started,
        post_at: None,
        post_earliest: Instant::now(),
        config,
    };
    let text = format!(
        "{} {} is up on {address}",
        node.config.role, node.config.name
    );
    node.note(NewEvent::new(EventKind::NodeStarted, text));
    match resolved {
        Some(resolved) => node.take_up_policy(resolved).await?,
        None => node.prepare_clients()?,
    }
    confinement.seal(match node.config.role {
        config::Role::Client => capabilities::CLIENT,
        _ => capabilities::GATEWAY,
    })?;
    Ok(node)
}

/// What a node is as an edge, and its ways to authorities.
fn edge_of(
    config: &Config,
    outside: u32,
    notary: Option<Notary>,
) -> Result<(Option<Box<Edge>>, Vec<Uplink>)> {
    let Some(channel) = &config.channel else {
        return Ok((None, Vec::new()));
    };
    let config::ChannelEnd::Edge { authorities, .. } = &channel.end else {
        return Ok((None, Vec::new()));
    };
    let credentials = Credentials::read(&channel.cert, &channel.key, &channel.ca)?;
    let (edge, uplinks) = Edge::start(authorities, &credentials, outside, notary);
    Ok((Some(Box::new(edge)), uplinks))
}

/// How a program is attached; `None`: there is none.
pub(super) fn xdp_mode(mode: config::XdpMode) -> Option<XdpMode> {
    match mode {
        config::XdpMode::Auto => Some(XdpMode::Auto),
        config::XdpMode::Native => Some(XdpMode::Native),
        config::XdpMode::Generic => Some(XdpMode::Generic),
        config::XdpMode::Off => None,
    }
}

/// Leads the inner addresses of clients into the TUN device of a gateway where the kernel forwards.
async fn routed(
    config: &Config,
    links: rtnetlink::Handle,
    lan: &str,
    tun: &str,
) -> Result<Routes<Device>> {
    let device = LinkInfo::by_name(&links, tun).await?;
    for (interface, link) in [
        (lan, LinkInfo::by_name(&links, lan).await?),
        (tun, device.clone()),
    ] {
        if link.forwards_v4 == Some(false) {
            bail!(
                "inside.xdp = \"off\" leaves forwarding to the kernel, but it does not forward what comes by \
                 {interface}: expected net.ipv4.ip_forward = 1 before the start, found \
                 net.ipv4.conf.{interface}.forwarding = 0"
            );
        }
    }
    let index = device.interface.index;
    links::set_queue(&links, index, MAX_SEGMENTS as u32, TUN_QUEUE).await?;
    let fixed = config.peers.iter().flat_map(|peer| &peer.inner);
    let fixed = fixed.chain(config.users.iter().flat_map(|user| &user.inner));
    let inner = config
        .pool
        .iter()
        .copied()
        .chain(fixed.map(|address| IpNet::from(*address)));
    let mut routes = Routes::new(Device { links, index });
    routes
        .extend(&inner.map(|prefix| (prefix, None)).collect())
        .await?;
    Ok(routes)
}

/// What can not be replaced in time ends at twice its age, but not before several tries.
fn lifetime(config: &Config, rekey: Duration) -> Lifetime {
    Lifetime {
        rekey,
        jitter: f64::from(config.ike.rekey_jitter) / 100.0,
        hard: rekey.saturating_mul(2).max(rekey + MARGIN),
    }
}

pub(super) fn ike_settings(config: &Config) -> Settings {
    let mut settings = Settings::new(identity(&config.identity));
    settings.retransmit = Retransmit {
        first: config.ike.retransmit,
        factor: 2.0,
        cap: Duration::from_secs(10),
        tries: config.ike.tries,
    };
    settings.ike_proposals = IkeProposal::with_fallbacks(&config.ike.proposals);
    settings.fragment_size = Some(config.ike.fragment_size);
    settings.esp_proposals = config.esp.proposals.clone();
    let mut groups = Vec::new();
    for group in config.esp.proposals.iter().flat_map(|p| &p.groups) {
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
    if !groups.is_empty() {
        settings.child_groups = groups;
    }
    settings.vendor_ids = vec![VENDOR_ID.to_vec()];
    settings.mobike = config.ike.mobike;
    if let Some(number) = config.number() {
        settings.spi_prefix = SpiPrefix::new(NUMBER_BITS, number.into());
    }
    // A session that a gateway begins with us may end as one that we began.
    settings.follows_redirects = config.role == config::Role::Client;
    settings.x509 = config.x509.clone();
    settings.eap = config.users.iter().any(|user| user.password.is_some());
    settings.eap_tls = config.users.iter().any(|user| user.password.is_none())
        || config.groups.iter().any(|group| group.eap);
    settings.encapsulation = match (config.ike.encap, config.outside.xdp) {
        // A UDP socket takes no bare ESP.
        (config::Encap::Always, _) | (_, config::XdpMode::Off) => Encapsulation::Always,
        (config::Encap::Auto, _) => Encapsulation::Auto,
    };
    settings.keep_alive = config.ike.keep_alive;
    settings.tickets = life::tickets(config);
    settings.request_tickets = config.role == config::Role::Client;
    settings.reauth = config.ike.reauth;
    settings.crash_secret = Some(life::crash_secret(config));
    settings.child_lifetime = Some(lifetime(config, config.ike.rekey_child));
    settings.ike_lifetime = Some(lifetime(config, config.ike.rekey_ike));
    // A session has one pair of SAs, and a successor of it now and then.
    settings.children_limit = 1;
    settings
}
