//! An edge's rules, one by one.

use std::time::Instant;

use super::{SPI, ms};
use crate::cluster::{
    Act, Claim, Edge, FromEdge, Grant, Limits, Refusal, Report, Run, Terms, ToEdge,
};

fn limits(soft: u64) -> Limits {
    Limits {
        term: 4,
        soft,
        hard: 1000,
        last: 1 << 20,
    }
}

fn acts(edge: &mut Edge) -> Vec<Act> {
    std::iter::from_fn(|| edge.act()).collect()
}

fn acknowledge(edge: &mut Edge, number: u64, soft: Option<u64>, now: Instant) {
    let limits = soft.map(|soft| (SPI, limits(soft))).into_iter().collect();
    edge.hear(ToEdge::Acknowledge { number, limits }, now);
}

/// In contact, with an SA pair that has accepted up to 10 and may up to 14.
fn owner(now: Instant) -> Edge {
    let mut edge = Edge::new(Terms::default(), Run(9));
    edge.connected(now);
    edge.poll(now);
    acknowledge(&mut edge, 1, None, now);
    let grant = Grant {
        floor: 10,
        missing: 0,
        first: 400,
        limits: limits(14),
    };
    acts(&mut edge);
    edge.hear(ToEdge::Grant { spi: SPI, grant }, now);
    let take = Act::Take {
        spi: SPI,
        grant,
        inbound: 14,
    };
    assert_eq!(acts(&mut edge), [take]);
    edge
}

fn bound(inbound: u64) -> Act {
    Act::Bound {
        spi: SPI,
        inbound,
        outbound: 1 << 20,
    }
}

/// The report among what is to be done.
fn report(acts: &[Act]) -> &Report {
    let mut reports = acts.iter().filter_map(|act| match act {
        Act::Send(FromEdge::Report(report)) => Some(report),
        _ => None,
    });
    reports
        .next()
        .unwrap_or_else(|| panic!("no report: {acts:?}"))
}

#[test]
fn it_tells_in_time_to_be_allowed_more() {
    let now = Instant::now();
    let mut edge = owner(now);
    edge.progress(SPI, 11, 399, now);
    assert_eq!(edge.deadline(), Some(now + Terms::default().interval));
    // More than half of what it may accept has come: it does not wait.
    edge.progress(SPI, 13, 399, now);
    edge.poll(now);
    let done = acts(&mut edge);
    let told = report(&done);
    assert_eq!((told.echo, told.marks[0].top), (1, 13));
    acknowledge(&mut edge, told.number, Some(30), now);
    assert_eq!(acts(&mut edge), [bound(30)]);
    acknowledge(&mut edge, told.number, Some(30), now);
    assert_eq!(acts(&mut edge), [], "no news");
}

#[test]
fn it_goes_on_alone_and_says_so() {
    let now = Instant::now();
    let mut edge = owner(now);
    edge.disconnected();
    let alone = now + Terms::default().alone;
    assert_eq!(edge.deadline(), Some(alone));
    edge.poll(alone - ms(1));
    assert_eq!(acts(&mut edge), []);
    edge.poll(alone);
    assert_eq!(acts(&mut edge), [bound(1000)]);
    // Also what it is granted before it is answered again counts as gone past its limit.
    edge.connected(alone);
    let done = acts(&mut edge);
    let [
        Act::Send(FromEdge::Hello {
            run: Run(9), held, ..
        }),
    ] = &done[..]
    else {
        panic!("{done:?}");
    };
    assert!(held[0].wide && held[0].term == 4);
    edge.poll(alone);
    let done = acts(&mut edge);
    assert!(report(&done).marks[0].wide);
    acknowledge(&mut edge, 1, Some(1000), alone);
    assert_eq!(edge.deadline(), Some(alone + Terms::default().alone / 8));
}

#[test]
fn it_stops_before_it_gives_back() {
    let now = Instant::now();
    let mut edge = owner(now);
    let ask_back = |term| ToEdge::AskBack {
        spi: SPI,
        term,
        seen: 11,
    };
    edge.hear(ask_back(3), now);
    assert_eq!(acts(&mut edge), [], "about an earlier tenure");
    edge.hear(ask_back(4), now);
    edge.give_back();
    let stop = Act::Stop {
        spi: SPI,
        term: 4,
        tell: true,
    };
    assert_eq!(acts(&mut edge), [stop], "once");
    assert!(!edge.owns(SPI));
    acknowledge(&mut edge, 1, Some(30), now);
    assert_eq!(acts(&mut edge), [], "it has stopped");
    edge.stopped(SPI, 3, 12, 0, 450);
    assert_eq!(acts(&mut edge), []);
    edge.stopped(SPI, 4, 12, 0b1, 450);
    let done = acts(&mut edge);
    let [Act::Send(FromEdge::Yielded(yielded))] = &done[..] else {
        panic!("{done:?}");
    };
    assert_eq!(
        (yielded.mark.top, yielded.mark.sent, yielded.missing),
        (12, 450, 1)
    );
}

#[test]
fn it_keeps_what_it_is_asked_for_because_of_a_copy() {
    let now = Instant::now();
    let mut edge = owner(now);
    edge.progress(SPI, 12, 399, now);
    let (term, seen) = (4, 12);
    edge.hear(
        ToEdge::AskBack {
            spi: SPI,
            term,
            seen,
        },
        now,
    );
    edge.poll(now);
    let done = acts(&mut edge);
    assert_eq!(report(&done).marks[0].top, 12);
    assert!(done.len() == 1 && edge.owns(SPI), "{done:?}");
}

#[test]
fn it_stops_at_once_when_another_one_owns_it() {
    let now = Instant::now();
    let mut edge = owner(now);
    edge.hear(ToEdge::Revoke { spi: SPI, term: 4 }, now);
    let stop = Act::Stop {
        spi: SPI,
        term: 4,
        tell: false,
    };
    assert_eq!(acts(&mut edge), [stop]);
    edge.claim(Claim { spi: SPI, seen: 20 }, now);
    edge.claim(Claim { spi: SPI, seen: 21 }, now);
    assert!(matches!(
        acts(&mut edge)[..],
        [Act::Send(FromEdge::Claim(_))]
    ));
    edge.disconnected();
    edge.claim(Claim { spi: SPI, seen: 22 }, now + ms(60));
    assert_eq!(acts(&mut edge), [], "nobody would hear it");
}

#[test]
fn what_does_not_go_into_one_report_is_not_echoed() {
    let now = Instant::now();
    let mut edge = owner(now);
    for spi in 0..5000 {
        let grant = Grant {
            floor: 10,
            missing: 0,
            first: 400,
            limits: limits(14),
        };
        edge.hear(ToEdge::Grant { spi, grant }, now);
        edge.progress(spi, 13, 399, now);
    }
    acts(&mut edge);
    let mut seen = 0;
    for (marks, echo) in [(4096, 0), (904, 1)] {
        edge.poll(now);
        let done = acts(&mut edge);
        let told = report(&done);
        assert_eq!((told.marks.len(), told.echo), (marks, echo));
        assert!(told.marks[0].spi == seen, "each in its turn");
        seen += 4096;
    }
}

#[test]
fn whoever_may_go_no_further_asks_again() {
    let now = Instant::now();
    let mut edge = owner(now);
    edge.progress(SPI, 14, 399, now);
    edge.poll(now);
    assert_eq!(report(&acts(&mut edge)).marks[0].top, 14);
    // The answer is lost with the connection; or the authority had no more to give.
    let later = now + Terms::default().alone / 8;
    edge.poll(later);
    assert_eq!(report(&acts(&mut edge)).marks.len(), 1);
    edge.disconnected();
    edge.connected(later);
    edge.poll(later);
    assert_eq!(report(&acts(&mut edge)).marks.len(), 1);
}

#[test]
fn what_is_granted_to_one_that_drains_goes_back_at_once() {
    let now = Instant::now();
    let mut edge = owner(now);
    edge.give_back();
    acts(&mut edge);
    edge.stopped(SPI, 4, 12, 0, 400);
    acts(&mut edge);
    let grant = Grant {
        floor: 12,
        missing: 0,
        first: 500,
        limits: limits(16),
    };
    edge.hear(ToEdge::Grant { spi: SPI, grant }, now);
    let acts = acts(&mut edge);
    let stop = Act::Stop {
        spi: SPI,
        term: 4,
        tell: true,
    };
    assert!(
        matches!(&acts[..], [Act::Take { .. }, last] if *last == stop),
        "{acts:?}"
    );
}

#[test]
fn one_that_missed_many_packets_asks_for_numbers_and_gets_them() {
    let now = Instant::now();
    let mut edge = owner(now);
    let claim = |seen| Claim { spi: SPI, seen };
    // It may take that one.
    edge.claim(claim(14), now);
    assert_eq!(acts(&mut edge), []);
    edge.claim(claim(200), now);
    assert_eq!(acts(&mut edge), [Act::Send(FromEdge::Claim(claim(200)))]);
    edge.hear(
        ToEdge::Widen {
            spi: SPI,
            limits: limits(204),
        },
        now,
    );
    assert_eq!(acts(&mut edge), [bound(204)]);
    // The next gap need not wait.
    edge.claim(claim(900), now);
    assert_eq!(acts(&mut edge), [Act::Send(FromEdge::Claim(claim(900)))]);
}

// Whoever was cut off may have a pair that its authority has given up: as long as it is there, a client is not told
// that nobody serves it.
#[test]
fn a_pair_that_the_authority_does_not_know_is_forgotten() {
    let now = Instant::now();
    let mut edge = owner(now);
    let refuse = |refusal| ToEdge::Refuse { spi: SPI, refusal };
    for refusal in [Refusal::Old, Refusal::Busy, Refusal::Exhausted] {
        edge.hear(refuse(refusal), now);
        assert_eq!(acts(&mut edge), []);
    }
    edge.hear(refuse(Refusal::Unknown), now);
    assert_eq!(acts(&mut edge), [Act::Forget { spi: SPI }]);
    edge.forgotten(SPI);
    assert_eq!((edge.owned(), edge.holds()), (0, 0));
}
