//! The table `[channel]`: an authority, and the edges that share an outside address.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use evergate_common::steering::HIGHEST_NUMBER;
use toml::Spanned;

use super::check::{Checker, Place};
use super::file::{self, Number, Table, Text};
use super::{Config, Inside, Outside, Role};
use crate::cluster::EdgeId;

/// The highest number of an edge.
const MAX_EDGE: i64 = 65_535;

/// How authority and edges speak to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Own certificate, with what leads to a CA behind it.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The CAs that the others' certificates are of.
    pub ca: Vec<PathBuf>,
    pub end: ChannelEnd,
}

impl Channel {
    /// Whether IKE messages of clients go in those of the connectivity protocol.
    #[must_use]
    pub fn by_messages(&self) -> bool {
        let ChannelEnd::Edge { negotiation, .. } = &self.end else {
            return false;
        };
        *negotiation == Negotiation::Messages
    }
}

/// The end of the channel that a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEnd {
    /// It waits for edges.
    Authority {
        listen: SocketAddr,
        /// In the SPIs that it issues, if there are several; 1 to 62.
        number: Option<u8>,
        edges: Vec<NamedEdge>,
        distribution: Distribution,
    },
    /// It connects to the first of these that takes it; of those with different numbers to one of each.
    Edge {
        authorities: Vec<NamedAuthority>,
        negotiation: Negotiation,
        /// The one that answers of authorities come by, where addresses are translated.
        interface: String,
        /// A second process says how far it came, should it die.
        notary: bool,
    },
}

/// An edge that an authority knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEdge {
    pub number: EdgeId,
    /// Of its certificate.
    pub name: String,
    /// It gets every SA when it is made, with [`Distribution::Chosen`].
    pub chosen: bool,
    /// The authority's own address that stands for this edge, where it translates addresses.
    pub translated: Option<IpAddr>,
}

/// An authority that an edge knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAuthority {
    /// Of those with the same number one works, and the others stand by. All have one, or none has.
    pub number: Option<u8>,
    pub address: SocketAddr,
    /// Of its certificate.
    pub name: String,
    /// The address that stands for this edge there, if addresses are translated.
    pub translated: Option<IpAddr>,
}

/// How messages of IKE get from an edge to its authority, and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Negotiation {
    /// By the channel.
    #[default]
    Channel,
    /// By themselves, with other addresses.
    Translation,
    /// By messages of the connectivity protocol.
    Messages,
}

/// Which edges get an SA when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// All of them.
    #[default]
    All,
    /// Those that are chosen, and the one that the client was heard by.
    Chosen,
    /// The one that the client was heard by; others ask when they need it.
    Last,
}

impl Config {
    /// In the SPIs that the node issues: of a gateway among those that share an address, or of an authority
    /// among several.
    #[must_use]
    pub fn number(&self) -> Option<u8> {
        let channel = self.channel.as_ref().map(|channel| &channel.end);
        match (&self.steering, channel) {
            (Some(steering), _) => Some(steering.number),
            (None, Some(ChannelEnd::Authority { number, .. })) => *number,
            _ => None,
        }
    }
}

impl Checker<'_> {
    pub(super) fn channel(
        &mut self,
        table: Table<file::Channel>,
        role: Role,
        outside: Option<&Outside>,
        inside: Option<&Inside>,
    ) -> Option<Channel> {
        if matches!(role, Role::Client | Role::Front) {
            let why = "it knows nothing of authorities";
            self.unused(table.as_ref(), "[channel]", role, why);
            return None;
        }
        if role == Role::Authority && table.is_none() {
            let what = "where edges connect, and the certificate that is shown to them";
            self.required(table.as_ref(), &super::check::TOP, "[channel]", what);
        }
        let table = table?;
        let at = table.span();
        let table = table.into_inner();
        if role == Role::Gateway && outside.is_some_and(|outside| outside.address.is_none()) {
            let said = "[channel]: `outside.address` is missing: expected the address that the edges share";
            self.error(&at, said);
        }
        let cert = self.required(
            table.cert,
            &at,
            "channel.cert",
            "a file, such as \"edge-1.pem\"",
        );
        let key = self.required(
            table.key,
            &at,
            "channel.key",
            "a file, such as \"edge-1.key\"",
        );
        if table.ca.is_empty() {
            let said = "channel.ca: found none, expected the files of the CAs that the other end's certificate is of";
            self.error(&at, said);
        }
        let cert = cert.map(|path| self.beside(path.get_ref()));
        let key = key.map(|path| self.beside(path.get_ref()));
        let ca = table.ca.iter().map(|path| self.beside(path.get_ref()));
        let ca = ca.collect();
        let end = match role {
            Role::Authority => {
                if let Some(first) = table.authorities.first() {
                    let said = "[[channel.authority]]: found on an authority, expected on edges";
                    self.error(&first.span(), said);
                }
                let what = "the address and port where edges connect, such as \"10.0.0.1:4510\"";
                let listen = self.required(table.listen, &at, "channel.listen", what);
                let listen = listen.and_then(|text| self.endpoint(&text, "channel.listen"));
                let edges = self.edges(table.edges, &at, outside);
                let why = "it follows its edges";
                self.unused(table.negotiation.as_ref(), "channel.negotiation", role, why);
                let why = "its routes say by which interface it answers";
                self.unused(table.interface.as_ref(), "channel.interface", role, why);
                let why = "notaries speak of edges";
                self.unused(table.notary.as_ref(), "channel.notary", role, why);
                let distribution_at = table
                    .distribution
                    .as_ref()
                    .map_or(at.clone(), Spanned::span);
                let distribution = self.named_or(table.distribution, "channel.distribution");
                let chosen = edges.iter().filter(|edge| edge.chosen).count();
                let said = match (distribution, chosen) {
                    (Distribution::Chosen, 0) => Some(
                        "channel.distribution: found `chosen`, and no edge with `chosen = true`",
                    ),
                    (Distribution::All | Distribution::Last, 1..) => {
                        Some("channel.edge.chosen has no effect without distribution = \"chosen\"")
                    }
                    _ => None,
                };
                if let Some(said) = said {
                    self.warn(&distribution_at, said);
                }
                let number = self.authority_number(table.number, "channel.number");
                ChannelEnd::Authority {
                    listen: listen?,
                    number,
                    edges,
                    distribution,
                }
            }
            Role::Gateway | Role::Client | Role::Front => {
                if let Some(first) = table.edges.first() {
                    let said = "[[channel.edge]]: found on a gateway, expected on its authority";
                    self.error(&first.span(), said);
                }
                let why = "its authority says which SAs it gets";
                self.unused(
                    table.distribution.as_ref(),
                    "channel.distribution",
                    role,
                    why,
                );
                let why = "an edge connects to its authority";
                self.unused(table.listen.as_ref(), "channel.listen", role, why);
                let why = "the number of an authority stands with it, in [[channel.authority]]";
                self.unused(table.number.as_ref(), "channel.number", role, why);
                if table.authorities.is_empty() {
                    self.error(&at, "no [[channel.authority]]: expected one or more, each with address and name");
                }
                let negotiation_at = table.negotiation.as_ref().map_or(at.clone(), Spanned::span);
                let negotiation = self.named_or(table.negotiation, "channel.negotiation");
                let interface = self.answered_by(
                    table.interface,
                    negotiation,
                    &negotiation_at,
                    outside,
                    inside,
                );
                let mut authorities = Vec::new();
                for authority in table.authorities {
                    let at = authority.span();
                    let authority = authority.into_inner();
                    let number =
                        self.authority_number(authority.number, "channel.authority.number");
                    let what = "the authority's address and port, such as \"10.0.0.1:4510\"";
                    let key = "channel.authority.address";
                    let address = self.required(authority.address, &at, key, what);
                    let address = address.and_then(|text| self.endpoint(&text, key));
                    let name = self.certified(authority.name, &at, "channel.authority.name");
                    let translated =
                        self.stands_for_us(authority.translated, negotiation, &at, outside);
                    if let (Some(address), Some(name)) = (address, name) {
                        authorities.push(NamedAuthority {
                            number,
                            address,
                            name,
                            translated,
                        });
                    }
                }
                self.not_too_many(&authorities, negotiation, &at);
                let unnumbered = authorities.iter().filter(|at| at.number.is_none()).count();
                if unnumbered != 0 && unnumbered != authorities.len() {
                    let said = "channel.authority.number: found with some authorities, expected with all or none";
                    self.error(&at, said);
                }
                ChannelEnd::Edge {
                    authorities,
                    negotiation,
                    interface: interface?,
                    notary: table.notary.is_none_or(Spanned::into_inner),
                }
            }
        };
        Some(Channel {
            cert: cert?,
            key: key?,
            ca,
            end,
        })
    }

    fn edges(
        &mut self,
        tables: Vec<Spanned<file::ChannelEdge>>,
        at: &Place,
        outside: Option<&Outside>,
    ) -> Vec<NamedEdge> {
        if tables.is_empty() {
            self.warn(
                at,
                "no [[channel.edge]]: no edge can connect, and no client be served",
            );
        }
        let (mut edges, mut numbers, mut names) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut stands = HashSet::new();
        for edge in tables {
            let at = edge.span();
            let edge = edge.into_inner();
            let number_at = edge.number.as_ref().map_or(at.clone(), Spanned::span);
            let what = "its number among the edges, such as 1";
            let number = self.required(edge.number, &at, "channel.edge.number", what);
            let number = self.number(number, "channel.edge.number", 1..=MAX_EDGE);
            let number = number.and_then(|number| u16::try_from(number).ok());
            if let Some(number) = number.filter(|number| !numbers.insert(*number)) {
                let said = format!("channel.edge.number: {number} is there twice");
                self.error(&number_at, said);
            }
            let name = self.certified(edge.name, &at, "channel.edge.name");
            if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
                let said = format!("channel.edge.name: `{name}` is there twice");
                self.error(&at, said);
            }
            let translated = self.stands_for_edge(edge.translated, &mut stands, outside);
            if let (Some(number), Some(name)) = (number, name) {
                let number = EdgeId(number);
                edges.push(NamedEdge {
                    number,
                    name,
                    chosen: edge.chosen.is_some_and(Spanned::into_inner),
                    translated,
                });
            }
        }
        edges
    }

    fn authority_number(&mut self, number: Number, key: &str) -> Option<u8> {
        let found = self.number(number, key, 1..=HIGHEST_NUMBER.into())?;
        u8::try_from(found).ok()
    }

    /// A name of a certificate.
    fn certified(&mut self, name: Text, at: &Place, key: &str) -> Option<String> {
        let what = "a host name of its certificate, such as \"edge-1.example\"";
        let name = self.required(name, at, key, what)?;
        let found = name.get_ref();
        let sane = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        if found.is_empty() || found.len() > 253 || !found.bytes().all(sane) {
            let said = format!("{key}: found `{found}`, expected {what}");
            self.error(&name.span(), said);
            return None;
        }
        Some(found.to_ascii_lowercase())
    }

    fn endpoint(&mut self, text: &Spanned<String>, key: &str) -> Option<SocketAddr> {
        let what = "an IP address and a port, such as 10.0.0.1:4510 or [2001:db8::1]:4510";
        self.parsed(text, key, what)
    }
}
