//! Short ways for the commonest heartbeats. Each comes to what [`outside`](super::outside) comes to, or to
//! nothing.

use super::{Form, OutsideWorld, Reflection, answer_keyed, living, sent_on, unicast};
use crate::heartbeat::{KEYED_LEN, Keyed, MAGIC};
use crate::maps::{Address, AddressEntry};
use crate::packet::{Bytes, Esp, Family, v4_mapped};
use crate::wire::{ESP_LEN, ETHERNET_LEN, IPPROTO_ESP, IPV4_LEN, SPI_HEARTBEAT};

/// Where the commonest heartbeats, those over IPv4 without UDP, tag and options, have their ESP header.
const ESP_V4: usize = ETHERNET_LEN + IPV4_LEN;

/// Bytes that [`plain_v4`] looks at and changes, but for the first ones of a payload.
pub const PLAIN_V4_LEN: usize = ESP_V4 + ESP_LEN;
/// Bytes that [`keyed_v4`] looks at and changes.
pub const KEYED_V4_LEN: usize = ESP_V4 + KEYED_LEN;

/// The short way for a plain heartbeat over IPv4 without UDP, tag and options, in a third of the
/// instructions. `Some` only if [`outside`](super::outside) comes to the same; everything else, every refusal among
/// it, takes the long way.
#[inline(always)]
pub fn plain_v4<B, W>(bytes: &B, world: &W) -> Option<Reflection>
where
    B: Bytes + ?Sized,
    W: OutsideWorld,
{
    let (esp, source) = request_v4(bytes)?;
    if esp.len >= KEYED_LEN && bytes.read::<4>(ESP_V4 + ESP_LEN)? == MAGIC {
        return None;
    }
    let sender = sender_v4(bytes, world, &source)?;
    if !world.reflect_plain() || !(sender.peer() || world.strangers()) {
        return None;
    }
    living(world).ok()?;
    Some(reflection_v4(Form::PLAIN))
}

/// Whether it may be worth while to try [`keyed_v4`].
#[inline(always)]
pub fn looks_keyed_v4<B: Bytes + ?Sized>(bytes: &B) -> bool {
    bytes.read::<4>(ESP_V4) == Some(SPI_HEARTBEAT.to_be_bytes())
        && bytes.read::<4>(ESP_V4 + ESP_LEN) == Some(MAGIC)
}

/// The same as [`plain_v4`] for a heartbeat of the keyed form.
#[inline(always)]
pub fn keyed_v4<B, W>(bytes: &B, world: &W) -> Option<Reflection>
where
    B: Bytes + ?Sized,
    W: OutsideWorld,
{
    let (esp, source) = request_v4(bytes)?;
    let request = Keyed::read(bytes, &esp)?;
    sender_v4(bytes, world, &source)?;
    if world.steers() && sent_on(world, &bytes.read::<6>(0)?, &bytes.read::<6>(6)?) {
        return None;
    }
    let form = answer_keyed::<true, W>(world, &request, &source, None).ok()?;
    Some(reflection_v4(form))
}

/// A request over IPv4 whose headers are in order, and where it comes from.
#[inline(always)]
fn request_v4<B: Bytes + ?Sized>(bytes: &B) -> Option<(Esp, Address)> {
    let spi_sequence = u64::from_be_bytes(bytes.read::<8>(ESP_V4)?);
    let request = u64::from(SPI_HEARTBEAT) << 32 | spi_sequence & 0x7FFF_FFFF;
    // EtherType, version and header length; the type of service may be any.
    let kind = bytes.read_u32(12)? & 0xFFFF_FF00;
    if spi_sequence != request || kind != 0x0800_4500 {
        return None;
    }
    let total_len = usize::from(bytes.read_u16(ETHERNET_LEN + 2)?);
    let fragment = bytes.read_u16(ETHERNET_LEN + 6)? & 0x3FFF;
    let ttl_protocol = bytes.read_u16(ETHERNET_LEN + 8)?;
    if total_len < IPV4_LEN + ESP_LEN
        || ETHERNET_LEN + total_len > bytes.length()
        || fragment != 0
        || ttl_protocol as u8 != IPPROTO_ESP
        || ttl_protocol >> 8 <= 1
    {
        return None;
    }
    let esp = Esp {
        spi: SPI_HEARTBEAT.to_be_bytes(),
        sequence: (spi_sequence as u32).to_be_bytes(),
        offset: ESP_V4,
        len: total_len - IPV4_LEN,
        udp: None,
    };
    Some((esp, v4_mapped(bytes.read(ETHERNET_LEN + 12)?)))
}

/// What is known about the sender, if the packet is for this node and its addresses are in order.
#[inline(always)]
fn sender_v4<B, W>(bytes: &B, world: &W, source: &Address) -> Option<AddressEntry>
where
    B: Bytes + ?Sized,
    W: OutsideWorld,
{
    let mac_destination = bytes.read::<6>(0)?;
    let mac_source = bytes.read::<6>(6)?;
    let destination = v4_mapped(bytes.read(ETHERNET_LEN + 16)?);
    let ([d0, ..], [s0, ..]) = (mac_destination, mac_source);
    if (d0 | s0) & 1 != 0
        || !unicast(Family::V4, source)
        || !unicast(Family::V4, &destination)
        || *source == destination
    {
        return None;
    }
    let local = world.local()?;
    if !local.has_mac(&mac_destination) || !local.has_address(&destination) {
        return None;
    }
    let sender = world.address(source);
    (!sender.never_reflect()).then_some(sender)
}

#[inline(always)]
fn reflection_v4(form: Form) -> Reflection {
    Reflection {
        l3: ETHERNET_LEN,
        family: Family::V4,
        udp: None,
        esp: ESP_V4,
        form,
    }
}
