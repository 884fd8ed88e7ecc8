//! A pair of SAs as either end has it.

use std::net::IpAddr;
use std::sync::Arc;

use evergate::dataplane::Sending;
use evergate::esp::{self, Backend, InboundSa, OutboundSa};
use evergate::ike::{Child, EspCipher, Exporter, SaId, TrafficSelector};
use evergate::sadb::{Change, Producer, SaSpec, Sadb, SessionId, SessionSpec, UdpEncap};
use ipnet::IpNet;

use super::watch::{Key, Watch};

pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) sa: SaId,
    pub(super) spec: Arc<SessionSpec>,
    /// What it is for: the gateway that it leads to, or the inner address of a client.
    pub(super) place: IpAddr,
    pub(super) sending: Sending,
    /// Another pair of SAs has taken, or takes, its place.
    pub(super) retired: bool,
    /// Nothing was ever sent on it: both ends made one at once.
    pub(super) redundant: bool,
    pub(super) heartbeat_key: [u8; 16],
    /// Heartbeats under way: counter and token.
    pub(super) asked: Vec<(u32, [u8; 8])>,
    /// What was opened last is the newest of all.
    pub(super) newest: bool,
    /// A gateway has told the LAN of it.
    pub(super) announced: bool,
    outbound: OutboundSa,
    inbound: InboundSa,
    /// To seal, and to open.
    keys: [Key; 2],
    /// Packets in each direction.
    packets: [u64; 2],
}

/// All selectors here are hosts, or a network of 16 bits.
fn prefix(selector: &TrafficSelector) -> IpNet {
    match selector.start == selector.end {
        true => IpNet::from(selector.start),
        false => IpNet::new(selector.start, 16).expect("a prefix"),
    }
}

/// What a child SA is to its ends.
pub(super) fn spec_of(
    [local, remote]: [IpAddr; 2],
    gateway: Option<IpAddr>,
    child: &Child,
    encap: Option<UdpEncap>,
) -> SessionSpec {
    assert!(child.cipher == EspCipher::Aes256Gcm, "{:?}", child.cipher);
    let spec_of = |spi, key: &[u8], salt: [u8; 4]| {
        let key = esp::Key::new(key).expect("a key");
        SaSpec::new(spi, esp::Cipher::Aes256Gcm, key, salt.into())
    };
    let mut spec = SessionSpec::new(local, remote, Producer::Ike);
    spec.gateway = gateway;
    spec.encap = encap;
    // Only clients are behind NATs.
    spec.roams = encap.is_some() && gateway.is_none();
    spec.inbound = Some(spec_of(child.spi_in, &child.key_in, child.salt_in));
    spec.outbound = Some(spec_of(child.spi_out, &child.key_out, child.salt_out));
    spec.remote_inner = child.remote_ts.iter().map(prefix).collect();
    spec.local_inner = child.local_ts.iter().map(prefix).collect();
    spec
}

/// Whoever did not begin the session waits longer by this part of the limit.
const PATIENCE: u64 = 8;

impl Session {
    /// Enters it into the SA database.
    pub(super) fn new(
        sadb: &mut Sadb,
        watch: &mut Watch,
        sa: SaId,
        [local, remote]: [IpAddr; 2],
        gateway: Option<IpAddr>,
        (child, exporter): (&Child, &Exporter),
        encap: Option<UdpEncap>,
    ) -> Session {
        let spec = spec_of([local, remote], gateway, child, encap);
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
        let inner = spec.remote_inner.first().map(IpNet::addr);
        Session {
            id: spec.id,
            sa,
            place: gateway.or(inner).expect("selectors"),
            sending: Sending::AtOnce,
            retired: false,
            redundant: false,
            heartbeat_key,
            asked: Vec::new(),
            newest: false,
            announced: false,
            outbound: outbound
                .and_then(|sa| sa.sender(Backend::default()).ok())
                .expect("a sender"),
            inbound: inbound
                .and_then(|sa| sa.receiver(Backend::default()).ok())
                .expect("a receiver"),
            keys: [&child.key_out, &child.key_in].map(|key| watch.key(key)),
            packets: [0; 2],
            spec: Arc::clone(&spec),
        }
    }

    /// With the keys of a child SA that takes the place of this one's.
    pub(super) fn successor(
        &self,
        sadb: &mut Sadb,
        child: &Child,
        exporter: &Exporter,
        watch: &mut Watch,
    ) -> Session {
        let ends = [self.spec.outside_local, self.spec.outside_remote];
        let (gateway, encap) = (self.spec.gateway, self.spec.encap);
        let keys = (child, exporter);
        let mut new = Session::new(sadb, watch, self.sa, ends, gateway, keys, encap);
        new.announced = self.announced;
        new
    }

    /// Whether it has carried so much that fresh keys are due.
    pub(super) fn has_carried(&self, limit: u64) -> bool {
        let patience = match self.spec.gateway {
            Some(_) => limit,
            None => limit + limit / PATIENCE,
        };
        !self.retired && self.packets.iter().any(|packets| *packets >= patience)
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
        watch.sealed(self.keys[0], self.outbound.sequence());
        self.packets[0] += 1;
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
        watch.opened(self.keys[1], opened.sequence);
        self.packets[1] += 1;
        self.newest = opened.sequence == self.inbound.sequence();
        if opened.is_dummy() {
            return Some(None);
        }
        let inner = packet.get(opened.inner)?;
        esp::check_inner(inner, &self.spec.remote_inner, &self.spec.local_inner).ok()?;
        Some(Some(inner.to_vec()))
    }
}
