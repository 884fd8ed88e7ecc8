mod edge;
mod ledger;
pub(super) mod wire;

use std::time::{Duration, Instant};

use super::{EdgeId, Kept, Ledger, Order, Run, Terms, ToEdge};

const SPI: u32 = 0x0123_4567;
const ONE: EdgeId = EdgeId(1);
const TWO: EdgeId = EdgeId(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What is to be sent, and what is to be done else; everything is stored at once.
fn orders(ledger: &mut Ledger) -> (Vec<(EdgeId, ToEdge)>, usize) {
    let (mut sent, mut rekeys) = (Vec::new(), 0);
    while let Some(order) = ledger.order() {
        match order {
            Order::Send { edge, message } => sent.push((edge, message)),
            Order::Store { spi, kept } => ledger.stored(spi, kept),
            Order::Rekey { .. } => rekeys += 1,
            Order::Erase { .. } => (),
        }
    }
    (sent, rekeys)
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

fn kept(ledger: &mut Ledger) -> Vec<Kept> {
    let mut all = Vec::new();
    while let Some(order) = ledger.order() {
        if let Order::Store { kept, .. } = order {
            all.push(kept);
        }
    }
    all
}
