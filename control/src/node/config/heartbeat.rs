//! The table `[heartbeat]`: which heartbeats a gateway answers, and how long without its daemon.

use std::time::Duration;

use toml::Spanned;

use super::check::Checker;
use super::file::{self, Table};
use super::{Heartbeat, Role};

impl Checker<'_> {
    pub(super) fn heartbeat(&mut self, table: Table<file::Heartbeat>, role: Role) -> Heartbeat {
        if role == Role::Client {
            let why = "only gateways reflect heartbeats (a client's own are set in its policy)";
            self.unused(table.as_ref(), "[heartbeat]", role, why);
        }
        let table = self.table(table);
        let range = Duration::from_millis(10)..=Duration::from_secs(10);
        let dead_man = self.time(table.dead_man, "heartbeat.dead_man", range);
        Heartbeat {
            accept: self.named_or(table.accept, "heartbeat.accept"),
            strangers: table.strangers.is_some_and(Spanned::into_inner),
            dead_man: dead_man.unwrap_or(Duration::from_millis(50)),
        }
    }
}
