//! The table `[drain]`: where a gateway sends its clients before maintenance.

use std::time::Duration;

use toml::Spanned;

use super::check::Checker;
use super::file::{self, Table};
use super::{Drain, Identity, Role};
use crate::ike::GatewayIdentity;

impl Checker<'_> {
    pub(super) fn drain(&mut self, table: Table<file::Drain>, role: Role) -> Drain {
        if role == Role::Client {
            let why = "only gateways send their clients elsewhere";
            self.unused(table.as_ref(), "[drain]", role, why);
        }
        let table = self.table(table);
        let gateways = table.gateways.iter();
        let gateways = gateways.filter_map(|text| self.gateway(text)).collect();
        let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
        let patience = self.time(table.patience, "drain.patience", range);
        Drain {
            gateways,
            patience: patience.unwrap_or(Duration::from_secs(60)),
        }
    }

    fn gateway(&mut self, text: &Spanned<String>) -> Option<GatewayIdentity> {
        let key = "drain.gateways";
        let what = "the outside address or the host name of another gateway";
        match self.parsed(text, key, what)? {
            Identity::Address(_) => self.unicast(text, key).map(GatewayIdentity::Address),
            Identity::Fqdn(name) => Some(GatewayIdentity::Fqdn(name)),
            Identity::Email(found) | Identity::Dn(found) => {
                self.error(
                    &text.span(),
                    format!("{key}: found `{found}`, expected {what}"),
                );
                None
            }
        }
    }
}
