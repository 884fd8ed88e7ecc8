//! Session resumption (RFC 5723): a client goes on with any gateway that can open its ticket.

use std::sync::Arc;

use super::*;
use crate::ike::payload::header::Header;
use crate::ike::ticket::{Ticket, TicketKey, Tickets};

const KEY: [u8; 32] = [0x11; 32];
const OTHER: [u8; 32] = [0x22; 32];
/// What the gateways hold in memory of used tickets.
const REMEMBERED: usize = 1000;

fn key(secret: [u8; 32]) -> TicketKey {
    TicketKey::new(&secret).unwrap()
}

fn tickets(keys: &[[u8; 32]]) -> Option<Arc<Tickets>> {
    let keys = keys.iter().copied().map(key).collect();
    Some(Arc::new(Tickets::new(keys, REMEMBERED)))
}

/// A client that asks for tickets, and a gateway that issues them.
pub(super) fn pair() -> Pair {
    pair_with(|_, _| {})
}

pub(super) fn pair_with(change: impl FnOnce(&mut Settings, &mut Settings)) -> Pair {
    Pair::with(|a, b| {
        a.request_tickets = true;
        b.tickets = tickets(&[KEY]);
        change(a, b);
    })
}

/// Puts another gateway in the place of the first.
fn another(pair: &mut Pair, name: &str, keys: &[[u8; 32]]) {
    let mut settings = Settings::new(id(name));
    settings.tickets = tickets(keys);
    (settings.child_lifetime, settings.ike_lifetime) = (None, None);
    let mut node = Node::new(settings, "192.0.2.2:500", 7);
    node.owner.unix_time = pair.b.owner.unix_time;
    pair.b = node;
}

/// The newest ticket that the client was told of.
fn ticket(node: &Node) -> Option<Ticket> {
    let mut all = node.events.iter().filter_map(|event| match event {
        Event::Ticket { ticket, .. } => Some(ticket.clone()),
        _ => None,
    });
    all.next_back()
}

/// Has a session, and takes its ticket.
pub(super) fn earn(pair: &mut Pair) -> Ticket {
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    let earned = ticket(&pair.a).expect("a ticket");
    pair.a.established().expect("a session");
    pair.a.events.clear();
    pair.b.events.clear();
    earned
}

/// Tries a ticket with the gateway that is there now; yields how many datagrams that took.
pub(super) fn resume(pair: &mut Pair, ticket: Ticket) -> usize {
    let wish = Initiate {
        remote_id: Some(pair.b.engine.settings().local_id.clone()),
        ..pair.wish()
    };
    pair.a
        .engine
        .resume(pair.now, wish, ticket, &mut pair.a.owner);
    pair.run()
}

/// Whether the client's only session was resumed; (peer of the client, peer of the gateway).
pub(super) fn resumed(pair: &Pair) -> (bool, String, String) {
    let told = |node: &Node| {
        let mut all = node.events.iter().filter_map(|event| match event {
            Event::Established { peer, resumed, .. } => Some((*resumed, peer.to_string())),
            _ => None,
        });
        all.next().expect("a session")
    };
    let ((a, client), (b, gateway)) = (told(&pair.a), told(&pair.b));
    assert_eq!(a, b);
    (a, client, gateway)
}

/// ```text
/// HDR, Ni, N(TICKET_OPAQUE), … -->
///                                <-- HDR, Nr, …
/// HDR, SK {IDi, IDr, AUTH, CP, SAi2, TSi, TSr, N(TICKET_REQUEST)} -->
///                                <-- HDR, SK {IDr, AUTH, CP, SAr2, TSi, TSr, N(TICKET_LT_OPAQUE)}
/// ```
#[test]
fn a_session_goes_on_with_the_same_gateway_and_with_another() {
    let mut pair = pair();
    let mut earned = earn(&mut pair);
    for (name, gateway) in [(None, "gw.example"), (Some("gw2.example"), "gw2.example")] {
        if let Some(name) = name {
            another(&mut pair, name, &[OTHER, KEY]);
        }
        assert_eq!(resume(&mut pair, earned), 4);
        let expected = (true, gateway.to_owned(), "client.example".to_owned());
        assert_eq!(resumed(&pair), expected);
        let (a, b) = (pair.a.established().unwrap(), pair.b.established().unwrap());
        assert_mirrored(a.1, b.1);
        assert_eq!(pair.b.engine.stats().resumed, 1);
        // The next ticket is there already.
        earned = ticket(&pair.a).expect("a further ticket");
        pair.a.events.clear();
    }
}

#[test]
fn the_peer_asks_for_its_inner_address_or_gets_the_former_one() {
    let mut pair = pair();
    let earned = earn(&mut pair);
    resume(&mut pair, earned);
    // It named none, so the gateway is asked for the one of before.
    let (peer, requested, v4, v6) = pair.b.owner.asked.clone().unwrap();
    assert_eq!((peer, v4, v6), (id("client.example"), true, false));
    assert!(requested.contains(&[10, 99, 0, 7].into()), "{requested:?}");
}

#[test]
fn keys_of_the_session_are_others_each_time() {
    let mut pair = pair();
    let earned = earn(&mut pair);
    let again = earned.clone();
    resume(&mut pair, earned);
    let first = pair.a.established().unwrap().1.key_out.clone();
    another(&mut pair, "gw2.example", &[KEY]);
    pair.a.events.clear();
    resume(&mut pair, again);
    let second = pair.a.established().unwrap().1.key_out.clone();
    assert!(first != second);
}

#[test]
fn what_is_not_taken_ends_in_the_full_exchange() {
    type Change = fn(&mut Pair);
    for (what, change) in [
        (
            "of another cluster",
            (|pair| another(pair, "gw.example", &[OTHER])) as Change,
        ),
        ("no tickets at all", |pair| another(pair, "gw.example", &[])),
        ("expired", |pair| pair.b.owner.unix_time += 24 * 3600),
        ("another way to prove", |pair| {
            let methods = Methods {
                local: Proof::Psk(psk("secret")),
                remote: Proof::Certificate,
            };
            pair.b.owner.auth.insert(id("client.example"), methods);
        }),
        ("another cipher", |pair| {
            pair.b.engine.change_settings(|s| {
                s.ike_proposals = vec!["chacha20poly1305-prfsha256-x25519".parse().unwrap()];
            });
        }),
        ("reauthentication is due", |pair| {
            let limit = Duration::from_secs(3600);
            pair.b.engine.change_settings(|s| s.reauth = Some(limit));
            pair.b.owner.unix_time += 3600;
        }),
    ] {
        let mut pair = pair();
        let earned = earn(&mut pair);
        change(&mut pair);
        let tried = resume(&mut pair, earned);
        // The ticket and its refusal come before the usual exchanges.
        let refused = if what == "another way to prove" { 5 } else { 6 };
        assert!(tried >= refused, "{what}: {tried} datagrams");
        assert_eq!(pair.b.engine.stats().tickets_refused, 1, "{what}");
        assert_eq!(pair.b.engine.stats().resumed, 0, "{what}");
        if what != "another way to prove" {
            assert!(!resumed(&pair).0, "{what}");
        }
    }
}

#[test]
fn whoever_may_not_come_does_not_come_by_ticket() {
    // Removed from the configuration; with another key.
    for known in [None, Some("another secret")] {
        let mut pair = pair();
        let earned = earn(&mut pair);
        pair.b.owner.keys.clear();
        if let Some(secret) = known {
            pair.b.owner.keys.insert(id("client.example"), secret);
        }
        resume(&mut pair, earned);
        assert_eq!(pair.a.failure(), Some(&Failure::AuthenticationFailed));
        assert_eq!(pair.b.engine.stats().tickets_refused, 1);
        assert!(pair.a.established().is_none() && pair.b.established().is_none());
    }
}

/// Between the two exchanges of one resumption the peer is removed, or the ticket used.
#[test]
fn what_changes_in_between_counts() {
    for spoil in [true, false] {
        let mut pair = pair();
        let earned = earn(&mut pair);
        let wish = pair.wish();
        let mut second = (earned.clone(), wish.clone());
        second.1.local.set_port(501);
        pair.a
            .engine
            .resume(pair.now, wish, earned, &mut pair.a.owner);
        let first = pair.a.take();
        let answer = pair.deliver(&first[0]);
        let auth = pair.deliver(&answer[0]);
        if spoil {
            pair.b.owner.keys.clear();
        } else {
            let (ticket, wish) = second;
            pair.a
                .engine
                .resume(pair.now, wish, ticket, &mut pair.a.owner);
            pair.run();
            assert_eq!(pair.b.engine.stats().resumed, 1);
            pair.a.events.clear();
        }
        let refused = pair.deliver(&auth[0]);
        pair.deliver(&refused[0]);
        assert_eq!(pair.a.failure(), Some(&Failure::AuthenticationFailed));
        assert_eq!(pair.b.engine.stats().tickets_refused, 1);
    }
}

#[test]
fn a_ticket_counts_once_here_and_once_there() {
    let mut pair = pair();
    let earned = earn(&mut pair);
    resume(&mut pair, earned.clone());
    assert!(resumed(&pair).0);
    pair.a.events.clear();
    pair.b.events.clear();
    resume(&mut pair, earned.clone());
    assert!(!resumed(&pair).0);
    // Another gateway does not know: there, it counts once more.
    another(&mut pair, "gw2.example", &[KEY]);
    pair.a.events.clear();
    resume(&mut pair, earned);
    assert!(resumed(&pair).0);
}

#[test]
fn keys_change_while_old_tickets_still_count() {
    let mut pair = pair();
    let earned = earn(&mut pair);
    let held = pair.b.engine.settings().tickets.clone().unwrap();
    held.set_keys(vec![key(OTHER), key(KEY)]);
    resume(&mut pair, earned);
    assert!(resumed(&pair).0);
    // The one that came with it is sealed by the new key.
    let newer = ticket(&pair.a).unwrap();
    held.set_keys(vec![key(OTHER)]);
    pair.a.events.clear();
    pair.b.events.clear();
    resume(&mut pair, newer.clone());
    assert!(resumed(&pair).0);
    let newest = ticket(&pair.a).unwrap();
    held.set_keys(vec![key([3; 32])]);
    pair.a.events.clear();
    pair.b.events.clear();
    resume(&mut pair, newest);
    assert!(!resumed(&pair).0);
}

/// A responder that knows nothing of tickets may say nothing. The time to giving up stays the same.
#[test]
fn silence_ends_in_the_full_exchange_too() {
    let mut pair = pair();
    let earned = earn(&mut pair);
    let (wish, begun) = (pair.wish(), pair.now);
    pair.a
        .engine
        .resume(pair.now, wish, earned.clone(), &mut pair.a.owner);
    let mut sent = Vec::new();
    while let Some((at, _)) = pair.a.engine.next_timeout()
        && at < begun + Duration::from_secs(300)
    {
        for t in pair.a.take() {
            let exchange = Header::parse(&t.data).unwrap().exchange;
            sent.push((exchange, (pair.now - begun).as_millis()));
        }
        pair.now = at;
        pair.a.engine.handle_timeout(at, &mut pair.a.owner);
    }
    pair.a.take();
    assert_eq!(pair.a.failure(), Some(&Failure::Timeout));
    let retransmit = pair.a.engine.settings().retransmit;
    let (first, second) = (500, 1500);
    assert_eq!(sent[..3], [(38, 0), (38, first), (34, second)], "{sent:?}");
    assert_eq!(sent.len() as u32, retransmit.tries, "{sent:?}");
    assert_eq!(pair.now - begun, retransmit.total());
    // And one that answers then is as good as ever.
    let wish = pair.wish();
    pair.a.events.clear();
    pair.a
        .engine
        .resume(pair.now, wish, earned, &mut pair.a.owner);
    for _ in 0..2 {
        // Nothing of the ticket arrives.
        pair.a.take();
        let (at, _) = pair.a.engine.next_timeout().unwrap();
        pair.now = at;
        pair.a.engine.handle_timeout(at, &mut pair.a.owner);
    }
    pair.run();
    assert!(!resumed(&pair).0);
}

#[test]
fn a_fresh_ike_sa_brings_a_fresh_ticket() {
    for ours in [true, false] {
        let mut pair = pair();
        let wish = pair.wish();
        let a = pair.initiate(wish);
        pair.run();
        let b = pair.b.established().unwrap().0;
        let old = ticket(&pair.a).unwrap();
        match ours {
            true => pair.a.engine.rekey_ike(pair.now, a),
            false => pair.b.engine.rekey_ike(pair.now, b),
        }
        pair.pass(Duration::from_secs(2));
        let fresh = ticket(&pair.a).unwrap();
        assert_ne!(fresh.opaque, old.opaque);
        assert!(fresh.sk_d != old.sk_d);
        assert_eq!(pair.b.engine.stats().tickets_issued, 2);
        pair.a.events.clear();
        pair.b.events.clear();
        resume(&mut pair, fresh);
        assert!(resumed(&pair).0);
    }
}

#[test]
fn a_ticket_is_not_good_for_longer_than_the_session_may_last() {
    let hours = |h: u64| Duration::from_secs(h * 3600);
    for (ike, reauth, expected) in [
        (None, None, hours(24)),
        (Some(Lifetime::new(hours(4))), None, hours(8)),
        (Some(Lifetime::new(hours(4))), Some(hours(3)), hours(3)),
    ] {
        let mut pair = pair_with(|_, b| (b.ike_lifetime, b.reauth) = (ike, reauth));
        let earned = earn(&mut pair);
        assert_eq!(earned.expires() - pair.now, expected);
        // What comes by ticket has not proven anything anew: its time is not longer.
        if reauth.is_some() {
            for node in [&mut pair.a, &mut pair.b] {
                node.owner.unix_time += 3600;
            }
            pair.now += hours(1);
            resume(&mut pair, earned);
            assert!(resumed(&pair).0);
            assert_eq!(ticket(&pair.a).unwrap().expires() - pair.now, hours(2));
        }
    }
}

#[test]
fn who_asks_for_none_gets_none_and_who_issues_none_says_nothing() {
    let mut pair = pair_with(|a, _| a.request_tickets = false);
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    assert!(ticket(&pair.a).is_none());
    assert_eq!(pair.b.engine.stats().tickets_issued, 0);
    let mut pair = pair_with(|_, b| b.tickets = None);
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    assert!(ticket(&pair.a).is_none() && pair.a.established().is_some());
}
