//! The packet filter: packets of users that would be forwarded past the tunnel. Nothing of this is reached,
//! or even verified, where there is none.

use core::borrow::Borrow;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    maps::lpm_trie::Key,
    programs::XdpContext,
};
use evergate_common::{
    filter::{ClassEntry, DirectKey, FilterWorld, Filtered, Hit, hit_slot, is_service, judge},
    maps::{Address, Local, halves},
    reason::Counter,
};

use crate::{
    counters,
    maps::{CLASS_COUNTERS, CLASSES, DIRECT, OUTSIDE_COUNTERS, OUTSIDE_LOCAL, USERS},
    packet::Packet,
};

struct World;

/// Puts the key where the stack aligns it.
#[repr(C, align(8))]
struct AlignedKey(Key<DirectKey>);

impl Borrow<Key<DirectKey>> for AlignedKey {
    #[inline(always)]
    fn borrow(&self) -> &Key<DirectKey> {
        &self.0
    }
}

impl FilterWorld for World {
    #[inline(always)]
    fn user(&self, address: &Address) -> Option<u32> {
        // SAFETY: USERS does not preallocate, so an entry that is removed meanwhile stays as it is until the
        // program has ended.
        unsafe { USERS.get(halves(address)) }.copied()
    }

    #[inline(always)]
    fn class(&self, number: u32) -> Option<&ClassEntry> {
        CLASSES.get(number)
    }

    #[inline(always)]
    fn direct(&self, key: &DirectKey) -> bool {
        let bits = 8 * size_of::<DirectKey>() as u32;
        DIRECT.get(AlignedKey(Key::new(bits, *key))).is_some()
    }

    #[inline(always)]
    fn local(&self) -> Option<&Local> {
        OUTSIDE_LOCAL.get(0)
    }
}

/// `XDP_DROP`, and counted, or `XDP_PASS`: the rest of the program goes on. A function of its own, so that the
/// stack suffices, and the verifier goes through it once.
#[inline(never)]
pub fn way(ctx: &XdpContext) -> u32 {
    match judge(&Packet::new(ctx), &World) {
        Filtered::Aside => XDP_PASS,
        Filtered::Direct(class) => {
            count(class, Hit::Direct);
            XDP_PASS
        }
        Filtered::Refused(class, counter) => refuse(class, counter, Hit::Refused),
        Filtered::NoService(class) if service(ctx) != 0 => {
            refuse(class, Counter::FilterService, Hit::Service)
        }
        Filtered::NoService(_) => XDP_PASS,
    }
}

/// Not zero: it is of the encryption service. A function of its own, so that the compiler does not mix what
/// both read of the frame, which the verifier would not follow.
#[inline(never)]
fn service(ctx: &XdpContext) -> u32 {
    let ctx = XdpContext::new(core::hint::black_box(ctx.ctx));
    is_service(&Packet::new(&ctx)).into()
}

#[inline(always)]
fn refuse(class: u32, counter: Counter, hit: Hit) -> u32 {
    counters::count(&OUTSIDE_COUNTERS, counter);
    count(class, hit);
    XDP_DROP
}

#[inline(always)]
fn count(class: u32, hit: Hit) {
    if let Some(slot) = CLASS_COUNTERS.get_ptr_mut(hit_slot(class, hit)) {
        // SAFETY: a value of this CPU alone, and XDP programs of one CPU do not interrupt each other.
        unsafe { *slot += 1 };
    }
}
