//! Every rule as a table under a virtual clock; invariants under random events.

mod damping;
mod properties;
mod redirect;
mod reload;
mod requests;
mod spread;
mod standby;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Action, KeyManagement, SessionHandle, Settings};
use crate::policy::ClusterId;

const fn gateway(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
}

const A: IpAddr = gateway(1);
const B: IpAddr = gateway(2);
const C: IpAddr = gateway(3);
const D: IpAddr = gateway(4);
const X: IpAddr = gateway(24);

const ONE: ClusterId = ClusterId(1);
const TWO: ClusterId = ClusterId(2);

const FIRST: Duration = Duration::from_millis(100);
const CAP: Duration = Duration::from_millis(1_000);

/// A service with a clock that only tests move.
struct Bench {
    kms: KeyManagement<StdRng>,
    now: Instant,
    next_session: u64,
}

impl Bench {
    /// Cluster 1 is A B C; random numbers from `seed`.
    fn new(standby: usize, seed: u64) -> Bench {
        let settings = Settings {
            retry_first: FIRST,
            retry_cap: CAP,
            standby,
        };
        let mut kms = KeyManagement::new(settings, StdRng::seed_from_u64(seed));
        let now = Instant::now();
        kms.set_clusters(vec![(ONE, vec![A, B, C])], now);
        Bench {
            kms,
            now,
            next_session: 1,
        }
    }

    fn actions(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.kms.next_action())
            .map(|action| text(&action))
            .collect()
    }

    /// All actions after `what` was done at the present time.
    fn then(&mut self, what: impl FnOnce(&mut KeyManagement<StdRng>, Instant)) -> Vec<String> {
        what(&mut self.kms, self.now);
        self.actions()
    }

    fn ask(&mut self, after: Option<IpAddr>) -> Vec<String> {
        self.then(|kms, now| kms.request(ONE, after, now))
    }

    /// The exchange with `gateway` succeeds; sessions are numbered from 1.
    fn made(&mut self, gateway: IpAddr) -> Vec<String> {
        let session = SessionHandle(self.next_session);
        self.next_session += 1;
        self.then(|kms, now| kms.on_authenticated(gateway, session, now))
    }

    fn failed(&mut self, gateway: IpAddr) -> Vec<String> {
        self.then(|kms, now| kms.on_failed(gateway, "no answer".into(), now))
    }

    /// A session with `gateway` that is in use by cluster 1.
    fn in_use(&mut self, gateway: IpAddr) {
        let session = SessionHandle(self.next_session);
        self.next_session += 1;
        self.kms.on_peer_initiated(gateway, session, self.now);
        self.kms.on_active(ONE, Some(gateway), self.now);
        self.actions();
    }

    /// Wakes at each deadline up to `span` from now; what happened, and after how long.
    fn pass(&mut self, span: Duration) -> Vec<(Duration, String)> {
        let start = self.now;
        let mut seen = Vec::new();
        while let Some((at, _)) = self
            .kms
            .next_deadline()
            .filter(|(at, _)| *at <= start + span)
        {
            self.now = self.now.max(at);
            self.kms.poll(self.now);
            let next = self.kms.next_deadline();
            assert!(
                next.is_none_or(|(at, _)| at > self.now),
                "it spins: {next:?}"
            );
            seen.extend(
                self.actions()
                    .into_iter()
                    .map(|text| (self.now - start, text)),
            );
        }
        self.now = start + span;
        seen
    }
}

fn name(gateway: IpAddr) -> String {
    match [A, B, C, D, X].iter().position(|known| *known == gateway) {
        Some(at) => "ABCDX"[at..=at].to_owned(),
        None => gateway.to_string(),
    }
}

fn text(action: &Action) -> String {
    match action {
        Action::Authenticate { gateway } => format!("authenticate {}", name(*gateway)),
        Action::Granted { cluster, gateway } => format!("granted {} {}", cluster.0, name(*gateway)),
        Action::Rejected { cluster, tried, .. } => {
            let tried: Vec<String> = tried.iter().map(|(gateway, _)| name(*gateway)).collect();
            format!("rejected {} {}", cluster.0, tried.join(""))
        }
        Action::DropSession { gateway, session } => {
            format!("drop {} {}", name(*gateway), session.0)
        }
    }
}
