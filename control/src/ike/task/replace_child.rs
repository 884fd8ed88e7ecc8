//! A further child SA in the place of one that the peer may have replaced, in an exchange whose end we have not
//! seen: nobody else knows the keys of what that has made, if it has.
//!
//! ```text
//! HDR, SK {SA, Ni, [KEi,] TSi, TSr} -->
//!                                <-- HDR, SK {SA, Nr, [KEr,] TSi, TSr}
//! HDR, SK {D(ESP, old, orphan)} -->
//!                                <-- HDR, SK {D(ESP, …)}
//! ```

use super::super::life::{Busy, ChildSa};
use super::super::payload::Payload;
use super::super::payload::delete::Delete as DeletePayload;
use super::super::payload::header::exchange;
use super::super::state::{Core, Phase};
use super::create_child::CreateChild;
use super::{Cx, Request, Response, Step, error};

/// The exchange as initiator.
pub(crate) struct ReplaceChild {
    /// Inbound SPI of the child SA that is replaced.
    old: u32,
    /// That of what may have been made.
    orphan: u32,
    create: CreateChild,
}

impl ReplaceChild {
    pub(crate) fn new(old: &ChildSa, orphan: u32) -> ReplaceChild {
        ReplaceChild {
            old: old.spi_in,
            orphan,
            create: CreateChild::new(old.lane, &old.local_ts, &old.remote_ts),
        }
    }
}

impl Request for ReplaceChild {
    fn exchange(&self) -> u8 {
        exchange::CREATE_CHILD_SA
    }

    fn is_due(&self, core: &Core) -> bool {
        core.phase == Phase::Established && core.child(self.old).is_some_and(ChildSa::is_in_use)
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        self.create.build(core, cx)
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let before = core.children.len();
        let step = self.create.process(core, cx, response);
        let Some(old) = core.children.iter().position(|c| c.spi_in == self.old) else {
            return step;
        };
        let made = core.children.len() > before;
        let Some(old) = core.children.get_mut(old) else {
            return step;
        };
        if made {
            old.delete();
            return Step::Next(Box::new(DeleteBoth {
                old: self.old,
                orphan: self.orphan,
            }));
        }
        // Another time; whatever was wrong may be over then.
        old.life.retry(cx.now, cx.rng);
        let busy = error(response.payloads).is_some();
        if old.life.is_put_off_for_good(cx.now, busy) {
            core.wants_delete = true;
        }
        step
    }
}

/// Deletes what is not used any more, and what may never have been there.
struct DeleteBoth {
    old: u32,
    orphan: u32,
}

impl Request for DeleteBoth {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn build(&mut self, core: &mut Core, _: &mut Cx<'_>) -> Vec<Payload> {
        core.busy = Busy::DeleteChild { spi_in: self.old };
        let both = vec![self.old, self.orphan];
        vec![Payload::Delete(DeletePayload::Esp(both))]
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, _: &Response<'_>) -> Step {
        core.busy = Busy::Free;
        if let Some(child) = core.remove_child(self.old) {
            cx.events.push(child.closed(core.id));
        }
        core.close_if_childless();
        Step::Done
    }
}
