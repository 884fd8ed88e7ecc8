//! A front that is nothing else: no tunnels, no keys of clients, no workers. It lives as long as its XDP
//! program is attached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use arc_swap::ArcSwap;
use evergate_common::front::NO_SHARE;
use evergate_common::reason::Counter;
use evergate_common::steering::Gateway;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Watch, key_of};
use crate::api::model::{FilterClass, Interface, InterfaceKind, Side, Status};
use crate::api::server::{ApiServer, Command, CommandError, Shared};
use crate::dataplane::Filter;
use crate::dataplane::loader::{Attached, AttachedMode, Outside, OutsideSettings};
use crate::dataplane::net::fib::Fib;
use crate::dataplane::net::fib_watch::{FibWatch, LinkChange, NetlinkError};
use crate::dataplane::net::links::{self, LinkInfo};
use crate::node::authority::{Board, blank};
use crate::node::config::Config;
use crate::node::events::{EventKind, EventLog, NewEvent};
use crate::node::interfaces::Interfaces;
use crate::node::start::{COMMANDS, xdp_mode};
use crate::node::status::counted;
use crate::node::steering::{Group, Links};
use crate::privilege::{Confinement, capabilities};

/// The pace at which routes and neighbours are followed.
const TICK: Duration = Duration::from_millis(20);

/// The pace of the status.
const POST: Duration = Duration::from_millis(100);

/// The program waits so long at most for the first table: no packet is dropped for the lack of one.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running front.
pub(in crate::node) struct FrontNode {
    config: Config,
    outside: Outside,
    attached: Option<Attached>,
    filter: Filter,
    group: Group,
    watch: Watch,
    fib: Arc<ArcSwap<Fib>>,
    interfaces: Interfaces,
    events: EventLog,
    board: Arc<Board>,
    api: ApiServer,
    inputs: Inputs,
    started: Instant,
    post_at: Instant,
}

struct Inputs {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    commands: mpsc::Receiver<Command>,
    links: mpsc::Receiver<LinkChange>,
    routes: JoinHandle<NetlinkError>,
}

/// Starts a front.
pub(in crate::node) async fn start(config: Config, confinement: &Confinement) -> Result<FrontNode> {
    let started = Instant::now();
    let events = EventLog::new();
    let (Some(shared), Some(front), Some(key)) =
        (config.outside.address, &config.front, key_of(&config)?)
    else {
        bail!("a front needs outside.address and [front]");
    };
    let handle = links::connect()?;
    let link = LinkInfo::by_name(&handle, &config.outside.interface).await?;
    link.mac()?;
    let mode = xdp_mode(config.outside.xdp).context("a front needs an XDP program")?;
    let links = Links::find(&handle, &config, link.interface.index).await?;
    let mut names = vec![config.outside.interface.clone()];
    names.extend(Links::names(&config));
    let (routes, subscription) = FibWatch::open(&names).await?;
    let routes = tokio::spawn(routes.run());
    let mut outside = Outside::load(OutsideSettings {
        reflect_keyed: false,
        front: NO_SHARE,
        filter: config.filter.is_some(),
        max_sas: 1,
        ..OutsideSettings::default()
    })?;
    outside.set_own_addresses(&[shared])?;
    outside.set_group_address(front.address)?;
    let mut filter = Filter::default();
    if let Some(spec) = &config.filter {
        let own = links::addresses(&handle).await?;
        let own = own.into_iter().map(|own| own.address).collect();
        crate::node::filter::apply(&mut filter, &mut outside, spec, own)?;
    }
    let group = Group::of(&config, &links, subscription.in_use);
    let group = group.context("a front needs [front]")?;
    let slots = outside.take_slots().context("the slots are taken")?;
    let watch = Watch::start(front, key, slots, None, events.clone())?;
    let board = Arc::new(Board::new(blank(&config, 0), started));
    let (sender, commands) = mpsc::channel(COMMANDS);
    let shown = Arc::clone(&board);
    let api = ApiServer::start(
        &config.socket,
        confinement.socket_group,
        Shared {
            status: Arc::new(move || shown.status()),
            events: events.clone(),
            commands: sender,
        },
    )?;
    let bound = (link.interface.name.clone(), link.interface.index);
    let mut node = FrontNode {
        outside,
        attached: None,
        filter,
        group,
        watch,
        fib: subscription.fib,
        interfaces: Interfaces::new([bound]),
        events,
        board,
        api,
        inputs: Inputs {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            commands,
            links: subscription.changes,
            routes,
        },
        started,
        post_at: started,
        config,
    };
    while !node.watch.is_ready() && started.elapsed() < PATIENCE {
        node.steer(Instant::now())?;
        tokio::time::sleep(TICK).await;
    }
    let interface = node.config.outside.interface.clone();
    let attached = node.outside.attach(&interface, mode)?;
    if let Some(warning) = &attached.warning {
        tracing::warn!("{interface}: {warning}");
    }
    node.attached = Some(attached);
    let text = format!("front {} is up before {shared}", node.config.name);
    node.note(NewEvent::new(EventKind::NodeStarted, text));
    node.post(Instant::now());
    confinement.seal(capabilities::GATEWAY)?;
    Ok(node)
}

impl FrontNode {
    /// Runs until a signal says stop, or it can not go on.
    pub(in crate::node) async fn run(mut self) -> Result<()> {
        let outcome = self.serve().await;
        self.note(NewEvent::new(
            EventKind::NodeStopping,
            "the node is stopping; what comes for the shared address is not sent on any more",
        ));
        self.outside.detach();
        self.inputs.routes.abort();
        self.api.stop();
        outcome
    }

    async fn serve(&mut self) -> Result<()> {
        loop {
            let inputs = &mut self.inputs;
            tokio::select! {
                biased;
                _ = inputs.terminate.recv() => return Ok(()),
                _ = inputs.interrupt.recv() => return Ok(()),
                why = &mut inputs.routes => return Err(match why {
                    Ok(why) => anyhow!(why).context("the watch over routes and links has ended"),
                    Err(why) => anyhow!(why).context("the watch over routes and links broke down"),
                }),
                Some(change) = inputs.links.recv() => self.on_link(&change)?,
                command = inputs.commands.recv() => match command {
                    Some(command) => refuse(command),
                    None => bail!("the API has ended; nobody could see or stop this node"),
                },
                _ = inputs.hangup.recv() => tracing::info!("a front has nothing to read again; restart it"),
                () = tokio::time::sleep(TICK) => {}
            }
            let now = Instant::now();
            self.steer(now)?;
            if now >= self.post_at {
                self.post(now);
            }
        }
    }

    /// Tells the program how to get to the nodes, if that has changed.
    fn steer(&mut self, now: Instant) -> Result<()> {
        let news = self.group.look(&self.fib.load(), now);
        // Whoever may send something here is known before anything is sent there.
        for mac in news.gone {
            self.outside.remove_station(mac)?;
        }
        for mac in news.new {
            self.outside.add_station(mac)?;
        }
        for (number, way, text) in news.ways {
            self.outside.set_gateway(number, way)?;
            self.watch.set_way(number, way != Gateway::silent());
            if !text.is_empty() {
                self.note(NewEvent::new(EventKind::Steering, text).at(now));
            }
        }
        Ok(())
    }

    fn on_link(&mut self, change: &LinkChange) -> Result<()> {
        let news = self.interfaces.on_change(change)?;
        if let Some(up) = news.flipped {
            let state = if up { "up" } else { "down" };
            let text = format!("link of {} is {state}", change.interface);
            self.note(NewEvent::new(EventKind::Link, text));
        }
        Ok(())
    }

    fn note(&self, event: NewEvent) {
        self.events.push(event);
    }

    fn post(&mut self, now: Instant) {
        self.post_at = now + POST;
        let status = self.status(now);
        self.board.post(status, now);
    }

    fn status(&self, now: Instant) -> Status {
        let fib = self.fib.load();
        let name = &self.config.outside.interface;
        let link = fib.interfaces().iter().find(|i| i.name == *name);
        let native = |attached: &Attached| attached.mode == AttachedMode::Native;
        let xdp = self.outside.counters().unwrap_or([0; Counter::COUNT]);
        let (drops, counters) = counted(&[0; Counter::COUNT], &xdp);
        // Without counters a status is still of use.
        let hits = self.filter.hits(&self.outside).unwrap_or_default();
        let hits = hits.into_iter().map(|hits| FilterClass {
            name: hits.name,
            direct: hits.direct,
            refused: hits.refused,
            service: hits.service,
        });
        let uptime = now.saturating_duration_since(self.started).as_millis() as u64;
        Status {
            interfaces: vec![Interface {
                side: Side::Outside,
                name: name.clone(),
                kind: match self.attached.as_ref().is_some_and(native) {
                    true => InterfaceKind::XdpNative,
                    false => InterfaceKind::XdpGeneric,
                },
                up: link.is_some_and(|link| link.up),
                mtu: link.map_or(0, |link| link.mtu),
            }],
            front: Some(self.watch.view()),
            filter: hits.collect(),
            counters,
            drops,
            ..blank(&self.config, uptime)
        }
    }
}

/// What operators may ask of others.
fn refuse(command: Command) {
    let no = |what: &str| {
        CommandError::Invalid(format!(
            "a front {what}: the nodes behind it have the tunnels; ask one of them, or the authority"
        ))
    };
    // Who asked may have gone; then nobody needs the answer.
    match command {
        Command::SaList { reply } => drop(reply.send(Ok(Vec::new()))),
        Command::SaAdd { reply, .. } => drop(reply.send(Err(no("has no SAs")))),
        Command::SaDelete { reply, .. } => drop(reply.send(Err(no("has no SAs")))),
        Command::SaFlush { reply } => drop(reply.send(Err(no("has no SAs")))),
        Command::PolicyReload { reply } => drop(reply.send(Err(no("has no policy")))),
        Command::Drain { reply, .. } => drop(reply.send(Err(no("does not drain")))),
        Command::Associate { reply, .. } => drop(reply.send(Err(no("asks for no SAs")))),
        Command::SessionDelete { reply, .. } => drop(reply.send(Err(no("has no sessions")))),
        Command::Keylog { reply, .. } => drop(reply.send(Err(no("has no keys")))),
    }
}
