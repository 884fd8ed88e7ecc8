//! What the kernel tells about a network interface.
//!
//! Asked by ioctl rather than in `/sys`: a process that has changed its network namespace may
//! still see the old one's `/sys`.

use std::{
    ffi::{CString, c_char},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketType, socket};

use super::LoadError;

const ETHTOOL_GCHANNELS: u32 = 0x3C;

/// `struct ethtool_channels` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// The kernel's number of an interface.
pub(super) fn index(interface: &str) -> Result<u32, LoadError> {
    let missing = || LoadError::NoInterface {
        interface: interface.to_owned(),
    };
    let name = CString::new(interface).map_err(|_| missing())?;
    // SAFETY: `name` is a string that ends with a zero and lives across the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(missing()),
        index => Ok(index),
    }
}

/// How many receive queues of an interface are *active*: one AF_XDP socket is to be bound to each.
///
/// The drivers' maximum is of no use: a socket on an inactive queue is refused. Where a driver
/// knows no channels it has one queue.
///
/// # Errors
/// [`LoadError::NoInterface`], or [`LoadError::Refused`] with the kernel's word.
pub fn queues(interface: &str) -> Result<u32, LoadError> {
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_data = (&raw mut channels).cast::<c_char>();
    match ioctl(interface, libc::SIOCETHTOOL, &mut request) {
        Ok(()) => Ok((channels.rx + channels.combined).max(1)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        Err(error) => Err(refused(interface, "asking for its receive queues", &error)),
    }
}

/// The Ethernet address of an interface; `None` if it has another kind of address or none.
///
/// # Errors
/// [`LoadError::NoInterface`], or [`LoadError::Refused`] with the kernel's word.
pub fn link_address(interface: &str) -> Result<Option<[u8; 6]>, LoadError> {
    let mut request = request(interface)?;
    ioctl(interface, libc::SIOCGIFHWADDR, &mut request)
        .map_err(|error| refused(interface, "asking for its link address", &error))?;
    // SAFETY: SIOCGIFHWADDR has filled this member of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER {
        return Ok(None);
    }
    Ok(address
        .sa_data
        .first_chunk::<6>()
        .map(|bytes| bytes.map(|byte| byte as u8)))
}

fn refused(interface: &str, what: &str, error: &io::Error) -> LoadError {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => LoadError::NoInterface {
            interface: interface.to_owned(),
        },
        _ => LoadError::Refused {
            what: format!("interface {interface}: {what}"),
            cause: error.to_string(),
        },
    }
}

fn request(interface: &str) -> Result<libc::ifreq, LoadError> {
    // SAFETY: `ifreq` is plain data, for which all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    if interface.len() > room || interface.is_empty() || interface.contains('\0') {
        return Err(LoadError::NoInterface {
            interface: interface.to_owned(),
        });
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = byte as c_char;
    }
    Ok(request)
}

fn ioctl(interface: &str, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    index(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let socket: OwnedFd = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: the descriptor is open, and `request` is an ifreq whose data pointer, if the
    // request uses one, points to a live value of the right type.
    match unsafe { libc::ioctl(socket.as_raw_fd(), number, request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
