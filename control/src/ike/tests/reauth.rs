//! Authentication has an end (RFC 4478): the responder says when, and keeps to it.

use super::*;

const LIMIT: Duration = Duration::from_secs(3600);

fn told(node: &Node) -> Option<Duration> {
    node.events.iter().find_map(|event| match event {
        Event::ReauthIn { after, .. } => Some(*after),
        _ => None,
    })
}

/// ```text
///                                <-- HDR, SK {IDr, AUTH, …, N(AUTH_LIFETIME)}
/// ```
#[test]
fn the_responder_says_when_and_ends_what_is_not_begun_anew() {
    let mut pair = Pair::with(|_, b| b.reauth = Some(LIMIT));
    let wish = pair.wish();
    let a = pair.initiate(wish);
    pair.run();
    assert_eq!(told(&pair.a), Some(LIMIT));
    assert_eq!(told(&pair.b), None);
    // Fresh keys make no fresh authentication.
    pair.pass(LIMIT / 2);
    pair.a.engine.rekey_ike(pair.now, a);
    pair.pass(LIMIT / 2 - Duration::from_secs(1));
    assert_eq!(pair.a.engine.stats().ike_rekeyed, 1);
    assert_eq!((pair.a.closed(), pair.b.closed()), (None, None));
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.a.closed(), Some(&CloseReason::PeerDeleted));
    let reason = pair.b.closed().unwrap().to_string();
    assert_eq!(reason, "the lifetime of the authentication is over");
}

#[test]
fn one_that_is_begun_anew_in_time_lives_on() {
    let mut pair = Pair::with(|_, b| b.reauth = Some(LIMIT));
    let wish = pair.wish();
    let old = pair.initiate(wish);
    pair.run();
    pair.a.events.clear();
    pair.pass(LIMIT - Duration::from_secs(60));
    // Beside the old one, which then goes.
    let wish = pair.wish();
    let new = pair.initiate(wish);
    pair.run();
    assert_eq!(pair.a.established().map(|(id, _)| id), Some(new));
    assert_eq!(told(&pair.a), Some(LIMIT));
    pair.a.engine.close(pair.now, old);
    pair.run();
    pair.b.events.clear();
    pair.pass(LIMIT - Duration::from_secs(1));
    assert_eq!(pair.b.closed(), None);
}
