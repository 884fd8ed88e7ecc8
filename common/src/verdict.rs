//! The decisions of the XDP programs: what becomes of a frame, and which counter says so.
//!
//! The maps are behind two small traits, so that the same code decides in the kernel and on the
//! host, where tests run both against each other.

use crate::checksum::Change;
use crate::heartbeat::{
    HEALTH_OFFSET, Keyed, MAC_OFFSET, SEQUENCE_OFFSET, answer_sequence, is_answer,
};
use crate::maps::{Address, AddressEntry, Local, NodeState, SaEntry};
use crate::packet::{
    Bytes, BytesMut, Class, Esp, Family, Ip, Parsed, classify, parse, source_routed, v4_mapped,
};
use crate::reason::Counter;

mod short;

pub use short::{KEYED_V4_LEN, PLAIN_V4_LEN, keyed_v4, looks_keyed_v4, plain_v4};

/// What the program `outside` knows: its maps, its load-time settings, the clock.
pub trait OutsideWorld {
    /// The inbound security association of an SPI (network order).
    fn sa(&self, spi: &[u8; 4]) -> Option<&SaEntry>;
    /// What is known about an outer source address.
    fn address(&self, address: &Address) -> AddressEntry;
    /// The dead-man switch and the health.
    fn node(&self) -> Option<NodeState>;
    /// What is addressed to the interface.
    fn local(&self) -> Option<&Local>;
    /// Whether this time (nanoseconds of `CLOCK_MONOTONIC`) has passed; may tell it two ticks late.
    fn passed(&self, time: u64) -> bool;
    /// Whether plain heartbeats are answered.
    fn reflect_plain(&self) -> bool;
    /// Whether keyed heartbeats are answered.
    fn reflect_keyed(&self) -> bool;
    /// Whether plain heartbeats of nodes that are no peers are answered.
    fn strangers(&self) -> bool;
    /// Whether the node may get a security association for an SPI that it does not know: the worker asks.
    fn shared(&self) -> bool {
        false
    }
    /// Whether the node shares its address with other gateways.
    fn steers(&self) -> bool {
        false
    }
    /// Whether this link address is that of another gateway that shares the node's address.
    fn station(&self, _mac: &[u8; 6]) -> bool {
        false
    }
}

/// What the program `inside` knows.
pub trait InsideWorld {
    /// Whether an inner IPv4 destination belongs into a tunnel (longest prefix match).
    fn tunnel_v4(&self, destination: &[u8; 4]) -> bool;
    /// Whether an inner IPv6 destination belongs into a tunnel (longest prefix match).
    fn tunnel_v6(&self, destination: &[u8; 16]) -> bool;
    /// What is addressed to the interface.
    fn local(&self) -> Option<&Local>;
}

/// What is to be done with a frame that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave it to the kernel.
    Pass,
    /// Hand it to the AF_XDP socket of its receive queue, counted as this.
    Steer(Counter),
    /// Take it off the wire: that it came was all, counted as this.
    Absorb(Counter),
    /// Turn it into a heartbeat's answer and send it back where it came from.
    Reflect(Reflection),
    /// A message of IKE for this node: leave it to the kernel, unless the
    /// [guard](crate::guard::judge) is up and says something else.
    Guard,
}

/// Decides about a frame on the outside interface.
///
/// # Errors
/// The reason why the frame is dropped, or left to the kernel as malformed.
#[inline(always)]
pub fn outside<B, W>(bytes: &B, world: &W) -> Result<Action, Counter>
where
    B: Bytes + ?Sized,
    W: OutsideWorld,
{
    let parsed = parse(bytes).map_err(|_| Counter::Malformed)?;
    let Some(ip) = &parsed.ip else {
        return Ok(Action::Pass);
    };
    let class = classify(&parsed, bytes).map_err(|_| Counter::Malformed)?;
    if matches!(
        class,
        Class::Arp { .. } | Class::Neighbour { .. } | Class::Other
    ) {
        return Ok(Action::Pass);
    }
    if martian_heartbeat(&class, &parsed, ip) {
        return Err(Counter::HeartbeatMartian);
    }
    if !addressed_to(world.local(), &parsed, ip) {
        return Ok(Action::Pass);
    }
    match class {
        Class::Esp(esp) => match world.sa(&esp.spi) {
            Some(_) => Ok(Action::Steer(Counter::EspSteered)),
            None if world.shared() => Ok(Action::Steer(Counter::EspUnknown)),
            None => Err(Counter::UnknownSpi),
        },
        Class::Heartbeat(esp) => heartbeat(bytes, world, &parsed, ip, &esp),
        // It has kept the mapping of a NAT alive by coming this far.
        Class::KeepAlive => Ok(Action::Absorb(Counter::NatKeepAlive)),
        // The kernel puts them together, in memory of its own: only for those who have a session.
        Class::EspFragment => Err(match world.address(&ip.source).peer() {
            true => Counter::EspFragmentPassed,
            false => Counter::EspFragment,
        }),
        Class::EspShort => Err(Counter::EspShort),
        Class::Ike => Ok(Action::Guard),
        Class::Arp { .. } | Class::Neighbour { .. } | Class::Other => Ok(Action::Pass),
    }
}

/// The answer to a request of the keyed form, if it proves itself. `port`: where it comes from in UDP.
/// `BOTH`: both MACs at once, which takes less time, and more of the little stack that BPF has.
#[inline(always)]
fn answer_keyed<const BOTH: bool, W: OutsideWorld>(
    world: &W,
    request: &Keyed,
    source: &Address,
    port: Option<u16>,
) -> Result<Form, Counter> {
    if !world.reflect_keyed() {
        return Err(Counter::HeartbeatForm);
    }
    let sa = world.sa(&request.spi).ok_or(Counter::HeartbeatUnknownSpi)?;
    let key = sa.hb_key().ok_or(Counter::HeartbeatForm)?;
    if !sa.admits(source, port) {
        return Err(Counter::HeartbeatPeer);
    }
    let health = world.node().map_or(0, |node| node.health());
    let answer = match BOTH {
        true => request.answer_if_authentic(key, health),
        false => request.authentic(key).then(|| request.answer(key, health)),
    };
    let answer = answer.ok_or(Counter::HeartbeatMac)?;
    living(world)?;
    Ok(Form {
        keyed: true,
        health: answer.health,
        mac: answer.mac,
    })
}

/// Whether a heartbeat goes to or comes from many: such a one is never reflected.
#[inline(always)]
fn martian_heartbeat(class: &Class, parsed: &Parsed, ip: &Ip) -> bool {
    let [d0, ..] = parsed.mac_destination;
    let [s0, ..] = parsed.mac_source;
    matches!(class, Class::Heartbeat(_))
        && ((d0 | s0) & 1 != 0
            || !unicast(ip.family, &ip.destination)
            || !unicast(ip.family, &ip.source))
}

#[inline(always)]
fn addressed_to(local: Option<&Local>, parsed: &Parsed, ip: &Ip) -> bool {
    match local {
        Some(local) => local.has_mac(&parsed.mac_destination) && local.has_address(&ip.destination),
        None => true,
    }
}

#[inline(always)]
fn heartbeat<B, W>(
    bytes: &B,
    world: &W,
    parsed: &Parsed,
    ip: &Ip,
    esp: &Esp,
) -> Result<Action, Counter>
where
    B: Bytes + ?Sized,
    W: OutsideWorld,
{
    let sender = world.address(&ip.source);
    if is_answer(esp.sequence) {
        // An answer is never reflected, whoever sent it: that is what keeps two gateways from
        // bouncing one packet for ever.
        return match sender.peer() {
            true => Ok(Action::Steer(Counter::HeartbeatAnswer)),
            false => Err(Counter::HeartbeatAnswerStranger),
        };
    }
    if sender.never_reflect() || ip.source == ip.destination {
        return Err(Counter::HeartbeatOwn);
    }
    if ip.ttl <= 1 {
        return Err(Counter::HeartbeatTtl);
    }
    if source_routed(parsed, ip, bytes) {
        return Err(Counter::HeartbeatRouted);
    }
    let form = match Keyed::read(bytes, esp) {
        Some(request) => {
            let port = esp.udp.map(|udp| udp.source);
            let form = answer_keyed::<false, W>(world, &request, &ip.source, port)?;
            // Back to where it came from would be to the gateway that sent it on. The worker knows the
            // way to the asker. What a front asks for itself comes from there rightly.
            if !sender.gateway() && sent_on(world, &parsed.mac_destination, &parsed.mac_source) {
                return Ok(Action::Steer(Counter::SteerHeartbeat));
            }
            form
        }
        None => {
            if !world.reflect_plain() {
                return Err(Counter::HeartbeatForm);
            }
            if !sender.peer() && !world.strangers() {
                return Err(Counter::HeartbeatStranger);
            }
            living(world)?;
            Form::PLAIN
        }
    };
    Ok(Action::Reflect(Reflection {
        l3: parsed.l3,
        family: ip.family,
        udp: esp.udp.map(|udp| udp.offset),
        esp: esp.offset,
        form,
    }))
}

/// Whether a frame was sent on by another gateway that shares the node's address: it comes from there, or
/// was in IP, and seems to come from the node itself since.
#[inline(always)]
pub(crate) fn sent_on<W: OutsideWorld>(
    world: &W,
    mac_destination: &[u8; 6],
    mac_source: &[u8; 6],
) -> bool {
    world.steers() && (mac_destination == mac_source || world.station(mac_source))
}

/// The state of a node that may answer.
#[inline(always)]
fn living<W: OutsideWorld>(world: &W) -> Result<NodeState, Counter> {
    let node = world.node().ok_or(Counter::HeartbeatDead)?;
    if node.silent() {
        return Err(Counter::HeartbeatSilent);
    }
    // XDP programs outlive a daemon that hangs: without its renewal nothing is answered.
    if world.passed(node.alive_until()) {
        return Err(Counter::HeartbeatDead);
    }
    Ok(node)
}

/// Whether an address can be one host's on a network: not unspecified, loopback, multicast,
/// broadcast or reserved, nor IPv4 in an IPv6 header.
#[inline(always)]
pub fn unicast(family: Family, address: &Address) -> bool {
    let number = u128::from_be_bytes(*address);
    match family {
        Family::V4 => {
            let first = (number >> 24) as u8;
            first != 0 && first != 127 && first < 224
        }
        Family::V6 => number > 1 && number >> 32 != 0xFFFF && number >> 120 != 0xFF,
    }
}

/// What the answer says. No enum: the verifier wants all of it written, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    keyed: bool,
    health: [u8; 4],
    mac: [u8; 8],
}

impl Form {
    const PLAIN: Self = Self {
        keyed: false,
        health: [0; 4],
        mac: [0; 8],
    };
}

/// A heartbeat that may be answered: where its headers are, and what the answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflection {
    l3: usize,
    family: Family,
    udp: Option<usize>,
    esp: usize,
    form: Form,
}

impl Reflection {
    /// The counter of the answer.
    #[inline(always)]
    pub fn counter(&self) -> Counter {
        match self.form.keyed {
            false => Counter::HeartbeatPlain,
            true => Counter::HeartbeatKeyed,
        }
    }

    /// Turns the request in the frame into its answer, in place: never longer than the request.
    /// `None` if the frame ends too early, which a frame that was decided about does not.
    #[inline(always)]
    pub fn apply<B: BytesMut + ?Sized>(&self, bytes: &mut B) -> Option<()> {
        let mac_destination: [u8; 6] = bytes.read(0)?;
        let mac_source: [u8; 6] = bytes.read(6)?;
        bytes.write(0, mac_source)?;
        bytes.write(6, mac_destination)?;
        match self.family {
            Family::V4 => turn_v4(bytes, self.l3)?,
            Family::V6 => turn_v6(bytes, self.l3)?,
        }

        // Swapping addresses and ports leaves the UDP checksum as it is; the rest is collected.
        let old = bytes.read(self.esp + SEQUENCE_OFFSET)?;
        let new = answer_sequence(old);
        let mut change = Change::new().four(old, new);
        bytes.write(self.esp + SEQUENCE_OFFSET, new)?;
        if self.form.keyed {
            let Form { health, mac, .. } = self.form;
            change = change
                .four(bytes.read(self.esp + HEALTH_OFFSET)?, health)
                .eight(bytes.read(self.esp + MAC_OFFSET)?, mac);
            bytes.write(self.esp + HEALTH_OFFSET, health)?;
            bytes.write(self.esp + MAC_OFFSET, mac)?;
        }
        if let Some(udp) = self.udp {
            let ports = bytes.read_u32(udp)?;
            bytes.write(udp, ports.rotate_left(16).to_be_bytes())?;
            let checksum = bytes.read_u16(udp + 6)?;
            bytes.write(udp + 6, change.apply_udp(checksum).to_be_bytes())?;
        }
        Some(())
    }
}

/// Swaps the addresses of an IPv4 header and lowers its TTL by one.
#[inline(always)]
fn turn_v4<B: BytesMut + ?Sized>(bytes: &mut B, l3: usize) -> Option<()> {
    let source: [u8; 4] = bytes.read(l3 + 12)?;
    let destination: [u8; 4] = bytes.read(l3 + 16)?;
    bytes.write(l3 + 12, destination)?;
    bytes.write(l3 + 16, source)?;
    lower_v4(bytes, l3)
}

/// Lowers the TTL of an IPv4 header by one.
#[inline(always)]
pub(crate) fn lower_v4<B: BytesMut + ?Sized>(bytes: &mut B, l3: usize) -> Option<()> {
    let [ttl] = bytes.read(l3 + 8)?;
    bytes.write(l3 + 8, [ttl.wrapping_sub(1)])?;
    // Whatever the TTL was: one less is the same change.
    const LOWERED: Change = Change::new().word(1 << 8, 0);
    let checksum = bytes.read_u16(l3 + 10)?;
    bytes.write(l3 + 10, LOWERED.apply(checksum).to_be_bytes())
}

/// Swaps the addresses of an IPv6 header and lowers its hop limit by one.
#[inline(always)]
fn turn_v6<B: BytesMut + ?Sized>(bytes: &mut B, l3: usize) -> Option<()> {
    let source: [u8; 16] = bytes.read(l3 + 8)?;
    let destination: [u8; 16] = bytes.read(l3 + 24)?;
    bytes.write(l3 + 8, destination)?;
    bytes.write(l3 + 24, source)?;
    lower_v6(bytes, l3)
}

/// Lowers the hop limit of an IPv6 header by one.
#[inline(always)]
pub(crate) fn lower_v6<B: BytesMut + ?Sized>(bytes: &mut B, l3: usize) -> Option<()> {
    let [hop_limit] = bytes.read(l3 + 7)?;
    bytes.write(l3 + 7, [hop_limit.wrapping_sub(1)])
}

/// Decides about a frame on the inside interface.
///
/// # Errors
/// [`Counter::Malformed`] if the kernel is to judge broken headers.
#[inline(always)]
pub fn inside<B, W>(bytes: &B, world: &W) -> Result<Action, Counter>
where
    B: Bytes + ?Sized,
    W: InsideWorld,
{
    let parsed = parse(bytes).map_err(|_| Counter::Malformed)?;
    let local = world.local();
    let mine = |address: &Address| local.is_some_and(|local| local.owns(address));
    let hit_v4 = |address: &[u8; 4]| !mine(&v4_mapped(*address)) && world.tunnel_v4(address);
    let hit_v6 = |address: &[u8; 16]| !mine(address) && world.tunnel_v6(address);
    match classify(&parsed, bytes).map_err(|_| Counter::Malformed)? {
        Class::Arp { sender, target, .. } => {
            return Ok(match hit_v4(&target) || hit_v4(&sender) {
                true => Action::Steer(Counter::InsideArp),
                false => Action::Pass,
            });
        }
        Class::Neighbour { target, .. } => {
            let sender = match &parsed.ip {
                Some(ip) => ip.source,
                None => [0; 16],
            };
            return Ok(
                match hit_v6(&target) || (unicast(Family::V6, &sender) && hit_v6(&sender)) {
                    true => Action::Steer(Counter::InsideNd),
                    false => Action::Pass,
                },
            );
        }
        _ => {}
    }
    let Some(ip) = &parsed.ip else {
        return Ok(Action::Pass);
    };
    if !local.is_none_or(|local| local.has_mac(&parsed.mac_destination))
        || !unicast(ip.family, &ip.destination)
    {
        return Ok(Action::Pass);
    }
    let hit = match ip.family {
        Family::V4 => hit_v4(&(u128::from_be_bytes(ip.destination) as u32).to_be_bytes()),
        Family::V6 => hit_v6(&ip.destination),
    };
    Ok(if hit {
        Action::Steer(Counter::InsideSteered)
    } else {
        Action::Pass
    })
}
