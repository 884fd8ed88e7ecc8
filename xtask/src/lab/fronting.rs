//! A front before the edges of [`sharing`](super::sharing), which are its encryption nodes: in a namespace of
//! its own on their segment, or the first of them.

use super::build::PASS_OBJECT;
use super::sharing::{SHARED, Sharing};
use super::topology::GATEWAYS;
use super::{Lab, Place, pass};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::time::Duration;

/// The front's own address where it has a namespace of its own.
const FRONT: &str = "192.0.2.9";

/// Its address toward the router, where that is another network.
const BETWEEN: &str = "203.0.113.9";

/// What the front is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// A node of its own, on the segment of the others.
    Alone,
    /// The same, as if the others were elsewhere.
    Far,
    /// The same, between the router and the others: it has an interface to each side.
    Between,
    /// gw1, which is one of the encryption nodes too.
    First,
    /// A node of its own, and gw1, which stands by.
    Both,
}

impl Lab {
    /// Starts the authority, the edges as encryption nodes, and the front that the router brings everything
    /// for the shared address to; all but the client.
    pub(crate) fn front(&mut self, front: Front, sharing: Sharing) -> Result<Place> {
        let place = match front {
            Front::First => Place::Gateway(1),
            _ => Place::Front,
        };
        self.write_secret("front.key", &"7c".repeat(32))?;
        let sharing = Sharing {
            of_edge: match front {
                Front::First => |number| match number {
                    1 => format!(
                        "[front]\nnumber = 1\n{}",
                        front_toml("192.0.2.1", &[2, 3], "")
                    ),
                    _ => behind_toml(number, &["192.0.2.1"]),
                },
                Front::Both => |number| match number {
                    1 => format!(
                        "{}\n[front]\nnumber = 1\n{}",
                        behind_toml(1, &[FRONT]),
                        front_toml("192.0.2.1", &[2, 3], "")
                    ),
                    _ => behind_toml(number, &[FRONT, "192.0.2.1"]),
                },
                Front::Alone | Front::Far | Front::Between => {
                    |number| behind_toml(number, &[FRONT])
                }
            },
            ..sharing
        };
        if front != Front::First {
            self.plug_front()?;
        }
        self.share(&sharing)?;
        if front == Front::Far {
            // Room for a second IP header on the way to the nodes.
            let client = self.dir().join("client.toml");
            let text = std::fs::read_to_string(&client)?;
            let text = text.replace("interface = \"eg0\"", "interface = \"eg0\"\nmtu = 1400");
            std::fs::write(&client, text)?;
        }
        if front == Front::First {
            self.bring_to(1)?;
        } else {
            let (by, outside, via) = match front {
                Front::Far => ("by = \"ip\"\n", "wan0", FRONT),
                Front::Between => ("interface = \"wan0\"\n", "out0", BETWEEN),
                _ => ("", "wan0", FRONT),
            };
            let text = format!(
                "\
name = \"front\"
role = \"front\"
socket = \"{}\"
state = \"state\"

[outside]
interface = \"{outside}\"
address = \"{SHARED}\"

[privileges]
{user}

[front]
{}",
                self.socket(place).display(),
                front_toml(FRONT, &GATEWAYS, by),
                user = self.user_line(),
            );
            std::fs::write(self.dir().join("front.toml"), text)?;
            self.start(place)?;
            self.bring_by(via)?;
        }
        self.wait("every node has its share", Duration::from_secs(10), |lab| {
            let shares = lab.shares(place)?;
            Ok((shares.len() == 3 && shares.iter().all(|(_, share)| *share > 0)).then_some(()))
        })?;
        Ok(place)
    }

    /// The nodes of a front, each with how many slots of clients it has.
    pub(crate) fn shares(&self, front: Place) -> Result<Vec<(u8, u32)>> {
        let view = self.status(front)?.front.context("it is no front")?;
        Ok(view.nodes.iter().map(|n| (n.number, n.slots)).collect())
    }

    /// A namespace with an interface on the segment of the gateways.
    fn plug_front(&self) -> Result<()> {
        let (ns, wan) = (self.ns(Place::Front), self.ns(Place::Wan));
        let object = self.dir().join(PASS_OBJECT);
        let script = format!(
            "set -e\n\
             ip netns add {ns}\n\
             ip -n {wan} link add front index 151 type veth peer name wan0 address 02:00:00:02:00:09 netns {ns}\n\
             ip -n {wan} link set front master br0 up\n\
             ip netns exec {wan} ethtool -K front gro on tx off >/dev/null\n\
             ip -n {wan} link set front xdp obj '{}' sec {}\n\
             ip -n {ns} link set lo up\n\
             ip -n {ns} link set wan0 up\n\
             ip -n {ns} addr add {FRONT}/24 dev wan0\n\
             ip -n {ns} route add default via 192.0.2.254\n\
             ip -n {wan} link add front2 index 152 type veth peer name out0 address 02:00:00:04:00:09 netns {ns}\n\
             ip netns exec {wan} ethtool -K front2 gro on tx off >/dev/null\n\
             ip -n {wan} link set front2 up\n\
             ip -n {wan} addr add 203.0.113.10/30 dev front2\n\
             ip -n {ns} link set out0 up\n\
             ip -n {ns} addr add {BETWEEN}/30 dev out0\n",
            object.display(),
            pass::SECTION,
        );
        let mut command = std::process::Command::new("sh");
        crate::sh::read(command.args(["-c", &script])).map(drop)
    }
}

/// The rest of `[front]`, with its nodes.
fn front_toml(own: &str, nodes: &[u8], by: &str) -> String {
    let mut text = format!("address = \"{own}\"\nkey = \"front.key\"\n");
    for number in nodes {
        let _ = write!(
            text,
            "\n[[front.node]]\nnumber = {number}\naddress = \"192.0.2.{number}\"\n{by}"
        );
    }
    text
}

fn behind_toml(number: u8, fronts: &[&str]) -> String {
    format!("[behind]\naddress = \"192.0.2.{number}\"\nkey = \"front.key\"\nfronts = {fronts:?}\n")
}
