//! Socket options for which no crate in use has a name.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an option. `value` must be of the type that the option has (`setsockopt(2)` checks its size).
pub(super) fn set<T: Copy>(socket: impl AsFd, level: i32, option: i32, value: T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<T>() as u32,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the kernel says of an AF_XDP socket (`XDP_STATISTICS`).
pub(super) fn xdp_statistics(socket: impl AsFd) -> io::Result<libc::xdp_statistics> {
    let mut value = std::mem::MaybeUninit::<libc::xdp_statistics>::zeroed();
    let mut length = size_of::<libc::xdp_statistics>() as u32;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has as many and outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_STATISTICS,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        // SAFETY: all of it is integers, and was zero before the kernel wrote to it: an old one writes less.
        0 => Ok(unsafe { value.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}
