//! What two sides agree on, and what they do not, with the wire above each step.

use super::super::payload::sa::{Proposal, Transform, protocol, transform};
use super::super::proposal::{choose_esp, choose_ike, chosen_esp, chosen_ike, offers};
use super::refused::failing;
use super::*;

pub(super) fn ike(text: &str) -> IkeProposal {
    text.parse().unwrap()
}

fn esp(text: &str) -> EspProposal {
    text.parse().unwrap()
}

/// Two sides with proposals in words.
pub(super) fn pair(a: &[&str], b: &[&str]) -> Pair {
    Pair::with(|client, gateway| {
        client.ike_proposals = a.iter().map(|text| ike(text)).collect();
        gateway.ike_proposals = b.iter().map(|text| ike(text)).collect();
    })
}

/// What a responder with `ours` makes of `theirs`, in words; the initiator must accept it.
fn outcome(ours: &[&str], theirs: &[&str]) -> Option<String> {
    let [ours, theirs] = [ours, theirs].map(|list| list.iter().map(|t| ike(t)).collect::<Vec<_>>());
    let offer = offers(&theirs, IkeProposal::offer);
    let (suite, answer) = choose_ike(&ours, &offer)?;
    assert_eq!(chosen_ike(&theirs, &[answer]), Some(suite));
    let chosen = IkeProposal {
        ciphers: vec![suite.cipher],
        prfs: vec![suite.prf],
        groups: vec![suite.group],
        additional: suite.additional.map(Some).into_iter().collect(),
    };
    Some(chosen.to_string())
}

#[test]
fn every_algorithm_is_spoken() {
    for cipher in ["aes128gcm16", "aes256gcm16", "chacha20poly1305"] {
        for prf in ["prfsha256", "prfsha384", "prfsha512"] {
            for group in ["x25519", "ecp256", "ecp384"] {
                let wanted = [&*format!("{cipher}-{prf}-{group}")];
                pair(&wanted, &wanted).up();
            }
        }
        for (esn, expected) in [("esn", true), ("noesn", false)] {
            let wanted = esp(&format!("{cipher}-{esn}"));
            let mut pair = Pair::with(|a, b| {
                a.esp_proposals = vec![wanted.clone()];
                b.esp_proposals = vec![wanted.clone()];
            });
            let wish = pair.wish();
            pair.initiate(wish);
            pair.run();
            let (_, child) = pair.a.established().unwrap();
            assert_eq!((child.cipher, child.esn), (wanted.ciphers[0], expected));
            assert_eq!(child.key_in.len(), wanted.ciphers[0].key_length());
        }
    }
}

#[test]
fn the_responder_prefers() {
    let mut pair = Pair::with(|_, b| {
        b.ike_proposals[0].ciphers.reverse();
        b.esp_proposals[0].ciphers.reverse();
        b.esp_proposals[0].esn = vec![false, true];
    });
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    let (_, child) = pair.a.established().unwrap();
    let chosen = (child.cipher, child.esn);
    assert_eq!(chosen, (EspCipher::ChaCha20Poly1305, false));
    assert_mirrored(child, pair.b.established().unwrap().1);
}

#[test]
fn our_order_of_proposals_then_of_algorithms_decides() {
    let strong = "aes256gcm16-prfsha384-ecp384";
    let fast = "aes128gcm16-prfsha256-x25519";
    assert_eq!(outcome(&[strong, fast], &[fast, strong]).unwrap(), strong);
    assert_eq!(outcome(&[fast, strong], &[strong, fast]).unwrap(), fast);
    let all = "aes128gcm16-aes256gcm16-prfsha512-prfsha256-x25519-ecp256";
    let other = "aes256gcm16-aes128gcm16-prfsha256-prfsha512-ecp256-x25519";
    let expected = "aes128gcm16-prfsha512-x25519";
    assert_eq!(outcome(&[all], &[other]).unwrap(), expected);
    // Nothing is put together from two proposals.
    let halves = [
        "aes256gcm16-prfsha256-x25519",
        "aes128gcm16-prfsha384-x25519",
    ];
    assert_eq!(outcome(&["aes256gcm16-prfsha384-x25519"], &halves), None);
    assert_eq!(
        outcome(&["chacha20poly1305-prfsha256-x25519"], &[all]),
        None
    );
    assert_eq!(outcome(&[], &[all]), None);
    assert_eq!(outcome(&[all], &[]), None);
}

#[test]
fn an_additional_exchange_is_required_optional_or_left_out() {
    let plain = "aes256gcm16-prfsha256-x25519";
    let required = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
    let optional = "aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none";
    let rather_not = "aes256gcm16-prfsha256-x25519-ke1_none-ke1_mlkem768";
    for (ours, theirs, expected) in [
        (required, required, Some(required)),
        (required, optional, Some(required)),
        (optional, required, Some(required)),
        (optional, optional, Some(required)),
        (rather_not, optional, Some(plain)),
        (optional, rather_not, Some(required)),
        (rather_not, required, Some(required)),
        (optional, plain, Some(plain)),
        (plain, optional, Some(plain)),
        (required, plain, None),
        (plain, required, None),
    ] {
        let found = outcome(&[ours], &[theirs]);
        assert_eq!(found.as_deref(), expected, "{ours}, {theirs}");
    }
    // A peer that does not know the transform type at all is served by a second proposal.
    assert_eq!(outcome(&[plain], &[required, plain]).unwrap(), plain);
    let all = |list: &[&str]| {
        let list: Vec<IkeProposal> = list.iter().map(|text| ike(text)).collect();
        let all = IkeProposal::with_fallbacks(&list);
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(all(&[optional]), [optional, plain]);
    assert_eq!(all(&[optional, plain]), [optional, plain]);
    assert_eq!(all(&[plain, optional]), [plain, optional]);
    assert_eq!(all(&[required, plain]), [required, plain]);
    assert_eq!(all(&[required]), [required]);
    assert_eq!(ike(required).without_additional(), None);
    assert_eq!(ike(optional).without_additional(), Some(ike(plain)));
    assert_eq!(ike(plain).without_additional(), Some(ike(plain)));
    assert_eq!(ike(required).plain(), ike(plain));
}

/// One proposal for an IKE SA from raw transforms: kind, number, key length.
fn raw(transforms: &[(u8, u16, Option<u16>)]) -> [Proposal; 1] {
    let transforms = transforms.iter();
    let transforms = transforms.map(|(kind, id, bits)| Transform::new(*kind, *id, *bits));
    [Proposal {
        number: 1,
        protocol: protocol::IKE,
        spi: Vec::new(),
        transforms: transforms.collect(),
    }]
}

#[test]
fn integrity_beside_an_aead_is_absent_or_none() {
    use transform::{ADDKE1, ENCR, INTEG, KE, PRF};
    let ours = [IkeProposal::default()];
    let rest = [(ENCR, 20, Some(256)), (PRF, 5, None), (KE, 31, None)];
    let judge = |more: &[(u8, u16, Option<u16>)]| {
        let offer = raw(&[&rest[..], more].concat());
        let (_, answer) = choose_ike(&ours, &offer)?;
        Some(
            answer
                .transforms
                .iter()
                .map(|t| (t.kind, t.id))
                .collect::<Vec<_>>(),
        )
    };
    let chosen = vec![(ENCR, 20), (PRF, 5), (KE, 31)];
    assert_eq!(judge(&[]), Some(chosen.clone()));
    // NONE is answered, since one of each type that was offered is.
    let none = [&chosen[..], &[(INTEG, 0)]].concat();
    assert_eq!(judge(&[(INTEG, 0, None)]), Some(none.clone()));
    assert_eq!(judge(&[(INTEG, 12, None), (INTEG, 0, None)]), Some(none));
    // HMAC-SHA2-256-128 alone can not go with an AEAD (RFC 7296 section 3.3).
    assert_eq!(judge(&[(INTEG, 12, None)]), None);
    // An unknown type, and additional exchanges that must be.
    assert_eq!(judge(&[(99, 1, None)]), None);
    assert_eq!(judge(&[(ADDKE1 + 1, 36, None)]), None);
    let none = [&chosen[..], &[(ADDKE1 + 1, 0)]].concat();
    assert_eq!(
        judge(&[(ADDKE1 + 1, 36, None), (ADDKE1 + 1, 0, None)]),
        Some(none)
    );
}

#[test]
fn key_lengths_stand_where_there_are_several() {
    use transform::{ENCR, KE, PRF};
    let ours = [IkeProposal::default()];
    let judge = |id, bits| {
        let offer = raw(&[(ENCR, id, bits), (PRF, 5, None), (KE, 31, None)]);
        choose_ike(&ours, &offer).map(|(suite, _)| suite.cipher)
    };
    assert_eq!(judge(20, Some(256)), Some(IkeCipher::Aes256Gcm16));
    assert_eq!(judge(20, Some(128)), Some(IkeCipher::Aes128Gcm16));
    assert_eq!(judge(28, None), Some(IkeCipher::ChaCha20Poly1305));
    // 192 bits; AES without a length (RFC 7296 section 3.3.5); ChaCha20 with one (RFC 7634).
    for (id, bits) in [
        (20, Some(192)),
        (20, None),
        (28, Some(256)),
        (12, Some(256)),
    ] {
        assert_eq!(judge(id, bits), None, "{id} {bits:?}");
    }
    let offer = esp("chacha20poly1305-aes128gcm16-esn").offer(1, 0x1000);
    let encr = offer.transforms.iter().filter(|t| t.kind == ENCR);
    let encr: Vec<_> = encr.map(|t| (t.id, t.key_length)).collect();
    assert_eq!(encr, [(28, None), (20, Some(128))]);
}

#[test]
fn a_choice_that_was_not_offered_is_not_taken() {
    let ours = [
        ike("aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none"),
        ike("aes128gcm16-prfsha256-x25519"),
    ];
    let good = |number| {
        let [mut answer] = raw(&[(1, 20, Some(256)), (2, 5, None), (4, 31, None)]);
        answer.number = number;
        answer
    };
    assert!(chosen_ike(&ours, &[good(1)]).is_some());
    // NONE spelled out says the same.
    let mut none = good(1);
    none.transforms
        .extend([Transform::new(3, 0, None), Transform::new(6, 0, None)]);
    assert_eq!(chosen_ike(&ours, &[none]).unwrap().additional, None);
    for bad in [
        vec![],
        vec![good(0)],
        vec![good(2)],
        vec![good(3)],
        vec![good(1), good(1)],
    ] {
        assert_eq!(chosen_ike(&ours, &bad), None, "{bad:?}");
    }
    // Two of a kind; one that is lacking; one that we do not know; a second key exchange unasked.
    for change in [
        |p: &mut Proposal| p.transforms.push(Transform::new(1, 20, Some(256))),
        |p: &mut Proposal| p.transforms.truncate(2),
        |p: &mut Proposal| p.transforms.push(Transform::new(99, 1, None)),
        |p: &mut Proposal| p.transforms.push(Transform::new(7, 36, None)),
        |p: &mut Proposal| p.spi = vec![1; 8],
        |p: &mut Proposal| p.protocol = protocol::ESP,
    ] {
        let mut answer = good(1);
        change(&mut answer);
        assert_eq!(chosen_ike(&ours, &[answer.clone()]), None, "{answer:?}");
    }
    let ours = [esp("aes256gcm16-esn")];
    let (_, _, answer) = choose_esp(&ours, &[ours[0].offer(1, 0x1000)]).unwrap();
    let with_spi = |spi: u32| Proposal {
        spi: spi.to_be_bytes().to_vec(),
        ..answer.clone()
    };
    assert!(chosen_esp(&ours, &[with_spi(0x2000)]).is_some());
    assert_eq!(chosen_esp(&ours, &[with_spi(255)]), None);
}

#[test]
fn no_common_ike_proposal() {
    let pair = pair(
        &["aes128gcm16-prfsha256-x25519"],
        &["aes256gcm16-prfsha256-x25519"],
    );
    let wish = pair.wish();
    // HDR, SAi1, KEi, Ni --> <-- HDR(A,0), N(NO_PROPOSAL_CHOSEN)
    let (client, gateway, pair) = failing(pair, wish);
    assert_eq!((client, gateway), (Failure::NoProposalChosen, None));
    assert_eq!(pair.b.engine.stats().sent, 1);
}

#[test]
fn no_common_group() {
    let pair = pair(
        &["aes256gcm16-prfsha256-x25519"],
        &["aes256gcm16-prfsha256-ecp256"],
    );
    let wish = pair.wish();
    let (client, ..) = failing(pair, wish);
    assert_eq!(client, Failure::NoProposalChosen);
}

#[test]
fn several_selectors_of_each_family_are_narrowed() {
    let v4 = |a: u8, b: u8| TrafficSelector::range([10, a, 0, 0], [10, b, 255, 255]);
    let v6 = |a: u16, b: u16| {
        let at =
            |n, rest| std::net::Ipv6Addr::from([0xfd00, n, rest, rest, rest, rest, rest, rest]);
        TrafficSelector::range(at(a, 0), at(b, 0xffff))
    };
    let mut pair = Pair::new();
    pair.b.owner.local_ts = vec![v4(2, 3), v4(8, 20), v6(5, 6), v6(0x10, 0x30)];
    let wish = Initiate {
        remote_ts: vec![v4(0, 2), v4(9, 9), v4(30, 31), v6(6, 9), v6(0x20, 0x20)],
        ..pair.wish()
    };
    pair.initiate(wish);
    // HDR, SK {…, TSr(five)} --> <-- HDR, SK {…, TSr(what both have)}
    assert_eq!(pair.run(), 4);
    let (_, child) = pair.a.established().unwrap();
    let narrowed = [v4(2, 2), v4(9, 9), v6(6, 6), v6(0x20, 0x20)];
    assert_eq!(child.remote_ts, narrowed);
    assert_mirrored(child, pair.b.established().unwrap().1);
}
