//! INFORMATIONAL (RFC 7296 sections 1.4 and 2.4): liveness, deletion, errors after the fact.
//!
//! ```text
//! HDR, SK {[N,] [D]} -->
//!                                <-- HDR, SK {[D]}
//! ```

use super::super::event::{CloseReason, Event, Failure};
use super::super::life::{Busy, ChildSa, Stage};
use super::super::payload::Payload;
use super::super::payload::delete::Delete as DeletePayload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::state::Core;
use super::{Cx, Request, Response, Step, mobike, notify, redirect, ticket};

/// Asks whether the peer is alive: an empty message.
pub(crate) struct Liveness;

impl Request for Liveness {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        mobike::question(core, cx.settings)
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        if core.is_announced() {
            cx.events.push(Event::Alive { id: core.id });
            mobike::answered(core, response.payloads);
        }
        Step::Done
    }
}

/// Deletes the IKE SA and all its children.
pub(crate) struct Delete;

impl Request for Delete {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn build(&mut self, _: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        vec![Payload::Delete(DeletePayload::Ike)]
    }

    fn process(&mut self, core: &mut Core, _: &mut Cx<'_>, _: &Response<'_>) -> Step {
        Step::Close(core.closing.clone())
    }
}

/// Deletes a child SA, which the peer answers with the other half of the pair (section 1.4.1).
pub(crate) struct DeleteChild {
    /// The SPI that we receive on.
    pub(crate) spi_in: u32,
}

impl Request for DeleteChild {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    /// Unless the peer has deleted it meanwhile.
    fn is_due(&self, core: &Core) -> bool {
        core.child(self.spi_in)
            .is_none_or(|child| child.stage == Stage::Deleting)
    }

    fn build(&mut self, core: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        let spi_in = self.spi_in;
        core.busy = Busy::DeleteChild { spi_in };
        vec![Payload::Delete(DeletePayload::Esp(vec![spi_in]))]
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, _: &Response<'_>) -> Step {
        core.busy = Busy::Free;
        if let Some(child) = core.remove_child(self.spi_in) {
            cx.events.push(child.closed(core.id));
        }
        core.close_if_childless();
        Step::Done
    }
}

/// Tells a responder that we do not believe it, so that it drops what it thinks established
/// (section 2.21.2).
pub(crate) struct Abort;

impl Request for Abort {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn build(&mut self, _: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        let failed = Notify::new(kind::AUTHENTICATION_FAILED, []);
        vec![Payload::Notify(failed), Payload::Delete(DeletePayload::Ike)]
    }

    fn process(&mut self, core: &mut Core, _: &mut Cx<'_>, _: &Response<'_>) -> Step {
        Step::Close(core.closing.clone())
    }
}

/// Errors that end an IKE SA.
const FATAL: [u16; 3] = [
    kind::AUTHENTICATION_FAILED,
    kind::INVALID_SYNTAX,
    kind::UNSUPPORTED_CRITICAL_PAYLOAD,
];

/// Answers an INFORMATIONAL request of an authenticated peer.
pub(crate) fn respond(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
    // Section 2.21.2: what the peer found wrong with our answer to IKE_AUTH ends the IKE SA, with or
    // without a DELETE. At any other time nobody should say so.
    if let Some(failed) = FATAL.iter().find_map(|kind| notify(payloads, *kind)) {
        core.end(cx, CloseReason::Error(Failure::notified(failed)));
        return Vec::new();
    }
    core.take_token(payloads);
    ticket::take_lifetime(core, cx, payloads);
    redirect::of_informational(core, cx, payloads);
    let mut answer = mobike::respond(core, cx, payloads);
    answer.extend(ticket::answer(core, cx, payloads));
    for payload in payloads {
        match payload {
            Payload::Delete(DeletePayload::Ike) => {
                // Section 1.4.1: the answer to the deletion of an IKE SA is empty.
                if let Busy::RekeyIke {
                    rival: Some(rival), ..
                } = std::mem::take(&mut core.busy)
                    && rival.is_made
                {
                    // It has rekeyed this one, while we tried the same (section 2.25.2).
                    cx.succession.heir = Some(rival.spi);
                } else {
                    core.end(cx, CloseReason::PeerDeleted);
                }
                return Vec::new();
            }
            Payload::Delete(DeletePayload::Esp(spis)) => {
                // Section 1.4.1: what both sides delete at once goes with the answer to each one's
                // own request, and is not named here.
                let crossing = match core.busy {
                    Busy::DeleteChild { spi_in } => Some(spi_in),
                    _ => None,
                };
                let (gone, left): (Vec<ChildSa>, Vec<ChildSa>) = core
                    .children
                    .drain(..)
                    .partition(|c| spis.contains(&c.spi_out) && crossing != Some(c.spi_in));
                core.children = left;
                if !gone.is_empty() {
                    // The other half of each pair goes with it.
                    let ours = gone.iter().map(|c| c.spi_in).collect();
                    answer.push(Payload::Delete(DeletePayload::Esp(ours)));
                    cx.events.extend(gone.iter().map(|c| c.closed(core.id)));
                    if core.close_if_childless() {
                        core.closing = CloseReason::PeerDeleted;
                    }
                }
            }
            _ => {}
        }
    }
    answer
}
