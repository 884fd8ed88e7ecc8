//! The messages of the channel: what is written is read the same, what is not one is refused.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::connectivity::Introduction;
use crate::cluster::message::{
    Claim, FromEdge, Grant, Limits, Mark, Reached, Refusal, Report, ToEdge, Yielded,
};
use crate::cluster::wire::{
    Carried, Carrier, Down, LONGEST, PREFIX, Relayed, Succession, Up, WireError, content_len,
    decode, encode,
};
use crate::cluster::{EdgeId, Half, Pair, Run, Volume};
use crate::esp::{Cipher, UdpEncap};

pub(crate) fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

pub(crate) fn socket() -> impl Strategy<Value = SocketAddr> {
    (address(), any::<u16>()).prop_map(SocketAddr::from)
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0..=32u8).prop_map(|(ip, bits)| IpNet::new(ip, bits).unwrap().trunc())
}

fn mark() -> impl Strategy<Value = Mark> {
    any::<(u32, u32, u64, u64, u64, bool)>().prop_map(|(spi, term, top, sent, soft, wide)| Mark {
        spi,
        term,
        top,
        sent,
        soft,
        wide,
    })
}

fn reached() -> impl Strategy<Value = Reached> {
    any::<(u32, u32, u64)>().prop_map(|(spi, term, top)| Reached { spi, term, top })
}

fn limits() -> impl Strategy<Value = Limits> {
    any::<(u32, u64, u64, u64)>().prop_map(|(term, soft, hard, last)| Limits {
        term,
        soft,
        hard,
        last,
    })
}

fn from_edge() -> impl Strategy<Value = FromEdge> {
    let report = (any::<(u64, u64)>(), vec(mark(), 0..20)).prop_map(|((number, echo), marks)| {
        FromEdge::Report(Report {
            number,
            echo,
            marks,
        })
    });
    prop_oneof![
        (any::<u64>(), any::<bool>(), vec(mark(), 0..20)).prop_map(|(run, notary, held)| {
            FromEdge::Hello {
                notary,
                run: Run(run),
                held,
            }
        }),
        report,
        any::<(u32, u64)>().prop_map(|(spi, seen)| FromEdge::Claim(Claim { spi, seen })),
        (mark(), any::<u64>())
            .prop_map(|(mark, missing)| FromEdge::Yielded(Yielded { mark, missing })),
        Just(FromEdge::Leaving),
    ]
}

fn to_edge() -> impl Strategy<Value = ToEdge> {
    let grant = (any::<(u32, u64, u64, u64)>(), limits());
    let refusal = prop_oneof![
        Just(Refusal::Unknown),
        Just(Refusal::Old),
        Just(Refusal::Busy),
        Just(Refusal::Exhausted)
    ];
    prop_oneof![
        grant.prop_map(|((spi, floor, missing, first), limits)| ToEdge::Grant {
            spi,
            grant: Grant {
                floor,
                missing,
                first,
                limits
            }
        }),
        any::<(u32, u32, u64)>().prop_map(|(spi, term, seen)| ToEdge::AskBack { spi, term, seen }),
        any::<(u32, u32)>().prop_map(|(spi, term)| ToEdge::Revoke { spi, term }),
        (any::<u32>(), refusal).prop_map(|(spi, refusal)| ToEdge::Refuse { spi, refusal }),
        (any::<u32>(), limits()).prop_map(|(spi, limits)| ToEdge::Widen { spi, limits }),
        (any::<u64>(), vec((any::<u32>(), limits()), 0..20))
            .prop_map(|(number, limits)| ToEdge::Acknowledge { number, limits }),
    ]
}

pub(crate) fn relayed() -> impl Strategy<Value = Relayed> {
    (socket(), socket(), vec(any::<u8>(), 0..2000)).prop_map(|(local, remote, data)| Relayed {
        local,
        remote,
        data,
    })
}

fn half() -> impl Strategy<Value = Half> {
    let cipher = prop_oneof![
        Just(Cipher::Aes128Gcm),
        Just(Cipher::Aes256Gcm),
        Just(Cipher::ChaCha20Poly1305)
    ];
    (
        any::<u32>(),
        cipher,
        vec(any::<u8>(), 0..40),
        any::<[u8; 4]>(),
    )
        .prop_map(|(spi, cipher, key, salt)| Half {
            spi,
            cipher,
            key: key.as_slice().into(),
            salt: salt.as_slice().into(),
        })
}

fn pair() -> impl Strategy<Value = Pair> {
    let names = ("[a-z0-9.-]{0,40}", proptest::option::of("[a-z]{0,12}"));
    let places = (
        vec(address(), 0..3),
        address(),
        address(),
        proptest::option::of(any::<(u16, u16)>()),
    );
    let flags = any::<(bool, bool, bool, bool, u16, u32, u64)>();
    let nets = (vec(net(), 0..4), vec(net(), 0..4));
    let key = proptest::option::of(any::<[u8; 16]>());
    (names, places, flags, half(), half(), nets, key).prop_map(
        |(names, places, flags, inbound, outbound, nets, key)| {
            let (inner, local, remote, encap) = places;
            let (roams, initiator, own_port, esn, lane, replay_window, expires) = flags;
            let (remote_inner, local_inner) = nets;
            Pair {
                client: names.0,
                inner,
                class: names.1,
                local,
                remote,
                encap: encap.map(|(local_port, remote_port)| UdpEncap {
                    local_port,
                    remote_port,
                }),
                roams,
                initiator,
                lane,
                own_port,
                inbound,
                outbound,
                remote_inner,
                local_inner,
                heartbeat_key: key.map(|key| key.as_slice().into()),
                esn,
                replay_window,
                expires,
            }
        },
    )
}

pub(crate) fn carrier() -> impl Strategy<Value = Carrier> {
    let succession = prop_oneof![
        Just(Succession::First),
        Just(Succession::AtOnce),
        Just(Succession::WhenHeard),
        Just(Succession::Never)
    ];
    (any::<(u64, u64)>(), succession, pair()).prop_map(|((stamp, sequence), succession, pair)| {
        Carrier {
            stamp,
            sequence,
            succession,
            pair,
        }
    })
}

fn introduction() -> impl Strategy<Value = Introduction> {
    (any::<(u16, u16, u32)>(), socket(), vec(any::<u8>(), 0..40)).prop_map(
        |((own, number, epoch), at, key)| Introduction {
            own: EdgeId(own),
            number: EdgeId(number),
            at,
            key: key.as_slice().into(),
            epoch,
        },
    )
}

pub(crate) fn up() -> impl Strategy<Value = Up> {
    prop_oneof![
        any::<u16>().prop_map(|version| Up::Greeting { version }),
        (any::<(u16, u64)>(), vec(reached(), 0..20)).prop_map(|((version, run), reached)| {
            let run = Run(run);
            Up::Testimony {
                version,
                run,
                reached,
            }
        }),
        from_edge().prop_map(Up::Numbers),
        relayed().prop_map(Up::Ike),
        any::<u32>().prop_map(|spi| Up::Installed { spi }),
        (any::<u32>(), ".{0,60}").prop_map(|(spi, why)| Up::NotInstalled { spi, why }),
        any::<u32>().prop_map(|spi| Up::Query { spi }),
        (any::<u32>(), socket()).prop_map(|(spi, remote)| Up::Moved { spi, remote }),
        (socket(), any::<bool>()).prop_map(|(at, messages)| Up::Here { at, messages }),
        any::<(u32, u64)>().prop_map(|(spi, sequence)| Up::Fetched { spi, sequence }),
        address().prop_map(|address| Up::Associated { address }),
        any::<u32>().prop_map(|spi| Up::Superseded { spi }),
        vec(any::<(u32, u64, u64)>(), 0..20).prop_map(|all| {
            let carried = |(spi, inbound, outbound)| Carried {
                spi,
                volume: Volume { inbound, outbound },
            };
            let pairs = all.into_iter().map(carried).collect();
            Up::Carried { pairs }
        }),
    ]
}

pub(crate) fn down() -> impl Strategy<Value = Down> {
    prop_oneof![
        any::<u16>().prop_map(|version| Down::Greeting { version }),
        to_edge().prop_map(Down::Numbers),
        relayed().prop_map(Down::Ike),
        carrier().prop_map(|carrier| Down::Install(Box::new(carrier))),
        any::<u32>().prop_map(|spi| Down::Forget { spi }),
        any::<u32>().prop_map(|spi| Down::Unknown { spi }),
        (any::<u32>(), socket()).prop_map(|(spi, remote)| Down::Moved { spi, remote }),
        any::<u32>().prop_map(|spi| Down::SendOn { spi }),
        introduction().prop_map(|introduction| Down::Acquaint(Box::new(introduction))),
        any::<u16>().prop_map(|number| Down::Part {
            number: EdgeId(number)
        }),
        Just(Down::Leaving),
    ]
}

/// The content of a message that is written as it should be.
fn content(bytes: &[u8]) -> &[u8] {
    let (prefix, content) = bytes.split_first_chunk::<PREFIX>().unwrap();
    assert_eq!(content_len(*prefix), Ok(content.len()));
    content
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read_the_same(up in up(), down in down()) {
        let (sent, told) = (encode(&up).unwrap(), encode(&down).unwrap());
        prop_assert_eq!(decode::<Up>(content(&sent)), Ok(up));
        prop_assert_eq!(decode::<Down>(content(&told)), Ok(down));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused(up in up(), down in down()) {
        let (sent, told) = (encode(&up).unwrap(), encode(&down).unwrap());
        let (sent, told) = (content(&sent), content(&told));
        for length in 0..sent.len() {
            prop_assert!(decode::<Up>(&sent[..length]).is_err());
        }
        for length in 0..told.len() {
            prop_assert!(decode::<Down>(&told[..length]).is_err());
        }
        let long = [sent, &[0]].concat();
        prop_assert_eq!(decode::<Up>(&long), Err(WireError::Left { left: 1 }));
    }

    #[test]
    fn nothing_panics(bytes in vec(any::<u8>(), 0..300)) {
        // What is read is one of the messages: it can be written.
        if let Ok(up) = decode::<Up>(&bytes) {
            prop_assert_eq!(decode::<Up>(content(&encode(&up).unwrap())), Ok(up));
        }
        if let Ok(down) = decode::<Down>(&bytes) {
            prop_assert_eq!(decode::<Down>(content(&encode(&down).unwrap())), Ok(down));
        }
    }

    #[test]
    fn lengths_have_a_bound(prefix in any::<[u8; 4]>()) {
        let found = u32::from_be_bytes(prefix) as usize;
        let expected = match found <= LONGEST {
            true => Ok(found),
            false => Err(WireError::TooLong { found }),
        };
        prop_assert_eq!(content_len(prefix), expected);
    }
}

#[test]
fn the_longest_message() {
    let relayed = |length| {
        Up::Ike(Relayed {
            local: "192.0.2.1:500".parse().unwrap(),
            remote: "198.51.100.1:500".parse().unwrap(),
            data: vec![7; length],
        })
    };
    let head = encode(&relayed(LONGEST / 2)).unwrap().len() - PREFIX - LONGEST / 2;
    let longest = relayed(LONGEST - head);
    assert_eq!(encode(&longest).unwrap().len(), PREFIX + LONGEST);
    let found = LONGEST + 1;
    let refused = encode(&relayed(LONGEST - head + 1)).unwrap_err();
    assert_eq!(refused, WireError::TooLong { found });
}

#[test]
fn a_full_report_goes_into_a_message() {
    let mark = Mark {
        spi: u32::MAX,
        term: u32::MAX,
        top: u64::MAX,
        sent: u64::MAX,
        soft: u64::MAX,
        wide: true,
    };
    let report = Up::Numbers(FromEdge::Report(Report {
        number: u64::MAX,
        echo: u64::MAX,
        marks: vec![mark; 4096],
    }));
    assert!(encode(&report).unwrap().len() < LONGEST / 4);
}
