//! `evergate policy check FILE`: a policy file judged as a whole, and how that is shown.

use std::fmt;

use super::diagnostic::{Diagnostic, Severity};
use super::lex::without_mark;
use super::model::Policy;
use super::ownership::Ownership;
use super::parse::{Parsed, parse};

/// Clusters and tunnels that a summary lists one by one.
const LISTED: usize = 20;

/// The judgement of a policy file.
///
/// `Display` shows every diagnostic with its source line, then a summary of the policy or the
/// number of errors.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file's name, as it appears in messages.
    pub path: String,
    /// The policy, unless there is an error.
    pub policy: Option<Policy>,
    /// All errors, or all warnings if there is no error; by place.
    pub diagnostics: Vec<Diagnostic>,
    text: String,
}

/// Judges the text of a policy file; `path` only names it. Reads no file.
pub fn check(path: &str, text: &str) -> Report {
    let Parsed {
        policy,
        diagnostics,
    } = parse(text);
    Report {
        path: path.to_owned(),
        policy,
        diagnostics,
        text: text.to_owned(),
    }
}

impl Report {
    /// The policy, or the report, which as an error shows all that is wrong with the file.
    ///
    /// # Errors
    /// The report itself, if the file has an error.
    pub fn into_policy(self) -> Result<Policy, Box<Self>> {
        match self.policy {
            Some(policy) => Ok(policy),
            None => Err(Box::new(self)),
        }
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity() == severity)
            .count()
    }
}

impl std::error::Error for Report {}

fn counted(number: usize, what: &str) -> String {
    match (number, what.strip_suffix("x")) {
        (1, _) => format!("1 {what}"),
        (_, Some(_)) => format!("{number} {what}es"),
        _ => format!("{number} {what}s"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One walk through the lines serves all diagnostics, which are in order of lines.
        let mut lines = without_mark(&self.text).lines().zip(1u32..).peekable();
        for diagnostic in &self.diagnostics {
            while lines
                .next_if(|(_, line)| *line < diagnostic.span.line)
                .is_some()
            {}
            let source = lines
                .peek()
                .filter(|(_, line)| *line == diagnostic.span.line);
            let source = source.map(|(text, _)| *text);
            writeln!(f, "{}", diagnostic.render_line(&self.path, source))?;
        }
        let warnings = match self.count(Severity::Warning) {
            0 => String::new(),
            number => format!(", {}", counted(number, "warning")),
        };
        match &self.policy {
            None => writeln!(
                f,
                "{}: {}",
                self.path,
                counted(self.count(Severity::Error), "error")
            ),
            Some(policy) => summary(f, &self.path, policy, &warnings),
        }
    }
}

fn summary(f: &mut fmt::Formatter<'_>, path: &str, policy: &Policy, warnings: &str) -> fmt::Result {
    let (_, claims) = Ownership::of(&policy.tunnels);
    let prefixes: Vec<usize> = claims
        .iter()
        .map(|(_, claim)| claim.prefixes().len())
        .collect();
    writeln!(
        f,
        "{path}: good: {}, {}, {}{warnings}",
        counted(policy.clusters.len(), "cluster"),
        counted(policy.tunnels.len(), "tunnel"),
        counted(prefixes.iter().sum(), "prefix"),
    )?;
    let general = &policy.general;
    let order = if general.random_order {
        "random"
    } else {
        "as written"
    };
    writeln!(
        f,
        "  heartbeat {} ({}), defer time {:?}, response time {:?}, order {order}, standby {}",
        general.heartbeat, general.form, general.defer_time, general.response_time, general.standby
    )?;
    for (number, cluster) in policy.clusters.iter().take(LISTED) {
        write!(f, "  Cluster {number}:")?;
        for gateway in &cluster.gateways {
            write!(f, " {gateway}")?;
        }
        writeln!(f)?;
    }
    more(f, policy.clusters.len())?;
    for ((tunnel, _), prefixes) in claims.iter().zip(prefixes).take(LISTED) {
        write!(f, "  Tunnel {}: {}", tunnel.number, tunnel.start)?;
        if tunnel.end != tunnel.start {
            write!(f, " \u{2013} {}", tunnel.end)?;
        }
        writeln!(f, " to {}, {}", tunnel.target, counted(prefixes, "prefix"))?;
    }
    more(f, policy.tunnels.len())
}

fn more(f: &mut fmt::Formatter<'_>, all: usize) -> fmt::Result {
    match all.checked_sub(LISTED) {
        None | Some(0) => Ok(()),
        Some(rest) => writeln!(f, "  \u{2026} and {rest} more"),
    }
}
