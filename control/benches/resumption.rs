//! What a handshake costs the responder: with a pre-shared key and x25519, and by a ticket (RFC
//! 5723). Two engines back to back; the time is that of the responder alone, on one core.
//!
//! `cargo bench -p evergate --bench resumption`

mod owner;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evergate::ike::{
    AddressRequest, Engine, Event, Identity, Initiate, Methods, Psk, SaId, Settings, Ticket,
    TicketKey, Tickets,
};
use owner::Owner;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Handshakes of each kind.
const COUNT: usize = 3000;

struct Bench {
    now: Instant,
    client: Engine,
    gateway: Engine,
    owner: Owner,
    /// What the gateway has spent.
    spent: Duration,
}

fn methods() -> Methods {
    Psk::new(b"a pre-shared key of 32 bytes ...".to_vec()).into()
}

const CLIENT: ([u8; 4], u16) = ([198, 51, 100, 7], 500);
const GATEWAY: ([u8; 4], u16) = ([192, 0, 2, 1], 500);

impl Bench {
    fn new() -> Bench {
        let name = |name: &str| Identity::Fqdn(name.into());
        let mut client = Settings::new(name("client.example"));
        client.request_tickets = true;
        let mut gateway = Settings::new(name("gw.example"));
        let key = TicketKey::new(&[7; 32]).expect("32 bytes");
        gateway.tickets = Some(Arc::new(Tickets::new(vec![key], 1 << 16)));
        gateway.half_open_per_source = usize::MAX;
        gateway.cookie_threshold = usize::MAX;
        Bench {
            now: Instant::now(),
            client: Engine::new(client, StdRng::seed_from_u64(1)),
            gateway: Engine::new(gateway, StdRng::seed_from_u64(2)),
            owner: Owner::new(&methods()),
            spent: Duration::ZERO,
        }
    }

    /// One handshake; yields both ends' names of it, and the client's next ticket.
    fn handshake(&mut self, ticket: Option<Ticket>) -> (SaId, Ticket) {
        let wanted = ticket.is_some();
        let wish = Initiate {
            local: SocketAddr::from(CLIENT),
            remote: SocketAddr::from(GATEWAY),
            remote_id: None,
            auth: methods(),
            request_addresses: Some(AddressRequest {
                v4: Some(None),
                v6: None,
            }),
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
            initial_contact: false,
            follows_redirects: false,
            redirected_from: None,
        };
        let id = match ticket {
            Some(ticket) => self.client.resume(self.now, wish, ticket, &mut self.owner),
            None => self.client.initiate(self.now, wish, &mut self.owner),
        };
        while let Some(t) = self.client.poll_transmit() {
            let begun = Instant::now();
            let (now, owner) = (self.now, &mut self.owner);
            self.gateway
                .handle_datagram(now, t.remote, t.local, &t.data, owner);
            while self.gateway.poll_event().is_some() {}
            let answers: Vec<_> = std::iter::from_fn(|| self.gateway.poll_transmit()).collect();
            self.spent += begun.elapsed();
            for t in answers {
                self.client
                    .handle_datagram(now, t.remote, t.local, &t.data, owner);
            }
        }
        let (mut made, mut next) = (None, None);
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Established { resumed, .. } => made = Some(resumed),
                Event::Ticket { ticket, .. } => next = Some(ticket),
                _ => {}
            }
        }
        assert_eq!(made, Some(wanted), "a session of the other kind, or none");
        (id, next.expect("a ticket"))
    }
}

fn main() {
    let mut rates = Vec::new();
    for resumed in [false, true] {
        let mut bench = Bench::new();
        let (_, mut ticket) = bench.handshake(None);
        bench.spent = Duration::ZERO;
        for _ in 0..COUNT {
            let used = resumed.then_some(ticket);
            let (id, next) = bench.handshake(used);
            ticket = next;
            // The client forgets; the gateway goes on holding them all.
            bench.client.forget(id);
        }
        let each = bench.spent.as_secs_f64() / COUNT as f64;
        rates.push(1.0 / each);
        let what = match resumed {
            false => "pre-shared key, x25519",
            true => "by a ticket",
        };
        println!(
            "{what:<24} {:>7.1} µs, {:>7.0} a second",
            each * 1e6,
            1.0 / each
        );
    }
    if let [full, resumed] = rates[..] {
        println!("a resumed one costs {:.2} times less", resumed / full);
    }
}
