//! INFORMATIONAL (RFC 7296 sections 1.4 and 2.4): liveness, deletion, errors after the fact.
//!
//! ```text
//! HDR, SK {[N,] [D]} -->
//!                                <-- HDR, SK {[D]}
//! ```

use super::super::event::{CloseReason, Event, Failure};
use super::super::payload::Payload;
use super::super::payload::delete::Delete as DeletePayload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::state::{Core, Phase};
use super::{Cx, Request, Response, Step, notify};

/// Asks whether the peer is alive: an empty message.
pub(crate) struct Liveness;

impl Request for Liveness {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn build(&mut self, _: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        Vec::new()
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        if let Some(fatal) = notify(response.payloads, kind::INVALID_SYNTAX) {
            return Step::Close(CloseReason::Error(Failure::notified(fatal)));
        }
        cx.events.push(Event::Alive { id: core.id });
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

/// Answers an INFORMATIONAL request of an authenticated peer.
pub(crate) fn respond(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Vec<Payload> {
    if let Some(failed) = notify(payloads, kind::AUTHENTICATION_FAILED) {
        core.end(cx, CloseReason::Error(Failure::notified(failed)));
        return Vec::new();
    }
    let mut answer = Vec::new();
    for payload in payloads {
        match payload {
            Payload::Delete(DeletePayload::Ike) => {
                // Section 1.4.1: the answer to the deletion of an IKE SA is empty.
                core.end(cx, CloseReason::PeerDeleted);
                return Vec::new();
            }
            Payload::Delete(DeletePayload::Esp(spis)) => {
                let deleted = |c: &super::child::ChildSpis| spis.contains(&c.spi_out);
                let gone: Vec<_> = core.children.iter().copied().filter(deleted).collect();
                if !gone.is_empty() {
                    // Section 1.4.1: the other half of each pair goes with it.
                    let ours = gone.iter().map(|c| c.spi_in).collect();
                    answer.push(Payload::Delete(DeletePayload::Esp(ours)));
                    core.children.retain(|c| !gone.contains(c));
                    cx.events.extend(gone.iter().map(|c| c.closed(core.id)));
                }
                if core.children.is_empty() && core.phase == Phase::Established {
                    core.closing = CloseReason::PeerDeleted;
                    core.wants_delete = true;
                }
            }
            _ => {}
        }
    }
    answer
}
