//! Quick crash detection (RFC 6290): whoever has forgotten an IKE SA can prove it.

use super::*;
use crate::ike::payload::header::Header;
use crate::ike::payload::notify::{Notify, kind};
use crate::ike::payload::{Payload, parse_chain, sk};

fn pair() -> Pair {
    Pair::with(|a, b| {
        a.crash_secret = Some(Secret::new(&[1; 32]));
        b.crash_secret = Some(Secret::new(&[2; 32]));
    })
}

/// The gateway's process dies and is started again: the same secret, and no memory.
fn restart(pair: &mut Pair) {
    let settings = pair.b.engine.settings().clone();
    let mut node = Node::new(settings, "192.0.2.1:500", 77);
    node.owner.next_spi = 0x9_0000;
    pair.b = node;
}

fn said(datagram: &[u8]) -> Vec<Payload> {
    let header = Header::parse(datagram).unwrap();
    parse_chain(header.next, &datagram[28..]).unwrap()
}

/// ```text
/// HDR(A,B), SK {} -->
///                                <-- HDR(A,B), N(INVALID_IKE_SPI), N(QCD_TOKEN)
/// ```
#[test]
fn a_client_learns_at_once_that_the_gateway_was_restarted() {
    let mut pair = pair();
    let (a, _) = pair.up();
    restart(&mut pair);
    pair.a.engine.check_liveness(pair.now, a);
    let asked = pair.a.take();
    let answers = pair.deliver(&asked[0]);
    assert!(
        answers[0].data.len() <= asked[0].data.len() + 4,
        "no amplifier"
    );
    assert!(
        matches!(&said(&answers[0].data)[..], [Payload::Notify(unknown), Payload::Notify(token)]
        if unknown.kind == kind::INVALID_IKE_SPI
            && (token.kind, token.protocol) == (kind::QCD_TOKEN, 0))
    );
    // It ends without a word, and without a wait.
    assert!(pair.deliver(&answers[0]).is_empty());
    assert_eq!(pair.a.closed(), Some(&CloseReason::Crashed));
    let stats = (pair.a.engine.stats(), pair.b.engine.stats());
    assert_eq!(
        (stats.0.crashes, stats.0.sas, stats.1.tokens_sent),
        (1, 0, 1)
    );
}

#[test]
fn tokens_go_along_with_rekeying() {
    for ours in [true, false] {
        let mut pair = pair();
        let (a, b) = pair.up();
        match ours {
            true => pair.a.engine.rekey_ike(pair.now, a),
            false => pair.b.engine.rekey_ike(pair.now, b),
        }
        pair.pass(Duration::from_secs(2));
        assert_eq!(pair.a.engine.stats().ike_rekeyed, 1);
        // The client dies: the gateway's question is answered with its token.
        let settings = pair.a.engine.settings().clone();
        let client = Node::new(settings, "198.51.100.7:500", 99);
        let old = std::mem::replace(&mut pair.a, client);
        pair.b.engine.check_liveness(pair.now, b);
        pair.run();
        assert_eq!(pair.b.closed(), Some(&CloseReason::Crashed), "{ours}");
        // And the other way round.
        pair.a = old;
        restart(&mut pair);
        pair.a.engine.check_liveness(pair.now, a);
        pair.run();
        assert_eq!(pair.a.closed(), Some(&CloseReason::Crashed), "{ours}");
    }
}

/// Whoever could get the token of an IKE SA that lives could end it.
#[test]
fn no_token_of_what_lives() {
    let mut pair = pair();
    let (a, _) = pair.up();
    pair.a.engine.check_liveness(pair.now, a);
    let true_one = pair.a.take().remove(0);
    let header = Header::parse(&true_one.data).unwrap();
    let mut answered = [0, 0];
    for initiator in [true, false] {
        for (spi_i, spi_r) in [
            (header.spi_i, header.spi_r),
            (header.spi_r, header.spi_i),
            (header.spi_i, 77),
            (77, header.spi_r),
            (header.spi_r, 77),
            (77, header.spi_i),
            (0, 77),
            (77, 0),
        ] {
            for to in [true, false] {
                let mut forged = true_one.clone();
                forged.data[..8].copy_from_slice(&spi_i.to_be_bytes());
                forged.data[8..16].copy_from_slice(&spi_r.to_be_bytes());
                forged.data[19] = if initiator { 0x08 } else { 0x00 };
                let node = if to { &mut pair.b } else { &mut pair.a };
                let answers = node.receive(pair.now, &forged);
                let sent = node.engine.stats().tokens_sent;
                let own = if to { header.spi_r } else { header.spi_i };
                let silent = [own, 0].iter().any(|spi| [spi_i, spi_r].contains(spi));
                // The true one among them is answered as usual.
                let given = sent - answered[usize::from(to)];
                assert!(answers.len() <= 1 && given <= u64::from(!silent));
                answered[usize::from(to)] = sent;
            }
        }
    }
    // Neither a response nor a message in the clear is answered.
    for change in [(19, 0x28), (16, 41)] {
        let mut forged = true_one.clone();
        forged.data[..16].copy_from_slice(&[7; 16]);
        forged.data[change.0] = change.1;
        assert!(pair.b.receive(pair.now, &forged).is_empty());
    }
}

#[test]
fn only_the_right_token_counts() {
    let mut pair = pair();
    let (a, _) = pair.up();
    pair.a.engine.check_liveness(pair.now, a);
    let asked = pair.a.take().remove(0);
    let old = std::mem::replace(&mut pair.b, Pair::new().b);
    restart(&mut pair);
    let settings = old.engine.settings().clone();
    pair.b = Node::new(settings, "192.0.2.1:500", 77);
    let right = pair.deliver(&asked).remove(0);
    let Some(Payload::Notify(token)) = said(&right.data).pop() else {
        panic!()
    };
    let header = Header::parse(&right.data).unwrap();
    let unknown = Payload::Notify(Notify::new(kind::INVALID_IKE_SPI, []));
    let mut wrong = vec![
        vec![unknown.clone()],
        vec![Payload::Notify(token.clone())],
        vec![
            unknown.clone(),
            Payload::Notify(Notify::new(kind::QCD_TOKEN, [])),
        ],
    ];
    for at in 0..token.data.len() {
        let mut changed = token.clone();
        changed.data[at] ^= 1;
        wrong.push(vec![unknown.clone(), Payload::Notify(changed)]);
    }
    for payloads in wrong {
        let mut t = right.clone();
        t.data = sk::write_plain(header, &payloads).unwrap();
        assert!(pair.deliver(&t).is_empty());
        assert_eq!(pair.a.closed(), None);
    }
    // Among others it is found.
    let mut t = right.clone();
    let mut other = token.clone();
    other.data[0] ^= 1;
    let payloads = [unknown, Payload::Notify(other), Payload::Notify(token)];
    t.data = sk::write_plain(header, &payloads).unwrap();
    pair.deliver(&t);
    assert_eq!(pair.a.closed(), Some(&CloseReason::Crashed));
}

#[test]
fn strangers_get_few_tokens() {
    let mut pair = pair();
    let mut data = vec![7; 57];
    data[16..28].copy_from_slice(&[46, 0x20, 37, 0x08, 0, 0, 0, 1, 0, 0, 0, 57]);
    let mut answered = 0;
    for spi in 1..=500_u64 {
        data[..8].copy_from_slice(&spi.to_be_bytes());
        let t = Transmit {
            local: "203.0.113.66:500".parse().unwrap(),
            remote: pair.b.address,
            data: data.clone(),
        };
        answered += pair.b.receive(pair.now, &t).len();
    }
    let stats = pair.b.engine.stats();
    assert_eq!(
        (answered, stats.tokens_sent, stats.tokens_withheld),
        (200, 200, 300)
    );
}

#[test]
fn without_a_secret_there_are_no_tokens() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    restart(&mut pair);
    pair.a.engine.check_liveness(pair.now, a);
    let asked = pair.a.take();
    assert!(pair.deliver(&asked[0]).is_empty());
}
