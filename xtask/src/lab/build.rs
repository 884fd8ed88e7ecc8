//! Making and removing the namespaces.

use super::pass;
use super::topology::{GATEWAYS, PLAIN_TARGET, Place, TARGETS, gateway_inside};
use crate::{rootless, sh};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Removes what a former run left (also after a crash), then builds everything afresh.
pub(super) fn up(prefix: &str, queues: u32, dir: &Path) -> Result<()> {
    check_prefix(prefix)?;
    down(prefix)?;
    let built = Builder { prefix, queues }.build(dir);
    if built.is_err() {
        let _ = down(prefix);
    }
    built
}

/// Kills what runs inside the lab's namespaces, and only that, then removes them.
pub(super) fn down(prefix: &str) -> Result<()> {
    check_prefix(prefix)?;
    let there = present(prefix)?;
    for namespace in &there {
        for pid in pids(namespace)? {
            // Gone meanwhile is as good as killed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(3);
    for namespace in &there {
        while !pids(namespace)?.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        sh::read(Command::new("ip").args(["netns", "del", namespace]))?;
    }
    Ok(())
}

/// The namespaces of this lab that exist.
pub(super) fn present(prefix: &str) -> Result<Vec<String>> {
    Ok(Place::ALL
        .iter()
        .chain(&[Place::Front, Place::Generator])
        .map(|place| format!("{prefix}{place}"))
        .filter(|name| Path::new("/run/netns").join(name).exists())
        .collect())
}

/// Processes that live in a namespace.
pub(super) fn pids(namespace: &str) -> Result<Vec<i32>> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let list = sh::read(Command::new("ip").args(["netns", "pids", namespace]))?;
    Ok(list
        .lines()
        .filter_map(|l| l.trim().parse().ok())
        .filter(|pid| *pid != own)
        .collect())
}

pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if prefix.is_empty() || prefix.len() > 12 || !prefix.chars().all(plain) {
        bail!("prefix {prefix:?}: expected 1 to 12 of a-z, 0-9 and '-'");
    }
    Ok(())
}

/// What the veth pairs do for the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offloads {
    /// Everything: packets of up to 64 kB cross as one. No XDP program works then.
    All,
    /// What XDP programs need, and segmentation at the ends.
    Usual,
    /// No segmentation at all: every packet crosses by itself.
    None,
}

/// Sets the offloads of a lab that is up.
pub(super) fn set_offloads(prefix: &str, dir: &Path, offloads: Offloads) -> Result<()> {
    Builder { prefix, queues: 1 }.set_offloads(offloads, dir)
}

/// In the lab's folder: the XDP program of the switch ports.
pub(super) const PASS_OBJECT: &str = "pass.o";

/// Interface index of the first switch port. No end of a cable has the index of its port: the
/// kernel would take it for a link of its own kind and tell a pulled cable up to a second late.
const PORT_INDEX: u32 = 101;

struct Builder<'a> {
    prefix: &'a str,
    queues: u32,
}

/// One cable: what each end is called, where it is, and its MAC address.
struct Cable {
    switch: Place,
    port: String,
    end: Place,
    interface: &'static str,
    mac: String,
}

impl Builder<'_> {
    fn build(&self, dir: &Path) -> Result<()> {
        for place in Place::ALL {
            sh::read(Command::new("ip").args(["netns", "add", &self.ns(place)])).with_context(
                || "can not make a network namespace (root and CONFIG_NET_NS are needed)",
            )?;
            self.shell(place, SYSCTLS)?;
        }
        for place in ROUTERS {
            self.shell(place, FORWARD)?;
        }
        for (index, cable) in (PORT_INDEX..).zip(cables()) {
            self.plug(&cable, index)?;
        }
        self.ip(Place::Wan, WAN)?;
        self.ip(Place::Lan, LAN)?;
        self.ip(Place::Client, CLIENT)?;
        for number in GATEWAYS {
            self.ip(Place::Gateway(number), &gateway(number))?;
        }
        self.ip(Place::Target, &target())?;
        if rootless::without_xdp() {
            return self.set_offloads(Offloads::All, dir);
        }
        pass::write_object(&dir.join(PASS_OBJECT))?;
        self.set_offloads(Offloads::Usual, dir)
    }

    fn ns(&self, place: Place) -> String {
        format!("{}{place}", self.prefix)
    }

    /// One veth pair, made inside the switch's namespace: nothing of it is visible outside.
    fn plug(&self, cable: &Cable, index: u32) -> Result<()> {
        let q = self.queues;
        let Cable {
            port,
            interface,
            mac,
            ..
        } = cable;
        // Queues: a veth's active count is what it was created with, not its maximum.
        self.ip(
            cable.switch,
            &format!(
                "link add {port} index {index} numrxqueues {q} numtxqueues {q} type veth peer name {interface} \
                 address {mac} numrxqueues {q} numtxqueues {q} netns {}\n",
                self.ns(cable.end)
            ),
        )
    }

    fn ip(&self, place: Place, batch: &str) -> Result<()> {
        sh::feed(
            Command::new("ip").args(["-n", &self.ns(place), "-batch", "-"]),
            batch,
        )
    }

    fn shell(&self, place: Place, script: &str) -> Result<()> {
        let ns = self.ns(place);
        sh::read(Command::new("ip").args(["netns", "exec", &ns, "sh", "-c", script])).map(drop)
    }

    /// The ends that face an XDP program: `tx off`, or the program sees unfinished checksums;
    /// `gro on`, or the kernel drops what a program redirects to them; those that a gateway's
    /// program answers to have a program themselves (see `pass.rs`).
    fn set_offloads(&self, offloads: Offloads, dir: &Path) -> Result<()> {
        let on = |yes: bool| if yes { "on" } else { "off" };
        let tx = on(offloads == Offloads::All);
        let segments = on(offloads != Offloads::None);
        let set = |ports: &[&str], features: &str| {
            let lines = ports
                .iter()
                .map(|p| format!("ethtool -K {p} {features} >/dev/null\n"));
            format!("set -e\n{}", lines.collect::<String>())
        };
        let facing = format!("gro on tx {tx} tso {segments} gso {segments}");
        self.shell(Place::Wan, &set(&["client", "gw1", "gw2", "gw3"], &facing))?;
        self.shell(Place::Lan, &set(&["gw1", "gw2", "gw3"], &facing))?;
        let ends = format!("tso {segments} gso {segments}");
        self.shell(Place::Client, &set(&["out0"], &ends))?;
        self.shell(Place::Target, &set(&["eth0"], &ends))?;
        let program = match offloads {
            Offloads::All => "off".to_owned(),
            _ => format!(
                "obj '{}' sec {}",
                dir.join(PASS_OBJECT).display(),
                pass::SECTION
            ),
        };
        let ports: &[&str] = match rootless::without_xdp() {
            true => &[],
            false => &["gw1", "gw2", "gw3"],
        };
        for port in ports {
            // Off first: a program that is attached is not replaced.
            let script = format!("ip link set {port} xdp off\nip link set {port} xdp {program}");
            self.shell(Place::Wan, &script)
                .context("the switch ports can not get an XDP program (CONFIG_BPF_SYSCALL)")?;
        }
        Ok(())
    }
}

fn cables() -> Vec<Cable> {
    let mut all = vec![
        Cable {
            switch: Place::Wan,
            port: "client".into(),
            end: Place::Client,
            interface: "out0",
            mac: "02:00:00:01:00:02".into(),
        },
        Cable {
            switch: Place::Lan,
            port: "target".into(),
            end: Place::Target,
            interface: "eth0",
            mac: "02:00:00:03:00:01".into(),
        },
    ];
    for number in GATEWAYS {
        let end = Place::Gateway(number);
        let port = end.to_string();
        all.push(Cable {
            switch: Place::Wan,
            port: port.clone(),
            end,
            interface: "wan0",
            mac: format!("02:00:00:02:00:0{number}"),
        });
        all.push(Cable {
            switch: Place::Lan,
            port,
            end,
            interface: "lan0",
            mac: format!("02:00:00:03:00:f{number}"),
        });
    }
    all
}

/// No reverse-path filter, no redirects, no duplicate address detection (it delays by a second).
pub(super) const SYSCTLS: &str = "
cd /proc/sys/net
for c in all default; do
  for k in rp_filter send_redirects accept_redirects; do echo 0 > ipv4/conf/$c/$k; done
  [ -d ipv6 ] || continue
  for k in accept_dad dad_transmits accept_ra router_solicitations; do
    echo 0 > ipv6/conf/$c/$k
  done
done
echo 0 > ipv4/icmp_ratelimit
ip link set lo up
";

/// Places that forward packets by the kernel.
const ROUTERS: [Place; 4] = [
    Place::Wan,
    Place::Gateway(1),
    Place::Gateway(2),
    Place::Gateway(3),
];

pub(super) const FORWARD: &str = "
cd /proc/sys/net
echo 1 > ipv4/ip_forward
[ ! -d ipv6 ] || echo 1 > ipv6/conf/all/forwarding
";

const WAN: &str = "\
link add br0 address 02:00:00:02:00:fe type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set gw1 master br0 up
link set gw2 master br0 up
link set gw3 master br0 up
link set client address 02:00:00:01:00:01 up
link set br0 up
addr add 198.51.100.1/24 dev client
addr add 192.0.2.254/24 dev br0
addr add 2001:db8:1::1/64 dev client nodad
addr add 2001:db8:2::fe/64 dev br0 nodad
route add 10.0.9.1/32 via 192.0.2.3
";

const LAN: &str = "\
link add br0 address 02:00:00:03:00:fe type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set gw1 master br0 up
link set gw2 master br0 up
link set gw3 master br0 up
link set target master br0 up
link set br0 up
";

const CLIENT: &str = "\
link set out0 up
addr add 198.51.100.2/24 dev out0
addr add 2001:db8:1::2/64 dev out0 nodad
route add default via 198.51.100.1
route add default via 2001:db8:1::1
";

fn gateway(number: u8) -> String {
    let plain = if number == 3 {
        format!("route add {PLAIN_TARGET}/32 via {}\n", TARGETS[0])
    } else {
        String::new()
    };
    format!(
        "\
link set wan0 up
link set lan0 up
addr add 192.0.2.{number}/24 dev wan0
addr add 2001:db8:2::{number}/64 dev wan0 nodad
addr add {}/24 dev lan0
addr add 2001:db8:3::f{number}/64 dev lan0 nodad
route add default via 192.0.2.254
route add default via 2001:db8:2::fe
{plain}",
        gateway_inside(number)
    )
}

fn target() -> String {
    let mut batch = String::from("link set eth0 up\n");
    for (index, address) in TARGETS.iter().enumerate() {
        let _ = writeln!(batch, "addr add {address}/24 dev eth0");
        let _ = writeln!(
            batch,
            "addr add 2001:db8:3::{}/64 dev eth0 nodad",
            index + 1
        );
    }
    let _ = writeln!(batch, "addr add {PLAIN_TARGET}/32 dev lo");
    // The way back of the plain path; the tunnel's way back is ARP for the client's inner address.
    let _ = writeln!(batch, "route add 198.51.100.0/24 via {}", gateway_inside(3));
    batch
}
