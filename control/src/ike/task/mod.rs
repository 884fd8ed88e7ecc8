//! Exchanges as small state machines, one file each.
//!
//! An exchange that we start is a [`Request`]: `build` makes its payloads, `process` reads the
//! response and says what comes next. One that the peer starts is a function `respond` that reads a
//! request and yields the payloads of its response. Neither knows about datagrams, message IDs,
//! retransmission or encryption: that is the IKE SA's part.

pub(crate) mod auth;
pub(crate) mod child;
pub(crate) mod create_child;
pub(crate) mod eap;
pub(crate) mod followup;
pub(crate) mod informational;
pub(crate) mod init;
pub(crate) mod intermediate;
pub(crate) mod mobike;
pub(crate) mod redirect;
pub(crate) mod rekey_child;
pub(crate) mod rekey_ike;
pub(crate) mod replace_child;
pub(crate) mod resume;
pub(crate) mod sync;
pub(crate) mod ticket;

use std::time::Instant;

use rand::CryptoRng;

use super::event::{CloseReason, Event, Failure};
use super::guesses::Guesses;
use super::identity::Identity;
use super::payload::Payload;
use super::payload::header::Header;
use super::payload::notify::Notify;
use super::settings::{Hooks, Settings};
use super::state::Core;
use super::stats::Stats;

/// What a task may use besides its IKE SA.
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) settings: &'a Settings,
    pub(crate) rng: &'a mut dyn CryptoRng,
    pub(crate) hooks: &'a mut dyn Hooks,
    pub(crate) stats: &'a mut Stats,
    /// Wrong passwords of users.
    pub(crate) guesses: &'a mut Guesses,
    pub(crate) events: Vec<Event>,
    /// An authenticated peer says that it holds no other IKE SA with us.
    pub(crate) initial_contact: Option<Identity>,
    pub(crate) succession: Succession,
}

/// What rekeying does to IKE SAs, for the engine to carry out.
#[derive(Default)]
pub(crate) struct Succession {
    /// It comes into being.
    pub(crate) made: Option<Box<Core>>,
    /// The IKE SA with this SPI of ours takes over.
    pub(crate) heir: Option<u64>,
    /// We delete the one that is replaced.
    pub(crate) delete_old: bool,
    /// We delete the one with this SPI of ours: the peer has made a better one at the same time.
    pub(crate) redundant: Option<u64>,
}

/// A response, opened and taken apart.
pub(crate) struct Response<'a> {
    pub(crate) header: &'a Header,
    pub(crate) payloads: &'a [Payload],
    /// The whole datagram.
    pub(crate) datagram: &'a [u8],
}

/// What comes after a response.
pub(crate) enum Step {
    /// This exchange is over.
    Done,
    /// The response counts for nothing: go on waiting.
    Ignore,
    /// Build and send the request again, under the same message ID.
    Again,
    /// The next exchange follows at once.
    Next(Box<dyn Request>),
    /// Another first exchange begins in place of this one, as if it had not been.
    Restart(Box<dyn Request>),
    /// The session we wished for does not come about; with a last request to tell the peer, if it
    /// must know.
    Fail(Failure, Option<Box<dyn Request>>),
    /// The IKE SA is over.
    Close(CloseReason),
    /// Another IKE SA takes over: nothing more begins here.
    Replaced,
}

/// An exchange that we start.
pub(crate) trait Request: Send {
    /// Exchange type of its messages.
    fn exchange(&self) -> u8;
    /// Which task it is.
    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
    /// What to ask anew if our address has changed before the answer was there.
    fn elsewhere(&self) -> Option<Box<dyn Request>> {
        None
    }
    /// Whether it is still wanted when its turn has come.
    fn is_due(&self, _core: &Core) -> bool {
        true
    }
    /// The payloads of the request; called again after [`Step::Again`] only.
    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload>;
    /// Another first exchange to try, after so many sendings without an answer.
    fn instead(&mut self, _sent: u32, _cx: &mut Cx<'_>) -> Option<Box<dyn Request>> {
        None
    }
    /// Sees each datagram of the message as it goes out; the first exchange has one.
    fn sent(&mut self, _message: &[u8]) {}
    fn process(&mut self, core: &mut Core, cx: &mut Cx<'_>, response: &Response<'_>) -> Step;
}

/// The first payload that `pick` takes.
pub(crate) fn find<'a, T>(
    payloads: &'a [Payload],
    pick: impl Fn(&'a Payload) -> Option<T>,
) -> Option<T> {
    payloads.iter().find_map(pick)
}

/// All notifications.
pub(crate) fn notifies(payloads: &[Payload]) -> impl Iterator<Item = &Notify> {
    payloads.iter().filter_map(|p| match p {
        Payload::Notify(n) => Some(n),
        _ => None,
    })
}

/// The first notification of that kind.
pub(crate) fn notify(payloads: &[Payload], kind: u16) -> Option<&Notify> {
    notifies(payloads).find(|n| n.kind == kind)
}

/// The first notification of an error.
pub(crate) fn error(payloads: &[Payload]) -> Option<&Notify> {
    notifies(payloads).find(|n| n.is_error())
}
