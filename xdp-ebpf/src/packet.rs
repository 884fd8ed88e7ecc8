//! The frame of an XDP context as the parser's cursor.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use evergate_common::packet::{Bytes, BytesMut, MAX_HEADERS};

/// Nothing behind this offset is ever read or written: the last header, and the first message of IKE
/// behind it. The verifier wants a bound on variable offsets.
const MAX_OFFSET: usize = MAX_HEADERS + 1536;

/// The frame between `data` and `data_end`.
pub struct Packet {
    data: usize,
    end: usize,
    /// That many bytes are known to lie in the frame.
    proven: usize,
}

impl Packet {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Packet {
            data: ctx.data(),
            end: ctx.data_end(),
            proven: 0,
        }
    }

    /// The frame, if it has at least `N` bytes: what is within them is read and written with no
    /// further check.
    #[inline(always)]
    pub fn with<const N: usize>(ctx: &XdpContext) -> Option<Self> {
        let packet = Packet::new(ctx);
        packet.at::<N>(0)?;
        Some(Packet {
            proven: N,
            ..packet
        })
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<usize> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.data + offset;
        if offset + N <= self.proven {
            return Some(start);
        }
        let mut behind = start;
        // SAFETY: an addition. Written out so that the compiler can not turn the comparison below
        // into one of `start`, from which the verifier would learn nothing for N = 1.
        unsafe {
            asm!(
                "{behind} += {n}",
                behind = inout(reg) behind,
                n = const N,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        if behind > self.end { None } else { Some(start) }
    }
}

// Headers lie at any offset. The kernel lets packets be read by whole words all the same, but the
// compiler would go byte by byte; it can not be told otherwise without doing the same to the
// stack, where the verifier forbids it. So the loads and stores of packet memory are written out.
macro_rules! access {
    ($load:ident $store:ident $type:ty, $bpf:literal) => {
        /// # Safety
        /// The whole word at `address` lies in the frame.
        #[inline(always)]
        unsafe fn $load(address: usize) -> $type {
            let value: u64;
            // SAFETY: the caller has checked the bounds; the verifier proves them again.
            unsafe {
                asm!(
                    concat!("{value} = *(", $bpf, " *)({address} + 0)"),
                    address = in(reg) address,
                    value = lateout(reg) value,
                    options(nostack, readonly, preserves_flags),
                );
            }
            value as $type
        }

        /// # Safety
        /// The whole word at `address` lies in the frame.
        #[inline(always)]
        unsafe fn $store(address: usize, value: $type) {
            // SAFETY: as for the load; no Rust reference points into the frame.
            unsafe {
                asm!(
                    concat!("*(", $bpf, " *)({address} + 0) = {value}"),
                    address = in(reg) address,
                    value = in(reg) u64::from(value),
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

access!(load_1 store_1 u8, "u8");
access!(load_2 store_2 u16, "u16");
access!(load_4 store_4 u32, "u32");
access!(load_8 store_8 u64, "u64");

/// Six bytes as the two words that they are loaded by.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Six(u32, u16);

/// Bytes of a word, or words of bytes, in memory order; `None` if the sizes differ, which the
/// compiler knows.
#[inline(always)]
fn pun<A: Word, B: Word>(from: A) -> Option<B> {
    if size_of::<A>() != size_of::<B>() {
        return None;
    }
    // SAFETY: the sizes are equal, and of a `Word` every bit pattern is a value.
    Some(unsafe { (&raw const from).cast::<B>().read_unaligned() })
}

/// Plain data.
///
/// # Safety
/// Every bit pattern is a value, and there is no padding.
unsafe trait Word: Copy {}
// SAFETY: integers and arrays of them.
unsafe impl<const N: usize> Word for [u8; N] {}
// SAFETY: as above.
unsafe impl Word for [u64; 2] {}
// SAFETY: as above.
unsafe impl Word for u8 {}
// SAFETY: as above.
unsafe impl Word for u16 {}
// SAFETY: as above.
unsafe impl Word for u32 {}
// SAFETY: as above.
unsafe impl Word for u64 {}
// SAFETY: packed, so without padding.
unsafe impl Word for Six {}

impl Bytes for Packet {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.at::<N>(offset)?;
        // SAFETY: `at` has checked that N bytes lie in the frame from here on.
        unsafe {
            match N {
                1 => pun([load_1(at)]),
                2 => pun(load_2(at)),
                4 => pun(load_4(at)),
                6 => pun(Six(load_4(at), load_2(at + 4))),
                8 => pun(load_8(at)),
                16 => pun([load_8(at), load_8(at + 8)]),
                _ => None,
            }
        }
    }

    #[inline(always)]
    fn read_far<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let mut bounded = offset;
        // SAFETY: an operation on a register that changes nothing, since the offset is smaller; it
        // shows the verifier what the compiler has made invisible.
        unsafe {
            asm!(
                "{bounded} &= {mask}",
                bounded = inout(reg) bounded,
                mask = const MAX_OFFSET.next_power_of_two() - 1,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        self.read(bounded)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.data
    }
}

impl BytesMut for Packet {
    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let at = self.at::<N>(offset)?;
        // SAFETY: as in `read`; XDP frames are writable.
        unsafe {
            match N {
                1 => store_1(at, pun(bytes)?),
                2 => store_2(at, pun(bytes)?),
                4 => store_4(at, pun(bytes)?),
                6 => {
                    let Six(first, second) = pun(bytes)?;
                    store_4(at, first);
                    store_2(at + 4, second);
                }
                8 => store_8(at, pun(bytes)?),
                16 => {
                    let [first, second] = pun(bytes)?;
                    store_8(at, first);
                    store_8(at + 8, second);
                }
                _ => return None,
            }
        }
        Some(())
    }
}
