//! The ways of a packet of a shared session take no memory.

use std::alloc::System;
use std::slice;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use super::*;

/// Counts what all tests of this binary take, whatever their thread.
#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Other tests run meanwhile: of so many turns one at least has nothing of theirs.
const TURNS: u64 = 2000;

/// The least that a turn has taken.
fn least(mut turn: impl FnMut(u64) -> usize) -> usize {
    (1..=TURNS).map(&mut turn).min().unwrap()
}

/// One frame with its way, as the ports end it.
fn carry(edge: &mut Edge, frame: Frame, way: Way) -> bool {
    match way {
        Way::Park(spi, waits) => match edge.core.park(frame, spi, waits) {
            Ok(()) => true,
            Err((frame, _)) => {
                edge.umem.free(frame);
                false
            }
        },
        Way::Inside | Way::SlowOutside => {
            edge.umem.free(frame);
            true
        }
        way => panic!("{way:?}"),
    }
}

#[test]
fn packets_take_no_memory_where_they_go_or_wait() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    edge.take((0, 0), 1, (1, 1));
    // What only the first ones take: expanded keys, the window.
    edge.hear(&client.send());
    edge.send(1);
    let taken = least(|turn| {
        // Each time the first that waits is looked at, and claims.
        edge.now += CLAIM_AGAIN;
        let now = edge.now;
        edge.after_batch();
        let _ = edge.told();
        edge.bound(turn * 4, turn * 3);
        // Of four one waits for inbound numbers, of three one for outbound ones.
        let esp = client
            .send_many(4)
            .iter()
            .map(|p| edge.frame(p))
            .collect::<Vec<_>>();
        let inner = [(); 3].map(|()| edge.frame(&inner(TARGET, CLIENT, 1)));
        let memory = Region::new(MEMORY);
        let mut fine = true;
        for mut frame in esp {
            let way = edge.core.take_outside(&mut frame, &mut edge.umem, now);
            fine &= carry(&mut edge, frame, way);
        }
        for mut frame in inner {
            let way = edge.core.take_tun(&mut frame, &mut edge.umem, now);
            fine &= carry(&mut edge, frame, way);
        }
        let taken = memory.change().allocations;
        assert!(fine);
        assert_eq!(edge.core.leases.parking.len(), 2);
        taken
    });
    assert_eq!(taken, 0);
}

#[test]
fn strangers_take_no_memory() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    let mut packet = client.send();
    edge.told();
    let taken = least(|turn| {
        edge.now += Duration::from_millis(200);
        edge.after_batch();
        edge.told();
        let number = 0x4000_0000 + turn as u32;
        packet[34..38].copy_from_slice(&number.to_be_bytes());
        let mut frame = edge.frame(&packet);
        let (now, memory) = (edge.now, Region::new(MEMORY));
        let way = edge.core.take_outside(&mut frame, &mut edge.umem, now);
        let waits = carry(&mut edge, frame, way);
        let taken = memory.change().allocations;
        assert!(waits);
        taken
    });
    // The word to the node's core goes by a channel that has its own room, in blocks.
    assert_eq!(taken, 0);
}
