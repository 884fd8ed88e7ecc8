//! Gateways that send us elsewhere.

use super::*;

// Of the gateways that are left, the one that was named is asked first.
#[test]
fn a_redirected_request_goes_to_the_gateway_that_was_named() {
    let mut bench = Bench::new(0, 1);
    bench.ask(None);
    assert!(bench.kms.prefer(A, C));
    assert_eq!(bench.failed(A), ["authenticate C"]);
    assert_eq!(bench.failed(C), ["authenticate B"]);
    assert_eq!(bench.failed(B), ["rejected 1 ACB"]);
}

// A stranger, and the gateway itself, are nowhere to go: the list decides.
#[test]
fn only_gateways_of_the_cluster_are_followed_to() {
    for to in [X, A] {
        let mut bench = Bench::new(0, 1);
        bench.ask(None);
        assert!(!bench.kms.prefer(A, to));
        assert_eq!(bench.failed(A), ["authenticate B"]);
    }
    let mut bench = Bench::new(0, 1);
    assert!(!bench.kms.prefer(X, A), "who is it to say so?");
}

// Gateways that send us back and forth are asked once each.
#[test]
fn a_loop_of_redirects_ends() {
    let mut bench = Bench::new(0, 1);
    bench.ask(None);
    bench.kms.prefer(A, B);
    assert_eq!(bench.failed(A), ["authenticate B"]);
    bench.kms.prefer(B, A);
    assert_eq!(bench.failed(B), ["authenticate C"]);
    bench.kms.prefer(C, A);
    assert_eq!(bench.failed(C), ["rejected 1 ABC"]);
}

// What was left is no standby any more, and is not asked again at once.
#[test]
fn a_gateway_that_was_left_has_no_session() {
    let mut bench = Bench::new(1, 1);
    bench.in_use(A);
    bench.pass(FIRST);
    assert_eq!(bench.made(B), Vec::<String>::new());
    bench.kms.prefer(A, C);
    assert_eq!(bench.ask(Some(A)), ["granted 1 B"]);
    bench.then(|kms, now| kms.on_active(ONE, Some(B), now));
    assert!(bench.then(|kms, now| kms.on_left(A, now)).is_empty());
    assert_eq!(bench.kms.session(A), None);
    let next = bench.pass(FIRST);
    let next: Vec<&str> = next.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(next, ["authenticate C"]);
}

// A named gateway is for the traffic of then. When the policy loses the one in use, the list decides.
#[test]
fn a_reload_that_loses_the_active_gateway_forgets_who_was_named() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    bench.kms.prefer(A, C);
    bench.then(|kms, now| kms.set_clusters(vec![(ONE, vec![B, C])], now));
    assert_eq!(bench.ask(None), ["authenticate B"]);
}
