//! The clients of one address: one handshake after the other.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng as _, SeedableRng as _};

use super::{Plan, Tally};
use crate::ike::{
    AddressRequest, Beside, Child, Engine, Event, Hooks, IKE_PORT, Identity, Initiate, Methods,
    SaId, Settings,
};
use crate::node::sockets::Sockets;

/// How long the deletion of one session may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// One address and its clients.
pub(super) struct Client {
    local: IpAddr,
    sockets: Sockets,
    plan: Rc<Plan>,
    rng: StdRng,
    /// Sessions to delete at the end.
    sessions: Vec<(Engine, SaId)>,
}

impl Client {
    pub(super) async fn bind(local: IpAddr, plan: Rc<Plan>) -> Result<Client> {
        Ok(Client {
            local,
            sockets: Sockets::bind(local).await?,
            plan,
            rng: StdRng::try_from_rng(&mut SysRng)?,
            sessions: Vec::new(),
        })
    }

    /// Handshakes until `next` has reached the plan's count. Yields when the last one was over.
    pub(super) async fn run(mut self, next: Rc<Cell<usize>>) -> (Tally, Instant, Client) {
        let mut tally = Tally::default();
        while next.get() < self.plan.count {
            let number = next.get() + 1;
            next.set(number);
            let start = Instant::now();
            match self.handshake(number, &mut tally.sent).await {
                Ok(()) => tally.took.push(start.elapsed()),
                Err(why) => tally.failures.push(why),
            }
        }
        (tally, Instant::now(), self)
    }

    async fn handshake(&mut self, number: usize, sent: &mut u64) -> Result<(), String> {
        let spi = self.rng.next_u32();
        let made = self.establish(number, spi, sent).await?;
        if !self.plan.leave {
            self.sessions.push((made.engine, made.id));
        }
        Ok(())
    }

    /// Makes the session of a client, which receives ESP on this SPI.
    pub(super) async fn establish(
        &mut self,
        number: usize,
        spi: u32,
        sent: &mut u64,
    ) -> Result<Made, String> {
        let mut engine = self.engine(number)?;
        let (methods, _) = self.plan.credentials.of(number);
        let wish = Initiate {
            local: SocketAddr::new(self.local, IKE_PORT),
            remote: SocketAddr::new(self.plan.remote, IKE_PORT),
            remote_id: Some(self.plan.remote_id.clone()),
            auth: methods,
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
        let mut owner = Owner { spi };
        let id = engine.initiate(Instant::now(), wish, &mut owner);
        loop {
            while let Some(event) = engine.poll_event() {
                match event {
                    Event::Established {
                        child, assigned, ..
                    } => {
                        return Ok(Made {
                            engine,
                            id,
                            child,
                            assigned,
                        });
                    }
                    Event::Failed { error, .. } => return Err(error.to_string()),
                    _ => {}
                }
            }
            self.exchange(&mut engine, &mut owner, None, sent).await;
        }
    }

    /// Keeps a session that was made, for as long as the other side does: every datagram that this takes is
    /// counted.
    pub(super) async fn keep(mut self, mut made: Made, datagrams: &AtomicU64) {
        let mut owner = Owner { spi: 0 };
        loop {
            let mut sent = 0;
            let heard = self
                .exchange(&mut made.engine, &mut owner, None, &mut sent)
                .await;
            datagrams.fetch_add(sent + u64::from(heard), Ordering::Relaxed);
            while let Some(event) = made.engine.poll_event() {
                if matches!(event, Event::Closed { .. }) {
                    return;
                }
            }
        }
    }

    /// Sends what there is to send, and takes one datagram, or what is due. Says whether one has come.
    async fn exchange(
        &mut self,
        engine: &mut Engine,
        owner: &mut Owner,
        until: Option<Instant>,
        sent: &mut u64,
    ) -> bool {
        while let Some(transmit) = engine.poll_transmit() {
            *sent += 1;
            // What can not be sent is like what is lost.
            let _ = self.sockets.send(&transmit).await;
        }
        let due = engine.next_timeout().map(|(at, _)| at);
        // Without anything that is due: until something comes.
        let far = || Instant::now() + Duration::from_secs(3600);
        let at = due.into_iter().chain(until).min().unwrap_or_else(far);
        match tokio::time::timeout_at(at.into(), self.sockets.receive()).await {
            Ok(Some(datagram)) if !datagram.esp => {
                let (local, remote) = (datagram.local, datagram.remote);
                engine.handle_datagram(Instant::now(), local, remote, &datagram.data, owner);
                true
            }
            Ok(_) => false,
            Err(_) => {
                engine.handle_timeout(Instant::now(), owner);
                false
            }
        }
    }

    /// Deletes the sessions that were made.
    pub(super) async fn end_sessions(&mut self) {
        let mut owner = Owner { spi: 0 };
        for (mut engine, id) in std::mem::take(&mut self.sessions) {
            let until = Instant::now() + FAREWELL;
            engine.close(Instant::now(), id);
            let mut open = true;
            while open && Instant::now() < until {
                self.exchange(&mut engine, &mut owner, Some(until), &mut 0)
                    .await;
                while let Some(event) = engine.poll_event() {
                    open &= !matches!(event, Event::Closed { .. });
                }
            }
        }
    }

    fn engine(&mut self, number: usize) -> Result<Engine, String> {
        let name = self.plan.identity.replace("{}", &number.to_string());
        let identity = name.parse().map_err(|bad| format!("{name}: {bad}"))?;
        let (_, x509) = self.plan.credentials.of(number);
        let settings = Settings {
            ike_proposals: self.plan.ike_proposals.clone(),
            esp_proposals: self.plan.esp_proposals.clone(),
            x509,
            ..Settings::new(identity)
        };
        Ok(Engine::new(settings, StdRng::from_rng(&mut self.rng)))
    }
}

/// A session as its client has it.
pub(super) struct Made {
    engine: Engine,
    id: SaId,
    pub(super) child: Child,
    /// Inner addresses.
    pub(super) assigned: Vec<IpAddr>,
}

/// Has no ESP: any SPI will do, and what the gateway says of traffic is taken.
struct Owner {
    spi: u32,
}

impl Hooks for Owner {
    fn auth(&mut self, _: &Identity, _: &Identity) -> Option<Methods> {
        None
    }

    fn unix_time(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(0, |since| since.as_secs())
    }

    fn allocate_spi(&mut self, _: Option<Beside>) -> u32 {
        self.spi.clamp(0x100, u32::MAX - 1)
    }
}
