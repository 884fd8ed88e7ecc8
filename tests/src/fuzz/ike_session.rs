//! What a peer that has made a key exchange with us says inside its protected messages: real
//! messages, of which one is replaced by any other, sealed with the right key.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evergate::ike::crypto::AeadKey;
use evergate::ike::fragment;
use evergate::ike::payload::header::{Header, exchange};
use evergate::ike::{
    Child, Engine, Event, Identity, IkeSaKeys, Initiate, SaId, Settings, Transmit,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::owner::{Owner, key};

/// One end.
struct End {
    engine: Engine,
    owner: Owner,
    keys: Vec<IkeSaKeys>,
    session: Option<(SaId, u32)>,
}

impl End {
    fn new(name: &str, seed: u64) -> End {
        let mut settings = Settings::new(Identity::Fqdn(name.to_owned()));
        settings.export_keys = true;
        (settings.child_lifetime, settings.ike_lifetime) = (None, None);
        End {
            engine: Engine::new(settings, StdRng::seed_from_u64(seed)),
            owner: Owner(0x1000 << seed),
            keys: Vec::new(),
            session: None,
        }
    }

    fn take(&mut self) -> Vec<Transmit> {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Keys { keys, .. } => self.keys.push(*keys),
                Event::Established {
                    id,
                    child: Child { spi_in, .. },
                    ..
                } => self.session = Some((id, spi_in)),
                _ => {}
            }
        }
        std::iter::from_fn(|| self.engine.poll_transmit()).collect()
    }

    fn hear(&mut self, now: Instant, t: &Transmit) -> Vec<Transmit> {
        self.engine
            .handle_datagram(now, t.remote, t.local, &t.data, &mut self.owner);
        self.take()
    }
}

/// The same message with another inside.
fn forged(
    of: &Transmit,
    keys: &IkeSaKeys,
    exchange: u8,
    first: u8,
    chain: &[u8],
) -> Option<Transmit> {
    let mut header = Header::parse(&of.data).ok()?;
    if exchange != 0 {
        header.exchange = exchange;
    }
    let material = match header.initiator {
        true => &keys.sk_ei,
        false => &keys.sk_er,
    };
    let key = AeadKey::new(keys.cipher, material)?;
    let plain = Zeroizing::new(chain.to_vec());
    // No counter of ours gets there: no nonce is used twice.
    let data = fragment::seal(header, first, plain, &key, &mut (1 << 60), None).ok()?;
    Some(Transmit {
        data: data.into_iter().next()?,
        ..of.clone()
    })
}

/// Byte 0: which message of a conversation is replaced; 1: by one of which exchange, or 0 for the
/// same; 2: type of its first payload; the rest is its chain of payloads.
pub fn ike_session(data: &[u8]) {
    let [which, exchange, first, chain @ ..] = data else {
        return;
    };
    // IKE_SA_INIT is not protected, and IKE_AUTH is tried by 2 and 3.
    if *exchange == exchange::IKE_SA_INIT {
        return;
    }
    let now = Instant::now();
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
    let init = client.take();
    let answer: Vec<_> = init.iter().flat_map(|t| gateway.hear(now, t)).collect();
    let request: Vec<_> = answer.iter().flat_map(|t| client.hear(now, t)).collect();
    let (mut to, mut message) = (1, request);
    // 0: IKE_AUTH; 1: its answer; then a request of either side and its answer, of three kinds.
    let stage = which % 14;
    if stage >= 1 {
        message = message.iter().flat_map(|t| gateway.hear(now, t)).collect();
        to = 0;
    }
    if stage >= 2 {
        for t in &message {
            client.hear(now, t);
        }
        let speaker = usize::from(stage % 2);
        let Some((id, spi)) = ends[speaker].session else {
            panic!("the two do not agree");
        };
        let End { engine, owner, .. } = &mut ends[speaker];
        match (stage - 2) / 4 {
            0 => engine.check_liveness(now, id),
            1 => engine.rekey_child(now, id, spi),
            _ => engine.rekey_ike(now, id),
        }
        engine.handle_timeout(now, owner);
        message = ends[speaker].take();
        to = 1 - speaker;
        if (stage - 2) / 2 % 2 == 1 {
            message = message.iter().flat_map(|t| ends[to].hear(now, t)).collect();
            to = speaker;
        }
    }
    let Some(whole) = message.first() else {
        panic!("nothing was said at stage {stage}");
    };
    let keys = &ends[1 - to].keys;
    let Some(forged) = keys
        .first()
        .and_then(|k| forged(whole, k, *exchange, *first, chain))
    else {
        return;
    };
    // The forged one, the true one, and all that comes of both; then time passes.
    let mut wire = vec![forged, whole.clone()];
    let mut now = now;
    for _ in 0..1000 {
        for t in std::mem::take(&mut wire) {
            let at = usize::from(t.remote == remote);
            let answers = ends[at].hear(now, &t);
            assert!(answers.len() <= 2, "{} answers to one", answers.len());
            wire.extend(answers);
        }
        if !wire.is_empty() {
            continue;
        }
        let due = ends.iter().filter_map(|end| end.engine.next_timeout());
        let Some((at, _)) = due.min_by_key(|(at, _)| *at) else {
            return;
        };
        now = at.max(now) + Duration::from_millis(1);
        for end in &mut ends {
            end.engine.handle_timeout(now, &mut end.owner);
            wire.extend(end.take());
        }
    }
    panic!("an endless conversation");
}
