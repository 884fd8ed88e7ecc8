//! What `inside` knows: the tunnels' inner prefixes.

use aya_ebpf::maps::lpm_trie::Key;
use evergate_common::{maps::Local, verdict::InsideWorld};

use crate::maps::{INSIDE_LOCAL, INSIDE_V4, INSIDE_V6};

pub struct World;

impl InsideWorld for World {
    #[inline(always)]
    fn tunnel_v4(&self, destination: &[u8; 4]) -> bool {
        INSIDE_V4.get(Key::new(32, *destination)).is_some()
    }

    #[inline(always)]
    fn tunnel_v6(&self, destination: &[u8; 16]) -> bool {
        INSIDE_V6.get(Key::new(128, *destination)).is_some()
    }

    #[inline(always)]
    fn local(&self) -> Option<&Local> {
        INSIDE_LOCAL.get(0)
    }
}
