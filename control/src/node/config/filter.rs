//! The table `[filter]`: what users may have past the tunnel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use evergate_common::filter::MAX_CLASSES;
use ipnet::IpNet;
use toml::Spanned;

use super::check::{Checker, Place};
use super::file::{self, Table};
use super::{Named, Outside, Role, XdpMode};
use crate::dataplane::{ClassSpec, Rule};

impl Named for Rule {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("tunnel", Self::Tunnel),
        ("split", Self::Split),
        ("plain", Self::Plain),
    ];
}

/// Classes of users, and users that have one by their address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub classes: BTreeMap<String, ClassSpec>,
    /// The class of addresses that are no user's; otherwise everything of theirs passes.
    pub default: Option<String>,
    pub users: BTreeMap<IpAddr, String>,
}

impl Checker<'_> {
    pub(super) fn filter(
        &mut self,
        table: Table<file::Filter>,
        role: Role,
        outside: Option<&Outside>,
    ) -> Option<Filter> {
        if !matches!(role, Role::Gateway | Role::Front) {
            let why = "only a gateway or a front forwards for others";
            self.unused(table.as_ref(), "[filter]", role, why);
            return None;
        }
        let table = table?;
        let at = table.span();
        let table = table.into_inner();
        if outside.is_some_and(|outside| outside.xdp == XdpMode::Off) {
            let said =
                "[filter]: found outside.xdp = \"off\", expected an XDP program, which does it";
            self.error(&at, said);
        }
        let mut filter = Filter::default();
        for class in table.classes {
            self.filter_class(class, &mut filter);
        }
        let (found, most) = (filter.classes.len(), MAX_CLASSES as usize - 1);
        if found > most {
            let said = format!("[[filter.class]]: found {found}, expected at most {most}");
            self.error(&at, said);
        }
        if filter.classes.is_empty() {
            let said = "[filter] names no class: everything passes";
            self.warn(&at, said);
        }
        filter.default = table
            .default
            .and_then(|name| self.class_of(name, "filter.default", &filter));
        for user in table.users {
            let at = user.span();
            let user = user.into_inner();
            let what = "the user's address";
            let text = self.required(user.address, &at, "filter.user.address", what);
            let place = text.as_ref().map_or(at.clone(), Spanned::span);
            let address = text.and_then(|text| self.unicast(&text, "filter.user.address"));
            let class = self.required(user.class, &at, "filter.user.class", "one of the classes");
            let class = class.and_then(|name| self.class_of(name, "filter.user.class", &filter));
            if let (Some(address), Some(class)) = (address, class)
                && filter.users.insert(address, class).is_some()
            {
                let said = format!("filter.user.address: {address} is there twice");
                self.error(&place, said);
            }
        }
        Some(filter)
    }

    fn filter_class(&mut self, class: Spanned<file::FilterClass>, filter: &mut Filter) {
        let at = class.span();
        let class = class.into_inner();
        let what = "a name, such as \"guests\"";
        let name = self.required(class.name, &at, "filter.class.name", what);
        let what = "\"tunnel\", \"split\" or \"plain\"";
        let rule = self.required(class.rule, &at, "filter.class.rule", what);
        let rule = rule.and_then(|rule| self.named::<Rule>(&rule, "filter.class.rule"));
        let nets = class.direct.iter();
        let direct: Vec<IpNet> = nets.filter_map(|net| self.direct_net(net)).collect();
        if let (Some(Rule::Tunnel), Some(first)) = (rule, class.direct.first()) {
            let said = "filter.class.direct: found networks, expected none where everything has to go through \
                        the tunnel";
            self.error(&first.span(), said);
        }
        let (Some(name), Some(rule)) = (name, rule) else {
            return;
        };
        if rule == Rule::Plain && direct.is_empty() {
            let said = "filter.class.direct is empty: users of this class reach nothing";
            self.warn(&at, said);
        }
        let place: Place = name.span();
        let name = name.into_inner();
        if name.is_empty() || filter.classes.contains_key(&name) {
            let said =
                format!("filter.class.name: found `{name}`, expected one that no other class has");
            return self.error(&place, said);
        }
        filter.classes.insert(name, ClassSpec { rule, direct });
    }

    fn direct_net(&mut self, text: &Spanned<String>) -> Option<IpNet> {
        let key = "filter.class.direct";
        let net: IpNet = self.parsed(text, key, "a network such as 203.0.113.0/24")?;
        if net != net.trunc() {
            let said = format!("{key}: found {net}, expected {}", net.trunc());
            self.error(&text.span(), said);
            return None;
        }
        Some(net)
    }

    /// The name of a class that there is.
    fn class_of(&mut self, name: Spanned<String>, key: &str, filter: &Filter) -> Option<String> {
        if filter.classes.contains_key(name.get_ref()) {
            return Some(name.into_inner());
        }
        let known: Vec<&str> = filter.classes.keys().map(String::as_str).collect();
        let known = known.join(", ");
        let said = format!(
            "{key}: found `{}`, expected one of the classes: {known}",
            name.get_ref()
        );
        self.error(&name.span(), said);
        None
    }
}
