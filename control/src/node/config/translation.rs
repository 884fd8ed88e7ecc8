//! The keys of `[channel]` about the relay of IKE by address translation.

use std::collections::HashSet;
use std::net::IpAddr;

use evergate_common::translation::MAX_AUTHORITIES;

use super::channel::{NamedAuthority, Negotiation};
use super::check::{Checker, Place};
use super::file::Text;
use super::{Inside, Outside, XdpMode};

impl Checker<'_> {
    /// `channel.interface` of an edge, or the inside one. `at`: where `negotiation` is.
    pub(super) fn answered_by(
        &mut self,
        named: Text,
        negotiation: Negotiation,
        at: &Place,
        outside: Option<&Outside>,
        inside: Option<&Inside>,
    ) -> Option<String> {
        let place = named.as_ref().map(toml::Spanned::span);
        if negotiation != Negotiation::Translation {
            if let Some(place) = &place {
                let said = "channel.interface has no effect without negotiation = \"translation\"";
                self.warn(place, said);
            }
            return Some(String::new());
        }
        let (outside, inside) = (outside?, inside?);
        if outside.xdp == XdpMode::Off {
            let said = "channel.negotiation: found \"translation\" and outside.xdp = \"off\", \
                        expected an XDP program, which does it";
            self.error(at, said);
        }
        let what = "the interface toward the authority";
        let interface = match named {
            Some(_) => self.interface(named, at, "channel.interface", what)?,
            None => inside.interface.clone(),
        };
        let place = place.unwrap_or_else(|| at.clone());
        if interface == outside.interface {
            let said = format!(
                "channel.interface: found `{interface}`, which is the outside interface: anybody there could \
                 speak in the authority's name; expected another one"
            );
            self.error(&place, said);
        }
        if interface == inside.interface && inside.xdp == XdpMode::Off {
            let said = format!(
                "channel.negotiation: found \"translation\" and inside.xdp = \"off\", but answers come by \
                 `{interface}`; expected an XDP program there, or another channel.interface"
            );
            self.error(&place, said);
        }
        Some(interface)
    }

    /// `translated` of a `[[channel.authority]]`.
    pub(super) fn stands_for_us(
        &mut self,
        text: Text,
        negotiation: Negotiation,
        at: &Place,
        outside: Option<&Outside>,
    ) -> Option<IpAddr> {
        let key = "channel.authority.translated";
        let wanted = negotiation == Negotiation::Translation;
        if !wanted {
            if let Some(text) = &text {
                let said = format!("{key} has no effect without negotiation = \"translation\"");
                self.warn(&text.span(), said);
            }
            return None;
        }
        let what = "the authority's address that stands for this edge, such as \"10.0.0.21\"";
        let text = self.required(text, at, key, what)?;
        self.stands(&text, key, outside)
    }

    /// `translated` of a `[[channel.edge]]`; `known`: those of others.
    pub(super) fn stands_for_edge(
        &mut self,
        text: Text,
        known: &mut HashSet<IpAddr>,
        outside: Option<&Outside>,
    ) -> Option<IpAddr> {
        let key = "channel.edge.translated";
        let text = text?;
        let address = self.stands(&text, key, outside)?;
        if !known.insert(address) {
            let said =
                format!("{key}: {address} is there twice, expected another one for each edge");
            self.error(&text.span(), said);
        }
        Some(address)
    }

    /// An address in whose place that of the edges is put, and the other way round.
    fn stands(
        &mut self,
        text: &toml::Spanned<String>,
        key: &str,
        outside: Option<&Outside>,
    ) -> Option<IpAddr> {
        let address = self.unicast(text, key)?;
        let shared = outside?.address?;
        if address == shared {
            let said = format!(
                "{key}: found the address that the edges share (outside.address), expected one of the authority's own"
            );
            self.error(&text.span(), said);
        }
        if address.is_ipv4() != shared.is_ipv4() {
            let said = format!(
                "{key}: found {address}, expected one of the same family as {shared}, which it stands for"
            );
            self.error(&text.span(), said);
        }
        Some(address)
    }

    /// The program knows so many.
    pub(super) fn not_too_many(
        &mut self,
        authorities: &[NamedAuthority],
        negotiation: Negotiation,
        at: &Place,
    ) {
        let found = authorities.len();
        if negotiation == Negotiation::Translation && found > MAX_AUTHORITIES {
            let said = format!(
                "found {found} [[channel.authority]] with negotiation = \"translation\", expected at most {MAX_AUTHORITIES}"
            );
            self.error(at, said);
        }
    }
}
