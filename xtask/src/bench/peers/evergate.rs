//! evergate itself: a client with a TUN device, and one gateway.

use super::{CLIENT, GATEWAY, LAN, SOON, Sealed, Up};
use crate::lab::topology::{CLIENT_INNER, CLIENT_OUTSIDE};
use crate::lab::{Lab, Setup};
use anyhow::Result;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// With XDP programs and AF_XDP, or with sockets.
pub(super) fn up(lab: &mut Lab, without_xdp: bool) -> Result<Up> {
    lab.configure(&Setup {
        cluster: vec![1],
        without_xdp,
        // A machine that is loaded to its limit keeps its client and its gateway waiting: this is
        // about packets, not about failover.
        general: "Heartbeat = DEFERRED\nHeartbeatDeferTime = 2s\nHeartbeatResponseTime = 2s\n"
            .into(),
        ..Setup::default()
    })?;
    lab.start(GATEWAY)?;
    lab.start(CLIENT)?;
    // Traffic makes the client begin its session.
    lab.ping_until(CLIENT, Up::default().to, SOON)?;
    lab.wait_client("gw1 is active", SOON, |s| s.active() == Some(1))?;
    Ok(Up {
        from: CLIENT_INNER,
        client: vec![lab.pid(CLIENT)?],
        gateway: vec![lab.pid(GATEWAY)?],
        ..Up::default()
    })
}

/// Where packets of the first hand-written SA come from, inside; those of others come from the addresses that
/// follow.
const INNER: &str = "10.77.0.1";
/// The first of these SAs: places from 0 on, as the key exchange draws them.
const SPI: u32 = 0x7e50_0000;

/// A gateway alone, with so many SAs written by hand: AES-256-GCM, extended sequence numbers, as a session has.
pub(super) fn gateway(lab: &mut Lab, tunnels: u16) -> Result<Up> {
    let (local, target) = ("192.0.2.1", Up::default().to);
    lab.configure(&Setup::default())?;
    lab.start(GATEWAY)?;
    // Each asks for the other's link address.
    lab.ping_until(CLIENT, local, SOON)?;
    lab.ping_until(GATEWAY, target, SOON)?;
    let secrets: Vec<String> = (0..tunnels)
        .map(|_| {
            rand::random::<[u8; 36]>()
                .map(|byte| format!("{byte:02x}"))
                .concat()
        })
        .collect();
    let (mut words, first) = (String::new(), INNER.parse::<Ipv4Addr>()?.to_bits());
    for (number, secret) in (0..).zip(&secrets) {
        let (spi, inner) = (SPI + number, Ipv4Addr::from_bits(first + number));
        writeln!(
            words,
            "in spi {spi:#x} key 0x{secret} sel {inner} {LAN} local {local} remote {CLIENT_OUTSIDE}\n"
        )?;
    }
    lab.evergate_told(GATEWAY, &["sa", "add", "-"], &words)?;
    Ok(Up {
        from: INNER,
        tunnels,
        gateway: vec![lab.pid(GATEWAY)?],
        sealed: Sealed::Esp {
            spi: SPI,
            secrets,
            from: CLIENT_OUTSIDE,
            to: local,
        },
        ..Up::default()
    })
}
