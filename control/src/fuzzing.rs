//! Ways to parsers that nothing outside of this crate needs, but for the fuzz targets.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::api::Shared;
use crate::api::model::{Event, SaView, Status};
use crate::cluster::channel;
use crate::cluster::connectivity::{self, Introduction};
use crate::cluster::wire::Up;
use crate::dataplane::net::fib::{Fib, NextHop};
use crate::dataplane::net::offline;
use crate::ike::{TicketKey, Tickets};

/// Answers on one connection as the API does, until it ends.
pub async fn serve_api<S>(stream: S, shared: Shared, command_timeout: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let router = crate::api::router(shared, command_timeout);
    // What a client sends wrong ends its connection with an error.
    let _ = crate::api::connection(stream, router).await;
}

/// What `evergate status` shows.
#[must_use]
pub fn show_status(status: &Status) -> String {
    crate::cli::show_status(status, false)
}

/// What `evergate events` shows.
#[must_use]
pub fn show_events(events: &[Event]) -> String {
    crate::cli::show_events(events, 0, SystemTime::UNIX_EPOCH, false)
}

/// What `evergate sa list` shows.
#[must_use]
pub fn show_sas(list: &[SaView]) -> String {
    crate::cli::show_sas(list, false)
}

/// Whether these bytes open as a ticket.
#[must_use]
pub fn opens_ticket(key: TicketKey, ticket: &[u8]) -> bool {
    Tickets::new(vec![key], 1).open(ticket).is_ok()
}

/// Reads the state inside a ticket, and writes it again if it can be read.
#[must_use]
pub fn ticket_state(text: &[u8]) -> Option<Vec<u8>> {
    crate::ike::rewrite_ticket_state(text)
}

/// Takes datagrams of route netlink as both dumps and notifications; yields the routes and neighbours
/// that they make, and a way to each of `asked`.
#[must_use]
pub fn netlink(datagrams: &[&[u8]], asked: &[IpAddr]) -> (Fib, Vec<NextHop>) {
    let fib = offline::of_datagrams(datagrams);
    let hops = asked.iter().map(|address| fib.lookup(*address)).collect();
    (fib, hops)
}

/// What a connection between an authority and an edge takes out of a stream that comes in pieces of this size.
#[must_use]
pub fn cluster_stream(data: &[u8], piece: usize) -> Vec<Up> {
    channel::taken_apart(data, piece)
}

/// The datagram with this content, of one who has the key.
#[must_use]
pub fn connectivity_datagram(own: &Introduction, sequence: u64, content: &[u8]) -> Vec<u8> {
    connectivity::sealed(own, sequence, content).unwrap_or_default()
}
