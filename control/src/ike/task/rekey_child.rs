//! CREATE_CHILD_SA that replaces a child SA (RFC 7296 sections 1.3.3, 2.8 and 2.8.1).
//!
//! ```text
//! HDR, SK {N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr} -->
//!                                <-- HDR, SK {SA, Nr, [KEr,] TSi, TSr}
//! HDR, SK {D(ESP, old)} -->
//!                                <-- HDR, SK {D(ESP, old)}
//! ```
//!
//! Both ends may do it at once. Each answers as usual and gets two new child SAs for one; the one
//! of the exchange with the lowest of the four nonces is redundant, and deleted by whoever began
//! that exchange. The other one's initiator deletes the old child SA.

use super::super::event::{Child, Event, Failure, Outbound};
use super::super::life::{Busy, ChildSa, Life, Rival, Stage};
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::sa::protocol;
use super::super::settings::Beside;
use super::super::state::{Core, Phase};
use super::super::ts::narrow;
use super::create_child::{CreateChild, Made, Wish, make};
use super::informational::DeleteChild;
use super::{Cx, Request, Response, Step, notify};

/// The exchange as initiator.
pub(crate) struct RekeyChild {
    /// Inbound SPI of the child SA that is replaced.
    old: u32,
    wish: Option<Wish>,
}

impl RekeyChild {
    pub(crate) fn new(old: u32) -> RekeyChild {
        RekeyChild { old, wish: None }
    }
}

impl Request for RekeyChild {
    fn exchange(&self) -> u8 {
        exchange::CREATE_CHILD_SA
    }

    /// The peer may have replaced or deleted it meanwhile.
    fn is_due(&self, core: &Core) -> bool {
        core.phase == Phase::Established && core.child(self.old).is_some_and(ChildSa::is_in_use)
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        let spi_in = self.old;
        core.busy = Busy::RekeyChild {
            spi_in,
            rival: None,
        };
        let old = core.child(spi_in);
        let lane = old.map_or(0, |old| old.lane);
        let selectors = old.map(|c| (c.local_ts.to_vec(), c.remote_ts.to_vec()));
        let wish = self.wish.get_or_insert_with(|| {
            let beside = Some(in_place_of(spi_in));
            Wish::new(cx, lane, beside, selectors.unwrap_or_default())
        });
        core.spi_in = Some(wish.spi);
        // The SPI that the sender of the notification receives on.
        let mut payloads = vec![Payload::Notify(Notify {
            protocol: protocol::ESP,
            spi: spi_in.to_be_bytes().to_vec(),
            ..Notify::new(kind::REKEY_SA, [])
        })];
        wish.write(cx.settings, &mut payloads);
        payloads
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        let rival = match std::mem::take(&mut core.busy) {
            Busy::RekeyChild { rival, .. } => rival,
            _ => None,
        };
        let Some(mut wish) = self.wish.take() else {
            return Step::Done;
        };
        match wish.accept(core, cx.settings, response.payloads) {
            Ok(made) => core.rekeyed_child(cx, self.old, made, rival),
            Err(failure) => {
                let wanted = notify(response.payloads, kind::INVALID_KE_PAYLOAD);
                if let Some(wanted) = wanted
                    && rival.is_none()
                    && wish.change_group(wanted, cx)
                {
                    let wish = Some(wish);
                    return Step::Next(Box::new(RekeyChild { wish, ..*self }));
                }
                // One of which the peer has not heard yet is not lost.
                let making = core.children.iter().any(|c| c.stage == Stage::Replaced);
                let lost = failure == Failure::ChildNotFound && !making;
                let busy = failure == Failure::TemporaryFailure;
                let step = core.child_failed(cx, wish.spi, failure, response.payloads);
                // Else the peer was faster, or has deleted it.
                if core.child(self.old).is_some_and(ChildSa::is_in_use) {
                    if lost && let Some(old) = core.remove_child(self.old) {
                        // Section 2.25: out of step. What the peer does not know is gone, and made
                        // anew.
                        cx.events.push(old.closed(core.id));
                        let anew = CreateChild::new(old.lane, &old.local_ts, &old.remote_ts);
                        return Step::Next(Box::new(anew));
                    }
                    if let Some(old) = core.child_mut(self.old) {
                        old.life.retry(cx.now, cx.rng);
                        if old.life.is_put_off_for_good(cx.now, busy) {
                            core.give_up(Failure::TemporaryFailure);
                        }
                    }
                }
                step
            }
        }
    }
}

/// What takes the place of a child SA is the same resource's.
fn in_place_of(spi: u32) -> Beside {
    Beside { spi, lane: 0 }
}

/// Answers a request to replace the child SA that `about` names by the SPI that we send on.
pub(super) fn answer(
    core: &mut Core,
    cx: &mut Cx<'_>,
    payloads: &[Payload],
    about: &Notify,
) -> Result<Vec<Payload>, Notify> {
    let spi_out = about.spi.as_slice().try_into().ok().map(u32::from_be_bytes);
    let found = core
        .children
        .iter()
        .find(|c| about.protocol == protocol::ESP && spi_out == Some(c.spi_out));
    let Some(old) = found else {
        if matches!(core.busy, Busy::Create | Busy::RekeyChild { .. }) {
            // It may be the very one that our exchange makes, whose answer is on its way.
            return Err(Notify::new(kind::TEMPORARY_FAILURE, []));
        }
        return Err(Notify {
            protocol: about.protocol,
            spi: about.spi.clone(),
            ..Notify::new(kind::CHILD_SA_NOT_FOUND, [])
        });
    };
    // Section 2.25.1: one that we delete, or that has been replaced already.
    if !old.is_in_use() {
        return Err(Notify::new(kind::TEMPORARY_FAILURE, []));
    }
    // Section 2.9.2: what the old one carries, unless the peer itself wants less.
    let select = |_: &mut Cx<'_>, local: &[_], remote: &[_]| {
        let (local, remote) = (narrow(local, &old.local_ts), narrow(remote, &old.remote_ts));
        Some((local, remote))
    };
    let old_spi_in = old.spi_in;
    let place = (old.lane, Some(in_place_of(old_spi_in)));
    let (made, answer) = make(core, cx, payloads, place, select)?;
    if let Busy::RekeyChild { spi_in, rival } = &mut core.busy
        && *spi_in == old_spi_in
    {
        *rival = Some(Rival {
            spi: u64::from(made.child.spi_in),
            nonces: made.nonces,
            is_made: true,
        });
    }
    if let Some(old) = core.child_mut(old_spi_in) {
        old.replace(cx.now);
    }
    core.take_child(cx, old_spi_in, made.child, Outbound::WhenHeard);
    Ok(answer)
}

impl Core {
    pub(crate) fn child(&self, spi_in: u32) -> Option<&ChildSa> {
        self.children.iter().find(|c| c.spi_in == spi_in)
    }

    pub(crate) fn child_mut(&mut self, spi_in: u32) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|c| c.spi_in == spi_in)
    }

    pub(crate) fn remove_child(&mut self, spi_in: u32) -> Option<ChildSa> {
        let at = self.children.iter().position(|c| c.spi_in == spi_in)?;
        Some(self.children.remove(at))
    }

    /// Our exchange has replaced a child SA; the peer's may have done so too.
    fn rekeyed_child(
        &mut self,
        cx: &mut Cx<'_>,
        old: u32,
        made: Made,
        rival: Option<Rival>,
    ) -> Step {
        self.spi_in = None;
        let new = made.child.spi_in;
        if rival
            .as_ref()
            .is_some_and(|rival| made.nonces < rival.nonces)
        {
            self.take_child(cx, old, made.child, Outbound::Never);
            if let Some(ours) = self.child_mut(new) {
                ours.delete();
            }
            return Step::Next(Box::new(DeleteChild { spi_in: new }));
        }
        self.take_child(cx, old, made.child, Outbound::AtOnce);
        // The peer deletes its own.
        let rival = rival.and_then(|rival| u32::try_from(rival.spi).ok());
        if let Some(theirs) = rival.and_then(|spi| self.child_mut(spi)) {
            theirs.replace(cx.now);
        }
        match self.child_mut(old) {
            Some(old) => {
                old.delete();
                let spi_in = old.spi_in;
                Step::Next(Box::new(DeleteChild { spi_in }))
            }
            // The peer has deleted it meanwhile.
            None => Step::Done,
        }
    }

    fn take_child(&mut self, cx: &mut Cx<'_>, old_spi_in: u32, child: Child, outbound: Outbound) {
        let Some(keys) = &self.keys else { return };
        let began = outbound != Outbound::WhenHeard;
        let life = Life::new(cx.settings.child_lifetime, cx.now, began, cx.rng);
        self.children.push(ChildSa::new(&child, life));
        cx.stats.children_rekeyed += 1;
        cx.events.push(Event::ChildRekeyed {
            id: self.id,
            old_spi_in,
            child,
            outbound,
            exporter: keys.exporter(),
        });
    }
}
