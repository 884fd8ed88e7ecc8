//! Keys of IKE SAs for the owner: all of them if it wants them, and none if not.

use super::super::payload::header::Header;
use super::super::payload::sk;
use super::*;
use crate::ike::crypto::AeadKey;

fn keys(node: &Node) -> Vec<IkeSaKeys> {
    let told = node.events.iter().filter_map(|event| match event {
        Event::Keys { keys, .. } => Some((**keys).clone()),
        _ => None,
    });
    told.collect()
}

fn asking() -> Pair {
    Pair::with(|a, b| (a.export_keys, b.export_keys) = (true, true))
}

/// Opens a recorded message, as whoever has the keys would.
fn open(keys: &IkeSaKeys, recorded: &Transmit) -> bool {
    let header = Header::parse(&recorded.data).unwrap();
    let key = match header.initiator {
        true => &keys.sk_ei,
        false => &keys.sk_er,
    };
    let key = AeadKey::new(keys.cipher, key).unwrap();
    sk::open(&header, &recorded.data, &key).is_ok()
}

#[test]
fn unasked_no_key_is_told() {
    let mut pair = Pair::new();
    let (id, _) = {
        let wish = pair.wish();
        pair.initiate(wish);
        pair.run();
        pair.a.established().map(|(id, c)| (id, c.spi_in)).unwrap()
    };
    pair.a.engine.rekey_ike(pair.now, id);
    pair.pass(Duration::from_secs(1));
    assert_eq!((keys(&pair.a), keys(&pair.b)), (vec![], vec![]));
}

#[test]
fn both_sides_tell_the_same_keys_once_and_they_open_the_messages() {
    let mut pair = asking();
    let wish = pair.wish();
    pair.initiate(wish);
    // IKE_SA_INIT: nobody has used the keys yet, and the responder has told nothing.
    let request = pair.a.take().remove(0);
    let response = pair.deliver(&request).remove(0);
    assert_eq!(keys(&pair.b), []);
    // HDR, SK {IDi, AUTH, …} -->
    let auth = pair.deliver(&response).remove(0);
    let told = keys(&pair.a);
    assert_eq!(told.len(), 1);
    assert!(open(&told[0], &auth));
    //                             <-- HDR, SK {IDr, AUTH, …}
    let answer = pair.deliver(&auth).remove(0);
    assert!(open(&told[0], &answer));
    pair.deliver(&answer);
    assert_eq!(keys(&pair.b), told);
    assert_eq!(keys(&pair.a), told);
    let first = |e: &Event| matches!(e, Event::Keys { .. });
    assert!(pair.a.events.first().is_some_and(first), "before all else");
    let header = Header::parse(&auth.data).unwrap();
    assert_eq!((told[0].spi_i, told[0].spi_r), (header.spi_i, header.spi_r));
}

#[test]
fn the_keys_of_what_takes_over_are_told_too() {
    let mut pair = asking();
    let (a, b) = pair.up();
    pair.a.engine.rekey_ike(pair.now, a);
    pair.pass(Duration::from_secs(1));
    pair.b.engine.rekey_ike(pair.now, b);
    pair.pass(Duration::from_secs(1));
    // The last one has protected nothing yet.
    assert_eq!(keys(&pair.a).len(), 1);
    // The one that rekeyed last is the initiator of the IKE SA.
    pair.b.engine.check_liveness(pair.now, b);
    let question = pair.b.take().remove(0);
    pair.deliver(&question);
    let told = keys(&pair.a);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told, keys(&pair.b));
    assert!(open(&told[1], &question));
    assert!(!open(&told[0], &question));
}

#[test]
fn those_of_an_additional_key_exchange_are_told_one_after_the_other() {
    let mut pair = Pair::with(|a, b| {
        for settings in [a, b] {
            settings.export_keys = true;
            settings.ike_proposals =
                vec!["aes256gcm16-prfsha256-x25519-ke1_mlkem768".parse().unwrap()];
        }
    });
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    let told = keys(&pair.a);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].spi_r, told[1].spi_r);
    assert_ne!(told[0].sk_ei, told[1].sk_ei);
    assert_eq!(told, keys(&pair.b));
}

#[test]
fn it_is_begun_and_ended_at_any_time() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    pair.a.engine.set_export_keys(true);
    pair.a.take();
    assert_eq!(keys(&pair.a).len(), 1);
    let renew = |pair: &mut Pair| {
        pair.a.engine.rekey_ike(pair.now, a);
        pair.pass(Duration::from_secs(1));
        pair.a.engine.check_liveness(pair.now, a);
        pair.run();
    };
    renew(&mut pair);
    assert_eq!(keys(&pair.a).len(), 2);
    pair.a.engine.set_export_keys(false);
    renew(&mut pair);
    assert_eq!(keys(&pair.a).len(), 2);
    let shown = format!("{:?}", pair.a.events);
    assert!(shown.contains("sk_ei: Secret(36 bytes)"), "{shown}");
}
