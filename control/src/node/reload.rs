//! A client takes up a policy, at the start and at each reload.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::config;
use super::core::{Node, Role};
use super::events::{EventKind, NewEvent};
use super::hooks::Side;
use super::routes::Wanted;
use crate::dataplane::{GroupId, GroupSpec, Watch};
use crate::ike::X509;
use crate::kms;
use crate::liveness::Timing;
use crate::policy::{self, Resolved};
use crate::sadb::SessionId;

/// The ranges of all tunnels. One that leads nowhere is among them: its traffic must not leave in
/// plain.
fn wanted_routes(resolved: &Resolved) -> Wanted {
    let tunnels = resolved.tunnels.iter().flat_map(|tunnel| &tunnel.prefixes);
    let nowhere = resolved.unresolved.iter().flat_map(|none| &none.prefixes);
    tunnels.chain(nowhere).map(|range| (*range, None)).collect()
}

/// Whether the prefixes `have` hold all of `wanted`.
pub(super) fn covers(have: &[IpNet], wanted: &[IpNet]) -> bool {
    let have = IpNet::aggregate(&have.to_vec());
    wanted
        .iter()
        .all(|range| have.iter().any(|prefix| prefix.contains(range)))
}

/// Reads a policy file; a broken one is an error that shows what is wrong where.
pub(super) fn read_policy(path: &std::path::Path) -> Result<policy::Policy> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the policy {} can not be read", path.display()))?;
    let report = policy::check(&path.display().to_string(), &text);
    for warning in report.diagnostics.iter().filter(|d| !d.is_error()) {
        tracing::warn!("{}", warning.render(&path.display().to_string(), &text));
    }
    Ok(report.into_policy()?)
}

impl Node {
    /// Makes the routes, groups and requests of the policy; also after a reload. Sessions that it
    /// does not concern stay as they are. After an error the old policy is in force as before.
    pub(super) async fn take_up_policy(&mut self, resolved: Resolved) -> Result<()> {
        let now = Instant::now();
        let Role::Client(client) = &mut self.role else {
            return Ok(());
        };
        // Only this can be refused, so it comes first.
        let wanted = wanted_routes(&resolved);
        client.routes.extend(&wanted).await?;

        let old = std::mem::replace(&mut client.resolved, resolved);
        let general = &client.resolved.general;
        for unresolved in &client.resolved.unresolved {
            tracing::warn!(
                "tunnel {} leads nowhere: {}",
                unresolved.number,
                unresolved.why
            );
        }
        client.kms.set_settings(
            kms::Settings {
                standby: general.standby as usize,
                ..kms::Settings::default()
            },
            now,
        );
        let clusters = &client.resolved.clusters;
        client.kms.set_clusters(
            clusters
                .iter()
                .map(|c| (c.id, c.gateways.clone()))
                .collect(),
            now,
        );
        let ranges = client.ranges();
        if let Side::Client { ranges: known, .. } = &mut self.answers.side {
            *known = ranges;
        }
        let timing = Timing {
            mode: general.heartbeat,
            response_time: general.response_time,
            defer_time: general.defer_time,
        };
        for cluster in clusters {
            let tunnels = client
                .resolved
                .tunnels
                .iter()
                .filter(|t| t.cluster == cluster.id);
            // On a client groups are in no map of the kernel, so nothing is refused here.
            self.dataplane.set_group(GroupSpec {
                id: GroupId::Cluster(cluster.id),
                prefixes: tunnels.flat_map(|tunnel| tunnel.prefixes.clone()).collect(),
                watch: Some(Box::new(Watch {
                    order: cluster.gateways.clone(),
                    timing,
                    form: general.form,
                })),
                on_demand: true,
            })?;
            // A session is made ahead of the first packet: an application needs the inner address
            // that comes with it. Where a gateway is keyed, the one in use stays.
            let keyed = |gateway: &IpAddr| client.kms.session(*gateway).is_some();
            if !cluster.gateways.iter().any(keyed) {
                client.kms.request(cluster.id, None, now);
            }
        }
        let gone = old
            .clusters
            .iter()
            .filter(|c| client.resolved.cluster(c.id).is_none());
        for cluster in gone {
            self.dataplane.remove_group(GroupId::Cluster(cluster.id))?;
            client.active.remove(&cluster.id);
        }
        client.routes.retain(&wanted).await;
        client.sources_stale = true;
        self.refresh_sessions(now);
        Ok(())
    }

    /// Selectors are fixed when a session is made: one that lacks a range of the policy is made
    /// anew beside the old one, or the range would be a black hole.
    fn refresh_sessions(&mut self, now: Instant) {
        let Role::Client(client) = &mut self.role else {
            return;
        };
        let gateways = client.resolved.clusters.iter().flat_map(|c| &c.gateways);
        for gateway in gateways {
            let Some(handle) = client.kms.session(*gateway) else {
                continue;
            };
            let live = self.table.live.get(&SessionId(handle.0));
            let wanted = self.answers.ranges_of(*gateway);
            if live.is_some_and(|live| !covers(&live.spec.remote_inner, &wanted)) {
                client.kms.refresh(*gateway, now);
            }
        }
    }

    /// Reads the policy again. A broken one is refused and the old one stays.
    pub(super) async fn reload_policy(&mut self) -> Result<String> {
        let Role::Client(client) = &mut self.role else {
            bail!("a gateway has no policy to reload");
        };
        let policy = read_policy(&client.policy)?;
        let resolved = policy.resolve(client.auto, &mut client.rng);
        // A file that was cut short: at a start that is warned of, but here connections would end.
        let none = |policy: &Resolved| policy.tunnels.is_empty() && policy.unresolved.is_empty();
        if none(&resolved) && !none(&client.resolved) {
            bail!(
                "the policy {} has no tunnel any more, so nothing would be protected: \
                 stop the node if that is meant",
                client.policy.display()
            );
        }
        let changes = policy::diff(&client.resolved, &resolved);
        let ended: Vec<SessionId> = self
            .table
            .live
            .values()
            .filter(|live| live.spec.gateway.is_some_and(|g| changes.ends_session(g)))
            .map(|live| live.spec.id)
            .collect();
        self.take_up_policy(resolved).await?;
        for id in ended {
            // The new policy is in force: this is no error of the reload any more.
            if let Err(error) =
                self.end_session(id, "its gateway is not in the policy any more", true)
            {
                tracing::error!("{error:#}");
            }
        }
        let text = if changes.is_empty() {
            "the policy was read again: nothing has changed".to_owned()
        } else {
            format!("the policy was read again: {changes}")
        };
        self.note(NewEvent::new(EventKind::PolicyReloaded, &text));
        Ok(text)
    }

    /// Reads the files of certificates and CRLs again that the configuration names, for sessions
    /// that are made from now on. Yields what there is, if there is or was anything.
    fn reload_certificates(&mut self) -> Result<Option<String>> {
        let config = config::Config::load(&self.config.path)?;
        self.reload_ticket_keys(&config);
        if config.x509.is_empty() && self.config.x509.is_empty() {
            return Ok(None);
        }
        for warning in &config.warnings {
            tracing::warn!("{}:{warning}", config.path.display());
        }
        let text = format!("certificates were read again: {}", outline(&config.x509));
        self.engine.set_x509(config.x509.clone());
        // The CAs of a group may have other keys now.
        for group in &mut self.answers.groups {
            let same = |new: &&config::Group| (&new.names, new.eap) == (&group.names, group.eap);
            if let Some(new) = config.groups.iter().find(same) {
                group.authorities.clone_from(&new.authorities);
            }
        }
        self.config.x509 = config.x509;
        self.note(NewEvent::new(EventKind::CertsReloaded, &text));
        Ok(Some(text))
    }

    /// SIGHUP: reads again what may change while the node runs. What is broken stays as it was.
    pub(super) async fn reload_by_signal(&mut self) {
        if let Err(error) = self.reload_certificates() {
            tracing::error!("{error:#}; the old certificates and ticket keys stay");
        }
        if let Role::Client(_) = self.role
            && let Err(error) = self.reload_policy().await
        {
            tracing::error!("{error:#}; the old policy stays");
        }
    }
}

/// What is there, in a few words.
fn outline(x509: &X509) -> String {
    let own = match &x509.own {
        Some(own) => own.shown().join(", "),
        None => "none of our own".to_owned(),
    };
    let (authorities, crls) = x509.trust.counts();
    format!("{own}; {authorities} CAs, {crls} CRLs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_covered_by_prefixes_together() {
        let nets = |text: &str| -> Vec<IpNet> {
            text.split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect()
        };
        for (have, wanted, expected) in [
            ("10.0.0.0/24", "10.0.0.0/24", true),
            ("10.0.0.0/8", "10.1.0.0/16 10.2.3.4/32", true),
            ("10.0.0.0/25 10.0.0.128/25", "10.0.0.0/24", true),
            ("10.0.0.0/24", "10.0.0.0/24 10.0.1.0/24", false),
            ("10.0.0.0/25", "10.0.0.0/24", false),
            ("0.0.0.0/0", "2001:db8::/64", false),
            ("0.0.0.0/0 ::/0", "10.0.0.1/32 2001:db8::/64", true),
            ("", "10.0.0.1/32", false),
            ("10.0.0.0/24", "", true),
        ] {
            assert_eq!(
                covers(&nets(have), &nets(wanted)),
                expected,
                "{have} {wanted}"
            );
        }
    }
}
