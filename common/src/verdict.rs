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
    Bytes, BytesMut, Class, Esp, Family, Ip, Parsed, UdpEncap, classify, parse, source_routed,
    v4_mapped,
};
use crate::reason::Counter;

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
    /// `CLOCK_MONOTONIC` in nanoseconds.
    fn now(&self) -> u64;
    /// Whether plain heartbeats are answered.
    fn reflect_plain(&self) -> bool;
    /// Whether keyed heartbeats are answered.
    fn reflect_keyed(&self) -> bool;
    /// Whether plain heartbeats of nodes that are no peers are answered.
    fn strangers(&self) -> bool;
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
    /// Turn it into a heartbeat's answer and send it back where it came from.
    Reflect(Reflection),
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
    let refusal = match class {
        Class::Esp(esp) => {
            if !addressed_to(world.local(), &parsed, ip) {
                return Ok(Action::Pass);
            }
            return match world.sa(&esp.spi) {
                Some(_) => Ok(Action::Steer(Counter::EspSteered)),
                None => Err(Counter::UnknownSpi),
            };
        }
        Class::Heartbeat(esp) => return heartbeat(bytes, world, &parsed, ip, &esp),
        Class::EspFragment => Counter::EspFragment,
        Class::EspShort => Counter::EspShort,
        Class::Ike | Class::Arp { .. } | Class::Neighbour { .. } | Class::Other => {
            return Ok(Action::Pass);
        }
    };
    if addressed_to(world.local(), &parsed, ip) {
        Err(refusal)
    } else {
        Ok(Action::Pass)
    }
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
    let [d0, ..] = parsed.mac_destination;
    let [s0, ..] = parsed.mac_source;
    if (d0 | s0) & 1 != 0 || !unicast(ip.family, &ip.destination) {
        return Err(Counter::HeartbeatMartian);
    }
    if !addressed_to(world.local(), parsed, ip) {
        return Ok(Action::Pass);
    }
    if !unicast(ip.family, &ip.source) {
        return Err(Counter::HeartbeatMartian);
    }
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
            if !world.reflect_keyed() {
                return Err(Counter::HeartbeatForm);
            }
            let sa = world.sa(&request.spi).ok_or(Counter::HeartbeatUnknownSpi)?;
            let key = sa.hb_key().ok_or(Counter::HeartbeatForm)?;
            if !sa.admits(&ip.source) {
                return Err(Counter::HeartbeatPeer);
            }
            if !request.authentic(key) {
                return Err(Counter::HeartbeatMac);
            }
            let node = living(world)?;
            Form::Keyed {
                request,
                answer: request.answer(key, node.health()),
            }
        }
        None => {
            if !world.reflect_plain() {
                return Err(Counter::HeartbeatForm);
            }
            if !sender.peer() && !world.strangers() {
                return Err(Counter::HeartbeatStranger);
            }
            living(world)?;
            Form::Plain
        }
    };
    Ok(Action::Reflect(Reflection {
        l3: parsed.l3,
        mac_source: parsed.mac_source,
        mac_destination: parsed.mac_destination,
        family: ip.family,
        ttl: ip.ttl,
        protocol_v4: ip.protocol,
        source: ip.source,
        destination: ip.destination,
        udp: esp.udp,
        esp: esp.offset,
        sequence: esp.sequence,
        form,
    }))
}

/// The state of a node that may answer.
#[inline(always)]
fn living<W: OutsideWorld>(world: &W) -> Result<NodeState, Counter> {
    let node = world.node().ok_or(Counter::HeartbeatDead)?;
    if node.silent() {
        return Err(Counter::HeartbeatSilent);
    }
    // XDP programs outlive a daemon that hangs: without its renewal nothing is answered.
    if world.now() > node.alive_until() {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Keyed { request: Keyed, answer: Keyed },
}

/// A heartbeat that may be answered, and all that the answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflection {
    l3: usize,
    mac_source: [u8; 6],
    mac_destination: [u8; 6],
    family: Family,
    ttl: u8,
    protocol_v4: u8,
    source: Address,
    destination: Address,
    udp: Option<UdpEncap>,
    esp: usize,
    sequence: [u8; 4],
    form: Form,
}

impl Reflection {
    /// The counter of the answer.
    #[inline(always)]
    pub fn counter(&self) -> Counter {
        match self.form {
            Form::Plain => Counter::HeartbeatPlain,
            Form::Keyed { .. } => Counter::HeartbeatKeyed,
        }
    }

    /// Turns the request in the frame into its answer, in place: never longer than the request.
    /// `None` if the frame ends too early, which a frame that was decided about does not.
    #[inline(always)]
    pub fn apply<B: BytesMut + ?Sized>(&self, bytes: &mut B) -> Option<()> {
        let [a, b, c, d, e, f] = self.mac_source;
        let [g, h, i, j, k, l] = self.mac_destination;
        bytes.write(0, [a, b, c, d, e, f, g, h, i, j, k, l])?;
        self.turn_ip(bytes)?;

        // Swapping addresses and ports leaves every sum as it is; the rest is collected.
        let sequence = answer_sequence(self.sequence);
        let mut change = Change::new().four(self.sequence, sequence);
        bytes.write(self.esp + SEQUENCE_OFFSET, sequence)?;
        if let Form::Keyed { request, answer } = &self.form {
            change = change
                .four(request.health, answer.health)
                .eight(request.mac, answer.mac);
            bytes.write(self.esp + HEALTH_OFFSET, answer.health)?;
            bytes.write(self.esp + MAC_OFFSET, answer.mac)?;
        }
        if let Some(udp) = &self.udp {
            let [a, b] = udp.destination.to_be_bytes();
            let [c, d] = udp.source.to_be_bytes();
            bytes.write(udp.offset, [a, b, c, d])?;
            bytes.write(udp.offset + 6, change.apply_udp(udp.checksum).to_be_bytes())?;
        }
        Some(())
    }

    #[inline(always)]
    fn turn_ip<B: BytesMut + ?Sized>(&self, bytes: &mut B) -> Option<()> {
        let ttl = self.ttl.saturating_sub(1);
        match self.family {
            Family::V4 => {
                let [.., a, b, c, d] = self.source;
                let [.., e, f, g, h] = self.destination;
                bytes.write(self.l3 + 12, [e, f, g, h, a, b, c, d])?;
                let checksum = u16::from_be_bytes(bytes.read(self.l3 + 10)?);
                let old = u16::from_be_bytes([self.ttl, self.protocol_v4]);
                let new = u16::from_be_bytes([ttl, self.protocol_v4]);
                let checksum = Change::new().word(old, new).apply(checksum);
                bytes.write(self.l3 + 8, [ttl])?;
                bytes.write(self.l3 + 10, checksum.to_be_bytes())
            }
            Family::V6 => {
                bytes.write(self.l3 + 8, self.destination)?;
                bytes.write(self.l3 + 24, self.source)?;
                bytes.write(self.l3 + 7, [ttl])
            }
        }
    }
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
    let [.., a, b, c, d] = ip.destination;
    let hit = match ip.family {
        Family::V4 => hit_v4(&[a, b, c, d]),
        Family::V6 => hit_v6(&ip.destination),
    };
    Ok(if hit {
        Action::Steer(Counter::InsideSteered)
    } else {
        Action::Pass
    })
}
