//! NATs before clients: which sessions go in UDP, and where. They give every client an address of its
//! own, and leave ports alone.

use std::net::SocketAddr;

use evergate::ike::{NAT_T_PORT, Nat};
use evergate::sadb::{Path, UdpEncap};

pub(super) fn encapsulation(nat: Nat, local: SocketAddr, remote: SocketAddr) -> Option<UdpEncap> {
    (nat.encapsulates() && local.port() == NAT_T_PORT).then(|| UdpEncap {
        local_port: local.port(),
        remote_port: remote.port(),
    })
}

pub(super) fn path(nat: Nat, local: SocketAddr, remote: SocketAddr) -> Path {
    Path {
        local: local.ip(),
        remote: remote.ip(),
        encap: encapsulation(nat, local, remote),
        roams: nat.follows(),
    }
}
