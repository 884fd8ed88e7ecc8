//! The table `[privileges]`: whom a node becomes, and what it may do then.

use toml::Spanned;

use super::check::Checker;
use super::file::{self, Table, Text};
use crate::privilege::Privileges;

impl Checker<'_> {
    pub(super) fn privileges(&mut self, table: Table<file::Privileges>) -> Privileges {
        let table = self.table(table);
        let mut name = |text: Text, key: &str| {
            let text = text?;
            if text.get_ref().trim().is_empty() {
                let what = "expected a name or a number";
                self.error(&text.span(), format!("{key}: found nothing, {what}"));
            }
            Some(text.into_inner())
        };
        Privileges {
            user: name(table.user, "privileges.user"),
            socket_group: name(table.socket_group, "privileges.socket_group"),
            sandbox: table.sandbox.is_none_or(Spanned::into_inner),
        }
    }
}
