//! The yardstick of a storm: an XDP program that drops its frames and nothing else, in the place of the
//! gateway's own, which gets all others by a tail call.
//!
//! The kernel replaces the program of a link in one step, and back: so the same wire, the same frames
//! and the same node are measured with the storm and without, in turn.

use super::frames::SENDER;
use crate::lab::{Lab, Place};
use anyhow::{Context, Result};
use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

// linux/bpf.h
const MAP_CREATE: i64 = 0;
const MAP_UPDATE_ELEM: i64 = 2;
const PROG_LOAD: i64 = 5;
const PROG_GET_FD_BY_ID: i64 = 13;
const OBJ_GET_INFO_BY_FD: i64 = 15;
const LINK_UPDATE: i64 = 29;
const LINK_GET_FD_BY_ID: i64 = 30;
const LINK_GET_NEXT_ID: i64 = 31;
const PROG_TYPE_XDP: u32 = 6;
const MAP_TYPE_PROG_ARRAY: u32 = 3;
const LINK_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;

/// The dropper in place of a gateway's program on its outside interface.
pub(super) struct Dropper {
    link: OwnedFd,
    own: OwnedFd,
    dropper: OwnedFd,
    /// Holds the gateway's program for the tail call.
    _programs: OwnedFd,
}

impl Dropper {
    /// Makes it ready; nothing is replaced yet.
    pub(super) fn new(lab: &Lab, gateway: Place) -> Result<Self> {
        let id = program(lab, gateway)?;
        let link = link_of(id).with_context(|| format!("the link of {gateway}'s program"))?;
        let own = by_id(PROG_GET_FD_BY_ID, id).context("the gateway's program")?;
        let programs = prog_array(&own).context("a map with the gateway's program")?;
        let dropper = load(&programs).context("loading the program that drops")?;
        Ok(Self {
            link,
            own,
            dropper,
            _programs: programs,
        })
    }

    /// From now on the frames of storms are dropped, or reach the gateway's program.
    pub(super) fn set(&self, dropping: bool) -> Result<()> {
        let program = match dropping {
            true => &self.dropper,
            false => &self.own,
        };
        let words = [
            self.link.as_raw_fd() as u32,
            program.as_raw_fd() as u32,
            0,
            0,
        ];
        bpf(LINK_UPDATE, &mut Attr::of(&words)).context("replacing an XDP program")?;
        Ok(())
    }
}

impl Drop for Dropper {
    fn drop(&mut self) {
        // The gateway may be gone, and its link with it.
        let _ = self.set(false);
    }
}

/// The number of the program that a gateway has outside.
fn program(lab: &Lab, gateway: Place) -> Result<u32> {
    let text = lab.exec(gateway, &["ip", "-j", "link", "show", "wan0"])?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    links[0]["xdp"]["prog"]["id"]
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .with_context(|| format!("{gateway} has no XDP program outside"))
}

/// The attribute of the system call: zero where nothing is said.
#[repr(C, align(8))]
struct Attr([u32; 32]);

impl Attr {
    fn of(words: &[u32]) -> Self {
        let mut attr = Self([0; 32]);
        attr.0[..words.len()].copy_from_slice(words);
        attr
    }

    /// A pointer at a place of two words.
    fn pointer<T>(mut self, at: usize, to: *const T) -> Self {
        let address = to as u64;
        self.0[at] = address as u32;
        self.0[at + 1] = (address >> 32) as u32;
        self
    }
}

/// The system call; every pointer in `attr` must be valid for what the command does with it.
fn bpf(command: i64, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: `attr` is of the length given, and zero beyond what the command knows; the callers of
    // this file point only to memory of theirs that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attr.0.as_mut_ptr(),
            size_of::<Attr>(),
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A command that makes a descriptor.
fn open(command: i64, attr: &mut Attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: a descriptor that was just made and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn by_id(command: i64, id: u32) -> io::Result<OwnedFd> {
    open(command, &mut Attr::of(&[id]))
}

/// The link by which a program is attached, of all that the machine has.
fn link_of(program: u32) -> Result<OwnedFd> {
    let mut id = 0;
    loop {
        let mut attr = Attr::of(&[id]);
        bpf(LINK_GET_NEXT_ID, &mut attr).context("no link has it")?;
        id = attr.0[1];
        // Gone since is as good as another one.
        let Ok(link) = by_id(LINK_GET_FD_BY_ID, id) else {
            continue;
        };
        let mut info = [0u32; 32];
        let words = [link.as_raw_fd() as u32, size_of_val(&info) as u32];
        bpf(
            OBJ_GET_INFO_BY_FD,
            &mut Attr::of(&words).pointer(2, info.as_mut_ptr()),
        )?;
        if info[0] == LINK_TYPE_XDP && info[2] == program {
            return Ok(link);
        }
    }
}

/// A map from which a program is called; it has this one.
fn prog_array(program: &OwnedFd) -> io::Result<OwnedFd> {
    let map = open(MAP_CREATE, &mut Attr::of(&[MAP_TYPE_PROG_ARRAY, 4, 4, 1]))?;
    let (key, value) = (0u32, program.as_raw_fd() as u32);
    let attr = Attr::of(&[map.as_raw_fd() as u32]);
    bpf(
        MAP_UPDATE_ELEM,
        &mut attr.pointer(2, &raw const key).pointer(4, &raw const value),
    )?;
    Ok(map)
}

fn load(programs: &OwnedFd) -> io::Result<OwnedFd> {
    let code = code(programs.as_raw_fd());
    let license = c"Dual MIT/GPL";
    let mut attr = Attr::of(&[PROG_TYPE_XDP, code.len() as u32])
        .pointer(2, code.as_ptr())
        .pointer(4, license.as_ptr());
    // expected_attach_type, as the gateway's own has it: else the kernel refuses the tail call.
    attr.0[17] = ATTACH_XDP;
    open(PROG_LOAD, &mut attr)
}

/// One instruction: operation, target and source register, offset, constant.
const fn op(code: u8, target: u8, source: u8, offset: i16, constant: i32) -> u64 {
    let registers = (source << 4 | target) as u64;
    code as u64 | registers << 8 | (offset as u16 as u64) << 16 | (constant as u32 as u64) << 32
}

/// `programs`: descriptor of the map for the tail call.
fn code(programs: i32) -> [u64; 19] {
    let [a, b, c, d, e, f] = SENDER;
    let (head, tail) = (u16::from_le_bytes([a, b]), i32::from_le_bytes([c, d, e, f]));
    [
        op(0xbf, 6, 1, 0, 0),           // r6 = context
        op(0x61, 2, 1, 0, 0),           // r2 = data
        op(0x61, 3, 1, 4, 0),           // r3 = data_end
        op(0xbf, 4, 2, 0, 0),           // r4 = r2
        op(0x07, 4, 0, 0, 14),          // r4 += 14
        op(0x2d, 4, 3, 6, 0),           // if r4 > r3: to the gateway
        op(0x69, 5, 2, 6, 0),           // r5 = first two bytes of the sender's MAC
        op(0x55, 5, 0, 4, head.into()), // if not a storm's: to the gateway
        op(0x61, 5, 2, 8, 0),           // r5 = the other four
        op(0x55, 5, 0, 2, tail),        // if not a storm's: to the gateway
        op(0xb7, 0, 0, 0, 1),           // r0 = XDP_DROP
        op(0x95, 0, 0, 0, 0),           // exit
        op(0xbf, 1, 6, 0, 0),           // to the gateway: r1 = context
        op(0x18, 2, 1, 0, programs),    // r2 = map
        0,
        op(0xb7, 3, 0, 0, 0),  // r3 = 0
        op(0x85, 0, 0, 0, 12), // tail call
        op(0xb7, 0, 0, 0, 2),  // it failed: r0 = XDP_PASS
        op(0x95, 0, 0, 0, 0),  // exit
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_with_the_mac_are_not_extended_by_a_sign() {
        assert!(SENDER[5] < 0x80);
        // if r5 != constant: the kernel extends the constant to 64 bits.
        assert_eq!(code(3)[9] >> 32, 0x6600_0f00);
        assert_eq!(
            op(0x85, 0, 0, 0, 12).to_le_bytes(),
            [0x85, 0, 0, 0, 12, 0, 0, 0]
        );
    }
}
