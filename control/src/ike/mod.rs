//! IKEv2 (RFC 7296) without I/O: an [`Engine`] holds all IKE SAs of a node and is driven by whoever
//! owns sockets and clock.
//!
//! The owner calls, in any order: [`Engine::initiate`], [`Engine::resume`],
//! [`Engine::handle_datagram`], [`Engine::handle_timeout`] when [`Engine::next_timeout`] says so, [`Engine::close`],
//! [`Engine::check_liveness`], [`Engine::add_child`], [`Engine::rekey_child`],
//! [`Engine::rekey_ike`], [`Engine::forget`]. After each call it takes all events from
//! [`Engine::poll_event`] first, and then all datagrams from [`Engine::poll_transmit`], so that an
//! inbound SA is installed before its SPI is told to the peer. What only the owner can decide it is
//! asked through [`Hooks`].

pub mod auth;
mod cookie;
mod crash;
pub mod crypto;
pub mod eap;
mod engine;
mod event;
pub mod fragment;
mod group;
mod guesses;
mod identity;
pub mod keys;
mod keywords;
mod life;
mod limits;
mod nat;
mod pattern;
pub mod payload;
pub mod proposal;
mod rank;
mod sa;
mod settings;
mod snapshot;
mod state;
mod stats;
mod task;
mod ticket;
mod ts;
pub mod x509;

#[cfg(test)]
mod tests;

pub use cookie::CookieKeys;
pub use crypto::{Group, IkeCipher, Prf, Psk, Secret};
pub use eap::EapUser;
pub use engine::export::IkeSaKeys;
pub use engine::{Datagram, Engine, Job, Spread};
pub use event::{Child, CloseReason, Event, Failure, Nat, Outbound, SaId, Transmit};
pub use identity::{Identity, NotAnIdentity};
pub use keys::Exporter;
pub use keywords::BadProposal;
pub use life::Lifetime;
pub use nat::{IKE_PORT, KEEP_ALIVE, NAT_T_PORT, NON_ESP_MARKER};
pub use pattern::{NotAPattern, Pattern};
pub use payload::redirect::GatewayIdentity;
pub use proposal::{EspCipher, EspProposal, IkeProposal};
pub use rank::{Contender, Rank, SIMULTANEOUS, survivor};
pub use settings::{
    AddressRequest, Admission, Arrival, AssignRefused, Beside, Encapsulation, Hooks, Initiate,
    Methods, Proof, Retransmit, Settings, SpiPrefix, TsRefused, X509,
};
pub use snapshot::{BadSnapshot, Changed, ChildOf, Snapshot};
pub use stats::Stats;
pub use task::redirect::RedirectLimit;
pub(crate) use ticket::rewrite_state as rewrite_ticket_state;
pub use ticket::{Ticket, TicketKey, Tickets};
pub use ts::{TrafficSelector, is_narrowing, merge, narrow};
