//! What `inside` knows: the tunnels' inner prefixes.

use core::borrow::Borrow;

use aya_ebpf::maps::lpm_trie::Key;
use evergate_common::{maps::Local, verdict::InsideWorld};

use crate::maps::{INSIDE_LOCAL, INSIDE_V4, INSIDE_V6};

pub struct World;

/// Puts the data of a packed key where the stack aligns it.
#[repr(C, align(8))]
struct AlignedKey<K> {
    padding: u32,
    key: Key<K>,
}

impl<K> Borrow<Key<K>> for AlignedKey<K> {
    #[inline(always)]
    fn borrow(&self) -> &Key<K> {
        &self.key
    }
}

#[inline(always)]
fn host<K>(bits: u32, data: K) -> AlignedKey<K> {
    AlignedKey {
        padding: 0,
        key: Key::new(bits, data),
    }
}

impl InsideWorld for World {
    #[inline(always)]
    fn tunnel_v4(&self, destination: &[u8; 4]) -> bool {
        INSIDE_V4.get(host(32, *destination)).is_some()
    }

    #[inline(always)]
    fn tunnel_v6(&self, destination: &[u8; 16]) -> bool {
        INSIDE_V6.get(host(128, *destination)).is_some()
    }

    #[inline(always)]
    fn local(&self) -> Option<&Local> {
        INSIDE_LOCAL.get(0)
    }
}
