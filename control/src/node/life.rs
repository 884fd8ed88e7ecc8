//! Beyond the life of one IKE SA: tickets by which a client resumes sessions, reauthentication, and
//! what shows a peer that this node has lost its state.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::Rng;
use zeroize::Zeroizing;

use super::config::{self, Config, read_private};
use super::core::{Node, Purpose, Role};
use super::events::{EventKind, NewEvent};
use super::sessions::Live;
use crate::dataplane::loader::LoadError;
use crate::dataplane::{GroupId, Sending, SessionView};
use crate::ike::{Hooks as _, SaId, Secret, Ticket, TicketKey, Tickets};
use crate::sadb::SessionSpec;

/// Why a session ends whose gateway is dead.
pub(super) const GIVEN_UP: &str = "given up";

/// So many used tickets a gateway remembers.
const REMEMBERED: usize = 1 << 16;

/// A reauthentication that fails is tried again after this time, if the service does not do so
/// before.
const AGAIN: Duration = Duration::from_secs(60);

/// A client that sends and hears nothing for so long asks whether the gateway lives (RFC 7296 section
/// 2.4 calls that essential). A gateway that has lost its state says so then.
const WORRY: Duration = Duration::from_secs(1);

/// Bytes of the secret of crash tokens.
const SECRET: usize = 32;

/// The tickets of a client: one for each gateway.
#[derive(Default)]
pub(super) struct Wallet {
    kept: HashMap<IpAddr, Kept>,
    /// Whose tickets which gateway has not taken: they are of two clusters.
    strangers: HashSet<(IpAddr, IpAddr)>,
}

/// A ticket on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    /// The gateway that has issued it.
    issuer: IpAddr,
    /// When we have proven who we are last, in seconds since 1970.
    authenticated: u64,
}

#[derive(Clone)]
struct Kept {
    sa: SaId,
    ticket: Ticket,
}

impl Wallet {
    /// Takes the newest ticket of a gateway.
    pub(super) fn keep(&mut self, gateway: IpAddr, sa: SaId, ticket: Ticket) {
        self.kept.insert(gateway, Kept { sa, ticket });
    }

    /// An IKE SA was deleted in order: its ticket goes with it (RFC 5723 section 6.2).
    pub(super) fn forget(&mut self, sa: SaId) {
        self.kept.retain(|_, kept| kept.sa != sa);
    }

    /// A ticket to try with a gateway: its own, else the newest of those that `others` have issued. It
    /// is for one use.
    pub(super) fn take(
        &mut self,
        gateway: IpAddr,
        others: impl IntoIterator<Item = IpAddr>,
        now: Instant,
    ) -> Option<(Tried, Ticket)> {
        self.kept.retain(|_, kept| kept.ticket.expires() > now);
        let strangers = &self.strangers;
        let others = others
            .into_iter()
            .filter(|other| !strangers.contains(&(*other, gateway)))
            .filter_map(|other| Some((self.kept.get(&other)?.sa, other)));
        let issuer = match self.kept.contains_key(&gateway) {
            true => gateway,
            false => others.max()?.1,
        };
        let kept = self.kept.remove(&issuer)?;
        let authenticated = kept.ticket.authenticated();
        let tried = Tried {
            issuer,
            authenticated,
        };
        Some((tried, kept.ticket))
    }

    /// Whether a gateway has taken a ticket.
    pub(super) fn tried(&mut self, issuer: IpAddr, gateway: IpAddr, taken: bool) {
        if taken {
            self.strangers.remove(&(issuer, gateway));
        } else if issuer != gateway {
            self.strangers.insert((issuer, gateway));
        }
    }
}

/// Whether a client hears nothing although it sends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Worry {
    heard: Option<Instant>,
    /// Packets sent when the gateway was heard last.
    sent: u64,
    /// Since when packets are sent and none comes.
    since: Option<Instant>,
}

impl Worry {
    /// Told once, and again after twice the time that it was asked for.
    fn look(&mut self, shown: &SessionView, alive: Instant, now: Instant) -> bool {
        let heard = shown.last_heard.max(Some(alive));
        if heard != self.heard {
            (self.heard, self.sent, self.since) = (heard, shown.outbound.packets, None);
            return false;
        }
        if shown.outbound.packets == self.sent {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let due = now.saturating_duration_since(since) >= WORRY;
        if due {
            self.since = Some(now + WORRY);
        }
        due
    }
}

impl Node {
    /// What a gateway has issued for its session goes into the wallet.
    pub(super) fn keep_ticket(&mut self, sa: SaId, ticket: Ticket) {
        let live = self.table.of_sa(sa).and_then(|id| self.table.live.get(&id));
        let gateway = live.and_then(|live| live.spec.gateway);
        if let (Some(gateway), Role::Client(client)) = (gateway, &mut self.role) {
            client.wallet.keep(gateway, sa, ticket);
        }
    }

    /// An exchange that may have begun with a ticket has made a session. Yields how long ago we have
    /// proven who we are.
    pub(super) fn ticket_tried(&mut self, purpose: Option<&Purpose>, resumed: bool) -> Duration {
        let Some(Purpose::Gateway {
            gateway,
            ticket: Some(tried),
            ..
        }) = purpose
        else {
            return Duration::ZERO;
        };
        if let Role::Client(client) = &mut self.role {
            client.wallet.tried(tried.issuer, *gateway, resumed);
        }
        let spent = self.answers.unix_time().saturating_sub(tried.authenticated);
        match resumed {
            true => Duration::from_secs(spent),
            false => Duration::ZERO,
        }
    }

    /// An IKE SA was deleted in order.
    pub(super) fn forget_ticket(&mut self, sa: SaId) {
        if let Role::Client(client) = &mut self.role {
            client.wallet.forget(sa);
        }
    }

    /// The peer wants proof anew after this time. A part of it is left for the exchange.
    pub(super) fn reauth_in(&mut self, sa: SaId, after: Duration, now: Instant) {
        let part = 0.9 - 0.15 * chance(&mut self.answers.rng);
        for id in self.table.all_of(sa) {
            if let Some(live) = self.table.live.get_mut(&id) {
                let at = now + after.mul_f64(part);
                live.reauth_at = Some(live.reauth_at.map_or(at, |own| own.min(at)));
            }
        }
    }

    /// When a session that comes about now is authenticated anew by us. `spent`: how long ago we have
    /// proven who we are.
    pub(super) fn reauth_at(
        &mut self,
        initiator: bool,
        spent: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let limit = self.config.ike.reauth.filter(|_| initiator)?;
        let jitter = f64::from(self.config.ike.rekey_jitter) / 100.0;
        // The gateway's own limit may be the same: ours comes before it in any case.
        let part = 0.95 - jitter * chance(&mut self.answers.rng);
        now.checked_add(limit.mul_f64(part.max(0.4)).saturating_sub(spent))
    }

    /// Begins sessions anew whose time is over, beside the old ones: these go when the new ones are
    /// there.
    pub(super) fn reauthenticate(&mut self, now: Instant) {
        let due = |live: &&mut Live| {
            let own = !live.retired && live.spec.lane == 0;
            own && live.reauth_at.is_some_and(|at| at <= now) && live.spec.initiator
        };
        let mut gateways = Vec::new();
        let mut groups = Vec::new();
        for live in self.table.live.values_mut().filter(due) {
            live.reauth_at = Some(now + AGAIN);
            let dies = self.dying.contains(live.spec.id);
            if dies || !self.engine.is_established(live.sa) {
                continue;
            }
            match live.spec.gateway {
                Some(gateway) => gateways.push(gateway),
                None => groups.push(live.group),
            }
        }
        if let Role::Client(client) = &mut self.role {
            for gateway in gateways {
                client.anew.insert(gateway);
                client.kms.refresh(gateway, now);
            }
        }
        for group in groups {
            self.begin_session(group, now);
        }
    }

    /// How a new session sends that the client has begun beside another one with the same gateway. The
    /// client can receive on it only once it has the gateway's answer, and the gateway's packets are
    /// steered to it.
    pub(super) fn succeeds(&self, sa: SaId, spec: &SessionSpec, group: GroupId) -> Option<Sending> {
        let other = |live: &Live| live.sa != sa && !live.retired;
        let another = match spec.gateway {
            Some(gateway) => {
                let mut live = self.table.live.values();
                live.any(|live| live.spec.gateway == Some(gateway) && other(live))
            }
            None => self.table.of_group(group).any(other),
        };
        match (spec.gateway, spec.initiator) {
            (None, false) => another.then_some(Sending::WhenHeard),
            (Some(_), true) => another.then_some(Sending::AtOnce),
            _ => None,
        }
    }

    /// Has the data plane carry a new session, beside or in place of another one.
    pub(super) async fn carry(
        &mut self,
        spec: Arc<SessionSpec>,
        group: GroupId,
        succeeds: Option<Sending>,
        activate: bool,
    ) -> Result<(), LoadError> {
        let dataplane = &mut self.dataplane;
        match succeeds {
            Some(sending) => dataplane.succeed_session(spec, group, sending).await,
            None => dataplane.add_session(spec, group, activate),
        }
    }

    /// On a client: asks gateways that let packets go unanswered whether they live.
    pub(super) fn worry(&mut self, now: Instant) {
        let Role::Client(_) = self.role else { return };
        let view = self.dataplane.views().load();
        let mut ask = Vec::new();
        for shown in view.sessions.iter() {
            let live = self.table.live.get_mut(&shown.id);
            if let Some(live) = live.filter(|live| !live.retired && live.spec.lane == 0)
                && live.worry.look(shown, live.alive, now)
            {
                live.asked = now;
                ask.push(live.sa);
            }
        }
        for sa in ask {
            self.engine.check_liveness(now, sa);
        }
    }

    /// Takes up the ticket keys of a configuration that was read again.
    pub(super) fn reload_ticket_keys(&mut self, config: &Config) {
        let keys = &config.ike.ticket_keys;
        if *keys == self.config.ike.ticket_keys || keys.is_empty() {
            return;
        }
        let Some(tickets) = &self.engine.settings().tickets else {
            return;
        };
        tickets.set_keys(keys.clone());
        self.config.ike.ticket_keys.clone_from(keys);
        let text = format!("ticket keys were read again: {} of them", keys.len());
        self.note(NewEvent::new(EventKind::CertsReloaded, text));
    }
}

/// What a gateway issues and takes tickets with: the keys of its cluster, or one of its own that ends
/// with it.
pub(super) fn tickets(config: &Config) -> Option<Arc<Tickets>> {
    if config.role == config::Role::Client {
        return None;
    }
    let mut keys = config.ike.ticket_keys.clone();
    if keys.is_empty() {
        let secret = random();
        keys.extend(TicketKey::new(&*secret));
    }
    Some(Arc::new(Tickets::new(keys, REMEMBERED)))
}

/// 0 to 1.
fn chance(rng: &mut impl Rng) -> f64 {
    f64::from(rng.next_u32()) / f64::from(u32::MAX)
}

fn random() -> Zeroizing<[u8; SECRET]> {
    let mut secret = Zeroizing::new([0; SECRET]);
    rand::rng().fill_bytes(&mut *secret);
    secret
}

/// The secret of this node's crash tokens: the same after a restart, if the folder for what a node
/// keeps can be used.
pub(super) fn crash_secret(config: &Config) -> Secret {
    let path = config.state.join(format!("{}.crash", config.name));
    match kept_secret(&path) {
        Ok(secret) => secret,
        Err(error) => {
            tracing::warn!("peers will not learn at once that this node was restarted: {error:#}");
            Secret::new(&*random())
        }
    }
}

fn kept_secret(path: &Path) -> Result<Secret> {
    let shown = path.display();
    if path.exists() {
        let bytes = read_private(path, 4096).map_err(anyhow::Error::msg)?;
        let (found, expected) = (bytes.len(), SECRET);
        anyhow::ensure!(
            found == expected,
            "{shown} has {found} bytes, expected {expected}; remove it"
        );
        return Ok(Secret::new(&bytes));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("can not make {}", folder.display()))?;
    let secret = random();
    // Under its name it is there whole, or not at all.
    let draft = path.with_extension("draft");
    let _ = fs::remove_file(&draft);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .with_context(|| format!("can not write {}", draft.display()))?;
    file.write_all(&*secret)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("can not write {shown}"))?;
    Ok(Secret::new(&*secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Traffic;
    use crate::sadb::SessionId;

    #[test]
    fn the_secret_of_crash_tokens_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/gw.crash");
        let first = kept_secret(&path).unwrap();
        assert_eq!(first.len(), SECRET);
        assert!(kept_secret(&path).unwrap() == first);
        let other = kept_secret(&folder.path().join("other.crash")).unwrap();
        assert!(other != first);
        fs::write(&path, b"short").unwrap();
        let said = format!("{:#}", kept_secret(&path).unwrap_err());
        assert!(said.contains("has 5 bytes, expected 32"), "{said}");
    }

    #[test]
    fn a_client_worries_only_while_it_sends_and_hears_nothing() {
        let start = Instant::now();
        let mut worry = Worry::default();
        let mut look = |ms: u64, sent: u64, heard: u64| {
            let at = |ms| start + Duration::from_millis(ms);
            let shown = SessionView {
                id: SessionId(1),
                active: true,
                inbound: Traffic::default(),
                outbound: Traffic {
                    packets: sent,
                    bytes: 0,
                },
                path: (1500, crate::dataplane::pmtu::Phase::Followed),
                last_heard: Some(at(heard)),
            };
            worry.look(&shown, start, at(ms))
        };
        assert!(!look(0, 5, 0), "first look");
        assert!(!look(5000, 5, 0), "nothing was sent");
        assert!(!look(5200, 6, 0));
        assert!(!look(6000, 9, 0));
        assert!(look(6200, 9, 0), "a second without an answer");
        assert!(!look(6400, 9, 0), "told once");
        assert!(!look(7400, 9, 0));
        assert!(look(8400, 9, 0), "and again later");
        assert!(!look(8600, 9, 8500), "heard");
        assert!(!look(20_000, 9, 8500));
    }
}
