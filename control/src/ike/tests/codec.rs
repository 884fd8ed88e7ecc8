//! What is written is read back the same.

use super::super::payload::auth::Auth;
use super::super::payload::cert::{Cert, CertReq};
use super::super::payload::config::{Attribute, Config, Kind};
use super::super::payload::delete::Delete;
use super::super::payload::eap::Eap;
use super::super::payload::header::{self, Header};
use super::super::payload::id::Id;
use super::super::payload::ke::KeyExchange;
use super::super::payload::notify::Notify;
use super::super::payload::sa::{Proposal, Transform};
use super::super::payload::skf::{self, Place};
use super::super::payload::{Malformed, Payload, parse_chain, sk, write_chain};
use super::*;
use crypto::AeadKey;
use proptest::collection::vec;
use proptest::prelude::*;
use zeroize::Zeroizing;

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let transform = (any::<u8>(), any::<u16>(), any::<Option<u16>>())
        .prop_map(|(kind, id, key_length)| Transform::new(kind, id, key_length));
    (any::<u8>(), any::<u8>(), bytes(9), vec(transform, 0..12)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol,
            spi,
            transforms,
        },
    )
}

fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|a| Identity::Ipv4(a.into())),
        any::<[u8; 16]>().prop_map(|a| Identity::Ipv6(a.into())),
        "[!-~]{1,40}".prop_map(Identity::Fqdn),
        "[!-~]{1,40}".prop_map(Identity::Email),
        bytes(40).prop_map(Identity::KeyId),
        bytes(40).prop_map(Identity::Dn),
        (12u8.., bytes(40)).prop_map(|(kind, data)| Identity::Other { kind, data }),
    ]
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|a| a.map(IpAddr::from)),
        any::<[[u8; 16]; 2]>().prop_map(|a| a.map(IpAddr::from)),
    ];
    (any::<u8>(), any::<[u16; 2]>(), addresses).prop_map(|(protocol, mut ports, mut addresses)| {
        ports.sort_unstable();
        addresses.sort_unstable();
        let ([first, last], [start, end]) = (ports, addresses);
        TrafficSelector {
            protocol,
            ports: first..=last,
            start,
            end,
        }
    })
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let prefix = (any::<[u8; 16]>(), any::<u8>()).prop_map(|(a, prefix)| (a.into(), prefix));
    prop_oneof![
        any::<Option<[u8; 4]>>().prop_map(|a| Attribute::Ip4Address(a.map(Into::into))),
        prop::option::of(prefix).prop_map(Attribute::Ip6Address),
        (9u16..0x8000, bytes(20)).prop_map(|(kind, value)| Attribute::Other { kind, value }),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    let kind = prop_oneof![
        Just(Kind::Request),
        Just(Kind::Reply),
        Just(Kind::Set),
        Just(Kind::Ack)
    ];
    let whose = || {
        (any::<[u8; 3]>(), identity()).prop_map(|(reserved, identity)| Id { reserved, identity })
    };
    let cert = (any::<u8>(), bytes(100)).prop_map(|(encoding, data)| Cert { encoding, data });
    let authorities = vec(any::<[u8; 20]>(), 0..5).prop_map(CertReq::x509);
    let foreign = (5u8.., bytes(50));
    let foreign = foreign.prop_map(|(encoding, authorities)| CertReq {
        encoding,
        authorities,
    });
    let eap = (any::<[u8; 2]>(), bytes(60));
    let eap = eap.prop_map(|([code, identifier], body)| Eap {
        code,
        identifier,
        body,
    });
    let other = 49u8..;
    prop_oneof![
        vec(proposal(), 1..5).prop_map(Payload::Sa),
        (any::<u16>(), bytes(100))
            .prop_map(|(group, public)| Payload::Ke(KeyExchange { group, public })),
        whose().prop_map(Payload::IdI),
        whose().prop_map(Payload::IdR),
        cert.prop_map(Payload::Cert),
        eap.prop_map(Payload::Eap),
        authorities.prop_map(Payload::CertReq),
        foreign.prop_map(Payload::CertReq),
        (any::<u8>(), bytes(70)).prop_map(|(method, data)| Payload::Auth(Auth { method, data })),
        vec(any::<u8>(), 16..=256).prop_map(Payload::Nonce),
        (any::<u8>(), bytes(9), any::<u16>(), bytes(70)).prop_map(|(protocol, spi, kind, data)| {
            Payload::Notify(Notify {
                protocol,
                spi,
                kind,
                data,
            })
        }),
        Just(Payload::Delete(Delete::Ike)),
        vec(any::<u32>(), 0..9).prop_map(|spis| Payload::Delete(Delete::Esp(spis))),
        vec(any::<u32>(), 0..9).prop_map(|spis| Payload::Delete(Delete::Ah(spis))),
        bytes(40).prop_map(Payload::Vendor),
        vec(selector(), 0..9).prop_map(Payload::TsI),
        vec(selector(), 0..9).prop_map(Payload::TsR),
        (kind, vec(attribute(), 0..6))
            .prop_map(|(kind, attributes)| Payload::Config(Config { kind, attributes })),
        (other, bytes(40)).prop_map(|(kind, body)| Payload::Other {
            kind,
            critical: false,
            body
        }),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    let flags = any::<[bool; 2]>();
    (any::<[u64; 2]>(), any::<[u8; 2]>(), flags, any::<u32>()).prop_map(
        |([spi_i, spi_r], [version, exchange], [initiator, response], message_id)| Header {
            spi_i,
            spi_r,
            next: 0,
            version,
            exchange,
            initiator,
            response,
            message_id,
        },
    )
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn payloads_come_back(payloads in vec(payload(), 0..8)) {
        let mut out = Vec::new();
        let first = write_chain(&payloads, &mut out).unwrap();
        prop_assert_eq!(parse_chain(first, &out), Ok(payloads.clone()));
        // Cut short anywhere, it is refused.
        for length in 0..out.len() {
            prop_assert!(parse_chain(first, &out[..length]).is_err());
        }
    }

    #[test]
    fn messages_come_back(
        header in header(),
        payloads in vec(payload(), 0..6),
        material in any::<[u8; 36]>(),
        iv in any::<u64>(),
    ) {
        let plain = sk::write_plain(header, &payloads).unwrap();
        let read = Header::parse(&plain).unwrap();
        prop_assert_eq!(Header { next: 0, ..read }, header);
        prop_assert_eq!(parse_chain(read.next, &plain[header::HEADER..]), Ok(payloads.clone()));

        for (cipher, length) in [
            (IkeCipher::Aes256Gcm16, 36),
            (IkeCipher::Aes128Gcm16, 20),
            (IkeCipher::ChaCha20Poly1305, 36),
        ] {
            let key = AeadKey::new(cipher, &material[..length]).unwrap();
            let sealed = sk::write_sealed(header, &payloads, &key, iv).unwrap();
            let read = Header::parse(&sealed).unwrap();
            prop_assert_eq!(Header { next: 0, ..read }, header);
            let (first, inner) = sk::open(&read, &sealed, &key).unwrap();
            prop_assert_eq!(parse_chain(first, &inner), Ok(payloads.clone()));
        }
    }

    #[test]
    fn parts_of_messages_come_back(
        header in header(),
        first in any::<u8>(),
        numbers in any::<[u16; 2]>(),
        plain in bytes(200),
        iv in any::<u64>(),
    ) {
        let total = numbers[0].max(numbers[1]).max(1);
        let place = Place { number: numbers[0].clamp(1, total), total };
        let key = AeadKey::new(IkeCipher::Aes128Gcm16, &[7; 20]).unwrap();
        let part = Zeroizing::new(plain.clone());
        let sealed = skf::seal(header, first, place, part, &key, iv).unwrap();
        prop_assert_eq!(sealed.len(), skf::OVERHEAD + plain.len());
        let read = Header::parse(&sealed).unwrap();
        prop_assert_eq!(Header { next: 0, ..read }, header);
        prop_assert_eq!(Place::parse(&sealed), Ok(place));
        let (told, opened) = skf::open(&read, &sealed, &key).unwrap();
        prop_assert_eq!((told, &opened[..]), (if place.number == 1 { first } else { 0 }, &plain[..]));
        // Number and total are authenticated, and nothing else opens it.
        for at in header::HEADER..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            prop_assert!(skf::open(&read, &changed, &key).is_err());
        }
        prop_assert!(sk::open(&read, &sealed, &key).is_err());
        for length in 0..sealed.len() {
            prop_assert!(skf::open(&read, &sealed[..length], &key).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(first in any::<u8>(), data in bytes(400)) {
        if let Ok(payloads) = parse_chain(first, &data) {
            // Reserved bits and foreign attributes aside, what was read can be written.
            let mut out = Vec::new();
            write_chain(&payloads, &mut out).unwrap();
        }
    }

    #[test]
    fn any_body_of_any_payload(first in 33u8..=48, body in bytes(200)) {
        let length = u16::try_from(body.len() + 4).unwrap().to_be_bytes();
        let data = [&[0, 0][..], &length, &body].concat();
        let _ = parse_chain(first, &data);
    }

    #[test]
    fn identities_are_shown_and_read(identity in identity()) {
        let shown = identity.to_string();
        if let Identity::Ipv4(_) | Identity::Ipv6(_) = identity {
            prop_assert_eq!(shown.parse(), Ok(identity));
        }
    }

    #[test]
    fn narrowing_stays_within_both(
        proposed in vec(selector(), 0..5),
        allowed in vec(selector(), 0..5),
    ) {
        let narrowed = narrow(&proposed, &allowed);
        prop_assert!(narrowed.is_empty() || is_narrowing(&narrowed, &proposed));
        prop_assert!(narrowed.is_empty() || is_narrowing(&narrowed, &allowed));
        prop_assert!(narrowed.iter().all(TrafficSelector::is_valid));
        let whole = [TrafficSelector::any_v4(), TrafficSelector::any_v6()];
        let all = narrow(&proposed, &whole);
        prop_assert!(proposed.iter().all(|p| all.iter().any(|a| p.is_within(a))));
    }
}

#[test]
fn a_length_field_reserves_nothing() {
    // 255 transforms, 255 selectors, 65535 SPIs are claimed; none follows.
    for (kind, body) in [
        (33, vec![0, 0, 0, 8, 1, 3, 0, 255]),
        (44, vec![255, 0, 0, 0]),
        (42, vec![3, 4, 255, 255]),
    ] {
        let data = [&[0, 0, 0, body.len() as u8 + 4][..], &body].concat();
        assert!(matches!(
            parse_chain(kind, &data),
            Err(Malformed::Truncated { .. })
        ));
    }
    // 300 empty payloads.
    let data: Vec<u8> = [43, 0, 0, 4].repeat(300);
    assert!(matches!(
        parse_chain(43, &data),
        Err(Malformed::TooMany { .. })
    ));
}

#[test]
fn a_foreign_attribute_bars_its_transform_only() {
    // One proposal, two ENCR_AES_GCM_16: one with an attribute of type 99, one with 256 bits.
    let data = [
        &[0, 0, 0, 36, 0, 0, 0, 32, 1, 1, 0, 2][..],
        &[3, 0, 0, 12, 1, 0, 0, 20, 0x80, 99, 0, 1],
        &[0, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0],
    ]
    .concat();
    let Ok(payloads) = parse_chain(33, &data) else {
        panic!("{:?}", parse_chain(33, &data))
    };
    let [Payload::Sa(proposals)] = &payloads[..] else {
        panic!()
    };
    let [first, second] = proposals[0].transforms[..] else {
        panic!()
    };
    assert!(first.foreign && !second.foreign);
    assert_eq!(second, Transform::new(1, 20, Some(256)));
}

#[test]
fn too_long_a_payload_is_an_error() {
    let long = Payload::Vendor(vec![0; 65_532]);
    assert!(write_chain(&[long], &mut Vec::new()).is_err());
    let mut pair = Pair::with(|a, _| a.vendor_ids = vec![vec![0; 65_532]]);
    let wish = pair.wish();
    pair.initiate(wish);
    assert_eq!(pair.a.take(), []);
    assert!(matches!(pair.a.failure(), Some(Failure::TooLong(_))));
    assert_eq!(pair.a.engine.stats().sas, 0);
}
