//! Gratuitous ARP, as whoever takes over an address sends it.

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};
use std::net::Ipv4Addr;
use std::time::Duration;

/// So often, as announcements may be lost.
const TIMES: usize = 3;
const PAUSE: Duration = Duration::from_millis(5);
const ARP: u16 = 0x0806;

/// Tells all stations on an interface's segment that an address is here.
pub(super) fn announce(interface: &str, address: Ipv4Addr) -> Result<()> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/address"))
        .with_context(|| format!("no interface {interface}"))?;
    let mac = mac(text.trim())?;
    let socket = Socket::new(Domain::PACKET, Type::RAW, None);
    let socket = socket.context("packet sockets need root")?;
    let to = crate::storm::out_of(interface)?;
    for time in 0..TIMES {
        if time > 0 {
            std::thread::sleep(PAUSE);
        }
        // Some stations take note of the one form, some of the other (RFC 5227 section 3).
        for operation in [1, 2] {
            socket.send_to(&frame(mac, address, operation), &to)?;
        }
    }
    Ok(())
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    match bytes.try_into() {
        Ok(mac) => Ok(mac),
        Err(_) => bail!("{text:?} is no link address"),
    }
}

/// Sender and target are the same address (RFC 5227 section 3).
fn frame(mac: [u8; 6], address: Ipv4Addr, operation: u16) -> Vec<u8> {
    let mut frame = vec![0xFF; 6];
    frame.extend(mac);
    frame.extend(ARP.to_be_bytes());
    // Ethernet, IPv4, and how long their addresses are.
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0xFF; 6]);
    frame.extend(address.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_says_where_an_address_is() {
        let mac = mac("02:00:00:02:00:03").unwrap();
        assert_eq!(mac, [2, 0, 0, 2, 0, 3]);
        let frame = frame(mac, Ipv4Addr::new(192, 0, 2, 100), 1);
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[6..14], [2, 0, 0, 2, 0, 3, 8, 6]);
        assert_eq!((&frame[22..28], &frame[28..32]), (&mac[..], &frame[38..42]));
        assert!(super::mac("02:00").is_err());
    }
}
