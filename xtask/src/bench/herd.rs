//! Shared SAs of very many clients: an edge that all of them use is killed, or drains.

use super::{Effort, keep};
use crate::lab::herd::{Fared, Herd, Router, sharing};
use crate::lab::sharing::{AUTHORITY, Sharing};
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Lab, Place};
use crate::probe::now_ns;
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::time::Duration;

const CLIENTS: u16 = 1000;
/// One of so many packets is sent a second time, as it was.
const REPEAT: u32 = 20;
/// Clients that begin anew are brought back in this time.
const WAIT: Duration = Duration::from_secs(20);

/// What is shown of outages.
const QUANTILES: [f64; 3] = [0.5, 0.99, 1.0];

#[derive(Debug, Serialize)]
struct All {
    rate: u32,
    distributed: Figures,
    asked_for: Figures,
    without_notaries: Figures,
}

pub(super) fn run(effort: Effort<'_>) -> Result<()> {
    println!(
        "  {CLIENTS} clients, each with a session of its own, send {} echo requests a second each; one edge has \
         them all",
        effort.rate
    );
    let (kills, drains) = if effort.quick { (3, 1) } else { (6, 3) };
    let all = All {
        rate: effort.rate,
        distributed: measure(effort, "all", true, kills, drains)?,
        asked_for: measure(effort, "last", true, kills, drains)?,
        without_notaries: measure(effort, "all", false, kills, drains)?,
    };
    println!("  from the kill to the first answer to what a client sent after it");
    all.distributed.show("SAs everywhere");
    all.asked_for.show("SAs asked for");
    all.without_notaries
        .show("everywhere, but without notaries");
    keep("herd", &all)
}

/// What was measured with one way of distributing SAs.
#[derive(Debug, Default, Serialize)]
struct Figures {
    /// Milliseconds of each client and kill: from the kill to the first answer to what was sent after it.
    outages_ms: Vec<f64>,
    /// Milliseconds of each client and kill: the longest time without an answer since.
    gaps_ms: Vec<f64>,
    kills: usize,
    /// Requests of each client that were lost, for each kill.
    lost_each: f64,
    drains: usize,
    /// Requests while edges drained, and those that were lost.
    drained: u64,
    drained_lost: u64,
    /// Requests that an edge has taken twice; and how many packets were sent twice to try that.
    twice: u64,
    repeated: u64,
    /// ESP that came to clients twice, or that they could not open.
    refused: u64,
    /// Requests that the clients' own kernel did not take.
    unsent: u64,
    /// Datagrams of IKE since all clients had their sessions.
    ike: u64,
}

/// A share of the samples, sorted, is no longer than this.
fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// Kills the edge that all clients use again and again, and then has it drain.
fn measure(
    effort: Effort<'_>,
    distribution: &'static str,
    notary: bool,
    kills: usize,
    drains: usize,
) -> Result<Figures> {
    let mut lab = effort.lab()?;
    let settings = Sharing {
        distribution,
        notary,
        ..Sharing::default()
    };
    println!(
        "  pairs go to {}{}",
        match distribution {
            "all" => "all edges",
            _ => "the edge last heard, others ask",
        },
        if notary { "" } else { "; no edge has a notary" }
    );
    lab.share(&sharing(CLIENTS, settings))?;
    // Edges that carry other traffic too know their neighbours.
    for number in GATEWAYS {
        lab.ping_until(Place::Gateway(number), TARGETS[1], Duration::from_secs(5))?;
    }
    let mut router = Router::start(&lab)?;
    let mut herd = Herd::start(&lab, CLIENTS, effort.rate, REPEAT)
        .with_context(|| format!("the authority: {}", lab.log_tail(AUTHORITY)))?;
    std::thread::sleep(Duration::from_secs(2));
    let mut figures = Figures::default();
    let at = |round: usize| GATEWAYS[round % GATEWAYS.len()];
    let mut before = quiet(&mut herd, &lab)?;
    for round in 0..kills {
        let (dead, next) = (at(round), at(round + 1));
        herd.arm()?;
        let mut event = 0;
        lab.kill_and(Place::Gateway(dead), |_| {
            event = now_ns();
            router.bring_to(next)
        })?;
        std::thread::sleep(Duration::from_millis(1500));
        let fared = herd.report(event)?;
        figures.kill(&fared, &before);
        let some: Vec<f64> = fared.outages_ms.iter().flatten().copied().collect();
        let [median, p99, most] = QUANTILES.map(|share| quantile(&some, share));
        println!(
            "    gw{dead} killed, all on gw{next}: {median:.1} ms, {p99:.1} ms (99 %), {most:.1} ms at most; {} \
             packets lost; dropped were {}",
            fared.lost.saturating_sub(before.lost),
            lab.drops()
        );
        lab.start_gateway(dead)?;
        before = quiet(&mut herd, &lab)?;
    }
    for round in kills..kills + drains {
        let (from, next) = (at(round), at(round + 1));
        lab.evergate(Place::Gateway(from), &["drain"])?;
        router.bring_to(next)?;
        lab.wait("it has nothing any more", Duration::from_secs(10), |lab| {
            let drain = lab.status(Place::Gateway(from))?.drain;
            Ok(drain.is_some_and(|drain| drain.sessions == 0).then_some(()))
        })?;
        std::thread::sleep(Duration::from_millis(500));
        let after = herd.settled()?;
        figures.drains += 1;
        println!(
            "    gw{from} drained, all on gw{next}: {} of {} packets lost; dropped were {}",
            after.lost.saturating_sub(before.lost),
            after.sent - before.sent,
            lab.drops()
        );
        figures.drained += after.sent - before.sent;
        figures.drained_lost += after.lost.saturating_sub(before.lost);
        lab.evergate(Place::Gateway(from), &["drain", "--undo"])?;
        before = quiet(&mut herd, &lab)?;
    }
    (figures.ike, figures.repeated) = (before.ike, before.repeated);
    (figures.refused, figures.unsent) = (before.refused, before.unsent);
    let echoed = herd.finish()?;
    ensure!(echoed.requests > 0, "no request has come to the target");
    figures.twice = echoed.twice.max(before.twice);
    Ok(figures)
}

/// Waits until nothing is lost any more, and all edges have what they are to have.
fn quiet(herd: &mut Herd, lab: &Lab) -> Result<Fared> {
    let deadline = std::time::Instant::now() + WAIT;
    let mut before = herd.settled()?;
    loop {
        std::thread::sleep(Duration::from_millis(700));
        let now = herd.settled()?;
        if now.lost == before.lost && now.sent > before.sent {
            return Ok(now);
        }
        if std::time::Instant::now() > deadline {
            bail!(
                "clients go on losing packets: {} of {}; dropped were {}",
                now.lost - before.lost,
                now.sent - before.sent,
                lab.drops()
            );
        }
        before = now;
    }
}

impl Figures {
    fn show(&self, what: &str) {
        if self.unsent > 0 {
            println!(
                "    the clients' own kernel did not take {} packets",
                self.unsent
            );
        }
        let [median, p99, most] = QUANTILES.map(|share| quantile(&self.outages_ms, share));
        println!(
            "    {what:<32} {median:>6.1} ms (median of {}), {p99:.1} ms (99 %), {most:.1} ms at most; \
             {:.1} packets of each client lost",
            self.outages_ms.len(),
            self.lost_each
        );
        println!(
            "    {:<32} draining: {} of {} packets lost; {} of {} repeated packets accepted again; {} came to \
             clients twice; {} datagrams of IKE",
            "", self.drained_lost, self.drained, self.twice, self.repeated, self.refused, self.ike
        );
    }

    fn kill(&mut self, fared: &Fared, before: &Fared) {
        self.kills += 1;
        // Who has no answer at all was without for as long as was looked.
        let outages = fared.outages_ms.iter().zip(&fared.gaps_ms);
        let outages = outages.map(|(outage, gap)| outage.unwrap_or(*gap));
        self.outages_ms.extend(outages);
        self.gaps_ms.extend(&fared.gaps_ms);
        let lost = (fared.lost.saturating_sub(before.lost)) as f64 / f64::from(CLIENTS);
        let kills = self.kills as f64;
        self.lost_each += (lost - self.lost_each) / kills;
    }
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles() {
        let samples: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let found = [0.0, 0.5, 0.99, 1.0].map(|share| quantile(&samples, share));
        assert_eq!(found, [0.0, 50.0, 99.0, 100.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
