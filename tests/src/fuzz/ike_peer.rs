//! A hostile peer that has made a key exchange: what it says inside its protected messages, in any order
//! and number, between true messages and beside them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evergate::ike::crypto::AeadKey;
use evergate::ike::fragment;
use evergate::ike::payload::header::{Header, exchange};
use evergate::ike::{
    Engine, Event, Identity, IkeSaKeys, Initiate, SaId, Secret, Settings, TicketKey, Tickets,
    Transmit,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::owner::{Owner, key};
use super::script::Script;

/// Of a script.
const MOST_STEPS: usize = 64;
/// More than the parts of the longest message that is sent in answer to one.
const MOST_ANSWERS: usize = 16;

/// What an IKE SA has of child SAs, as its events tell.
#[derive(Default)]
struct Children {
    now: BTreeSet<u32>,
    replaced: BTreeSet<u32>,
}

/// One end.
struct End {
    engine: Engine,
    owner: Owner,
    keys: Vec<IkeSaKeys>,
    sessions: BTreeMap<SaId, Children>,
    most_children: usize,
}

impl End {
    fn new(name: &str, seed: u64) -> End {
        let mut settings = Settings::new(Identity::Fqdn(name.to_owned()));
        settings.export_keys = true;
        (settings.child_lifetime, settings.ike_lifetime) = (None, None);
        settings.eap = true;
        settings.mobike = true;
        settings.request_tickets = true;
        settings.follows_redirects = true;
        settings.reauth = Some(Duration::from_secs(3600));
        settings.crash_secret = Some(Secret::new(&[5; 32]));
        let ticket_key = TicketKey::new(&[7; 32]).expect("32 bytes are a key");
        settings.tickets = Some(Arc::new(Tickets::new(vec![ticket_key], 16)));
        End {
            most_children: settings.children_limit,
            engine: Engine::new(settings, StdRng::seed_from_u64(seed)),
            owner: Owner(0x1000 << seed),
            keys: Vec::new(),
            sessions: BTreeMap::new(),
        }
    }

    fn take(&mut self) -> Vec<Transmit> {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Keys { keys, .. } => self.keys.push(*keys),
                Event::Established { id, child, .. } => {
                    let new = Children {
                        now: BTreeSet::from([child.spi_in]),
                        ..Children::default()
                    };
                    assert!(self.sessions.insert(id, new).is_none(), "established twice");
                }
                Event::ChildAdded { id, child, .. } => {
                    let children = self.sessions.get_mut(&id).expect("of a session");
                    assert!(children.now.insert(child.spi_in), "an SPI twice");
                }
                Event::ChildRekeyed {
                    id,
                    old_spi_in,
                    child,
                    ..
                } => {
                    let children = self.sessions.get_mut(&id).expect("of a session");
                    children.now.remove(&old_spi_in);
                    children.replaced.insert(old_spi_in);
                    assert!(children.now.insert(child.spi_in), "an SPI twice");
                }
                Event::ChildClosed { id, spi_in, .. } => {
                    if let Some(children) = self.sessions.get_mut(&id) {
                        let there =
                            children.now.remove(&spi_in) | children.replaced.remove(&spi_in);
                        assert!(there, "a child SA is closed that is not there");
                    }
                }
                Event::Closed { id, .. } => {
                    assert!(self.sessions.remove(&id).is_some(), "closed twice");
                }
                _ => {}
            }
        }
        for children in self.sessions.values() {
            assert!(
                children.now.len() <= self.most_children,
                "too many child SAs"
            );
        }
        std::iter::from_fn(|| self.engine.poll_transmit()).collect()
    }

    fn hear(&mut self, now: Instant, t: &Transmit) -> Vec<Transmit> {
        self.engine
            .handle_datagram(now, t.remote, t.local, &t.data, &mut self.owner);
        let answers = self.take();
        assert!(
            answers.len() <= MOST_ANSWERS,
            "{} answers to one",
            answers.len()
        );
        answers
    }

    /// Something that its owner wants.
    fn wants(&mut self, what: u8, now: Instant) {
        let Some((id, children)) = self.sessions.last_key_value() else {
            return;
        };
        let (id, spi) = (*id, children.now.first().copied().unwrap_or(0));
        match what % 5 {
            0 => self.engine.check_liveness(now, id),
            1 => self.engine.rekey_child(now, id, spi),
            2 => self.engine.rekey_ike(now, id),
            3 => self.engine.close(now, id),
            _ => drop(self.engine.local_moved(now, id, [192, 0, 2, 77].into())),
        }
        self.engine.handle_timeout(now, &mut self.owner);
    }
}

/// The victim, and the peer whose keys are abused.
struct Attack {
    now: Instant,
    victim: End,
    peer: End,
    /// The peer is the one that has begun.
    peer_began: bool,
    /// How messages get to the victim.
    way: (SocketAddr, SocketAddr),
    /// What the victim has sent and nobody has heard yet.
    said: VecDeque<Transmit>,
    /// The last request of the victim.
    asked: Option<Header>,
    /// The next message ID of requests, by IKE SA and role in it.
    next: BTreeMap<(u64, bool), u32>,
    counter: u64,
    last: Option<Transmit>,
}

impl Attack {
    fn keep(&mut self, said: Vec<Transmit>) {
        for t in said {
            if let Ok(header) = Header::parse(&t.data)
                && !header.response
            {
                self.asked = Some(header);
            }
            self.said.push_back(t);
        }
        // Nobody listens for ever.
        while self.said.len() > 64 {
            self.said.pop_front();
        }
    }

    /// The victim hears a message of the peer, true or not.
    fn deliver(&mut self, t: &Transmit) {
        if let Ok(header) = Header::parse(&t.data)
            && !header.response
        {
            let next = self
                .next
                .entry((header.spi_i, header.initiator))
                .or_default();
            *next = (*next).max(header.message_id.saturating_add(1));
        }
        let said = self.victim.hear(self.now, t);
        self.keep(said);
    }

    /// What the victim has said gets to the peer, and its answers back, and so on.
    fn talk(&mut self) {
        for _ in 0..32 {
            let Some(t) = self.said.pop_front() else {
                return;
            };
            for answer in self.peer.hear(self.now, &t) {
                self.deliver(&answer);
            }
        }
    }

    /// Any message, with the right key.
    fn forge(&mut self, script: &mut Script<'_>, response: bool) {
        let how = script.byte();
        let (kind, first) = (script.byte(), script.byte());
        let chain = script.part().to_vec();
        let known = self.victim.keys.iter().chain(&self.peer.keys);
        let known: Vec<IkeSaKeys> = known.cloned().collect();
        let Some(keys) = known.get(usize::from(how & 7) % known.len().max(1)) else {
            return;
        };
        // In an IKE SA that the other side has rekeyed the roles are the other way round.
        let initiator = self.peer_began != (how & 8 != 0);
        let next = self
            .next
            .get(&(keys.spi_i, initiator))
            .copied()
            .unwrap_or(0);
        let asked = self.asked.as_ref().filter(|_| response);
        let message_id = match (asked, how >> 4 & 3) {
            (Some(asked), 0 | 1) => asked.message_id,
            (_, 2) => u32::from(script.byte()),
            (_, 3) => next.saturating_add(1),
            _ => next,
        };
        let exchange = match (asked, kind) {
            (Some(asked), 0) => asked.exchange,
            // IKE_SA_INIT is not protected.
            (_, 0 | exchange::IKE_SA_INIT) => exchange::INFORMATIONAL,
            (_, kind) => kind,
        };
        let header = Header {
            spi_i: keys.spi_i,
            spi_r: keys.spi_r,
            next: 0,
            version: 0x20,
            exchange,
            initiator,
            response,
            message_id,
        };
        let material = if initiator { &keys.sk_ei } else { &keys.sk_er };
        let Some(key) = AeadKey::new(keys.cipher, material) else {
            return;
        };
        let room = (how & 0x40 != 0).then_some(200);
        let plain = Zeroizing::new(chain);
        let Ok(parts) = fragment::seal(header, first, plain, &key, &mut self.counter, room) else {
            return;
        };
        let (local, mut remote) = self.way;
        if how & 0x80 != 0 {
            // Perhaps another address: MOBIKE.
            remote = SocketAddr::from(([203, 0, 113, how], 4500));
        }
        let _ = &mut remote;
        for data in parts {
            let t = Transmit {
                local: remote,
                remote: local,
                data,
            };
            self.last = Some(t.clone());
            self.deliver(&t);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let End { engine, owner, .. } = &mut self.victim;
        engine.handle_timeout(self.now, owner);
        let said = self.victim.take();
        self.keep(said);
    }
}

/// Byte 0: who the victim is, and how far the two have come. Then steps.
pub fn ike_peer(data: &[u8]) {
    let mut script = Script::new(data);
    let how = script.byte();
    let (peer_began, established) = (how & 1 == 0, how & 2 != 0);
    let mut now = Instant::now();
    let mut ends = [End::new("client.example", 1), End::new("gw.example", 2)];
    let [local, remote] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|ip| SocketAddr::from((ip, 500)));
    let wish = Initiate {
        local,
        remote,
        remote_id: None,
        auth: key(),
        request_addresses: None,
        local_ts: Vec::new(),
        remote_ts: Vec::new(),
        initial_contact: false,
        follows_redirects: true,
        redirected_from: None,
    };
    let [client, gateway] = &mut ends;
    client.engine.initiate(now, wish, &mut client.owner);
    let mut wire: Vec<Transmit> = client.take();
    let mut first_request = None;
    // IKE_SA_INIT, and IKE_AUTH if they shall get so far.
    for message in 0..if established { 4 } else { 2 } {
        let end = if message % 2 == 0 {
            &mut *gateway
        } else {
            &mut *client
        };
        wire = wire.iter().flat_map(|t| end.hear(now, t)).collect();
        if message == 1 {
            first_request = wire.first().cloned();
        }
    }
    now += Duration::from_millis(10);
    let first_request = first_request.expect("IKE_AUTH is begun");
    let [client, gateway] = ends;
    let (victim, peer) = if peer_began {
        (gateway, client)
    } else {
        (client, gateway)
    };
    let (ours, theirs) = (first_request.local, first_request.remote);
    let mut attack = Attack {
        now,
        asked: None,
        said: VecDeque::new(),
        next: BTreeMap::new(),
        counter: 1 << 60,
        last: None,
        way: if peer_began {
            (theirs, ours)
        } else {
            (ours, theirs)
        },
        victim,
        peer,
        peer_began,
    };
    let header = Header::parse(&first_request.data).expect("IKE_AUTH is well formed");
    if peer_began {
        let next = header.message_id + u32::from(established);
        attack.next.insert((header.spi_i, true), next);
    } else if !established {
        attack.asked = Some(header);
    }
    if established {
        assert_eq!(attack.victim.sessions.len(), 1, "the two do not agree");
    }
    for _ in 0..MOST_STEPS {
        if script.over() {
            break;
        }
        match script.byte() % 8 {
            0 | 1 => attack.forge(&mut script, false),
            2 => attack.forge(&mut script, true),
            3 if established => {
                attack.peer.wants(script.byte(), now);
                for t in attack.peer.take() {
                    attack.deliver(&t);
                }
            }
            4 => {
                attack.victim.wants(script.byte(), now);
                let said = attack.victim.take();
                attack.keep(said);
            }
            5 => attack.pass(Duration::from_millis(10 << (script.byte() % 16))),
            6 => {
                if let Some(last) = attack.last.clone() {
                    attack.deliver(&last);
                }
            }
            _ if established => attack.talk(),
            _ => {}
        }
        now = attack.now;
        // Whoever has not proven itself has no session.
        assert!(
            established || attack.victim.sessions.is_empty(),
            "nobody was proven"
        );
        assert!(
            attack.victim.sessions.len() <= 1,
            "two sessions of one exchange"
        );
    }
    // What is under way ends, some time.
    for _ in 0..1000 {
        let Some((at, _)) = attack.victim.engine.next_timeout() else {
            return;
        };
        if at > now + Duration::from_secs(24 * 3600) {
            return;
        }
        attack.now = at.max(attack.now);
        attack.pass(Duration::from_millis(1));
    }
    panic!("it never comes to rest");
}
