//! Many datagrams at once, on several threads.

use super::*;

/// A thread for each job.
struct Threads;

impl Spread for Threads {
    fn run<'a>(&self, jobs: Vec<Job<'a>>) {
        std::thread::scope(|scope| {
            for job in jobs {
                scope.spawn(job);
            }
        });
    }
}

/// The gateway takes all of these at once.
fn take(gateway: &mut Node, now: Instant, sent: &[Transmit]) -> Vec<Transmit> {
    let datagrams: Vec<Datagram<'_>> = sent
        .iter()
        .map(|t| Datagram {
            local: t.remote,
            remote: t.local,
            data: &t.data,
        })
        .collect();
    let Node { engine, owner, .. } = gateway;
    engine.handle_datagrams(now, &datagrams, owner, &Threads);
    gateway.take()
}

/// Clients that have begun, each at its own address.
fn clients(pair: &Pair, names: &[&str]) -> Vec<Node> {
    let begin = |(at, name): (usize, &&str)| {
        let address = format!("198.51.{}.7:500", at + 1);
        let mut settings = Settings::new(id(name));
        (settings.child_lifetime, settings.ike_lifetime) = (None, None);
        let mut client = Node::new(settings, &address, 100 + at as u64);
        let wish = Initiate {
            local: client.address,
            initial_contact: true,
            ..pair.wish()
        };
        client.engine.initiate(pair.now, wish, &mut client.owner);
        client
    };
    names.iter().enumerate().map(begin).collect()
}

/// Each round all clients speak, and the gateway hears them at once.
fn converse(pair: &mut Pair, clients: &mut [Node]) {
    loop {
        let sent: Vec<Transmit> = clients.iter_mut().flat_map(Node::take).collect();
        if sent.is_empty() {
            return;
        }
        for answer in take(&mut pair.b, pair.now, &sent) {
            let to = clients.iter_mut().find(|c| c.address == answer.remote);
            let client = to.expect("an answer to nobody");
            let Node { engine, owner, .. } = client;
            engine.handle_datagram(pair.now, answer.remote, answer.local, &answer.data, owner);
        }
    }
}

fn established(node: &Node) -> Vec<&Child> {
    let found = node.events.iter().filter_map(|e| match e {
        Event::Established { child, .. } => Some(child),
        _ => None,
    });
    found.collect()
}

#[test]
fn a_herd_is_served_on_all_threads() {
    let mut pair = Pair::new();
    let names: Vec<String> = (0..20).map(|n| format!("c{n}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        pair.b.owner.keys.insert(id(name), "secret");
    }
    let mut clients = clients(&pair, &names);
    converse(&mut pair, &mut clients);
    let there = established(&pair.b);
    assert_eq!(there.len(), names.len());
    for client in &clients {
        let [here] = established(client)[..] else {
            panic!("{:?}", client.events)
        };
        let other = there.iter().find(|child| child.spi_in == here.spi_out);
        assert_mirrored(here, other.expect("the same pair of SAs"));
    }
    let stats = pair.b.engine.stats();
    assert_eq!((stats.established, stats.half_open, stats.sas), (20, 0, 20));
    assert_eq!((stats.received, stats.sent), (40, 40));
    // No two of them drew the same random numbers.
    let spis: std::collections::HashSet<u32> = there.iter().map(|child| child.spi_in).collect();
    assert_eq!(spis.len(), 20);
    let keys: Vec<&Secret> = there.iter().map(|child| &child.key_in).collect();
    for (at, key) in keys.iter().enumerate() {
        assert!(keys.iter().skip(at + 1).all(|other| other != key));
    }
}

#[test]
fn what_comes_twice_gets_the_same_answer_twice() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    // IKE_SA_INIT, twice  ─▶  one IKE SA, two answers
    let sent = pair.a.take();
    let twice = [sent.clone(), sent].concat();
    let answers = take(&mut pair.b, pair.now, &twice);
    let [first, second] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(first, second);
    // IKE_AUTH, twice  ─▶  one session, two answers
    let sent = pair.a.receive(pair.now, first);
    let twice = [sent.clone(), sent].concat();
    let answers = take(&mut pair.b, pair.now, &twice);
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(established(&pair.b).len(), 1);
    let stats = pair.b.engine.stats();
    assert_eq!((stats.sas, stats.received, stats.repeated), (1, 4, 2));
}

#[test]
fn one_address_can_not_have_more_half_open_sessions_at_once_than_one_after_the_other() {
    let mut pair = Pair::with(|_, gateway| {
        gateway.half_open_per_source = 4;
        gateway.cookie_threshold = 1000;
    });
    let mut sent = Vec::new();
    for _ in 0..10 {
        let wish = pair.wish();
        pair.initiate(wish);
        sent.extend(pair.a.take());
    }
    let answers = take(&mut pair.b, pair.now, &sent);
    // From half of them on a cookie is asked for.
    assert_eq!(answers.len(), 10);
    let stats = pair.b.engine.stats();
    assert_eq!((stats.half_open, stats.sas, stats.cookies_sent), (2, 2, 8));
}

#[test]
fn the_oldest_go_when_a_batch_brings_too_many() {
    let mut pair = Pair::with(|_, gateway| {
        gateway.half_open_limit = 3;
        gateway.cookie_threshold = 1000;
    });
    let names = [
        "a.example",
        "b.example",
        "c.example",
        "d.example",
        "e.example",
    ];
    let mut clients = clients(&pair, &names);
    let sent: Vec<Transmit> = clients.iter_mut().flat_map(Node::take).collect();
    assert_eq!(take(&mut pair.b, pair.now, &sent).len(), 5);
    let stats = pair.b.engine.stats();
    assert_eq!((stats.half_open, stats.sas), (3, 3));
    assert_eq!(stats.half_open_evicted, 2);
}

#[test]
fn of_two_sessions_of_a_peer_in_one_batch_the_later_stays() {
    let mut pair = Pair::new();
    let mut clients = clients(&pair, &["client.example", "client.example"]);
    converse(&mut pair, &mut clients);
    let told: Vec<&Event> = pair.b.events.iter().collect();
    let [
        Event::Established { id: first, .. },
        Event::Closed {
            id: closed,
            reason: CloseReason::Replaced,
            ..
        },
        Event::Established { id: second, .. },
    ] = told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(first, closed);
    assert!(second > first);
    assert_eq!(pair.b.engine.stats().sas, 1);
}

#[test]
fn garbage_in_a_batch_costs_nobody_else_anything() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    let good = pair.a.take().remove(0);
    let bad = |data: Vec<u8>| Transmit {
        data,
        ..good.clone()
    };
    let mut version = good.data.clone();
    version[17] = 0x30;
    let mut unknown = good.data.clone();
    unknown[8..16].copy_from_slice(&[9; 8]);
    unknown[18] = 35;
    let sent = [
        bad(vec![0; 3]),
        bad(version),
        good.clone(),
        bad(unknown),
        bad(good.data[..60].to_vec()),
    ];
    let answers = take(&mut pair.b, pair.now, &sent);
    // INVALID_MAJOR_VERSION and the answer.
    let [_, answer] = &answers[..] else {
        panic!("{answers:?}")
    };
    let sent = pair.a.receive(pair.now, answer);
    take(&mut pair.b, pair.now, &sent);
    assert_eq!(established(&pair.b).len(), 1);
    let stats = pair.b.engine.stats();
    assert_eq!(
        (stats.received, stats.bad_version, stats.unknown_spi),
        (6, 1, 1)
    );
    assert_eq!(stats.bad_header, 2);
}
