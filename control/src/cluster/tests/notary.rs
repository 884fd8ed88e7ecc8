//! What becomes of a dead edge's pairs when its notary speaks, and when it does not.

use std::time::Instant;

use super::{ONE, SPI, TWO, ms, orders, report, two};
use crate::cluster::{Claim, EdgeId, Ledger, Mark, Parting, Reached, Run, ToEdge};

/// Two edges; the first has a notary, and has reported number 100 of many, so that a lot is in doubt.
fn edges(now: Instant) -> Ledger {
    let mut ledger = two(now);
    ledger.has_notary(ONE);
    let mark = Mark {
        spi: SPI,
        term: 1,
        top: 100,
        sent: 0,
        soft: 0,
        wide: false,
    };
    report(&mut ledger, ONE, 3, 2, &[mark], now + ms(10));
    orders(&mut ledger);
    ledger
}

fn reached(term: u32, top: u64) -> Reached {
    let spi = SPI;
    Reached { spi, term, top }
}

/// The second edge has a packet of this number. Yields where it begins, if it gets the pair, and fresh keys.
fn claimed(ledger: &mut Ledger, seen: u64, now: Instant) -> (Option<u64>, usize) {
    let spi = SPI;
    ledger.claim(TWO, Claim { spi, seen }, now);
    granted(ledger)
}

fn granted(ledger: &mut Ledger) -> (Option<u64>, usize) {
    let (sent, rekeys) = orders(ledger);
    let mut grants = sent.into_iter().filter_map(|said| match said {
        (TWO, ToEdge::Grant { grant, .. }) => Some(grant.floor),
        _ => None,
    });
    (grants.next_back(), rekeys)
}

/// What it may have accepted at most goes up to 299.
const SOFT: u64 = 299;

#[test]
fn nothing_is_in_doubt_when_it_speaks() {
    let now = Instant::now();
    let mut ledger = edges(now);
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(15));
    // The client's next packet is there before.
    assert_eq!(claimed(&mut ledger, 124, now + ms(16)), (None, 0));
    ledger.testified(ONE, Run(1), &[reached(1, 123)]);
    assert_eq!(granted(&mut ledger), (Some(123), 0));
    assert_eq!(ledger.owner(SPI), Some(TWO));
    // Nobody is waited for any more.
    assert!(ledger.deadline().is_none_or(|at| at >= now + ms(40)));
}

#[test]
fn it_may_be_heard_before_the_end_is_seen() {
    let now = Instant::now();
    let mut ledger = edges(now);
    ledger.testified(ONE, Run(1), &[reached(1, 123)]);
    assert_eq!(ledger.owner(SPI), None);
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(15));
    assert_eq!(claimed(&mut ledger, 124, now + ms(16)), (Some(123), 0));
}

#[test]
fn silence_is_not_waited_for_long() {
    let now = Instant::now();
    let mut ledger = edges(now);
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(15));
    assert_eq!(ledger.deadline(), Some(now + ms(45)));
    assert_eq!(claimed(&mut ledger, 124, now + ms(16)), (None, 0));
    ledger.poll(now + ms(44));
    assert_eq!(ledger.owner(SPI), Some(ONE));
    ledger.poll(now + ms(45));
    assert_eq!(granted(&mut ledger), (Some(SOFT), 0));
}

/// Its whole machine is cut off: the notary is too, and nobody knows what the edge still does.
#[test]
fn a_connection_that_is_lost_waits_for_nobody() {
    let now = Instant::now();
    let mut ledger = edges(now);
    ledger.gone(ONE, Run(1), Parting::Lost, now + ms(15));
    assert_eq!(ledger.deadline(), None);
    let (floor, rekeys) = claimed(&mut ledger, 124, now + ms(16));
    assert!(floor > Some(1 << 20) && rekeys == 1, "{floor:?}, {rekeys}");
    // It had gone past what it was told, alone, and died: the notary knows how far.
    let mut ledger = edges(now);
    ledger.gone(ONE, Run(1), Parting::Lost, now + ms(15));
    ledger.testified(ONE, Run(1), &[reached(1, 70_000)]);
    assert_eq!(
        claimed(&mut ledger, 70_001, now + ms(16)),
        (Some(70_000), 0)
    );
}

#[test]
fn what_it_does_not_speak_of_goes_by_how_the_connection_ended() {
    let now = Instant::now();
    for said in [&[][..], &[reached(2, 500)], &[reached(0, 5)]] {
        let mut ledger = edges(now);
        ledger.gone(ONE, Run(1), Parting::Closed, now + ms(15));
        ledger.testified(ONE, Run(1), said);
        assert_eq!(
            claimed(&mut ledger, 124, now + ms(16)),
            (Some(SOFT), 0),
            "{said:?}"
        );
    }
}

/// The end of an earlier run says nothing of this one.
#[test]
fn another_runs_notary_is_not_heard() {
    let now = Instant::now();
    let mut ledger = edges(now);
    ledger.testified(ONE, Run(9), &[reached(1, 123)]);
    ledger.testified(EdgeId(7), Run(1), &[reached(1, 123)]);
    assert_eq!(ledger.owner(SPI), Some(ONE));
    // A new run is there before the notary of the last one has spoken: that one is not waited for.
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(15));
    ledger.hello(ONE, Run(2), &[]);
    assert_eq!(ledger.owner(SPI), None);
    ledger.testified(ONE, Run(1), &[reached(1, 123)]);
    assert_eq!(claimed(&mut ledger, 124, now + ms(16)).0, Some(SOFT));
}

/// Whatever it says, numbers that were accepted under earlier terms stay seen.
#[test]
fn it_never_goes_below_what_its_edge_was_granted() {
    let now = Instant::now();
    let mut ledger = edges(now);
    ledger.testified(ONE, Run(1), &[reached(1, 50)]);
    assert_eq!(claimed(&mut ledger, 124, now + ms(16)), (Some(100), 0));
}

/// An edge that was gone would not hear that it got something.
#[test]
fn an_edge_that_is_waited_for_gets_nothing() {
    let now = Instant::now();
    let mut ledger = edges(now);
    ledger.add(9, true, None);
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(15));
    ledger.offer(9, ONE);
    let (sent, _) = orders(&mut ledger);
    assert_eq!((sent, ledger.owner(9)), (vec![], None));
}
