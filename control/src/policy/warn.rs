//! What a policy may say but most likely does not mean.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::diagnostic::{Diagnostic, PolicyWarning, Span};
use super::duration::spell;
use super::keywords::Setting;
use super::model::{HeartbeatMode, Policy, Target, TunnelDef, Via};
use super::ownership::{Claim, Ownership};
use super::parse::Places;

/// Overlaps of one tunnel that are named one by one; the rest is counted.
const NAMED_OVERLAPS: usize = 8;
/// A detection that takes longer than this outlasts what many applications wait.
const LATE: Duration = Duration::from_secs(60);
/// A response time below this is shorter than round trips beyond a LAN.
const TIGHT: Duration = Duration::from_millis(5);

/// All warnings about a policy that has no error.
pub(super) fn warnings(policy: &Policy, places: &Places) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let mut warn = |span: Span, warning| warnings.push(Diagnostic::new(span, warning));
    let (ownership, claims) = Ownership::of(&policy.tunnels);
    for (tunnel, claim) in &claims {
        let span = places
            .tunnels
            .get(&tunnel.number)
            .map(|place| place.range)
            .unwrap_or_default();
        overlaps(tunnel.number, claim, |warning| warn(span, warning));
    }
    if policy.tunnels.is_empty() {
        warn(
            Span {
                line: 1,
                column: 1,
                length: 1,
            },
            PolicyWarning::NoTunnel,
        );
    }
    clusters(policy, places, &mut warn);
    gateways(policy, places, &ownership, &mut warn);
    for redirect in &policy.redirects {
        if tunnel(policy, redirect.tunnel).is_none_or(|tunnel| tunnel.target != Target::Auto) {
            let span = places.redirects.get(&(redirect.tunnel, redirect.server));
            let warning = PolicyWarning::IdleRedirect {
                number: redirect.tunnel,
            };
            warn(span.copied().unwrap_or_default(), warning);
        }
    }
    timers(policy, places, &mut warn);
    warnings
}

/// The parser has put the tunnels in order of number.
fn tunnel(policy: &Policy, number: u32) -> Option<&TunnelDef> {
    let at = policy
        .tunnels
        .binary_search_by_key(&number, |tunnel| tunnel.number)
        .ok()?;
    policy.tunnels.get(at)
}

fn overlaps(number: u32, claim: &Claim, mut warn: impl FnMut(PolicyWarning)) {
    for owner in claim.lost_to.iter().take(NAMED_OVERLAPS) {
        warn(PolicyWarning::Overlap {
            number,
            owner: *owner,
        });
    }
    let count = claim.lost_to.len().saturating_sub(NAMED_OVERLAPS);
    if count > 0 {
        warn(PolicyWarning::OverlapMore { number, count });
    }
    if claim.parts.is_empty() {
        warn(PolicyWarning::NeverUsed { number });
    }
}

/// The clusters that some tunnel or redirect leads to.
fn used(policy: &Policy) -> BTreeSet<u32> {
    let tunnels = policy
        .tunnels
        .iter()
        .filter_map(|tunnel| match tunnel.target {
            Target::Via(via) => Some(via),
            Target::Auto => None,
        });
    let redirects = policy.redirects.iter().map(|redirect| redirect.via);
    let cluster = |via| match via {
        Via::Cluster(number) => Some(number),
        Via::Gateway(_) => None,
    };
    tunnels.chain(redirects).filter_map(cluster).collect()
}

fn clusters(policy: &Policy, places: &Places, warn: &mut impl FnMut(Span, PolicyWarning)) {
    let used = used(policy);
    for (number, cluster) in &policy.clusters {
        let number = *number;
        let key = places
            .clusters
            .get(&number)
            .map(|place| place.key)
            .unwrap_or_default();
        if !used.contains(&number) {
            warn(key, PolicyWarning::UnusedCluster { number });
        }
        if cluster.gateways.iter().any(IpAddr::is_ipv4)
            && cluster.gateways.iter().any(IpAddr::is_ipv6)
        {
            warn(key, PolicyWarning::MixedCluster { number });
        }
    }
    let largest = used.iter().filter_map(|number| policy.clusters.get(number));
    let largest = largest
        .map(|cluster| cluster.gateways.len())
        .max()
        .unwrap_or(1);
    let (standby, most) = (policy.general.standby, largest - 1);
    if usize::try_from(standby).is_ok_and(|standby| standby > most) && !policy.tunnels.is_empty() {
        let span = places
            .settings
            .get(&Setting::Standby)
            .copied()
            .unwrap_or_default();
        warn(
            span,
            PolicyWarning::StandbyTooLarge {
                standby,
                largest,
                most,
            },
        );
    }
}

/// Gateways that stand within a range that a tunnel owns.
fn gateways(
    policy: &Policy,
    places: &Places,
    ownership: &Ownership,
    warn: &mut impl FnMut(Span, PolicyWarning),
) {
    let mut judge = |address: IpAddr, via: Via, span: Span| {
        if address.is_loopback() {
            warn(span, PolicyWarning::LoopbackGateway { address });
        }
        let Some(tunnel) = ownership.owner(address) else {
            return;
        };
        let owner = self::tunnel(policy, tunnel);
        let redirected = || {
            // Those of one tunnel stand together.
            let first = policy
                .redirects
                .partition_point(|redirect| redirect.tunnel < tunnel);
            let from_first = policy.redirects.iter().skip(first);
            let mut own = from_first.take_while(|redirect| redirect.tunnel == tunnel);
            own.any(|redirect| redirect.via == via)
        };
        let serves = owner.is_some_and(|owner| match owner.target {
            Target::Via(target) => target == via,
            Target::Auto => redirected(),
        });
        warn(
            span,
            if serves {
                PolicyWarning::GatewayInOwnTunnel { address, tunnel }
            } else {
                PolicyWarning::GatewayInOtherTunnel { address, tunnel }
            },
        );
    };
    let used = used(policy);
    for (number, cluster) in policy
        .clusters
        .iter()
        .filter(|(number, _)| used.contains(number))
    {
        let spans = places
            .clusters
            .get(number)
            .map(|place| place.gateways.as_slice());
        for (gateway, span) in cluster.gateways.iter().zip(spans.unwrap_or_default()) {
            judge(*gateway, Via::Cluster(*number), *span);
        }
    }
    for tunnel in &policy.tunnels {
        if let Target::Via(via @ Via::Gateway(gateway)) = tunnel.target {
            let place = places.tunnels.get(&tunnel.number);
            judge(
                gateway,
                via,
                place.map(|place| place.target).unwrap_or_default(),
            );
        }
    }
    for redirect in &policy.redirects {
        if let Via::Gateway(gateway) = redirect.via {
            let span = places.redirects.get(&(redirect.tunnel, redirect.server));
            judge(gateway, redirect.via, span.copied().unwrap_or_default());
        }
    }
}

fn timers(policy: &Policy, places: &Places, warn: &mut impl FnMut(Span, PolicyWarning)) {
    let general = &policy.general;
    let place = |setting| places.settings.get(&setting).copied();
    if general.heartbeat == HeartbeatMode::None {
        for setting in [
            Setting::HeartbeatResponseTime,
            Setting::HeartbeatDeferTime,
            Setting::HeartbeatForm,
        ] {
            if let Some(span) = place(setting) {
                warn(span, PolicyWarning::NoHeartbeat { setting });
            }
        }
        return;
    }
    let span = place(Setting::HeartbeatResponseTime)
        .or(place(Setting::HeartbeatDeferTime))
        .or(place(Setting::Heartbeat))
        .unwrap_or_default();
    let total = general.defer_time + general.response_time * 2;
    if general.response_time > general.defer_time * 10 {
        let (response, defer) = (spell(general.response_time), spell(general.defer_time));
        warn(
            span,
            PolicyWarning::SlowResponse {
                response,
                defer,
                total: spell(total),
            },
        );
    }
    if general.response_time < TIGHT {
        warn(
            span,
            PolicyWarning::TightResponse {
                response: spell(general.response_time),
            },
        );
    }
    if total > LATE {
        warn(
            span,
            PolicyWarning::LateDetection {
                total: spell(total),
            },
        );
    }
}
