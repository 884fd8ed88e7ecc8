//! The table `[connectivity]`: datagrams between edges and authorities.

use std::net::SocketAddr;
use std::time::Duration;

use super::check::Checker;
use super::file::{self, Table};
use super::{Channel, Role};
use crate::cluster::connectivity::PATIENCE;

/// How long other edges may be waited for.
const LEAST: Duration = Duration::from_millis(1);
const MOST: Duration = Duration::from_millis(50);

/// A node's part in the connectivity protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connectivity {
    /// Where the others find it.
    pub listen: SocketAddr,
    /// How long other edges are waited for before the authority is asked, 1 ms to 50 ms.
    pub patience: Duration,
}

impl Checker<'_> {
    pub(super) fn connectivity(
        &mut self,
        table: Table<file::Connectivity>,
        role: Role,
        channel: Option<&Channel>,
    ) -> Option<Connectivity> {
        if role == Role::Client {
            let why = "only edges and their authority take part";
            self.unused(table.as_ref(), "[connectivity]", role, why);
            return None;
        }
        let messages = channel.is_some_and(Channel::by_messages);
        let Some(table) = table else {
            if messages {
                let said = "channel.negotiation: found `messages` without [connectivity], which carries them";
                self.error(&super::check::TOP, said);
            }
            return None;
        };
        let at = table.span();
        let table = table.into_inner();
        if channel.is_none() && role == Role::Gateway {
            let said = "[connectivity]: found without [channel], by which an authority says who takes part";
            self.error(&at, said);
        }
        let key = "connectivity.listen";
        let what = "this node's address and port in the network behind the edges, such as \
                    \"10.0.0.11:4511\"";
        let text = self.required(table.listen, &at, key, what)?;
        let listen: SocketAddr = self.parsed(&text, key, what)?;
        let host = !(listen.ip().is_unspecified() || listen.ip().is_multicast());
        if !host || listen.port() == 0 {
            let said = format!("{key}: found `{listen}`, expected {what}: others are told of it");
            self.error(&text.span(), said);
            return None;
        }
        let patience = self.time(table.patience, "connectivity.patience", LEAST..=MOST);
        Some(Connectivity {
            listen,
            patience: patience.unwrap_or(PATIENCE),
        })
    }
}
