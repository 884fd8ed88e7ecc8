//! Which chains are believed.

use super::*;

fn id(name: &str) -> Identity {
    name.parse().unwrap()
}

fn check(trust: &Trust, chain: &[&[u8]]) -> Result<(), Refused> {
    let key = trust.verify(chain, &id("client.example"), NOW);
    key.map(|_| ())
}

/// A change to a good certificate of the right CA, and what is said of it.
#[test]
fn each_fault_of_a_certificate_is_told() {
    type Change = fn(&mut CertificateParams);
    let root = Authority::new("root");
    let seconds = |days: i64| NOW.checked_add_signed(days * DAY as i64).unwrap();
    let cases: [(&str, Change, Result<(), Refused>); 13] = [
        ("good", |_| {}, Ok(())),
        (
            "expired",
            |p| (p.not_before, p.not_after) = (day(-9), day(-3)),
            Err(Refused::Expired(seconds(-3))),
        ),
        (
            "not yet valid",
            |p| (p.not_before, p.not_after) = (day(3), day(9)),
            Err(Refused::NotYetValid(seconds(3))),
        ),
        (
            "another name",
            |p| p.subject_alt_names = vec![san("other.example")],
            Err(Refused::Name(id("client.example"))),
        ),
        (
            "the name in the subject only",
            |p| p.subject_alt_names.clear(),
            Err(Refused::Name(id("client.example"))),
        ),
        (
            "a wildcard",
            |p| p.subject_alt_names = vec![san("*.example")],
            Err(Refused::Name(id("client.example"))),
        ),
        (
            "for key encipherment",
            |p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment],
            Err(Refused::Usage),
        ),
        (
            "for non-repudiation",
            |p| p.key_usages = vec![KeyUsagePurpose::ContentCommitment],
            Ok(()),
        ),
        ("without a key usage", |p| p.key_usages.clear(), Ok(())),
        (
            "for code signing",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
            Err(Refused::Purpose),
        ),
        (
            "for servers, and mail",
            |p| {
                p.extended_key_usages = vec![
                    ExtendedKeyUsagePurpose::EmailProtection,
                    ExtendedKeyUsagePurpose::ServerAuth,
                ];
            },
            Ok(()),
        ),
        (
            "for IKE (RFC 4945)",
            |p| {
                let ike = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
                p.extended_key_usages = vec![ike];
            },
            Ok(()),
        ),
        (
            "a CA's",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Err(Refused::Authority),
        ),
    ];
    for (what, change, expected) in cases {
        let mut params = params(&["client.example"]);
        change(&mut params);
        let (der, _) = root.sign(&params, P256);
        assert_eq!(check(&root.trust(), &[&der]), expected, "{what}");
    }
}

#[test]
fn only_trusted_authorities_count() {
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    // The same name, but another key.
    let impostor = Authority::new("root");
    let (der, _) = root.sign(&params(&["client.example"]), P256);
    assert_eq!(check(&root.trust(), &[&der]), Ok(()));
    assert_eq!(check(&other.trust(), &[&der]), Err(Refused::UnknownIssuer));
    assert_eq!(check(&impostor.trust(), &[&der]), Err(Refused::Chain));
    assert_eq!(check(&Trust::default(), &[&der]), Err(Refused::NoTrust));
    assert_eq!(check(&root.trust(), &[]), Err(Refused::Missing));
    // What the peer sends along is not trusted for it.
    let sent = [&der[..], &root.der];
    assert_eq!(check(&other.trust(), &sent), Err(Refused::UnknownIssuer));
    let both = Trust::new(&[other.der.clone(), root.der.clone()], &[]).unwrap();
    assert_eq!(check(&both, &[&der]), Ok(()));
    // A certificate that signs itself is no CA's.
    let key = P256.pair();
    let own = params(&["client.example"]).self_signed(&key).unwrap();
    assert_eq!(
        check(&root.trust(), &[own.der()]),
        Err(Refused::UnknownIssuer)
    );
    assert_eq!(
        Trust::new(&[own.der().to_vec()], &[])
            .unwrap_err()
            .to_string(),
        "certificate 1, of CN=client.example,O=Example, is no CA's"
    );
}

#[test]
fn an_authority_that_has_expired_counts_no_more() {
    let expired = |p: &mut CertificateParams| (p.not_before, p.not_after) = (day(-9), day(-3));
    let root = Authority::with("root", P256, expired);
    let (der, _) = root.sign(&params(&["client.example"]), P256);
    let at = NOW - 3 * DAY;
    assert_eq!(check(&root.trust(), &[&der]), Err(Refused::Expired(at)));
}

#[test]
fn intermediates_come_from_the_peer() {
    let root = Authority::new("root");
    let middle = root.below("middle", |_| {});
    let low = middle.below("low", |_| {});
    let (der, _) = low.sign(&params(&["client.example"]), P256);
    let trust = root.trust();
    for (chain, expected) in [
        (vec![&der, &low.der, &middle.der], Ok(())),
        (vec![&der, &middle.der, &low.der], Ok(())),
        (vec![&der, &middle.der, &low.der, &root.der], Ok(())),
        (vec![&der, &low.der], Err(Refused::UnknownIssuer)),
        (vec![&der, &middle.der], Err(Refused::UnknownIssuer)),
        (vec![&der], Err(Refused::UnknownIssuer)),
    ] {
        let chain: Vec<&[u8]> = chain.into_iter().map(Vec::as_slice).collect();
        assert_eq!(check(&trust, &chain), expected);
    }
}

#[test]
fn a_chain_has_its_limits() {
    let root = Authority::with("root", P256, |_| {});
    let short = root.below("short", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
    });
    let below = short.below("below", |_| {});
    let (der, _) = below.sign(&params(&["client.example"]), P256);
    let chain = [&der[..], &below.der, &short.der];
    assert_eq!(check(&root.trust(), &chain), Err(Refused::Depth));
    // Somebody's own certificate signs another.
    let plain = root.below("plain", |p| p.is_ca = IsCa::ExplicitNoCa);
    let (der, _) = plain.sign(&params(&["client.example"]), P256);
    let refused = check(&root.trust(), &[&der, &plain.der]);
    assert_eq!(refused, Err(Refused::NoAuthority));
    // Eight CAs in a row.
    let mut chain = vec![root];
    for depth in 0..8 {
        let next = chain[depth].below(&format!("level {depth}"), |_| {});
        chain.push(next);
    }
    let (der, _) = chain[7].sign(&params(&["client.example"]), P256);
    let mut sent = vec![&der[..]];
    sent.extend(chain[1..8].iter().map(|a| a.der.as_slice()));
    assert_eq!(check(&chain[0].trust(), &sent), Err(Refused::Depth));
    sent.push(&chain[8].der);
    let (found, most) = (9, MOST_CERTIFICATES);
    let refused = check(&chain[0].trust(), &sent);
    assert_eq!(refused, Err(Refused::TooMany { found, most }));
    let long = vec![0; 30_000];
    let refused = check(&chain[0].trust(), &[&long]);
    assert!(
        matches!(refused, Err(Refused::TooLong { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_flood_of_useless_intermediates_ends() {
    let root = Authority::new("root");
    // CAs of one name, each signed by another of them: many paths, and none leads to the root.
    let mut others = vec![Authority::new("loop")];
    for _ in 0..6 {
        let next = others[others.len() - 1].below("loop", |_| {});
        others.push(next);
    }
    let (der, _) = others[6].sign(&params(&["client.example"]), P256);
    let mut sent = vec![&der[..]];
    sent.extend(others.iter().map(|a| a.der.as_slice()));
    assert!(check(&root.trust(), &sent).is_err());
}

#[test]
fn what_is_revoked_is_refused() {
    let root = Authority::new("root");
    let middle = root.below("middle", |p| {
        p.serial_number = Some(SerialNumber::from(77u64))
    });
    let mut ours = params(&["client.example"]);
    ours.serial_number = Some(SerialNumber::from(42u64));
    let (direct, _) = root.sign(&ours, P256);
    let (below, _) = middle.sign(&ours, P256);
    let direct = vec![&direct[..]];
    let below = vec![&below[..], &middle.der];
    let other = Authority::new("root");
    let cases = [
        (vec![], &direct, Ok(())),
        (vec![root.crl(&[], 9)], &direct, Ok(())),
        (vec![root.crl(&[41, 43], 9)], &direct, Ok(())),
        (vec![root.crl(&[42], 9)], &direct, Err(Refused::Revoked)),
        // Another CA's serial number.
        (vec![root.crl(&[42], 9)], &below, Ok(())),
        (vec![middle.crl(&[42], 9)], &below, Err(Refused::Revoked)),
        (
            vec![root.crl(&[], 9), middle.crl(&[42], 9)],
            &below,
            Err(Refused::Revoked),
        ),
        (vec![root.crl(&[77], 9)], &below, Err(Refused::Revoked)),
    ];
    for (number, (crls, chain, expected)) in cases.into_iter().enumerate() {
        let trust = Trust::new(std::slice::from_ref(&root.der), &crls).unwrap();
        assert_eq!(check(&trust, chain), expected, "case {number}");
    }
    // A CRL that is not fresh proves nothing, and refuses.
    let trust = Trust::new(std::slice::from_ref(&root.der), &[root.crl(&[], 9)]).unwrap();
    let key = trust.verify(&direct, &id("client.example"), NOW);
    assert!(key.is_ok());
    let stale = Trust::new(std::slice::from_ref(&root.der), &[stale(&root)]).unwrap();
    let refused = check(&stale, &direct);
    assert_eq!(refused, Err(Refused::CrlExpired(NOW - DAY / 2)));
    // Nor does one that another key has signed.
    let forged = Trust::new(std::slice::from_ref(&root.der), &[other.crl(&[], 9)]).unwrap();
    let refused = check(&forged, &direct);
    assert!(matches!(refused, Err(Refused::Crl(_))), "{refused:?}");
    let unreadable = Trust::new(&[], &[b"no CRL".to_vec()]);
    assert!(matches!(unreadable, Err(BadTrust::Crl(1, _))));
}

/// A CRL whose time was over twelve hours ago.
fn stale(authority: &Authority) -> Vec<u8> {
    let params = CertificateRevocationListParams {
        this_update: day(-1),
        next_update: day(-1) + time::Duration::hours(12),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&authority.issuer).unwrap().der().to_vec()
}

#[test]
fn weak_keys_are_refused() {
    let authority = certificate_from_pem(include_str!("keys/weak-ca.pem"));
    let weak = certificate_from_pem(include_str!("keys/weak.pem"));
    let trust = Trust::new(&[authority], &[]).unwrap();
    assert_eq!(check(&trust, &[&weak]), Err(Refused::WeakKey(1024)));
}

#[test]
fn cut_short_or_flipped_anywhere_it_is_refused() {
    let root = Authority::new("root");
    let middle = root.below("middle", |_| {});
    let (der, _) = middle.sign(&params(&["client.example"]), P256);
    let trust = root.trust();
    assert_eq!(check(&trust, &[&der, &middle.der]), Ok(()));
    for length in 0..der.len() {
        assert!(
            check(&trust, &[&der[..length], &middle.der]).is_err(),
            "{length}"
        );
    }
    for length in 0..middle.der.len() {
        assert!(
            check(&trust, &[&der, &middle.der[..length]]).is_err(),
            "{length}"
        );
    }
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 0x10;
        assert!(check(&trust, &[&changed, &middle.der]).is_err(), "{at}");
    }
    for at in 0..middle.der.len() {
        let mut changed = middle.der.clone();
        changed[at] ^= 0x10;
        assert!(check(&trust, &[&der, &changed]).is_err(), "{at}");
    }
}
