//! Numbers that authorities lend an edge: what its data plane may do with them, and what it says of them.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::channel::Uplink;
use crate::cluster::connectivity::Asked;
use crate::cluster::wire::Up;
use crate::cluster::{Act, Claim};
use crate::dataplane::{Command, Lease, WorkerEvent};
use crate::node::clock;
use crate::node::core::Node;
use crate::node::events::{EventKind, NewEvent};

/// Workers may take so long to say where they stopped, when the node ends.
const PARTING: Duration = Duration::from_millis(300);

impl Node {
    /// Does what the numbers' core wants to be done, and says which pairs can be received on: to be called
    /// when they can. Says whether there was anything.
    pub(in crate::node) fn pump_edge(&mut self) -> Result<bool> {
        let links = self.edge.as_ref().map_or(0, |edge| edge.links.len());
        let mut worked = false;
        for link in 0..links {
            worked |= self.pump_link(link)?;
        }
        Ok(worked)
    }

    fn pump_link(&mut self, index: usize) -> Result<bool> {
        let mut worked = false;
        while let Some(edge) = &mut self.edge
            && let Some(link) = edge.links.get_mut(index)
        {
            if let Some(spi) = link.unconfirmed.pop() {
                worked = true;
                self.tell(index, Up::Installed { spi });
                continue;
            }
            let Some(act) = link.core.act() else { break };
            worked = true;
            let lease = match act {
                Act::Send(message) => {
                    self.tell(index, Up::Numbers(message));
                    continue;
                }
                Act::Take { spi, grant, .. } if !edge.pairs.contains_key(&spi) => {
                    // It could not be installed: nothing of it was used.
                    let (term, sent) = (grant.limits.term, grant.first.saturating_sub(1));
                    link.core
                        .stopped(spi, term, grant.floor, grant.missing, sent);
                    continue;
                }
                Act::Take {
                    spi,
                    grant,
                    inbound,
                } => Lease::Take {
                    spi,
                    term: grant.limits.term,
                    floor: grant.floor,
                    missing: grant.missing,
                    inbound,
                    first: grant.first,
                    outbound: grant.limits.last,
                },
                Act::Bound {
                    spi,
                    inbound,
                    outbound,
                } => Lease::Bound {
                    spi,
                    inbound,
                    outbound,
                },
                Act::Stop { spi, term, tell } => Lease::Stop { spi, term, tell },
                Act::Forget { spi } => {
                    self.drop_pair_of(index, spi)?;
                    continue;
                }
            };
            self.dataplane.command(Command::Lease(lease));
        }
        Ok(worked)
    }

    /// Time has passed for an edge.
    pub(in crate::node) fn poll_edge(&mut self, now: Instant, ticked: bool) -> Result<()> {
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        for link in &mut edge.links {
            link.core.poll(now);
        }
        self.drop_replaced(now)?;
        if !ticked {
            return Ok(());
        }
        self.tell_volumes(now);
        let seconds = clock::seconds();
        self.drop_pairs(|known| known.expires <= seconds)?;
        let refused = self.edge.as_mut().map(|edge| &mut edge.limits.refused);
        let refused = refused.map_or(0, std::mem::take);
        if refused > 0 {
            let text = format!("{refused} IKE messages were too many at once, and not relayed");
            self.note(NewEvent::new(EventKind::Flood, text));
        }
        Ok(())
    }

    /// A worker tells about shared sessions.
    pub(in crate::node) fn on_edge_report(
        &mut self,
        event: &WorkerEvent,
        at: Instant,
    ) -> Result<()> {
        self.note_use(event);
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        match event {
            WorkerEvent::Progress(all) => {
                for progress in all {
                    let (spi, top, sent) = (progress.spi, progress.top, progress.sent);
                    if let Some(core) = edge.core_of(spi) {
                        core.progress(spi, top, sent, at);
                    }
                }
            }
            WorkerEvent::Claimed { spi, seen } => {
                let (spi, seen) = (*spi, *seen);
                let Some(index) = edge.issuer(spi) else {
                    return Ok(());
                };
                let link = edge.links.get_mut(index);
                let Some(link) = link else { return Ok(()) };
                if link.given_up(at) && !link.core.owns(spi) {
                    // Its heartbeats would be answered on, and the client would never look for another way.
                    return self.drop_pair(spi);
                }
                link.core.claim(Claim { spi, seen }, at);
            }
            WorkerEvent::UnknownSpi(spi) => {
                if let Some(link) = edge.issuer(*spi) {
                    self.ask(link, Asked::Spi(*spi), at);
                }
            }
            WorkerEvent::Stopped {
                progress,
                term,
                missing,
            } => {
                let (spi, top, sent) = (progress.spi, progress.top, progress.sent);
                if let Some(core) = edge.core_of(spi) {
                    core.stopped(spi, *term, top, *missing, sent);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives back what authorities may give to others: the node ends.
    pub(in crate::node) async fn part(&mut self) {
        let Some(edge) = &mut self.edge else {
            return;
        };
        edge.give_back(false);
        let deadline = Instant::now() + PARTING;
        loop {
            if self.pump_edge().is_err() {
                break;
            }
            self.dataplane.wake();
            if self.edge.as_ref().is_none_or(|edge| edge.holds() == 0) {
                break;
            }
            let report = tokio::time::timeout_at(deadline.into(), self.inputs.reports.recv()).await;
            let Ok(Some(report)) = report else { break };
            if self.on_edge_report(&report.event, report.at).is_err() {
                break;
            }
        }
        for link in self.edge.iter_mut().flat_map(|edge| &mut edge.links) {
            link.core.leave();
        }
        // It ends: an error would change nothing any more.
        let _ = self.pump_edge();
        let leaving = self.inputs.uplinks.iter_mut().map(Uplink::leave);
        futures_util::future::join_all(leaving).await;
    }
}
