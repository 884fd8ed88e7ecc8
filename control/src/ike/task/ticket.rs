//! Tickets asked for and issued (RFC 5723 sections 4.1 and 4.2), in IKE_AUTH and later in an exchange
//! of their own; and how long the responder believes who the initiator is (RFC 4478).
//!
//! ```text
//! HDR, SK {N(TICKET_REQUEST)} -->
//!                                <-- HDR, SK {N(TICKET_LT_OPAQUE)}
//! ```

use std::time::Duration;

use super::super::event::Event;
use super::super::payload::Payload;
use super::super::payload::header::exchange;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::ticket::Issued;
use super::super::settings::Settings;
use super::super::state::{Core, Phase};
use super::super::ticket::{LONGEST, State, Ticket, Way};
use super::{Cx, Request, Response, Step, notify};

/// Asks for one, if we want any.
pub(super) fn request(settings: &Settings) -> Option<Payload> {
    let request = || Payload::Notify(Notify::new(kind::TICKET_REQUEST, []));
    settings.request_tickets.then(request)
}

/// The answer to a request for a ticket, as responder; nothing if there is none, or we issue none at
/// all.
pub(super) fn answer(core: &Core, cx: &mut Cx<'_>, payloads: &[Payload]) -> Option<Payload> {
    notify(payloads, kind::TICKET_REQUEST)?;
    cx.settings.tickets.as_ref()?;
    Some(Payload::Notify(match issue(core, cx) {
        Some(issued) => {
            cx.stats.tickets_issued += 1;
            issued.notify()
        }
        None => Notify::new(kind::TICKET_NACK, []),
    }))
}

fn issue(core: &Core, cx: &mut Cx<'_>) -> Option<Issued> {
    let settings = cx.settings;
    let (tickets, origin) = (settings.tickets.as_ref()?, core.origin.as_ref()?);
    // The session's initiator asks; the other one has nobody to go back to.
    if core.ours || core.phase != Phase::Established {
        return None;
    }
    let way = origin.way.clone()?;
    let now = cx.hooks.unix_time();
    let mut lifetime = settings.ticket_lifetime.as_secs();
    if let Some(life) = settings.ike_lifetime {
        lifetime = lifetime.min(life.hard.as_secs());
    }
    if let Some(limit) = settings.reauth {
        let until = origin.authenticated.saturating_add(limit.as_secs());
        lifetime = lifetime.min(until.saturating_sub(now));
    }
    if let Way::Certificate(_, until) = way {
        lifetime = lifetime.min(until.saturating_sub(now));
    }
    let lifetime = u32::try_from(lifetime).unwrap_or(u32::MAX);
    if lifetime == 0 {
        return None;
    }
    let state = State {
        expires: now.saturating_add(lifetime.into()),
        authenticated: origin.authenticated,
        spis: [core.spi_i, core.spi_r],
        suite: core.suite?,
        sk_d: core.keys.as_ref()?.sk_d().clone(),
        idi: origin.idi.clone(),
        idr: origin.idr.clone(),
        peer: core.peer.clone()?,
        issuer: settings.local_id.clone(),
        way,
        assigned: core.assigned.clone(),
    };
    let mut id = [0; 16];
    cx.rng.fill_bytes(&mut id);
    let ticket = tickets.seal(id, &state)?;
    Some(Issued { lifetime, ticket })
}

/// Takes a ticket out of a response, as initiator. The owner keeps it.
pub(super) fn take(core: &mut Core, cx: &mut Cx<'_>, payloads: &[Payload]) {
    let Some(found) = notify(payloads, kind::TICKET_LT_OPAQUE) else {
        return;
    };
    let issued = Issued::parse(found).ok();
    let issued = issued.filter(|i| cx.settings.request_tickets && i.ticket.len() <= LONGEST);
    let expires = issued
        .as_ref()
        .and_then(|i| cx.now.checked_add(Duration::from_secs(i.lifetime.into())));
    let (Some(issued), Some(expires)) = (issued, expires) else {
        cx.stats.malformed += 1;
        return;
    };
    let (Some(keys), Some(suite), Some(origin)) = (&core.keys, core.suite, &mut core.origin) else {
        return;
    };
    origin.has_ticket = true;
    let ticket = Ticket {
        opaque: issued.ticket,
        suite,
        sk_d: keys.sk_d().clone(),
        idi: origin.idi.clone(),
        idr: origin.idr.clone(),
        authenticated: origin.authenticated,
        expires,
    };
    let id = core.id;
    cx.events.push(Event::Ticket { id, ticket });
}

/// Asks for another ticket, because the keys have changed (section 6.2).
pub(crate) struct AskForTicket;

impl Request for AskForTicket {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn is_due(&self, core: &Core) -> bool {
        core.phase == Phase::Established
    }

    fn build(&mut self, _: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        request(cx.settings).into_iter().collect()
    }

    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step {
        take(core, cx, response.payloads);
        Step::Done
    }
}

/// AUTH_LIFETIME, as responder: when the initiator has to prove anew who it is.
pub(super) fn lifetime(core: &Core, cx: &Cx<'_>) -> Option<Payload> {
    let left = core.reauth_until?.saturating_duration_since(cx.now);
    let seconds = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
    let data = seconds.to_be_bytes();
    Some(Payload::Notify(Notify::new(kind::AUTH_LIFETIME, data)))
}

/// Tells the owner what the responder says of it, as initiator.
pub(super) fn take_lifetime(core: &Core, cx: &mut Cx<'_>, payloads: &[Payload]) {
    let told = notify(payloads, kind::AUTH_LIFETIME);
    let seconds = told.and_then(|n| <[u8; 4]>::try_from(n.data.as_slice()).ok());
    if let (Some(seconds), true) = (seconds, core.ours && core.is_announced()) {
        let after = Duration::from_secs(u32::from_be_bytes(seconds).into());
        let id = core.id;
        cx.events.push(Event::ReauthIn { id, after });
    }
}
