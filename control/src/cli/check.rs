//! `evergate check` and `evergate policy check`: what is wrong with a file, without a node.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::{EXIT_FAILED, print, print_json};
use crate::node::config::{Config, ConfigError, Problem};
use crate::policy::{self, Policy, Target, Via};

/// What a check found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// No errors; there may be warnings.
    ok: bool,
    problems: Vec<Finding>,
    /// The same for a person, with a summary of what is good.
    #[serde(skip)]
    text: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    file: String,
    /// From 1, as `column`.
    line: usize,
    column: usize,
    /// `error` or `warning`.
    severity: &'static str,
    text: String,
}

/// Checks a node's configuration, and the policy that it names.
pub(super) fn node(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    show(judge_node(path)?, json)
}

/// Checks a policy file.
pub(super) fn policy(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut found = Findings::default();
    judge_policy(path, &mut found)?;
    show(found, json)
}

fn show(mut found: Findings, json: bool) -> anyhow::Result<ExitCode> {
    found.ok = found
        .problems
        .iter()
        .all(|problem| problem.severity != "error");
    if json {
        print_json(&found)?;
    } else {
        print(&found.text)?;
    }
    Ok(if found.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

impl Findings {
    /// A problem of the configuration, which unlike a policy does not render itself.
    fn add(&mut self, file: &Path, severity: &'static str, problem: &Problem) {
        let file = file.display().to_string();
        let Problem { line, column, text } = problem.clone();
        // Writing to a String does not fail, here and below.
        let _ = writeln!(self.text, "{file}:{line}:{column}: {severity}: {text}");
        self.problems.push(Finding {
            file,
            line,
            column,
            severity,
            text,
        });
    }
}

fn judge_node(path: &Path) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(ConfigError::Invalid { problems, .. }) => {
            for problem in &problems {
                found.add(path, "error", problem);
            }
            return Ok(found);
        }
        Err(error @ ConfigError::Read { .. }) => return Err(error.into()),
    };
    for warning in &config.warnings {
        found.add(path, "warning", warning);
    }
    let peers = match config.peers.len() {
        1 => "1 peer".to_owned(),
        number => format!("{number} peers"),
    };
    let shown = path.display();
    let _ = writeln!(
        found.text,
        "{shown}: good: {} {}, {peers}",
        config.role, config.name
    );
    if let Some(file) = &config.policy
        && let Some(policy) = judge_policy(file, &mut found)?
    {
        for gateway in strangers(&policy, &config) {
            let text = format!(
                "the policy leads through gateway {gateway}, but no [[peer]] has it as `outside`: \
                 it can not be asked for a key"
            );
            found.add(
                path,
                "warning",
                &Problem {
                    line: 1,
                    column: 1,
                    text,
                },
            );
        }
    }
    Ok(found)
}

/// Adds what is wrong with a policy file; the policy, if it has no error.
fn judge_policy(path: &Path, found: &mut Findings) -> anyhow::Result<Option<Policy>> {
    let shown = path.display().to_string();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the policy {shown}"))?;
    let report = policy::check(&shown, &text);
    let _ = write!(found.text, "{report}");
    for diagnostic in &report.diagnostics {
        let hint = diagnostic
            .hint
            .as_ref()
            .map(|hint| format!(" ({hint})"))
            .unwrap_or_default();
        found.problems.push(Finding {
            file: shown.clone(),
            line: usize::try_from(diagnostic.span.line).unwrap_or(usize::MAX),
            column: usize::try_from(diagnostic.span.column).unwrap_or(usize::MAX),
            severity: if diagnostic.is_error() {
                "error"
            } else {
                "warning"
            },
            text: format!("{}{hint}", diagnostic.problem),
        });
    }
    Ok(report.policy)
}

/// Gateways of the policy with whom no key is shared.
fn strangers(policy: &Policy, config: &Config) -> BTreeSet<IpAddr> {
    let single = |via: Via| match via {
        Via::Gateway(gateway) => Some(gateway),
        Via::Cluster(_) => None,
    };
    let in_clusters = policy
        .clusters
        .values()
        .flat_map(|cluster| cluster.gateways.iter().copied());
    let in_tunnels = policy
        .tunnels
        .iter()
        .filter_map(|tunnel| match tunnel.target {
            Target::Via(via) => single(via),
            Target::Auto => None,
        });
    let in_redirects = policy
        .redirects
        .iter()
        .filter_map(|redirect| single(redirect.via));
    in_clusters
        .chain(in_tunnels)
        .chain(in_redirects)
        .filter(|gateway| {
            config
                .peers
                .iter()
                .all(|peer| peer.outside != Some(*gateway))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NODE: &str = r#"name = "client-1"
role = "client"
identity = "client-1.example"
policy = "policy.conf"
[outside]
interface = "wan0"
[inside]
interface = "evergate0"
[[peer]]
identity = "gw-a.example"
psk = "correct horse battery staple"
outside = "192.0.2.1"
"#;

    fn judged(node: &str, policy: &str) -> Findings {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        fs::write(&path, node).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(dir.path().join("policy.conf"), policy).unwrap();
        judge_node(&path).unwrap()
    }

    fn brief(found: &Findings) -> Vec<String> {
        let name = |file: &str| file.rsplit('/').next().unwrap_or_default().to_owned();
        found
            .problems
            .iter()
            .map(|p| format!("{} {}:{} {}", p.severity, name(&p.file), p.line, p.text))
            .collect()
    }

    #[test]
    fn a_gateway_without_a_shared_key_is_told() {
        let policy = "[CLUSTER]\nCluster 1 = 192.0.2.1 192.0.2.2\n\
                      [TUNNEL]\nTunnel1 = 10.0.0.1 – 10.0.0.3 Cluster 1\nTunnel2 = 10.8.0.1 192.0.2.9\n";
        let found = judged(NODE, policy);
        let expected = |gateway| {
            format!(
                "warning node.toml:1 the policy leads through gateway {gateway}, but no [[peer]] \
                 has it as `outside`: it can not be asked for a key"
            )
        };
        assert_eq!(
            brief(&found),
            [expected("192.0.2.2"), expected("192.0.2.9")]
        );
        assert!(
            found
                .text
                .contains("node.toml: good: client client-1, 1 peer"),
            "{}",
            found.text
        );
    }

    #[test]
    fn errors_of_both_files_have_their_places() {
        let found = judged(&NODE.replace("wan0", "evergate0"), "");
        assert!(
            brief(&found)[0].starts_with("error node.toml:8 inside.interface"),
            "{found:?}"
        );
        let found = judged(NODE, "[TUNNEL]\nTunnel1 = 10.0.0.300 Cluster 1\n");
        assert!(
            brief(&found)[0].starts_with("error policy.conf:2 "),
            "{found:?}"
        );
        assert!(found.text.contains("policy.conf:2:"), "{}", found.text);
    }
}
