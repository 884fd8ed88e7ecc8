mod edge;
mod ledger;
mod notary;
pub(super) mod wire;

use std::time::{Duration, Instant};

use super::{EdgeId, Kept, Ledger, Order, Run, Terms, ToEdge};

const SPI: u32 = 0x0123_4567;
const ONE: EdgeId = EdgeId(1);
const TWO: EdgeId = EdgeId(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What is to be sent, and what each pair that is to have fresh keys loses until then; everything is stored at
/// once.
fn said(ledger: &mut Ledger) -> (Vec<(EdgeId, ToEdge)>, Vec<u64>) {
    let (mut sent, mut lost) = (Vec::new(), Vec::new());
    while let Some(order) = ledger.order() {
        match order {
            Order::Send { edge, message } => sent.push((edge, message)),
            Order::Store { spi, kept } => ledger.stored(spi, kept),
            Order::Rekey { lost: most, .. } => lost.push(most),
            Order::Erase { .. } => (),
        }
    }
    (sent, lost)
}

/// The same, where only the count of fresh keys matters.
fn orders(ledger: &mut Ledger) -> (Vec<(EdgeId, ToEdge)>, usize) {
    let (sent, lost) = said(ledger);
    (sent, lost.len())
}

/// Two edges in contact, the first with the SA pair.
fn two(now: Instant) -> Ledger {
    let mut ledger = Ledger::new(Terms::default());
    ledger.hello(ONE, Run(1), &[]);
    ledger.hello(TWO, Run(2), &[]);
    ledger.add(SPI, true, None);
    ledger.offer(SPI, ONE);
    let (sent, rekeys) = orders(&mut ledger);
    assert!(
        matches!(sent[..], [(ONE, ToEdge::Grant { spi: SPI, .. })]) && rekeys == 0,
        "{sent:?}"
    );
    for edge in [ONE, TWO] {
        report(&mut ledger, edge, 1, 0, &[], now);
        report(&mut ledger, edge, 2, 1, &[], now);
    }
    orders(&mut ledger);
    ledger
}

fn report(
    ledger: &mut Ledger,
    edge: EdgeId,
    number: u64,
    echo: u64,
    marks: &[super::Mark],
    now: Instant,
) {
    let marks = marks.to_vec();
    let report = super::Report {
        number,
        echo,
        marks,
    };
    ledger.report(edge, &report, now);
}

/// What is to be sent, what is to be kept while nothing is, and how many other things are to be done.
fn unstored(ledger: &mut Ledger) -> (Vec<(EdgeId, ToEdge)>, Vec<Kept>, usize) {
    let (mut sent, mut stored, mut others) = (Vec::new(), Vec::new(), 0);
    while let Some(order) = ledger.order() {
        match order {
            Order::Send { edge, message } => sent.push((edge, message)),
            Order::Store { kept, .. } => stored.push(kept),
            Order::Rekey { .. } | Order::Erase { .. } => others += 1,
        }
    }
    (sent, stored, others)
}

fn kept(ledger: &mut Ledger) -> Vec<Kept> {
    unstored(ledger).1
}
