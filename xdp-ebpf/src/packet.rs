//! The frame of an XDP context as the parser's cursor.

use aya_ebpf::programs::XdpContext;
use evergate_common::packet::{Bytes, BytesMut, MAX_HEADERS};

/// Nothing behind this offset is ever read or written: the last header and a keyed heartbeat. The
/// verifier wants a bound on variable offsets.
const MAX_OFFSET: usize = MAX_HEADERS + 128;

/// The frame between `data` and `data_end`.
pub struct Packet {
    data: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Packet { data: ctx.data(), end: ctx.data_end() }
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.data + offset;
        if start + N > self.end {
            return None;
        }
        Some(start as *mut [u8; N])
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: `at` has checked that the N bytes lie in the frame; a byte array needs no
        // alignment. The verifier proves the same again.
        self.at::<N>(offset).map(|bytes| unsafe { bytes.read() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.data
    }
}

impl BytesMut for Packet {
    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let slot = self.at::<N>(offset)?;
        // SAFETY: as in `read`; XDP frames are writable, and no reference into them is kept.
        unsafe { slot.write(bytes) };
        Some(())
    }
}
