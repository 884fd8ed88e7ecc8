//! Many clients with equal policies spread over the gateways and over time.

use rand::seq::SliceRandom;

use super::*;

/// Pearson's chi-square of `counts` against equal shares.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts
        .iter()
        .map(|count| (f64::from(*count) - expected).powi(2) / expected)
        .sum()
}

// The order is drawn afresh at each read of the policy; so the gateways asked first are spread
// evenly, and so are those asked after one of them has died: each survivor takes its share.
#[test]
fn clients_spread_over_the_gateways() {
    let gateways: Vec<IpAddr> = (1..=5).map(gateway).collect();
    let mut first = [0; 5];
    let mut after_death = [0; 5];
    for seed in 0..5_000 {
        let mut order = gateways.clone();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        let mut bench = Bench::new(0, seed);
        bench.kms.set_clusters(vec![(ONE, order)], bench.now);
        bench.ask(None);
        let asked = bench.kms.request_state(ONE);
        let Some(crate::kms::RequestState::Authenticating(gateway)) = asked else {
            panic!()
        };
        first[gateways.iter().position(|gw| *gw == gateway).unwrap()] += 1;
        // All clients happen to lose the same gateway.
        let lost = gateways[0];
        let mut bench = Bench {
            now: bench.now,
            ..Bench::new(0, seed)
        };
        let mut order = gateways.clone();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        bench.kms.set_clusters(vec![(ONE, order)], bench.now);
        bench.ask(Some(lost));
        let asked = bench.kms.request_state(ONE);
        let Some(crate::kms::RequestState::Authenticating(gateway)) = asked else {
            panic!()
        };
        after_death[gateways.iter().position(|gw| *gw == gateway).unwrap()] += 1;
    }
    // 99.9 % quantiles for 4 and 3 degrees of freedom; the seeds are fixed, so this can not flake.
    assert!(chi_square(&first) < 18.47, "{first:?}");
    assert_eq!(after_death[0], 0);
    assert!(chi_square(&after_death[1..]) < 16.27, "{after_death:?}");
}

// Clients that lose one gateway together do not come for new standbys, nor for retries, together.
#[test]
fn background_work_spreads_over_time() {
    let mut standby = [0; 10];
    let mut retry = [0; 10];
    for seed in 0..2_000 {
        let mut bench = Bench::new(1, seed);
        bench.in_use(A);
        let wait = bench.kms.next_deadline().unwrap().0 - bench.now;
        standby[bucket(wait, FIRST)] += 1;

        let mut bench = Bench::new(0, seed);
        bench.ask(None);
        for gateway in [A, B, C] {
            bench.failed(gateway);
        }
        bench.ask(None);
        let wait = bench.kms.next_deadline().unwrap().0 - bench.now;
        retry[bucket(wait - FIRST / 2, FIRST / 2)] += 1;
    }
    // 99.9 % quantile for 9 degrees of freedom.
    assert!(chi_square(&standby) < 27.88, "{standby:?}");
    assert!(chi_square(&retry) < 27.88, "{retry:?}");
}

fn bucket(wait: Duration, span: Duration) -> usize {
    ((wait.as_secs_f64() / span.as_secs_f64() * 10.0) as usize).min(9)
}
