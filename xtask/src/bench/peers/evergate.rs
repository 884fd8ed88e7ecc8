//! evergate itself: a client with a TUN device, and one gateway.

use super::{CLIENT, GATEWAY, LAN, SOON, Sealed, Up};
use crate::lab::topology::{CLIENT_INNER, CLIENT_OUTSIDE};
use crate::lab::{Lab, Setup};
use anyhow::Result;

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

/// Where packets of the hand-written SA come from, inside.
const INNER: &str = "10.0.0.140";
const SPI: &str = "0x7e570001";

/// A gateway alone, with an SA written by hand: AES-256-GCM, extended sequence numbers, as a session has.
pub(super) fn gateway(lab: &mut Lab) -> Result<Up> {
    let (local, target) = ("192.0.2.1", Up::default().to);
    lab.configure(&Setup::default())?;
    lab.start(GATEWAY)?;
    // Each asks for the other's link address.
    lab.ping_until(CLIENT, local, SOON)?;
    lab.ping_until(GATEWAY, target, SOON)?;
    let secret = rand::random::<[u8; 36]>().map(|byte| format!("{byte:02x}"));
    let secret = secret.concat();
    let key = format!("0x{secret}");
    let words = [
        &["sa", "add", "in", "spi", SPI, "key", &key][..],
        &["sel", INNER, LAN, "local", local, "remote", CLIENT_OUTSIDE],
    ];
    lab.evergate(GATEWAY, &words.concat())?;
    Ok(Up {
        from: INNER,
        gateway: vec![lab.pid(GATEWAY)?],
        sealed: Sealed::Esp {
            spi: SPI,
            secret,
            from: CLIENT_OUTSIDE,
            to: local,
        },
        ..Up::default()
    })
}
