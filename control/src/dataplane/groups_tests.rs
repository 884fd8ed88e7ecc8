use std::time::Duration;

use super::super::command::Watch;
use super::*;
use crate::liveness::Timing;
use crate::policy::{ClusterId, HeartbeatMode};

fn spec(id: u32, prefixes: &[&str]) -> GroupSpec {
    GroupSpec {
        id: GroupId::Peer(id),
        prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
        watch: None,
        on_demand: true,
    }
}

#[test]
fn the_longest_prefix_wins_and_changes_are_followed() {
    let now = Instant::now();
    let mut umem = Umem::new(4).unwrap();
    let mut groups = Groups::default();
    let wide = groups.set(spec(1, &["10.0.0.0/8", "2001:db8::/32"]), now);
    let narrow = groups.set(spec(2, &["10.1.2.3/32"]), now);
    let at = |groups: &Groups, s: &str| groups.lookup(s.parse().unwrap());
    assert_eq!(at(&groups, "10.1.2.3"), Some(narrow));
    assert_eq!(at(&groups, "10.1.2.4"), Some(wide));
    assert_eq!(at(&groups, "2001:db8::1"), Some(wide));
    assert_eq!(at(&groups, "192.0.2.1"), None);

    groups.set(spec(2, &["10.1.2.4/32"]), now);
    assert_eq!(at(&groups, "10.1.2.3"), Some(wide));
    assert_eq!(at(&groups, "10.1.2.4"), Some(narrow));

    let frame = umem.take().unwrap();
    groups.hold(narrow, frame).unwrap();
    groups.remove(GroupId::Peer(2), &mut umem);
    assert_eq!(at(&groups, "10.1.2.4"), Some(wide));
    assert_eq!(
        umem.free_chunks(),
        4,
        "a removed group gives back what it held"
    );
}

// A reload brings a cluster while the link is down: its gateways are not judged before it is up.
#[test]
fn a_group_that_comes_while_the_link_is_down_waits_for_it() {
    let now = Instant::now();
    let gateway = IpAddr::from([192, 0, 2, 1]);
    let watched = |cluster| GroupSpec {
        id: GroupId::Cluster(ClusterId(cluster)),
        watch: Some(Box::new(Watch {
            order: vec![gateway],
            timing: Timing {
                mode: HeartbeatMode::Instant,
                response_time: Duration::from_millis(5),
                defer_time: Duration::from_millis(5),
            },
            form: HeartbeatForm::Keyed,
        })),
        ..spec(cluster, &[])
    };
    let mut groups = Groups::default();
    let mut all = vec![groups.set(watched(1), now)];
    groups.on_link(false, now);
    all.push(groups.set(watched(2), now));
    for up in [false, true] {
        for index in &all {
            let monitor = groups.get_mut(*index).unwrap().monitor_mut().unwrap();
            monitor.on_keyed(gateway, now);
            assert_eq!(monitor.next_deadline().is_some(), up);
        }
        groups.on_link(true, now);
    }
}

#[test]
fn a_group_holds_a_bounded_number_of_packets_in_order() {
    let mut umem = Umem::new(HELD as u32 + 1).unwrap();
    let mut groups = Groups::default();
    let index = groups.set(spec(1, &[]), Instant::now());
    for i in 0..HELD {
        let mut frame = umem.take().unwrap();
        frame.set_range(0..i);
        groups.hold(index, frame).unwrap();
    }
    let over = groups.hold(index, umem.take().unwrap()).unwrap_err();
    umem.free(over);
    assert_eq!(groups.next_held(index).map(|f| f.len()), Some(0));
    assert_eq!(groups.next_held(index).map(|f| f.len()), Some(1));
}

#[test]
fn all_groups_together_hold_a_bounded_number() {
    let mut umem = Umem::new(HELD_ALL as u32 + 1).unwrap();
    let mut groups = Groups::default();
    let mut refused = None;
    for id in 0..=(HELD_ALL / HELD) as u32 {
        let index = groups.set(spec(id, &[]), Instant::now());
        for _ in 0..HELD {
            let Some(frame) = umem.take() else { break };
            refused = groups.hold(index, frame).err().or(refused);
        }
    }
    assert!(refused.is_some());
    let first = groups.index(GroupId::Peer(0)).unwrap();
    umem.free(groups.next_held(first).unwrap());
    let last = groups
        .index(GroupId::Peer((HELD_ALL / HELD) as u32))
        .unwrap();
    groups.hold(last, umem.take().unwrap()).unwrap();
}

#[test]
fn a_prefix_of_two_groups_goes_back_to_the_other() {
    let now = Instant::now();
    let mut umem = Umem::new(4).unwrap();
    let mut groups = Groups::default();
    let old = groups.set(spec(1, &["10.1.2.3/32"]), now);
    let new = groups.set(spec(2, &["10.1.2.3/32"]), now);
    let at = |groups: &Groups| groups.lookup("10.1.2.3".parse().unwrap());
    assert_eq!(at(&groups), Some(new));
    groups.remove(GroupId::Peer(2), &mut umem);
    assert_eq!(at(&groups), Some(old));
    groups.remove(GroupId::Peer(1), &mut umem);
    assert_eq!(at(&groups), None);
}

#[test]
fn a_group_of_a_peer_is_small() {
    assert!(
        size_of::<Option<Group>>() <= 88,
        "{}",
        size_of::<Option<Group>>()
    );
}
