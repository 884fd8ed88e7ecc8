use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const LOW: Mac = [2, 0, 0, 0, 0, 1];
const HIGH: Mac = [2, 0, 0, 0, 0, 9];
const HOST: Mac = [2, 0, 0, 0, 0, 0x77];
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 7));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7));

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn drain(announcer: &mut Announcer, now: Instant) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut out = [0; FRAME];
    while let Some(length) = announcer.poll(now, &mut out) {
        frames.push(out[..length].to_vec());
        assert!(frames.len() < 100, "poll never ends");
    }
    frames
}

/// A request for `target` from `HOST`.
fn question(target: Ipv4Addr, vlan: Option<u16>) -> Vec<u8> {
    // An announcement with another sender is a request.
    let mut out = [0; FRAME];
    let tag = vlan.map(Tag::vlan);
    let length = arp::announcement(Operation::Request, target, HOST, tag, &mut out).unwrap();
    let at = if vlan.is_some() { 32 } else { 28 };
    out[at..at + 4].copy_from_slice(&[10, 99, 0, 1]);
    out[..length].to_vec()
}

fn claim_of(mac: Mac, address: IpAddr) -> Vec<u8> {
    let mut other = Announcer::new(mac, None, 1);
    let now = Instant::now();
    other.activate(address, now);
    drain(&mut other, now).remove(0)
}

#[test]
fn announcements_are_repeated_and_then_end() {
    for (address, forms) in [(V4, 2), (V6, 1)] {
        let start = Instant::now();
        let mut announcer = Announcer::new(LOW, None, 4);
        assert_eq!(announcer.next_deadline(), None);
        assert_eq!(announcer.activate(address, start), Activation::New);
        assert_eq!(announcer.activate(address, start), Activation::Already);
        let mut times = Vec::new();
        while let Some(deadline) = announcer.next_deadline() {
            let frames = drain(&mut announcer, deadline);
            assert_eq!(frames.len(), forms);
            times.push(deadline - start);
        }
        assert_eq!(times, [ms(0), ms(20), ms(100), ms(1000)]);
        assert!(announcer.is_active(address));
    }
}

#[test]
fn both_arp_forms_are_sent() {
    let start = Instant::now();
    let mut announcer = Announcer::new(LOW, Some(5), 4);
    announcer.activate(V4, start);
    let frames: Vec<_> = drain(&mut announcer, start)
        .iter()
        .map(|frame| Arp::parse(frame).unwrap())
        .collect();
    assert_eq!(frames[0].operation, Operation::Request);
    assert_eq!(frames[1].operation, Operation::Reply);
    assert!(
        frames
            .iter()
            .all(|arp| arp.is_gratuitous() && arp.ethernet.tag == Some(Tag::vlan(5)))
    );
}

#[test]
fn only_active_addresses_are_answered() {
    let IpAddr::V4(target) = V4 else {
        unreachable!()
    };
    let now = Instant::now();
    let mut out = [0; FRAME];
    let mut announcer = Announcer::new(LOW, None, 4);
    announcer.register(V4);
    let asked = question(target, None);
    assert_eq!(announcer.on_frame(&asked, now, &mut out), Heard::default());
    announcer.activate(V4, now);
    let length = announcer.on_frame(&asked, now, &mut out).reply.unwrap();
    let answer = Arp::parse(&out[..length]).unwrap();
    assert_eq!((answer.sender_mac, IpAddr::V4(answer.sender)), (LOW, V4));
    assert_eq!(answer.ethernet.destination, HOST);
    let elsewhere = question(Ipv4Addr::new(10, 99, 0, 8), None);
    assert_eq!(
        announcer.on_frame(&elsewhere, now, &mut out),
        Heard::default()
    );
    let other_vlan = question(target, Some(3));
    assert_eq!(
        announcer.on_frame(&other_vlan, now, &mut out),
        Heard::default()
    );
    let priority_only = question(target, Some(0));
    assert!(
        announcer
            .on_frame(&priority_only, now, &mut out)
            .reply
            .is_some()
    );
    announcer.deactivate(V4);
    assert_eq!(announcer.on_frame(&asked, now, &mut out), Heard::default());
    assert_eq!(
        announcer.next_deadline(),
        None,
        "nothing planned for an inactive address"
    );
}

#[test]
fn solicitations_are_answered() {
    // ff02::1:ff00:7 asked for fd00::7 by fd00::1, laid out by hand.
    let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 7];
    frame.extend(HOST);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
    let host = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let IpAddr::V6(target) = V6 else {
        unreachable!()
    };
    frame.extend(host.octets());
    frame.extend(nd::solicited_node(target).octets());
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(target.octets());
    let sum = super::super::checksum::transport_v6(host, nd::solicited_node(target), 58, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.extend(icmp);
    let now = Instant::now();
    let mut announcer = Announcer::new(LOW, None, 4);
    announcer.activate(V6, now);
    let mut out = [0; FRAME];
    let length = announcer.on_frame(&frame, now, &mut out).reply.unwrap();
    let answer = Nd::parse(&out[..length]).unwrap();
    assert_eq!((answer.target, answer.destination), (target, host));
}

#[test]
fn an_old_holder_yields_to_any_claim() {
    for (ours, theirs) in [(LOW, HIGH), (HIGH, LOW)] {
        for address in [V4, V6] {
            let start = Instant::now();
            let mut announcer = Announcer::new(ours, None, 4);
            announcer.activate(address, start);
            drain(&mut announcer, start);
            let heard =
                announcer.on_frame(&claim_of(theirs, address), start + GRACE, &mut [0; FRAME]);
            assert_eq!(
                heard.yielded,
                Some(Yielded {
                    address,
                    to: theirs
                })
            );
            assert!(!announcer.is_active(address));
            assert_eq!(announcer.next_deadline(), None);
        }
    }
}

#[test]
fn the_previous_owners_last_words_are_not_believed() {
    let start = Instant::now();
    let mut announcer = Announcer::new(LOW, None, 4);
    announcer.register(V4);
    announcer.on_frame(&claim_of(HIGH, V4), start, &mut [0; FRAME]);
    announcer.activate(V4, start + ms(100));
    drain(&mut announcer, start + ms(100));
    let heard = announcer.on_frame(&claim_of(HIGH, V4), start + ms(102), &mut [0; FRAME]);
    assert_eq!(heard.yielded, None);
    assert_eq!(
        announcer.next_deadline(),
        Some(start + ms(110)),
        "the last word"
    );
    assert_eq!(drain(&mut announcer, start + ms(110)).len(), 2);
    assert_eq!(
        announcer.next_deadline(),
        Some(start + ms(120)),
        "then as planned"
    );
}

#[test]
fn our_own_frames_are_no_claims() {
    let start = Instant::now();
    let mut announcer = Announcer::new(LOW, None, 4);
    announcer.activate(V4, start);
    let own = drain(&mut announcer, start);
    for frame in own {
        assert_eq!(
            announcer.on_frame(&frame, start + ms(500), &mut [0; FRAME]),
            Heard::default()
        );
    }
    assert!(announcer.is_active(V4));
}

#[test]
fn strangers_insert_nothing_and_the_capacity_holds() {
    let now = Instant::now();
    let mut announcer = Announcer::new(LOW, None, 1);
    announcer.on_frame(&claim_of(HIGH, V4), now, &mut [0; FRAME]);
    assert!(announcer.entries.is_empty());
    assert_eq!(announcer.activate(V4, now), Activation::New);
    assert_eq!(announcer.activate(V6, now), Activation::Full);
    announcer.forget(V4);
    assert_eq!(announcer.activate(V6, now), Activation::New);
    assert_eq!(announcer.due.len(), 1);
}

#[test]
fn one_that_overslept_only_listens() {
    let IpAddr::V4(target) = V4 else {
        unreachable!()
    };
    let start = Instant::now();
    let mut announcer = Announcer::new(HIGH, None, 4);
    announcer.activate(V4, start);
    drain(&mut announcer, start);
    let woken = start + ms(99);
    announcer.overslept(woken);
    assert!(
        drain(&mut announcer, woken).is_empty(),
        "the repeat of 20 ms is not sent"
    );
    let mut out = [0; FRAME];
    assert_eq!(
        announcer.on_frame(&question(target, None), woken, &mut out),
        Heard::default()
    );
    // Even a client's packet from the backlog does not make it claim against what it hears.
    announcer.deactivate(V4);
    announcer.activate(V4, woken);
    let heard = announcer.on_frame(&claim_of(LOW, V4), woken + ms(1), &mut out);
    assert!(heard.yielded.is_some());
}

#[test]
fn a_late_repeat_is_left_out() {
    let start = Instant::now();
    let mut announcer = Announcer::new(LOW, None, 4);
    announcer.activate(V4, start);
    assert_eq!(
        drain(&mut announcer, start + ms(300)).len(),
        2,
        "the first, however late"
    );
    assert_eq!(announcer.next_deadline(), Some(start + ms(1000)));
}

#[test]
fn an_address_tossed_about_does_not_flood() {
    let start = Instant::now();
    let mut announcer = Announcer::new(LOW, None, 4);
    let mut sent = 0;
    for step in 0..1000 {
        let now = start + Duration::from_micros(100) * step;
        announcer.activate(V4, now);
        sent += drain(&mut announcer, now).len();
        announcer.deactivate(V4);
    }
    assert!(sent <= 2 * (100 / 5 + 1), "{sent} frames in 100 ms");
}

/// Gateways on one LAN, each frame arriving `delay` after it was sent.
struct Lan {
    stations: Vec<Announcer>,
    in_flight: Vec<(Instant, usize, Vec<u8>)>,
    delay: Duration,
}

impl Lan {
    /// Runs until `end`, taking each of `takes` (when, who).
    fn run(&mut self, start: Instant, takes: &[(Duration, usize)], end: Duration) {
        let mut out = [0; FRAME];
        let steps = end.as_micros() / 50;
        for step in 0..steps {
            let now = start + Duration::from_micros(50) * u32::try_from(step).unwrap();
            let due = |at: &Instant| *at <= now;
            let arrived: Vec<_> = self.in_flight.extract_if(.., |(at, ..)| due(at)).collect();
            for (_, from, frame) in arrived {
                for to in (0..self.stations.len()).filter(|to| *to != from) {
                    self.stations[to].on_frame(&frame, now, &mut out);
                }
            }
            for (_, who) in takes
                .iter()
                .filter(|(at, _)| (now - start).abs_diff(*at) < ms(1) / 40)
            {
                self.stations[*who].activate(V4, now);
            }
            for from in 0..self.stations.len() {
                for frame in drain(&mut self.stations[from], now) {
                    self.in_flight.push((now + self.delay, from, frame));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_later_claimant_wins_and_never_do_both_yield(
        delay_us in 50u64..4000, gap_steps in 0u64..800, low_first: bool, warm_up: bool,
    ) {
        let start = Instant::now();
        let macs = if low_first { [LOW, HIGH] } else { [HIGH, LOW] };
        let mut lan = Lan {
            stations: macs.iter().map(|mac| Announcer::new(*mac, None, 4)).collect(),
            in_flight: Vec::new(),
            delay: Duration::from_micros(delay_us),
        };
        for station in &mut lan.stations {
            station.register(V4);
        }
        let gap = Duration::from_micros(50) * u32::try_from(gap_steps).unwrap();
        let first = if warm_up { ms(1200) } else { ms(1) };
        let takes = [(ms(1), 0), (first + gap, 1)];
        lan.run(start, &takes, ms(3000));
        let holders: Vec<_> =
            (0..2).filter(|who| lan.stations[*who].is_active(V4)).collect();
        prop_assert_eq!(holders.len(), 1, "exactly one holds the address");
        let gap = takes[1].0 - takes[0].0;
        if gap > lan.delay + ms(1) / 10 {
            prop_assert_eq!(holders, [1], "the later one");
        }
    }

    #[test]
    fn any_bytes_are_taken_without_panic(frames in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..100), 0..20)
    ) {
        let now = Instant::now();
        let mut announcer = Announcer::new(LOW, None, 4);
        announcer.activate(V4, now);
        for frame in frames {
            prop_assert_eq!(announcer.on_frame(&frame, now, &mut [0; FRAME]), Heard::default());
        }
    }
}
