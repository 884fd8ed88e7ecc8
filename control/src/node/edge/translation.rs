//! An edge whose messages of IKE go to its authority by address translation: what its kernel has to be set to
//! for that, and where they go at present.

use std::fs;
use std::net::IpAddr;

use anyhow::{Result, bail};
use evergate_common::steering::GATEWAY_SLOTS;

use super::relay::choose_for;
use crate::cluster::wire::Up;
use crate::dataplane::TranslationOptions;
use crate::node::config::{ChannelEnd, Config, Negotiation};
use crate::node::core::Node;

/// What the data plane does for this edge, if it is to translate. `shared`: its outside address.
///
/// # Errors
/// The kernel would not forward what is translated.
pub(in crate::node) fn translation(
    config: &Config,
    shared: IpAddr,
) -> Result<Option<TranslationOptions>> {
    let end = config.channel.as_ref().map(|channel| &channel.end);
    let Some(ChannelEnd::Edge {
        authorities,
        negotiation: Negotiation::Translation,
        interface,
        ..
    }) = end
    else {
        return Ok(None);
    };
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/{name}")).ok();
    if let Some(problem) = problem(shared, &config.outside.interface, interface, read) {
        bail!("channel.negotiation = \"translation\": {problem}");
    }
    Ok(Some(TranslationOptions {
        shared,
        answers: authorities.iter().filter_map(|at| at.translated).collect(),
        interface: interface.clone(),
    }))
}

/// What is wrong with the kernel's settings. What can not be read is not wrong.
fn problem(
    shared: IpAddr,
    outside: &str,
    interface: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let number = |name: &str| read(name)?.trim().parse::<i32>().ok();
    if shared.is_ipv6() {
        let setting = "net.ipv6.conf.all.forwarding";
        return (number("ipv6/conf/all/forwarding") == Some(0)).then(|| {
            format!(
                "the kernel is to forward messages and answers: expected {setting} = 1, found 0"
            )
        });
    }
    for name in [outside, interface] {
        if number(&format!("ipv4/conf/{name}/forwarding")) == Some(0) {
            return Some(format!(
                "the kernel is to forward what comes by {name}: expected net.ipv4.ip_forward = 1, found \
                 net.ipv4.conf.{name}.forwarding = 0"
            ));
        }
    }
    // As the kernel takes them together.
    let both = |setting: &str| {
        let all = number(&format!("ipv4/conf/all/{setting}"))?;
        Some(all.max(number(&format!("ipv4/conf/{interface}/{setting}"))?))
    };
    if both("accept_local") == Some(0) {
        return Some(format!(
            "answers come by {interface} with {shared} as their source, which the kernel takes for forged: \
             expected net.ipv4.conf.{interface}.accept_local = 1, found 0"
        ));
    }
    if both("rp_filter") == Some(1) {
        return Some(format!(
            "answers come by {interface} with {shared} as their source, which the kernel takes for forged: \
             expected net.ipv4.conf.{interface}.rp_filter = 0 or 2 (and all.rp_filter), found 1"
        ));
    }
    None
}

/// Where messages of a slot of the map go, if these authorities are connected: their numbers (none: there is no
/// other), and the addresses that stand for this edge there.
fn destination(slot: u32, connected: &[(Option<u8>, IpAddr)]) -> Option<IpAddr> {
    let mut all = connected.iter();
    let found = match slot.checked_sub(GATEWAY_SLOTS) {
        None => all.find(|(number, _)| number.is_none_or(|number| u32::from(number) == slot)),
        Some(clients) => {
            let numbers = all.map(|(number, _)| number.unwrap_or(0)).enumerate();
            choose_for(clients, numbers).and_then(|index| connected.get(index))
        }
    };
    found.map(|(_, to)| *to)
}

impl Node {
    /// The connection to an authority has come or gone: other addresses are put into messages.
    pub(super) fn translate_anew(&mut self, link: usize) -> Result<()> {
        let end = self.config.channel.as_ref().map(|channel| &channel.end);
        let (
            Some(edge),
            Some(ChannelEnd::Edge {
                authorities,
                negotiation: Negotiation::Translation,
                ..
            }),
        ) = (&self.edge, end)
        else {
            return Ok(());
        };
        let stands = |at| {
            let known = authorities.iter().find(|known| Some(known.address) == at);
            known.and_then(|known| known.translated)
        };
        let links = edge.links.iter();
        let connected = links.filter_map(|link| Some((link.number, stands(link.at)?)));
        let connected: Vec<_> = connected.collect();
        let to = edge.links.get(link).and_then(|link| stands(link.at));
        if let Some(to) = to {
            // Before the first message comes that way.
            self.tell(link, Up::Translates { to });
        }
        let to = |slot| destination(slot, &connected);
        Ok(self.dataplane.translate(to)?)
    }
}

#[cfg(test)]
mod tests {
    use evergate_common::translation::TOWARD_SLOTS;

    use super::*;

    #[test]
    fn what_the_kernel_would_not_forward_is_told() {
        let good = [
            ("ipv4/conf/wan0/forwarding", "1"),
            ("ipv4/conf/lan0/forwarding", "1"),
            ("ipv4/conf/all/accept_local", "0"),
            ("ipv4/conf/lan0/accept_local", "1"),
            ("ipv4/conf/all/rp_filter", "2"),
            ("ipv4/conf/lan0/rp_filter", "1"),
            ("ipv6/conf/all/forwarding", "0"),
        ];
        let ask = |shared: &str, change: Option<(&str, &str)>| {
            problem(shared.parse().unwrap(), "wan0", "lan0", |name| {
                let changed = change.filter(|(changed, _)| *changed == name);
                let found = changed.or(good.into_iter().find(|(known, _)| *known == name));
                found.map(|(_, value)| format!("{value}\n"))
            })
        };
        assert_eq!(ask("192.0.2.1", None), None);
        for (name, value, said) in [
            ("ipv4/conf/wan0/forwarding", "0", "conf.wan0.forwarding = 0"),
            ("ipv4/conf/lan0/forwarding", "0", "conf.lan0.forwarding = 0"),
            ("ipv4/conf/lan0/accept_local", "0", "lan0.accept_local = 1"),
            ("ipv4/conf/all/rp_filter", "0", "lan0.rp_filter = 0 or 2"),
        ] {
            let problem = ask("192.0.2.1", Some((name, value))).unwrap();
            assert!(problem.contains(said), "{problem}");
        }
        assert_eq!(
            ask("192.0.2.1", Some(("ipv4/conf/all/accept_local", "x"))),
            None
        );
        let problem = ask("2001:db8::1", None).unwrap();
        assert!(
            problem.contains("net.ipv6.conf.all.forwarding = 1"),
            "{problem}"
        );
        assert_eq!(
            ask("2001:db8::1", Some(("ipv6/conf/all/forwarding", "1"))),
            None
        );
    }

    #[test]
    fn messages_go_where_their_number_says_and_clients_are_shared_out() {
        let [one, two, three]: [IpAddr; 3] =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| text.parse().unwrap());
        let all = |connected: &[(Option<u8>, IpAddr)]| -> Vec<Option<IpAddr>> {
            (0..TOWARD_SLOTS)
                .map(|slot| destination(slot, connected))
                .collect()
        };
        assert!(all(&[]).iter().all(Option::is_none));
        assert!(all(&[(None, one)]).iter().all(|to| *to == Some(one)));
        let three = all(&[(Some(1), one), (Some(2), two), (Some(9), three)]);
        let numbers: Vec<_> = (0..)
            .zip(&three[..64])
            .filter(|(_, to)| to.is_some())
            .collect();
        assert_eq!(numbers.len(), 3);
        assert_eq!((three[1], three[2]), (Some(one), Some(two)));
        let left = all(&[(Some(2), two), (Some(1), one)]);
        let moved = three[64..].iter().zip(&left[64..]).filter(|(a, b)| a != b);
        let moved: Vec<_> = moved.map(|(before, _)| *before).collect();
        assert!((280..410).contains(&moved.len()), "{}", moved.len());
        assert!(moved.iter().all(|before| *before == three[9]));
    }
}
