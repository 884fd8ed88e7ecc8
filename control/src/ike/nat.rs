//! NAT traversal (RFC 7296 section 2.23): what hashes of addresses tell, the change to port 4500,
//! keep-alives, and following a peer that its NAT has given another address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use super::crypto::sha1;
use super::event::{Event, Nat};
use super::payload::Payload;
use super::payload::notify::{Notify, kind};
use super::sa::Sa;
use super::settings::{Encapsulation, Settings};
use super::state::{Core, Phase};
use super::task::{Cx, notifies};

/// Port of IKE.
pub const IKE_PORT: u16 = 500;
/// Port of IKE and of ESP in UDP behind address translation.
pub const NAT_T_PORT: u16 = 4500;
/// What tells IKE from ESP on port 4500 (RFC 3948 section 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// All of a keep-alive (RFC 3948 section 2.3).
pub const KEEP_ALIVE: [u8; 1] = [0xFF];

/// The hashes of our view of both addresses.
pub(crate) fn detection(core: &Core, settings: &Settings) -> [Payload; 2] {
    detection_between(core, settings, core.local, core.remote)
}

/// The hashes of these addresses of ours and the peer's.
pub(crate) fn detection_between(
    core: &Core,
    settings: &Settings,
    local: SocketAddr,
    remote: SocketAddr,
) -> [Payload; 2] {
    // With the hash of an address that nobody has, the peer finds a NAT before us, and both sides
    // do as if there were one.
    let source = match settings.encapsulation {
        Encapsulation::Auto => local,
        Encapsulation::Always => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    };
    [
        (kind::NAT_DETECTION_SOURCE_IP, source),
        (kind::NAT_DETECTION_DESTINATION_IP, remote),
    ]
    .map(|(kind, address)| {
        let hash = hash([core.spi_i, core.spi_r], address);
        Payload::Notify(Notify::new(kind, hash))
    })
}

/// SHA1(SPIi | SPIr | address | port), with the SPIs as in the header of the message that carries
/// it.
fn hash(spis: [u64; 2], address: SocketAddr) -> [u8; 20] {
    let [spi_i, spi_r] = spis.map(u64::to_be_bytes);
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => sha1(&[&spi_i, &spi_r, &ip.octets(), &port]),
        IpAddr::V6(ip) => sha1(&[&spi_i, &spi_r, &ip.octets(), &port]),
    }
}

/// Compares the hashes of a received message with the addresses that it came from and to.
fn detect(payloads: &[Payload], spis: [u64; 2], local: SocketAddr, remote: SocketAddr) -> Nat {
    // None: no hash of that kind came. A host with several addresses may send several for its
    // source.
    let changed = |kind, address| {
        let hash = hash(spis, address);
        let equal = notifies(payloads)
            .filter(|n| n.kind == kind)
            .map(|n| n.data == hash);
        equal.reduce(|a, b| a || b).map(|any| !any)
    };
    let theirs = changed(kind::NAT_DETECTION_SOURCE_IP, remote);
    let ours = changed(kind::NAT_DETECTION_DESTINATION_IP, local);
    Nat {
        detected: theirs.is_some() || ours.is_some(),
        local: ours == Some(true),
        remote: theirs == Some(true),
        forced: false,
    }
}

impl Core {
    /// Takes up what the peer's first message tells about NATs. The initiator goes over to port 4500
    /// if there is one.
    pub(crate) fn learn_nat(&mut self, payloads: &[Payload], settings: &Settings) {
        // In a request the responder's SPI is not known yet, and hashed as zero.
        let spi_r = if self.initiator { self.spi_r } else { 0 };
        self.nat = detect(payloads, [self.spi_i, spi_r], self.local, self.remote);
        self.nat.forced = self.nat.detected && settings.encapsulation == Encapsulation::Always;
        // With MOBIKE the next path may have a NAT, and the ports stay (RFC 4555 section 3.3).
        let mobike = settings.mobike && self.nat.detected;
        if self.initiator && (self.nat.encapsulates() || mobike) {
            for address in [&mut self.local, &mut self.remote] {
                if address.port() == IKE_PORT {
                    address.set_port(NAT_T_PORT);
                }
            }
        }
    }

    /// Takes up what the hashes of a later message between these addresses tell.
    pub(crate) fn relearn_nat(
        &mut self,
        payloads: &[Payload],
        settings: &Settings,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        let nat = detect(payloads, [self.spi_i, self.spi_r], local, remote);
        if nat.detected {
            let forced = settings.encapsulation == Encapsulation::Always;
            self.nat = Nat { forced, ..nat };
        }
    }

    /// A message that is authentic and new came from `remote`. If that is elsewhere than before, a
    /// NAT has changed its mapping, and everything goes there from now on. Never done from behind a
    /// NAT: a single packet with another source could cut us off. Nor with MOBIKE, where the peer says
    /// so when it has moved (RFC 4555 section 3.8); its ESP is still followed.
    pub(crate) fn follow(&mut self, remote: SocketAddr, cx: &mut Cx<'_>) {
        if self.mobike {
            return;
        }
        if self.phase != Phase::HalfOpen && self.move_to(remote) && self.is_announced() {
            let id = self.id;
            cx.events.push(Event::Moved { id, remote });
        }
    }

    /// Whether the peer was elsewhere, and may be followed.
    pub(crate) fn move_to(&mut self, remote: SocketAddr) -> bool {
        let moves = self.nat.follows()
            && remote != self.remote
            && remote.is_ipv4() == self.remote.is_ipv4();
        if moves {
            self.remote = remote;
        }
        moves
    }
}

impl Sa {
    /// When a keep-alive is due.
    pub(crate) fn next_keep_alive(&self) -> Option<(Instant, &'static str)> {
        let at = self.keep_alive.filter(|_| self.core.is_announced())?;
        Some((at, "keep-alive"))
    }

    /// Sends a keep-alive if one is due.
    pub(crate) fn keep_mapping(&mut self, cx: &mut Cx<'_>) {
        if self.next_keep_alive().is_some_and(|(at, _)| at <= cx.now) {
            cx.stats.keep_alives += 1;
            self.transmit(KEEP_ALIVE.to_vec(), cx);
        }
    }

    /// Something went to the peer: behind a NAT, the time to the next keep-alive begins.
    pub(crate) fn spoke(&mut self, cx: &Cx<'_>) {
        let behind = self.core.nat.local;
        self.keep_alive = behind.then(|| cx.now + cx.settings.keep_alive);
    }
}
