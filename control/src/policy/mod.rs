//! Room `policy`: which targets are reached through which gateways, and how their life is watched.
//!
//! The text of a policy file becomes a [`Policy`] ([`parse`], pure; [`check`] adds file name and
//! rendering). A [`Policy`] is what the operator wrote; [`Policy::resolve`] makes of it what a node
//! works with: clusters in a drawn order and disjoint prefixes. [`diff`] tells a reload what it
//! concerns. No I/O, no clock; randomness is handed in.

mod address;
mod check;
mod diagnostic;
mod diff;
mod duration;
mod keywords;
mod lex;
mod model;
mod ownership;
mod parse;
pub mod prefixes;
mod resolve;
mod value;
mod warn;

#[cfg(test)]
mod tests;

pub use check::{Report, check};
pub use diagnostic::{Diagnostic, PolicyError, PolicyWarning, Problem, Severity, Span};
pub use diff::{Changes, Delta, Membership, diff};
pub use duration::{LONGEST_TIMER, SHORTEST_TIMER};
pub use keywords::Setting;
pub use model::{
    ClusterDef, ClusterId, General, HeartbeatForm, HeartbeatMode, Policy, RedirectDef, Target,
    TunnelDef, Via,
};
pub use parse::{Parsed, parse};
pub use resolve::{Cluster, Resolved, Tunnel, Unresolved, WhyUnresolved};
