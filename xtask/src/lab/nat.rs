//! The router as a NAT: the client is seen under another address, with other ports, and nothing but
//! answers reaches it.

use super::{Lab, Place};
use crate::sh;
use anyhow::{Context, Result};
use std::process::Command;

/// What the NAT makes of the client's addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    /// An address of the gateways' network: 192.0.2.`host`.
    pub(crate) host: u8,
    /// The client's source ports become random ones of the 100 from this one on.
    pub(crate) first_port: u16,
}

impl Mapping {
    pub(crate) fn address(self) -> String {
        format!("192.0.2.{}", self.host)
    }

    /// The same for IPv6: the prefix of the gateways' network.
    pub(crate) fn address_v6(self) -> String {
        format!("2001:db8:2::{:x}", self.host)
    }

    fn rules_v6(self) -> String {
        let (address, first) = (self.address_v6(), self.first_port);
        let last = first + 99;
        format!(
            "flush ruleset
table ip6 nat {{
  chain out {{
    type nat hook postrouting priority srcnat
    oifname \"br0\" ip6 saddr 2001:db8:1::/64 meta l4proto udp snat to [{address}]:{first}-{last} random
    oifname \"br0\" ip6 saddr 2001:db8:1::/64 snat to {address}
  }}
}}
table ip6 filter {{
  chain through {{
    type filter hook forward priority filter
    meta l4proto esp counter drop
    iifname \"br0\" oifname \"client\" ct state new counter drop
  }}
}}
"
        )
    }

    fn rules(self) -> String {
        let (address, first) = (self.address(), self.first_port);
        let last = first + 99;
        // ESP has no ports, and so no mapping that could be told from another client's.
        format!(
            "flush ruleset
table ip nat {{
  chain out {{
    type nat hook postrouting priority srcnat
    oifname \"br0\" ip saddr 198.51.100.0/24 meta l4proto udp snat to {address}:{first}-{last} random
    oifname \"br0\" ip saddr 198.51.100.0/24 snat to {address}
  }}
}}
table ip filter {{
  chain through {{
    type filter hook forward priority filter
    ip protocol esp counter drop
    iifname \"br0\" oifname \"client\" ct state new counter drop
  }}
}}
"
        )
    }
}

impl Lab {
    /// Puts a NAT between client and gateways, or gives the one that is there another mapping and
    /// makes it forget all flows, as a NAT that is restarted does.
    pub(crate) fn nat(&self, mapping: Mapping) -> Result<()> {
        let address = format!("{}/24", mapping.address());
        let own = ["ip", "addr", "replace", &address, "dev", "br0"];
        self.exec(Place::Wan, &own)?;
        self.wan_rules(&mapping.rules())?;
        self.exec(Place::Wan, &["conntrack", "-F"]).map(drop)
    }

    /// The same for IPv6 (NAT66).
    pub(crate) fn nat66(&self, mapping: Mapping) -> Result<()> {
        let address = format!("{}/64", mapping.address_v6());
        let own = ["ip", "addr", "replace", &address, "dev", "br0", "nodad"];
        self.exec(Place::Wan, &own)?;
        self.wan_rules(&mapping.rules_v6())?;
        self.exec(Place::Wan, &["conntrack", "-F"]).map(drop)
    }

    /// Lets nothing through the router that is ESP without UDP around it.
    pub(crate) fn drop_esp(&self) -> Result<()> {
        self.wan_rules(
            "flush ruleset
table ip filter {
  chain through {
    type filter hook forward priority filter
    ip protocol esp counter drop
  }
}
",
        )
    }

    /// Has the router load these rules of nftables.
    pub(crate) fn wan_rules(&self, rules: &str) -> Result<()> {
        let ns = self.ns(Place::Wan);
        sh::feed(
            Command::new("ip").args(["netns", "exec", &ns, "nft", "-f", "-"]),
            rules,
        )
        .context("the router takes no rules (CONFIG_NF_TABLES, CONFIG_NFT_NAT, nftables)")
    }
}
