//! What nodes say about themselves: the JSON of `evergate status` and `evergate events`.

use super::topology::{GATEWAYS, gateway_number};
use super::{Lab, Place};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The parts of a node's status that the lab looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) drain: Option<Drain>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) front: Option<Front>,
    pub(crate) authorities: Vec<Authority>,
    pub(crate) connectivity: Option<Connectivity>,
    pub(crate) counters: Vec<Counter>,
    pub(crate) drops: Vec<Counter>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Edge {
    pub(crate) number: u16,
    pub(crate) relayed: u64,
    pub(crate) translated: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Authority {
    pub(crate) number: Option<u8>,
    pub(crate) at: Option<std::net::SocketAddr>,
    pub(crate) pairs: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Connectivity {
    pub(crate) parties: Vec<Party>,
    pub(crate) found: u64,
    pub(crate) lacking: u64,
    pub(crate) answered: u64,
    pub(crate) ike_sent: u64,
    pub(crate) ike_received: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Front {
    pub(crate) slots: u32,
    pub(crate) nodes: Vec<FrontNode>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Party {
    pub(crate) present: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FrontNode {
    pub(crate) number: u8,
    pub(crate) state: String,
    pub(crate) slots: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Drain {
    pub(crate) sessions: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Interface {
    pub(crate) side: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) mtu: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cluster {
    pub(crate) active: Option<String>,
    pub(crate) state: String,
    pub(crate) gateways: Vec<Gateway>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gateway {
    pub(crate) address: String,
    pub(crate) keyed: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Session {
    pub(crate) peer: String,
    pub(crate) outside: String,
    pub(crate) spi_in: String,
    pub(crate) spi_out: String,
    pub(crate) active: bool,
    pub(crate) initiator: bool,
    pub(crate) resumed: bool,
    pub(crate) path_mtu: u32,
    pub(crate) path_state: String,
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Counter {
    pub(crate) name: String,
    pub(crate) value: u64,
}

/// One thing that a node noticed; the clock is CLOCK_MONOTONIC, the same in every namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) mono_ns: u64,
    pub(crate) kind: String,
    pub(crate) gateway: Option<String>,
    pub(crate) text: String,
}

impl Event {
    /// The lab's number of the gateway that this is about.
    pub(crate) fn gateway_number(&self) -> Option<u8> {
        self.gateway.as_deref().and_then(gateway_number)
    }
}

impl Status {
    /// The gateway that carries the client's traffic.
    pub(crate) fn active(&self) -> Option<u8> {
        self.clusters
            .first()
            .and_then(|c| c.active.as_deref())
            .and_then(gateway_number)
    }

    /// Every gateway that traffic could switch to without an exchange.
    pub(crate) fn keyed(&self) -> Vec<u8> {
        let gateways = self.clusters.iter().flat_map(|c| &c.gateways);
        gateways
            .filter(|g| g.keyed)
            .filter_map(|g| gateway_number(&g.address))
            .collect()
    }

    /// A counter or drop reason by name; zero when the node does not list it.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let all: HashMap<&str, u64> = self
            .counters
            .iter()
            .chain(&self.drops)
            .map(|c| (c.name.as_str(), c.value))
            .collect();
        all.get(name).copied().unwrap_or_default()
    }
}

impl Lab {
    /// What the client and the gateways that run have dropped, and why; for the message of a case that
    /// misses packets.
    pub(crate) fn drops(&self) -> String {
        let places = GATEWAYS.map(Place::Gateway).into_iter();
        let told = places
            .chain([Place::Client, Place::Front])
            .filter_map(|place| {
                let drops = self.status(place).ok()?.drops;
                let reasons = drops.iter().filter(|drop| drop.value > 0);
                let reasons: Vec<String> =
                    reasons.map(|d| format!("{} {}", d.value, d.name)).collect();
                (!reasons.is_empty()).then(|| format!("{place}: {}", reasons.join(", ")))
            });
        told.collect::<Vec<_>>().join("; ")
    }

    /// Asks a node for its status.
    pub(crate) fn status(&self, place: Place) -> Result<Status> {
        let text = self.evergate(place, &["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("status of {place}: not understood"))
    }

    /// Asks a node for its events after number `since`.
    pub(crate) fn events(&self, place: Place, since: u64) -> Result<Vec<Event>> {
        let text = self.evergate(place, &["events", "--json", "--since", &since.to_string()])?;
        parse_events(&text).with_context(|| format!("events of {place}: not understood"))
    }

    /// Asks again and again until `condition` holds; an error tells what was waited for.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            let last = condition(self);
            if let Ok(Some(value)) = last {
                return Ok(value);
            }
            if Instant::now() > deadline {
                return match last {
                    Err(error) => Err(error.context(format!("waited {timeout:?}: {what}"))),
                    Ok(_) => bail!("waited {timeout:?} in vain: {what}"),
                };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the client's status satisfies `condition`.
    pub(crate) fn wait_client(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        self.wait(what, timeout, |lab| {
            let status = lab.status(Place::Client)?;
            Ok(condition(&status).then_some(status))
        })
    }
}

/// One JSON array, or one object a line.
fn parse_events(text: &str) -> Result<Vec<Event>> {
    let mut all = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>() {
        match value? {
            serde_json::Value::Array(list) => {
                for item in list {
                    all.push(serde_json::from_value(item)?);
                }
            }
            item => all.push(serde_json::from_value(item)?),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_as_array_or_lines() {
        let one =
            r#"{"seq":3,"mono_ns":5,"kind":"active","cluster":1,"gateway":"192.0.2.2","text":"x"}"#;
        for text in [format!("[{one},{one}]"), format!("{one}\n{one}\n")] {
            let events = parse_events(&text).unwrap();
            assert_eq!(events.len(), 2);
            assert_eq!(events[1].gateway_number(), Some(2));
            assert_eq!(events[1].seq, 3);
        }
        assert!(parse_events("nonsense").is_err());
    }

    #[test]
    fn status_tells_active_and_keyed() {
        let status: Status = serde_json::from_str(
            r#"{"name":"client","clusters":[{"id":1,"active":"192.0.2.3","state":"up","gateways":[
                {"address":"192.0.2.1","keyed":true},{"address":"192.0.2.3","keyed":true},
                {"address":"192.0.2.2","keyed":false}]}],
                "drops":[{"name":"replayed","text":"","value":7}]}"#,
        )
        .unwrap();
        assert_eq!(status.active(), Some(3));
        assert_eq!(status.keyed(), [1, 3]);
        assert_eq!(status.counter("replayed"), 7);
        assert_eq!(status.counter("none_such"), 0);
    }
}
