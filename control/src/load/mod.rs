//! Room `load`: what is sent to measure. Many clients that make sessions with one gateway as fast as it lets
//! them, to see how many handshakes it can do; many that stay and send ([`herd`]); and [`packets`], to see what
//! gets through.

mod client;
mod credentials;
pub mod herd;
pub mod packets;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::ike::{EspProposal, Identity, IkeProposal};

pub use credentials::Credentials;

/// What clients do.
#[derive(Debug)]
pub struct Plan {
    pub remote: IpAddr,
    /// Who the gateway must be.
    pub remote_id: Identity,
    /// A client at a time at each of these addresses, on UDP ports 500 and 4500.
    pub local: Vec<IpAddr>,
    /// `{}` in it becomes the number of the client.
    pub identity: String,
    pub credentials: Credentials,
    /// Handshakes in all, each by another client, numbered from 1.
    pub count: usize,
    pub ike_proposals: Vec<IkeProposal>,
    pub esp_proposals: Vec<EspProposal>,
    /// The sessions are left to the gateway; else they are deleted after the last handshake, in time
    /// that is not counted.
    pub leave: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Handshakes that led to a session.
    pub established: usize,
    pub failed: usize,
    /// Why the first one failed.
    pub failure: Option<String>,
    /// From the first message to the last session.
    pub seconds: f64,
    pub per_second: f64,
    /// From a client's first message to its session, milliseconds.
    pub median_ms: f64,
    pub p99_ms: f64,
    pub worst_ms: f64,
    /// Datagrams that clients sent, per handshake. Without losses and cookies: 2.
    pub sent_each: f64,
}

/// What one address's clients did.
#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    failures: Vec<String>,
    sent: u64,
}

/// Runs the plan to its end.
///
/// # Errors
/// A port that can not be had, or a plan that can not be followed.
pub async fn run(plan: Plan) -> Result<Report> {
    ensure!(!plan.local.is_empty(), "no address to send from");
    if let Some(most) = plan.credentials.most() {
        ensure!(
            plan.count <= most,
            "found credentials for {most} clients, expected {}",
            plan.count
        );
    }
    let plan = Rc::new(plan);
    let mut clients = Vec::with_capacity(plan.local.len());
    for local in &plan.local {
        clients.push(client::Client::bind(*local, Rc::clone(&plan)).await?);
    }
    let next = Rc::new(std::cell::Cell::new(0));
    let start = Instant::now();
    let tasks = tokio::task::LocalSet::new();
    let handles: Vec<_> = clients
        .into_iter()
        .map(|client| tasks.spawn_local(client.run(Rc::clone(&next))))
        .collect();
    let (mut sum, mut end, mut done) = (Tally::default(), start, Vec::new());
    let gather = async {
        for handle in handles {
            let (tally, last, client) = handle.await?;
            sum.took.extend(tally.took);
            sum.failures.extend(tally.failures);
            sum.sent += tally.sent;
            end = end.max(last);
            done.push(client);
        }
        // Only now: what is said to end sessions must not be part of what is measured.
        for client in &mut done {
            client.end_sessions().await;
        }
        anyhow::Ok(())
    };
    tasks.run_until(gather).await?;
    Ok(sum.report(end.duration_since(start)))
}

impl Tally {
    fn report(mut self, time: Duration) -> Report {
        self.took.sort();
        let made = self.took.len();
        let at = |share: f64| {
            let index = (share * made.saturating_sub(1) as f64).round() as usize;
            self.took.get(index).map_or(0.0, |d| d.as_secs_f64() * 1e3)
        };
        let seconds = time.as_secs_f64();
        Report {
            established: made,
            failed: self.failures.len(),
            seconds,
            per_second: made as f64 / seconds.max(f64::MIN_POSITIVE),
            median_ms: at(0.5),
            p99_ms: at(0.99),
            worst_ms: at(1.0),
            sent_each: self.sent as f64 / (made + self.failures.len()).max(1) as f64,
            failure: self.failures.into_iter().next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_the_middle_and_the_worst() {
        let tally = Tally {
            took: (1..=101).rev().map(Duration::from_millis).collect(),
            failures: vec!["no answer".into(), "refused".into()],
            sent: 206,
        };
        let report = tally.report(Duration::from_secs(2));
        assert_eq!((report.established, report.failed), (101, 2));
        assert_eq!(report.per_second, 50.5);
        let times = [report.median_ms, report.p99_ms, report.worst_ms];
        assert_eq!(times, [51.0, 100.0, 101.0]);
        assert_eq!(report.sent_each, 2.0);
        assert_eq!(report.failure.as_deref(), Some("no answer"));
        let none = Tally::default().report(Duration::ZERO);
        assert_eq!(
            (none.per_second, none.median_ms, none.sent_each),
            (0.0, 0.0, 0.0)
        );
    }
}
