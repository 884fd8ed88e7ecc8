//! The authority's rules, one by one.

use std::time::Instant;

use super::{ONE, SPI, TWO, kept, ms, orders, report, said, two, unstored};
use crate::cluster::{
    Claim, EdgeId, Grant, Kept, Ledger, Mark, Order, Parting, Refusal, Run, Terms, ToEdge, Yielded,
};

fn mark(term: u32, top: u64, sent: u64) -> Mark {
    Mark {
        spi: SPI,
        term,
        top,
        sent,
        soft: top + 4,
        wide: false,
    }
}

fn claim(seen: u64) -> Claim {
    Claim { spi: SPI, seen }
}

/// The one grant that was sent.
fn granted(sent: &[(EdgeId, ToEdge)]) -> (EdgeId, Grant) {
    let grants: Vec<_> = (sent.iter())
        .filter_map(|(edge, message)| match message {
            ToEdge::Grant { grant, .. } => Some((*edge, *grant)),
            _ => None,
        })
        .collect();
    let [(edge, grant)] = grants[..] else {
        panic!("one grant: {sent:?}");
    };
    (edge, grant)
}

fn ask_back(edge: EdgeId, term: u32, seen: u64) -> (EdgeId, ToEdge) {
    let spi = SPI;
    (edge, ToEdge::AskBack { spi, term, seen })
}

#[test]
fn a_living_owner_is_asked_and_nothing_is_lost() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.claim(TWO, claim(10), now);
    let (sent, _) = orders(&mut ledger);
    assert_eq!(sent, [ask_back(ONE, 1, 10)]);
    ledger.yielded(
        ONE,
        &Yielded {
            mark: mark(1, 9, 40),
            missing: 0b10,
        },
    );
    let (edge, grant) = granted(&orders(&mut ledger).0);
    assert_eq!(
        (edge, grant.floor, grant.missing, grant.limits.term),
        (TWO, 9, 0b10, 2)
    );
    // What the first was granted and did not use is the second's.
    assert_eq!(grant.first, 41);
    assert_eq!(ledger.owner(SPI), Some(TWO));
}

#[test]
fn a_dead_owner_costs_as_much_as_it_may_have_accepted() {
    let now = Instant::now();
    let mut ledger = two(now);
    report(&mut ledger, ONE, 3, 2, &[mark(1, 100, 0)], now + ms(10));
    let (sent, _) = orders(&mut ledger);
    let [(ONE, ToEdge::Acknowledge { limits, .. })] = &sent[..] else {
        panic!("{sent:?}");
    };
    let soft = limits[0].1.soft;
    assert_eq!(
        soft, 299,
        "as much again as came since the last report, twice, less one"
    );
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(15));
    assert_eq!(ledger.owner(SPI), None);
    ledger.claim(TWO, claim(101), now + ms(16));
    let (sent, rekeys) = orders(&mut ledger);
    let (edge, grant) = granted(&sent);
    assert_eq!((edge, grant.floor, rekeys), (TWO, soft, 0));
}

/// One that sent a lot and now sends now and then would be kept waiting by what may have been accepted.
#[test]
fn a_peer_that_has_become_slow_is_told_to_go_on_above_that() {
    let now = Instant::now();
    let mut ledger = two(now);
    report(&mut ledger, ONE, 3, 2, &[mark(1, 100, 0)], now + ms(4));
    report(&mut ledger, ONE, 4, 3, &[mark(1, 101, 0)], now + ms(500));
    let soft = 299;
    orders(&mut ledger);
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(600));
    ledger.claim(TWO, claim(103), now + ms(601));
    let (sent, lost) = said(&mut ledger);
    assert_eq!(granted(&sent).1.floor, soft);
    assert_eq!(lost, [soft - 103], "from the last one that was heard");
    // One that is there already loses nothing.
    let mut ledger = two(now);
    report(&mut ledger, ONE, 3, 2, &[mark(1, 100, 0)], now + ms(4));
    report(&mut ledger, ONE, 4, 3, &[mark(1, 298, 0)], now + ms(500));
    report(&mut ledger, ONE, 5, 4, &[mark(1, 299, 0)], now + ms(600));
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(700));
    ledger.claim(TWO, claim(1000), now + ms(701));
    let (sent, lost) = said(&mut ledger);
    assert_eq!(granted(&sent).0, TWO);
    assert!(lost.iter().all(|lost| *lost == 0), "{lost:?}");
}

/// How far it came with another authority is not how fast it is.
#[test]
fn an_edge_of_an_earlier_authority_may_accept_no_more_than_before() {
    let now = Instant::now();
    let mut first = two(now);
    report(&mut first, ONE, 3, 2, &[mark(1, 5000, 0)], now);
    let mut ledger = Ledger::new(Terms::default());
    ledger.add(SPI, true, first.kept(SPI));
    ledger.hello(ONE, Run(1), &[mark(1, 5001, 40)]);
    ledger.hello(TWO, Run(2), &[]);
    for number in [1, 2] {
        report(&mut ledger, ONE, number, number - 1, &[], now);
    }
    orders(&mut ledger);
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(1));
    ledger.claim(TWO, claim(5002), now + ms(2));
    let (sent, _) = orders(&mut ledger);
    assert_eq!(granted(&sent).1.floor, 5005, "as its edge has said");
}

#[test]
fn an_owner_that_may_live_costs_fresh_keys() {
    let now = Instant::now();
    // Its connection is lost; or its end comes so late that it may have been alone before; or it is silent.
    for (parting, after) in [
        (Some(Parting::Lost), 15),
        (Some(Parting::Closed), 951),
        (None, 15),
    ] {
        let mut ledger = two(now);
        let then = now + ms(after);
        if let Some(parting) = parting {
            ledger.gone(ONE, Run(1), parting, then);
        }
        ledger.claim(TWO, claim(1), then);
        if parting.is_none() {
            assert_eq!(ledger.deadline(), Some(then + Terms::default().patience));
            ledger.poll(then + Terms::default().patience);
        }
        let (sent, rekeys) = orders(&mut ledger);
        let (edge, grant) = granted(&sent);
        assert_eq!((edge, rekeys), (TWO, 1), "{parting:?}");
        assert_eq!(grant.floor, Terms::default().reserve);
        // When it is heard of again it is told.
        ledger.hello(ONE, Run(1), &[mark(1, 20, 0)]);
        let (sent, _) = orders(&mut ledger);
        assert_eq!(sent, [(ONE, ToEdge::Revoke { spi: SPI, term: 1 })]);
    }
}

#[test]
fn one_that_was_alone_is_not_taken_at_its_last_word() {
    let now = Instant::now();
    let mut ledger = two(now);
    let wide = Mark {
        wide: true,
        ..mark(1, 5, 0)
    };
    report(&mut ledger, ONE, 3, 2, &[wide], now + ms(10));
    let (_, rekeys) = orders(&mut ledger);
    assert_eq!(rekeys, 1, "so that the next death costs little again");
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(11));
    ledger.claim(TWO, claim(6), now + ms(12));
    let (_, grant) = granted(&orders(&mut ledger).0);
    assert_eq!(grant.floor, Terms::default().reserve);
}

#[test]
fn nobody_gets_it_for_an_old_packet_or_twice() {
    let now = Instant::now();
    let mut ledger = two(now);
    report(&mut ledger, ONE, 3, 2, &[mark(1, 50, 0)], now);
    orders(&mut ledger);
    let refused = |ledger: &mut Ledger, edge, spi, seen| {
        ledger.claim(edge, Claim { spi, seen }, now);
        match orders(ledger).0[..] {
            [(to, ToEdge::Refuse { refusal, .. })] if to == edge => Some(refusal),
            _ => None,
        }
    };
    assert_eq!(refused(&mut ledger, TWO, SPI, 50), Some(Refusal::Old));
    assert_eq!(refused(&mut ledger, TWO, 7777, 51), Some(Refusal::Unknown));
    assert_eq!(refused(&mut ledger, TWO, SPI, 51), None);
    let three = EdgeId(3);
    ledger.hello(three, Run(3), &[]);
    assert_eq!(refused(&mut ledger, three, SPI, 52), Some(Refusal::Busy));
}

/// What an owner that is dead or has stopped leaves is granted although the repository is away: all of it is kept for
/// used up already.
#[test]
fn a_pair_moves_while_the_repository_is_away() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.gone(ONE, Run(1), Parting::Closed, now);
    ledger.claim(TWO, claim(1), now);
    let (told, asked, others) = unstored(&mut ledger);
    assert_eq!(others, 0);
    let (edge, grant) = granted(&told);
    assert_eq!((edge, grant.limits.term), (TWO, 2));
    let [one] = asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!((one.term, one.owner), (2, Some(TWO)), "told later");
    assert!(grant.limits.last <= one.reserved && grant.limits.hard <= one.hard);
    // The second goes too, before that is kept.
    ledger.gone(TWO, Run(2), Parting::Closed, now);
    let three = EdgeId(3);
    ledger.hello(three, Run(3), &[]);
    ledger.claim(three, claim(2), now);
    let (told, asked, others) = unstored(&mut ledger);
    assert_eq!(others, 0);
    let (edge, next) = granted(&told);
    assert_eq!((edge, next.limits.term), (three, 3));
    assert!(next.first > grant.limits.last);
    assert_eq!(asked, [], "one write at a time");
    ledger.stored(SPI, one);
    let (_, asked, others) = unstored(&mut ledger);
    assert_eq!(others, 0);
    let last = asked.last().map(|kept| (kept.term, kept.owner));
    assert_eq!(last, Some((3, Some(three))));
}

/// The next authority may know less than what was granted: its edge is told to stop, and what it had is used up.
#[test]
fn what_the_repository_did_not_hear_of_is_not_granted_again() {
    let now = Instant::now();
    let mut first = two(now);
    let has = first.kept(SPI);
    first.gone(ONE, Run(1), Parting::Closed, now);
    first.claim(TWO, claim(1), now);
    let (sent, ..) = unstored(&mut first);
    let (_, unheard) = granted(&sent);
    let mut next = Ledger::new(Terms::default());
    next.add(SPI, true, has);
    next.hello(ONE, Run(9), &[]);
    next.hello(TWO, Run(2), &[mark(2, 5, 40)]);
    let revoke = (TWO, ToEdge::Revoke { spi: SPI, term: 2 });
    assert_eq!(orders(&mut next).0, [revoke]);
    next.claim(TWO, claim(6), now);
    let (_, grant) = granted(&orders(&mut next).0);
    assert!(grant.floor >= unheard.limits.hard, "{grant:?} {unheard:?}");
    assert!(grant.first > unheard.limits.last, "{grant:?} {unheard:?}");
}

#[test]
fn nothing_is_granted_beyond_what_the_repository_has() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.gone(ONE, Run(1), Parting::Lost, now);
    ledger.claim(TWO, claim(1), now);
    let stored = kept(&mut ledger);
    let [one] = stored[..] else {
        panic!("{stored:?}");
    };
    assert_eq!((one.term, one.owner), (2, Some(TWO)));
    assert_eq!((ledger.order(), ledger.owner(SPI)), (None, None));
    // The second goes too, before anything came of it: the third gets a term of its own.
    ledger.gone(TWO, Run(2), Parting::Closed, now);
    let three = EdgeId(3);
    ledger.hello(three, Run(3), &[]);
    ledger.claim(three, claim(2), now);
    assert_eq!(ledger.order(), None, "one write at a time");
    ledger.stored(SPI, one);
    let (edge, grant) = granted(&orders(&mut ledger).0);
    assert_eq!((edge, grant.limits.term), (three, 3));
}

#[test]
fn numbers_run_out_only_where_the_repository_is_away_for_long() {
    let now = Instant::now();
    let mut ledger = two(now);
    let terms = Terms::default();
    let (mut sent, mut last, mut stored) = (0, 0, 0);
    // The repository has stopped answering.
    for number in 3.. {
        report(
            &mut ledger,
            ONE,
            number,
            number - 1,
            &[mark(1, 1, sent)],
            now,
        );
        let mut granted = last;
        while let Some(order) = ledger.order() {
            match order {
                Order::Store { .. } => stored += 1,
                Order::Send {
                    message: ToEdge::Acknowledge { limits, .. },
                    ..
                } => granted = limits[0].1.last,
                other => panic!("{other:?}"),
            }
        }
        if granted == last && granted == sent {
            break;
        }
        (sent, last) = (granted, granted);
    }
    assert_eq!((last, stored), (terms.chunk, 1));
}

#[test]
fn the_next_authority_begins_above_all_that_the_last_one_may_have_granted() {
    let now = Instant::now();
    let has = Kept {
        term: 9,
        owner: Some(ONE),
        reserved: 5000,
        hard: 700,
        rekey: false,
    };
    let mut ledger = Ledger::new(Terms::default());
    ledger.add(SPI, true, Some(has));
    assert_eq!(ledger.owner(SPI), Some(ONE), "it goes on meanwhile");
    ledger.hello(TWO, Run(2), &[]);
    ledger.claim(TWO, claim(1), now);
    let (sent, rekeys) = orders(&mut ledger);
    let (edge, grant) = granted(&sent);
    assert_eq!(
        (edge, grant.floor, grant.first, rekeys),
        (TWO, 700, 5001, 1)
    );
    assert_eq!(grant.limits.term, 10);
}

#[test]
fn an_sa_without_numbers_left_is_refused_and_renewed() {
    let now = Instant::now();
    let mut ledger = Ledger::new(Terms::default());
    let has = Kept {
        term: 3,
        reserved: u32::MAX.into(),
        hard: 10,
        ..Kept::default()
    };
    ledger.add(SPI, false, Some(has));
    ledger.hello(ONE, Run(1), &[]);
    ledger.claim(ONE, claim(11), now);
    let (sent, rekeys) = orders(&mut ledger);
    let refusal = Refusal::Exhausted;
    assert_eq!(sent, [(ONE, ToEdge::Refuse { spi: SPI, refusal })]);
    assert_eq!(rekeys, 1);
}

#[test]
fn an_owner_that_starts_anew_owns_nothing() {
    let mut ledger = two(Instant::now());
    ledger.hello(ONE, Run(77), &[]);
    assert_eq!(ledger.owner(SPI), None);
    ledger.remove(SPI);
    assert_eq!(orders(&mut ledger).0, []);
}

#[test]
fn an_edge_that_says_that_it_leaves_is_not_dead() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.leaving(ONE);
    ledger.gone(ONE, Run(1), Parting::Closed, now);
    assert_eq!(ledger.owner(SPI), Some(ONE), "it may come back");
    ledger.claim(TWO, claim(1), now);
    let (sent, rekeys) = orders(&mut ledger);
    assert_eq!(
        (granted(&sent).1.floor, rekeys),
        (Terms::default().reserve, 1)
    );
}

#[test]
fn the_end_of_an_earlier_run_is_no_news() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.hello(ONE, Run(5), &[mark(1, 3, 0)]);
    ledger.gone(ONE, Run(1), Parting::Closed, now);
    assert_eq!(ledger.owner(SPI), Some(ONE));
}

#[test]
fn a_pair_does_not_move_with_each_packet() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.claim(TWO, claim(5), now);
    let yielded = |mark| Yielded { mark, missing: 0 };
    ledger.yielded(ONE, &yielded(mark(1, 4, 0)));
    orders(&mut ledger);
    ledger.claim(ONE, claim(6), now + ms(1));
    let refusal = Refusal::Busy;
    let refused = (ONE, ToEdge::Refuse { spi: SPI, refusal });
    assert_eq!(orders(&mut ledger).0, [refused]);
    ledger.claim(ONE, claim(7), now + Terms::default().tenure);
    assert_eq!(orders(&mut ledger).0, [ask_back(TWO, 2, 7)]);
}

// Whoever repeats a packet elsewhere before it is reported could else take the pair away for as long as a tenure lasts.
#[test]
fn a_copy_of_a_packet_that_is_not_reported_yet_moves_nothing() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.claim(TWO, claim(5), now);
    assert_eq!(orders(&mut ledger).0, [ask_back(ONE, 1, 5)]);
    report(&mut ledger, ONE, 3, 0, &[mark(1, 4, 0)], now);
    assert!(orders(&mut ledger).0.iter().all(|(edge, _)| *edge == ONE));
    report(&mut ledger, ONE, 4, 0, &[mark(1, 5, 0)], now);
    let refused = (
        TWO,
        ToEdge::Refuse {
            spi: SPI,
            refusal: Refusal::Old,
        },
    );
    assert!(orders(&mut ledger).0.contains(&refused));
    assert_eq!(ledger.owner(SPI), Some(ONE));
    // Nor is the client held up that moves there next.
    ledger.claim(TWO, claim(6), now + ms(1));
    assert_eq!(orders(&mut ledger).0, [ask_back(ONE, 1, 6)]);
    ledger.poll(now + Terms::default().patience);
    assert_eq!(
        ledger.owner(SPI),
        Some(ONE),
        "the first question is no more"
    );
}

#[test]
fn an_owner_is_asked_anew_for_what_came_after_a_copy() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.claim(TWO, claim(5), now);
    ledger.claim(TWO, claim(6), now);
    orders(&mut ledger);
    report(&mut ledger, ONE, 3, 0, &[mark(1, 5, 0)], now);
    assert!(orders(&mut ledger).0.contains(&ask_back(ONE, 1, 6)));
    let yielded = Yielded {
        mark: mark(1, 5, 0),
        missing: 0,
    };
    ledger.yielded(ONE, &yielded);
    assert_eq!(granted(&orders(&mut ledger).0).0, TWO);
}

#[test]
fn fresh_keys_that_are_wanted_are_not_forgotten_with_the_authority() {
    let now = Instant::now();
    let mut ledger = two(now);
    ledger.gone(ONE, Run(1), Parting::Lost, now);
    ledger.claim(TWO, claim(1), now);
    let [has] = kept(&mut ledger)[..] else {
        panic!("one is stored");
    };
    let mut next = Ledger::new(Terms::default());
    next.add(SPI, true, Some(has));
    assert_eq!(next.order(), Some(Order::Rekey { spi: SPI, lost: 0 }));
    // And an edge that was in contact all the time need not be taken for one that was not.
    let has = Kept {
        rekey: false,
        ..has
    };
    let mut next = Ledger::new(Terms::default());
    next.add(SPI, true, Some(has));
    next.hello(TWO, Run(2), &[mark(2, 9, 0)]);
    orders(&mut next);
    report(&mut next, TWO, 1, 0, &[mark(2, 9, 0)], now);
    let (sent, rekeys) = orders(&mut next);
    let [(TWO, ToEdge::Acknowledge { limits, .. })] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((limits[0].1.soft, rekeys), (13, 0), "as it has said");
}

#[test]
fn an_owner_that_missed_many_packets_gets_the_numbers_behind_them() {
    let now = Instant::now();
    let mut ledger = two(now);
    report(&mut ledger, ONE, 3, 2, &[mark(1, 9, 0)], now);
    orders(&mut ledger);
    // More than any margin were lost before it.
    ledger.claim(ONE, claim(50_000), now);
    let (sent, _) = orders(&mut ledger);
    let [(ONE, ToEdge::Widen { spi: SPI, limits })] = sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((limits.term, limits.soft), (1, 50_002));
    // Beyond all that the repository has: it is asked first.
    let far = 1 << 40;
    ledger.claim(ONE, claim(far), now);
    let [Order::Store { kept, .. }] = std::iter::from_fn(|| ledger.order()).collect::<Vec<_>>()[..]
    else {
        panic!("nothing is told before it is kept");
    };
    assert!(kept.hard > far);
    ledger.stored(SPI, kept);
    let (sent, _) = orders(&mut ledger);
    assert!(
        matches!(sent[..], [(ONE, ToEdge::Widen { limits, .. })] if limits.soft == far + 2),
        "{sent:?}"
    );
}

#[test]
fn whoever_gets_a_pair_can_take_the_packet_that_it_asked_for() {
    let now = Instant::now();
    let mut ledger = two(now);
    report(&mut ledger, ONE, 3, 2, &[mark(1, 9, 0)], now);
    ledger.gone(ONE, Run(1), Parting::Closed, now);
    ledger.claim(TWO, claim(700), now);
    let (edge, grant) = granted(&orders(&mut ledger).0);
    assert_eq!((edge, grant.limits.soft), (TWO, 702));
    assert!(grant.floor < 100, "{grant:?}");
}

#[test]
fn who_sends_now_and_then_loses_one_packet() {
    let now = Instant::now();
    let mut ledger = two(now);
    let mut soft = 0;
    for top in 1..=20 {
        let number = 2 + top;
        let at = now + ms(20 * top);
        report(&mut ledger, ONE, number, number - 1, &[mark(1, top, 0)], at);
        let (sent, _) = orders(&mut ledger);
        let [(ONE, ToEdge::Acknowledge { limits, .. })] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert!(limits[0].1.soft > top, "the next packet can come");
        soft = limits[0].1.soft;
    }
    assert_eq!(soft, 21);
    ledger.gone(ONE, Run(1), Parting::Closed, now + ms(405));
    ledger.claim(TWO, claim(21), now + ms(410));
    assert_eq!(granted(&orders(&mut ledger).0).1.floor, 21);
}
