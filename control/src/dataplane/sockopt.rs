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
