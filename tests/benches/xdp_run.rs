//! Nanoseconds per packet of the XDP programs, by `BPF_PROG_TEST_RUN`.
//!
//! Every round runs every case once, so that a busy machine slows all alike; the table shows the
//! median of the rounds, and the median of each round's ratio to the yardstick: a program that only
//! swaps the link addresses and sends the frame back. From heartbeats the price of making the answer
//! of the run before a request again is taken off; it has a line of its own.

#[path = "../tests/xdp_support/mod.rs"]
mod xdp_support;

use std::{net::Ipv4Addr, os::fd::OwnedFd};

use evergate::dataplane::loader::{
    Bare, BareProgram, Inside, LoadError, Outside, OutsideSettings, Run,
};
use evergate_common::{
    maps::{MAX_SAS, SaEntry, TunnelEntry},
    steering::{Gateway, numbered},
    translation::Translation,
    wire::*,
};
use ipnet::{IpNet, Ipv4Net};
use xdp_support::*;

const ROUNDS: usize = 15;
const REPEAT: u32 = 200_000;

type Runner = Box<dyn FnMut(u32) -> Result<Run, LoadError>>;

struct Case {
    name: String,
    expected: u32,
    run: Runner,
    nanoseconds: Vec<f64>,
}

fn settings() -> OutsideSettings {
    OutsideSettings {
        reflect_plain: true,
        reflect_keyed: true,
        strangers: false,
        max_sas: MAX_SAS,
        ..OutsideSettings::default()
    }
}

/// A program that steers and answers, with the socket of its queue.
struct Armed {
    program: Outside,
    _socket: OwnedFd,
}

impl Armed {
    fn run(&mut self, frame: &[u8], repeat: u32) -> Result<Run, LoadError> {
        self.program.run(frame, repeat)
    }
}

fn armed(mut program: Outside, sas: u32) -> Result<Armed, LoadError> {
    let socket = host::xsk();
    // The last one is the one that is asked for.
    for spi in (SPI + 1 - sas)..=SPI {
        program.add_sa(spi, &SaEntry::new(Some(KEY), None))?;
    }
    program.add_peer(CLIENT_V4.into())?;
    program.add_peer(GATEWAY_V4.into())?;
    program.set_own_addresses(&[GATEWAY_V4.into(), CLIENT_V4.into()])?;
    program.node_state().set_alive_until(u64::MAX)?;
    program.set_xsk(0, &socket)?;
    Ok(Armed {
        program,
        _socket: socket,
    })
}

fn main() -> Result<(), LoadError> {
    need_root();
    let mut cases = Vec::new();
    let mut add = |name: &str, expected: u32, run: Runner| {
        cases.push(Case {
            name: name.to_owned(),
            expected,
            run,
            nanoseconds: Vec::new(),
        });
    };

    let heartbeat = Frame::v4(IPPROTO_ESP, plain(1, &[7; 28])).bytes();
    let mut swap = Bare::load(BareProgram::Swap)?;
    let frame = heartbeat.clone();
    add(
        "swap link addresses, send back",
        TX,
        Box::new(move |n| swap.run(&frame, n)),
    );

    let mut undo = Bare::load(BareProgram::Undo)?;
    let frame = heartbeat.clone();
    add(
        "the same, made a request again",
        TX,
        Box::new(move |n| undo.run(&frame, n)),
    );

    let mut program = armed(Outside::load_repeating(settings(), 0)?, 1)?;
    add(
        "plain heartbeat",
        TX,
        Box::new(move |n| program.run(&heartbeat, n)),
    );

    let frame = Frame::v4(6, [0; 40]).bytes();
    let mut program = armed(Outside::load(settings())?, 1)?;
    add(
        "TCP, left to the kernel",
        PASS,
        Box::new(move |n| program.run(&frame, n)),
    );

    for sas in [1, 1_000_000] {
        let payload = keyed(1);
        let mac = payload
            .last_chunk::<8>()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let frame = Frame::v4(IPPROTO_ESP, payload).bytes();
        let mut program = armed(Outside::load_repeating(settings(), mac)?, sas)?;
        let name = format!("keyed heartbeat, {sas} SAs");
        add(&name, TX, Box::new(move |n| program.run(&frame, n)));
    }

    let frame = Frame::v4(IPPROTO_ESP, esp(SPI + 1, 1)).bytes();
    let mut program = armed(Outside::load(settings())?, 1_000_000)?;
    add(
        "ESP, unknown SPI, 1000000 SAs",
        DROP,
        Box::new(move |n| program.run(&frame, n)),
    );

    // What is sent on can not be measured again and again: each run finds the frame of the one before.
    let in_group = OutsideSettings {
        number: 1,
        ..settings()
    };
    let frame = Frame::v4(IPPROTO_ESP, esp(numbered(SPI, 2), 1)).bytes();
    let mut program = armed(Outside::load(in_group)?, 1_000_000)?;
    program.program.set_gateway(2, Gateway::silent())?;
    add(
        "ESP of another gateway, silent",
        DROP,
        Box::new(move |n| program.run(&frame, n)),
    );

    let payload = keyed(1);
    let mac = payload
        .last_chunk::<8>()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    let frame = Frame::v4(IPPROTO_ESP, payload).bytes();
    let mut program = armed(Outside::load_repeating(in_group, mac)?, 1)?;
    add(
        "keyed heartbeat, shared address",
        TX,
        Box::new(move |n| program.run(&frame, n)),
    );

    let edge = OutsideSettings {
        translates: true,
        ..settings()
    };
    let payload = keyed(1);
    let mac = payload
        .last_chunk::<8>()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    let frame = Frame::v4(IPPROTO_ESP, payload).bytes();
    let mut program = armed(Outside::load_repeating(edge, mac)?, 1)?;
    add(
        "keyed heartbeat, IKE is translated",
        TX,
        Box::new(move |n| program.run(&frame, n)),
    );

    // What is translated can not be measured again and again either: what finds no authority goes as far.
    let mut message = Frame::v4(IPPROTO_UDP, [7; 200]);
    message.udp = Some((PORT_IKE, PORT_IKE, true));
    let frame = message.bytes();
    let mut program = armed(Outside::load(edge)?, 1)?;
    let translation = Translation::new(GATEWAY_V4.into(), &[]);
    program.program.set_translation(translation)?;
    add(
        "IKE, translated to nobody",
        DROP,
        Box::new(move |n| program.run(&frame, n)),
    );

    let frame = Frame::v4(IPPROTO_ESP, esp(SPI, 1)).bytes();
    let mut program = armed(Outside::load(settings())?, 1_000_000)?;
    add(
        "ESP, known SPI, 1000000 SAs",
        REDIRECT,
        Box::new(move |n| program.run(&frame, n)),
    );

    for prefixes in [1u32, 100_000] {
        let mut program = Inside::load()?;
        for number in 0..prefixes {
            let network = Ipv4Addr::from(0x0A00_0000 + (number << 6));
            let net = Ipv4Net::new(network, 26).expect("a prefix length");
            program.add_prefix(IpNet::V4(net), TunnelEntry::new(number))?;
        }
        let socket = host::xsk();
        program.set_xsk(0, &socket)?;
        let inner = Ipv4Addr::from(0x0A00_0001 + ((prefixes - 1) << 6));
        let frame = Frame {
            destination: inner.into(),
            ..Frame::v4(6, [0; 40])
        }
        .bytes();
        let run: Runner = Box::new(move |n| {
            let _open = &socket;
            program.run(&frame, n)
        });
        add(
            &format!("tunnel look-up, {prefixes} prefixes"),
            REDIRECT,
            run,
        );
    }

    // `cargo test --benches` only wants to know that it runs.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let (rounds, repeat) = if quick { (1, 100) } else { (ROUNDS, REPEAT) };
    // `cargo bench … -- plain`: only cases with the word in their name, and the yardstick.
    let word = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let mut at = 0;
    cases.retain(|case| {
        at += 1;
        at <= 2 || word.as_ref().is_none_or(|word| case.name.contains(word))
    });
    for _ in 0..rounds {
        for case in &mut cases {
            let run = (case.run)(repeat)?;
            assert_eq!(run.verdict, case.expected, "{}", case.name);
            case.nanoseconds.push(run.duration.as_nanos() as f64);
        }
    }
    let of = |index: usize| cases.get(index).map(|case| case.nanoseconds.clone());
    let (yardstick, undone) = (of(0).unwrap_or_default(), of(1).unwrap_or_default());
    println!(
        "{:<34} {:>12} {:>8}",
        "one packet, BPF_PROG_TEST_RUN", "ns, median", "ratio"
    );
    for case in &cases {
        // A repeated run finds the answer of the run before: making it a request again is no part
        // of the program.
        let extra = |one: f64, undo: f64| match case.name.contains("heartbeat") {
            true => undo - one,
            false => 0.0,
        };
        let times = case.nanoseconds.iter().zip(yardstick.iter().zip(&undone));
        let net: Vec<(f64, f64)> = times
            .map(|(ns, (one, undo))| (ns - extra(*one, *undo), *one))
            .collect();
        println!(
            "{:<34} {:>12.0} {:>8.2}",
            case.name,
            median(net.iter().map(|(ns, _)| *ns).collect()),
            median(net.iter().map(|(ns, one)| ns / one).collect())
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
