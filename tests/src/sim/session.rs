//! A pair of SAs as either end has it.

use std::net::IpAddr;
use std::sync::Arc;

use evergate::esp::{self, Backend, InboundSa, OutboundSa};
use evergate::ike::{Child, EspCipher, Exporter, SaId, TrafficSelector};
use evergate::sadb::{Change, Producer, SaSpec, Sadb, SessionId, SessionSpec};
use ipnet::IpNet;

use super::watch::Watch;

pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) sa: SaId,
    pub(super) spec: Arc<SessionSpec>,
    pub(super) heartbeat_key: [u8; 16],
    /// Heartbeats under way: counter and token.
    pub(super) asked: Vec<(u32, [u8; 8])>,
    /// A gateway has told the LAN of it.
    pub(super) announced: bool,
    outbound: OutboundSa,
    inbound: InboundSa,
}

/// All selectors here are hosts, or a network of 16 bits.
fn prefix(selector: &TrafficSelector) -> IpNet {
    match selector.start == selector.end {
        true => IpNet::from(selector.start),
        false => IpNet::new(selector.start, 16).expect("a prefix"),
    }
}

impl Session {
    /// Enters it into the SA database.
    pub(super) fn new(
        sadb: &mut Sadb,
        sa: SaId,
        [local, remote]: [IpAddr; 2],
        gateway: Option<IpAddr>,
        child: &Child,
        exporter: &Exporter,
    ) -> Session {
        assert!(child.cipher == EspCipher::Aes256Gcm, "{:?}", child.cipher);
        let spec_of = |spi, key: &[u8], salt: [u8; 4]| {
            let key = esp::Key::new(key).expect("a key");
            SaSpec::new(spi, esp::Cipher::Aes256Gcm, key, salt.into())
        };
        let mut spec = SessionSpec::new(local, remote, Producer::Ike);
        spec.gateway = gateway;
        spec.inbound = Some(spec_of(child.spi_in, &child.key_in, child.salt_in));
        spec.outbound = Some(spec_of(child.spi_out, &child.key_out, child.salt_out));
        spec.remote_inner = child.remote_ts.iter().map(prefix).collect();
        spec.local_inner = child.local_ts.iter().map(prefix).collect();
        let (low, high) = (
            child.spi_in.min(child.spi_out).to_be_bytes(),
            child.spi_in.max(child.spi_out).to_be_bytes(),
        );
        let mut heartbeat_key = [0; 16];
        exporter.derive(
            b"simulated heartbeat",
            &[low, high].concat(),
            &mut heartbeat_key,
        );
        let changes = sadb.insert(spec).expect("a session that fits");
        let spec = changes.into_iter().find_map(|change| match change {
            Change::Add(spec) => Some(spec),
            _ => None,
        });
        let spec = spec.expect("the session was added");
        let (outbound, inbound) = (spec.outbound.as_ref(), spec.inbound.as_ref());
        Session {
            id: spec.id,
            sa,
            heartbeat_key,
            asked: Vec::new(),
            announced: false,
            outbound: outbound
                .and_then(|sa| sa.sender(Backend::default()).ok())
                .expect("a sender"),
            inbound: inbound
                .and_then(|sa| sa.receiver(Backend::default()).ok())
                .expect("a receiver"),
            spec: Arc::clone(&spec),
        }
    }

    pub(super) fn spi_in(&self) -> u32 {
        self.inbound.spi()
    }

    pub(super) fn spi_out(&self) -> u32 {
        self.outbound.spi()
    }

    /// Seals an inner packet, or a dummy.
    pub(super) fn seal(&mut self, inner: Option<&[u8]>, watch: &mut Watch) -> Option<Vec<u8>> {
        let len = inner.map_or(1, <[u8]>::len);
        let mut buffer = vec![0; esp::SEAL_HEADROOM + len + esp::SEAL_TAILROOM];
        let at = esp::SEAL_HEADROOM..esp::SEAL_HEADROOM + len;
        let sealed = match inner {
            Some(inner) => {
                buffer[at.clone()].copy_from_slice(inner);
                self.outbound.seal(&mut buffer, at, esp::NEXT_IPV4)
            }
            None => self.outbound.seal_dummy(&mut buffer, at.start, len),
        };
        let sealed = sealed.ok()?;
        let key = self.spec.outbound.as_ref()?.key.expose();
        watch.sealed(key, self.outbound.sequence());
        if let Some(inner) = inner {
            watch.on_the_wire(&buffer[sealed.clone()], inner);
        }
        buffer.truncate(sealed.end);
        Some(buffer.split_off(sealed.start))
    }

    /// Opens a packet: `None` if it is refused, `Some(None)` for a dummy.
    pub(super) fn open(
        &mut self,
        mut packet: Vec<u8>,
        watch: &mut Watch,
    ) -> Option<Option<Vec<u8>>> {
        let all = 0..packet.len();
        let opened = self.inbound.open(&mut packet, all).ok()?;
        let key = self.spec.inbound.as_ref()?.key.expose();
        watch.opened(key, opened.sequence);
        if opened.is_dummy() {
            return Some(None);
        }
        let inner = packet.get(opened.inner)?;
        esp::check_inner(inner, &self.spec.remote_inner, &self.spec.local_inner).ok()?;
        Some(Some(inner.to_vec()))
    }
}
