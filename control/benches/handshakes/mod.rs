//! A responder and clients that are served to the end, without sockets and data plane. The clients' own
//! time is not counted.

#[path = "../owner/mod.rs"]
mod owner;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evergate::ike::x509::{KeyEncoding, Own, PrivateKey, Trust};
use evergate::ike::{
    AddressRequest, Datagram, Engine, Event, Initiate, Methods, Proof, Psk, Settings, Transmit,
    X509,
};
use evergate::node::threads::Threads;
use owner::Owner;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Clients whose handshakes are on their way at the same time.
const ABREAST: usize = 32;
/// Of the first of them; all share an address.
const PORT: u16 = 1000;
/// Handshakes that warm the caches up before any is counted.
const WARM_UP: usize = 128;

/// What both sides prove themselves by.
#[derive(Clone, Copy)]
pub(crate) enum Proven {
    Psk,
    Ecdsa,
}

/// A CA and what it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    trust: Arc<Trust>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a P-256 key");
        let der = params.self_signed(&key).expect("a CA").der().to_vec();
        let trust = Trust::new(&[der], &[]).expect("a CA");
        Authority {
            issuer: Issuer::new(params, key),
            trust: Arc::new(trust),
        }
    }

    fn certify(&self, name: &str) -> X509 {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let private = PrivateKey::from_der(KeyEncoding::Pkcs8, key.serialized_der());
        let own = Own::new(
            vec![certificate.der().to_vec()],
            private.expect("a P-256 key"),
        );
        X509 {
            own: Some(Arc::new(own.expect("a chain"))),
            trust: Arc::clone(&self.trust),
        }
    }
}

/// A responder, and what there is to tell of it.
struct Bench {
    threads: Threads,
    /// Bytes that are allocated and not yet freed.
    live: fn() -> isize,
    gateway: Engine,
    owner: Owner,
    methods: Methods,
    authority: Option<Authority>,
    clients: usize,
    /// The responder's own time, in all.
    time: Duration,
    /// What it has kept, in bytes.
    memory: isize,
}

const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 500);

fn settings(name: &str, x509: X509) -> Settings {
    Settings {
        x509,
        // As many as come at once here; no cookies.
        half_open_per_source: ABREAST + 1,
        ..Settings::new(name.parse().expect("an identity"))
    }
}

impl Bench {
    fn new(proven: Proven, threads: usize, live: fn() -> isize) -> Bench {
        let (methods, authority) = match proven {
            Proven::Psk => (Psk::new(vec![7; 32]).into(), None),
            Proven::Ecdsa => {
                let methods = Methods {
                    local: Proof::Certificate,
                    remote: Proof::Certificate,
                };
                (methods, Some(Authority::new()))
            }
        };
        let x509 = authority.as_ref().map(|a| a.certify("gw.example"));
        let settings = settings("gw.example", x509.unwrap_or_default());
        Bench {
            threads: Threads::new(threads).expect("threads"),
            live,
            gateway: Engine::new(settings, StdRng::seed_from_u64(1)),
            owner: Owner::new(&methods),
            methods,
            authority,
            clients: 0,
            time: Duration::ZERO,
            memory: 0,
        }
    }

    /// Clients begin, and are served to the end.
    fn round(&mut self) {
        let mut clients: Vec<(Engine, Owner)> = (PORT..)
            .take(ABREAST)
            .map(|port| self.client(port))
            .collect();
        loop {
            let sent = clients.iter_mut().flat_map(|(client, _)| {
                while client.poll_event().is_some() {}
                std::iter::from_fn(|| client.poll_transmit())
            });
            let sent: Vec<Transmit> = sent.collect();
            if sent.is_empty() {
                break;
            }
            let mut answers = Vec::with_capacity(2 * sent.len());
            let (before, start) = ((self.live)(), Instant::now());
            let datagrams: Vec<Datagram<'_>> = sent
                .iter()
                .map(|t| Datagram {
                    local: t.remote,
                    remote: t.local,
                    data: &t.data,
                })
                .collect();
            for batch in datagrams.chunks(self.threads.batch()) {
                self.gateway
                    .handle_datagrams(start, batch, &mut self.owner, &self.threads);
            }
            drop(datagrams);
            while let Some(event) = self.gateway.poll_event() {
                assert!(matches!(event, Event::Established { .. }), "{event:?}");
            }
            answers.extend(std::iter::from_fn(|| self.gateway.poll_transmit()));
            self.time += start.elapsed();
            let carried: usize = answers.iter().map(|t| t.data.capacity()).sum();
            self.memory += (self.live)() - before - carried as isize;
            for t in answers {
                let (client, owner) = &mut clients[usize::from(t.remote.port() - PORT)];
                client.handle_datagram(start, t.remote, t.local, &t.data, owner);
            }
        }
    }

    fn client(&mut self, port: u16) -> (Engine, Owner) {
        self.clients += 1;
        let name = format!("client-{}.example", self.clients);
        let x509 = self.authority.as_ref().map(|a| a.certify(&name));
        let rng = StdRng::seed_from_u64(self.clients as u64 + 1);
        let mut engine = Engine::new(settings(&name, x509.unwrap_or_default()), rng);
        let mut owner = Owner::new(&self.methods);
        let wish = Initiate {
            local: SocketAddr::new(Ipv4Addr::new(198, 51, 100, 7).into(), port),
            remote: GATEWAY,
            remote_id: Some("gw.example".parse().expect("an identity")),
            auth: self.methods.clone(),
            request_addresses: Some(AddressRequest {
                v4: Some(None),
                v6: None,
            }),
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
            initial_contact: true,
            follows_redirects: false,
            redirected_from: None,
        };
        engine.initiate(Instant::now(), wish, &mut owner);
        (engine, owner)
    }
}

/// What each of `count` handshakes takes: the responder's time, and bytes that stay. `live`: the bytes
/// that are allocated and not yet freed.
pub(crate) fn measure(
    proven: Proven,
    threads: usize,
    count: usize,
    live: fn() -> isize,
) -> (Duration, isize) {
    let mut bench = Bench::new(proven, threads, live);
    while bench.clients < WARM_UP {
        bench.round();
    }
    let (time, memory, clients) = (bench.time, bench.memory, bench.clients);
    while bench.clients < clients + count {
        bench.round();
    }
    let made = bench.clients - clients;
    assert_eq!(
        bench.gateway.stats().sas,
        bench.clients,
        "{:?}",
        bench.gateway.stats()
    );
    let time = (bench.time - time) / u32::try_from(made).expect("so many");
    (time, (bench.memory - memory) / made as isize)
}
