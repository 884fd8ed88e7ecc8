//! The policy that all clients read, as an operator would have written it.

use evergate::liveness::Timing;
use evergate::policy::{HeartbeatMode, Resolved, parse};
use rand::rngs::StdRng;

use super::{Scenario, gateway_address};

/// What a client makes of it; the order of gateways is drawn anew at each read.
pub(super) fn read(scenario: &Scenario, listed: &[bool], rng: &mut StdRng) -> Resolved {
    let Timing {
        mode,
        response_time,
        defer_time,
    } = scenario.timing;
    let mode = match mode {
        HeartbeatMode::None => "NONE",
        HeartbeatMode::Deferred => "DEFERRED",
        HeartbeatMode::Instant => "INSTANT",
    };
    let gateways = (0..listed.len()).filter(|g| listed[*g]);
    let gateways: Vec<String> = gateways.map(|g| gateway_address(g).to_string()).collect();
    let text = format!(
        "[GENERAL]\nHeartbeat = {mode}\nHeartbeatDeferTime = {}ms\nHeartbeatResponseTime = {}ms\n\
         Standby = {}\n[CLUSTER]\nCluster 1 = {}\n[TUNNEL]\n\
         Tunnel1 = 10.0.0.0 – 10.0.255.255 Cluster 1\n",
        defer_time.as_millis(),
        response_time.as_millis(),
        scenario.standby,
        gateways.join(" "),
    );
    let parsed = parse(&text);
    let policy = parsed.policy.expect("a policy without errors");
    policy.resolve(None, rng)
}
