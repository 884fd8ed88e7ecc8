//! What the kernel must have, each missing thing told in one sentence.

use crate::rootless;
use anyhow::{Result, bail};
use socket2::{Domain, Socket, Type};
use std::path::Path;

/// `AF_XDP` of `linux/socket.h`.
const AF_XDP: i32 = 44;

/// An error that names the first thing that is missing.
pub(super) fn check() -> Result<()> {
    if !Path::new("/proc/self/ns/net").exists() {
        bail!("this kernel has no network namespaces (CONFIG_NET_NS)");
    }
    if !Path::new("/dev/net/tun").exists() {
        bail!("this kernel has no TUN devices: /dev/net/tun is missing (CONFIG_TUN)");
    }
    if !rootless::without_xdp()
        && let Err(error) = Socket::new(Domain::from(AF_XDP), Type::RAW, None)
    {
        bail!("this kernel gives no AF_XDP sockets (CONFIG_XDP_SOCKETS): {error}");
    }
    Ok(())
}
