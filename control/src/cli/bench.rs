//! `evergate bench`: measurements that need no lab.

use std::process::ExitCode;

use anyhow::Result;

use super::args::Handshakes;
use super::{EXIT_FAILED, print, print_json};
use crate::ike::{EspProposal, IkeProposal};
use crate::load::{self, Credentials, Plan, Report};

/// Makes sessions, and tells how many a second.
pub(super) fn handshakes(args: Handshakes) -> Result<ExitCode> {
    let credentials = match (&args.psk_file, &args.credentials, &args.ca) {
        (Some(file), ..) => Credentials::psk(file)?,
        (None, Some(file), Some(ca)) => Credentials::certificates(file, ca)?,
        _ => anyhow::bail!("expected --psk-file, or --credentials with --ca"),
    };
    let or = |proposals: Vec<IkeProposal>| match proposals.is_empty() {
        true => vec![IkeProposal::default()],
        false => proposals,
    };
    let plan = Plan {
        remote: args.remote,
        remote_id: args.remote_id,
        local: args.local,
        identity: args.identity,
        credentials,
        count: args.count,
        ike_proposals: or(args.ike),
        esp_proposals: match args.esp.is_empty() {
            true => vec![EspProposal::default()],
            false => args.esp,
        },
        leave: args.leave,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(load::run(plan))?;
    match args.json {
        true => print_json(&report)?,
        false => print(&shown(&report))?,
    }
    Ok(match report.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_FAILED),
    })
}

fn shown(report: &Report) -> String {
    let Report {
        established,
        failed,
        failure,
        seconds,
        per_second,
        median_ms,
        p99_ms,
        worst_ms,
        sent_each,
    } = report;
    let failures = match failure {
        Some(why) => format!("{failed} failed, the first one because: {why}\n"),
        None => String::new(),
    };
    format!(
        "{established} sessions in {seconds:.2} s: {per_second:.0} handshakes a second\n\
         a handshake took {median_ms:.1} ms (median), {p99_ms:.1} ms (99 %), {worst_ms:.1} ms \
         (worst), and {sent_each:.2} datagrams of the client\n{failures}"
    )
}
