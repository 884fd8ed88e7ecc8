//! The table `[steering]`: gateways that share one outside address.

use std::collections::HashSet;
use std::net::IpAddr;

use evergate_common::steering::HIGHEST_NUMBER;
use toml::Spanned;

use super::check::{Checker, Place};
use super::file::{self, Number, Table};
use super::{Outside, Role, XdpMode};

/// A gateway among others that have its outside address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// In the SPIs that it issues; 1 to 62.
    pub number: u8,
    /// Its own, where packets come in IP.
    pub address: IpAddr,
    pub gateways: Vec<SteeredGateway>,
}

/// Another gateway with the same outside address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteeredGateway {
    pub number: u8,
    pub address: IpAddr,
    pub way: SteeredWay,
    /// Largest packet that goes there, IP around it included; otherwise as the route says.
    pub mtu: Option<u16>,
    /// The interface that leads there; otherwise the outside one.
    pub interface: Option<String>,
}

/// How packets get to another gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SteeredWay {
    /// By its link address on the same segment, in IP beyond.
    #[default]
    Auto,
    /// In IP.
    Ip,
}

impl Checker<'_> {
    pub(super) fn steering(
        &mut self,
        table: Table<file::Steering>,
        role: Role,
        outside: Option<&Outside>,
    ) -> Option<Steering> {
        if role != Role::Gateway {
            let why = "only gateways share an address";
            self.unused(table.as_ref(), "[steering]", role, why);
            return None;
        }
        let table = table?;
        let at = table.span();
        let table = table.into_inner();
        if outside.is_some_and(|outside| outside.xdp == XdpMode::Off) {
            let said =
                "[steering]: found outside.xdp = \"off\", expected an XDP program, which does it";
            self.error(&at, said);
        }
        let shared = outside.and_then(|outside| outside.address);
        if outside.is_some() && shared.is_none() {
            let said = "[steering]: `outside.address` is missing: expected the address that the gateways share";
            self.error(&at, said);
        }
        let number = self.steering_number(table.number, &at, "steering.number");
        let what = "this gateway's own address beside the shared one";
        let address = self.required(table.address, &at, "steering.address", what);
        let place = address.as_ref().map_or(at.clone(), Spanned::span);
        let address = address.and_then(|text| self.unicast(&text, "steering.address"));
        if address.is_some() && address == shared {
            let said = "steering.address: found the address that the gateways share (outside.address), \
                        expected this gateway's own";
            self.error(&place, said);
        }
        let mut numbers: HashSet<u8> = number.into_iter().collect();
        let mut addresses: HashSet<IpAddr> = address.into_iter().chain(shared).collect();
        let mut gateways = Vec::new();
        for gateway in table.gateways {
            let at = gateway.span();
            let gateway = gateway.into_inner();
            let key = "steering.gateway";
            gateways.extend(self.steered(key, gateway, &at, address, &mut numbers, &mut addresses));
        }
        if gateways.is_empty() {
            self.warn(
                &at,
                "[steering] names no other gateway: no packet goes anywhere",
            );
        }
        Some(Steering {
            number: number?,
            address: address?,
            gateways,
        })
    }

    /// Another node of the shared address; `table` names it.
    pub(super) fn steered(
        &mut self,
        table: &str,
        gateway: file::SteeredGateway,
        at: &Place,
        own: Option<IpAddr>,
        numbers: &mut HashSet<u8>,
        addresses: &mut HashSet<IpAddr>,
    ) -> Option<SteeredGateway> {
        let number_at = gateway.number.as_ref().map_or(at.clone(), Spanned::span);
        let number = self.steering_number(gateway.number, at, &format!("{table}.number"));
        if let Some(number) = number.filter(|number| !numbers.insert(*number)) {
            let said = format!("{table}.number: {number} is there twice");
            self.error(&number_at, said);
        }
        let (what, key) = ("the node's own address", format!("{table}.address"));
        let text = self.required(gateway.address, at, &key, what);
        let place = text.as_ref().map_or(at.clone(), Spanned::span);
        let address = text.and_then(|text| self.unicast(&text, &key));
        if let Some(address) = address {
            if !addresses.insert(address) {
                let said = format!("{key}: {address} is there twice");
                self.error(&place, said);
            }
            if own.is_some_and(|own| own.is_ipv4() != address.is_ipv4()) {
                let said = format!(
                    "{key}: found {address}, expected one of the same family as {}",
                    own_key(table)
                );
                self.error(&place, said);
            }
        }
        let way: SteeredWay = self.named_or(gateway.by, &format!("{table}.by"));
        let mtu = self.number(gateway.mtu, &format!("{table}.mtu"), 576..=9000);
        let interface = match gateway.interface {
            None => None,
            found => Some(self.interface(found, at, &format!("{table}.interface"), "")?),
        };
        Some(SteeredGateway {
            number: number?,
            address: address?,
            way,
            mtu: mtu.and_then(|mtu| u16::try_from(mtu).ok()),
            interface,
        })
    }

    pub(super) fn steering_number(&mut self, number: Number, at: &Place, key: &str) -> Option<u8> {
        let what = format!("a number from 1 to {HIGHEST_NUMBER}, another one for each gateway");
        let number = self.required(number, at, key, &what)?;
        let found = self.number(Some(number), key, 1..=HIGHEST_NUMBER.into())?;
        u8::try_from(found).ok()
    }
}

/// The key of the node's own address in the same table.
fn own_key(table: &str) -> String {
    let table = table.split('.').next().unwrap_or_default();
    format!("{table}.address")
}
