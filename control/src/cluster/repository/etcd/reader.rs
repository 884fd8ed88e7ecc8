//! Single SA pairs, read by whoever does not write.

use etcd_client::{Client, Txn, TxnOp, TxnOpResponse};

use super::super::seal::{Kind, Opener};
use super::super::{RepositoryError, RepositoryKey, Settings, Stored};
use super::keys::{Keys, Table};
use super::members::Members;
use super::{check, damaged, patiently};

/// Reads from a repository in etcd without becoming its writer.
pub struct Reader {
    members: Members,
    keys: Keys,
    key: RepositoryKey,
}

impl Reader {
    /// Reads from a repository in etcd; `None`: these are no settings of one.
    ///
    /// # Errors
    /// It can not be reached, or the key is another one.
    pub async fn open(
        settings: &Settings,
        key: RepositoryKey,
    ) -> Result<Option<Self>, RepositoryError> {
        let Settings::Etcd {
            endpoints,
            prefix,
            tls,
            user,
        } = settings
        else {
            return Ok(None);
        };
        let keys = Keys::new(prefix);
        let mut members = Members::new(endpoints, tls.as_ref(), user.as_ref());
        check(&mut members, &keys, &key).await?;
        Ok(Some(Self { members, keys, key }))
    }

    /// The pair with this inbound SPI, if there is one, as most members have it now.
    ///
    /// # Errors
    /// The cluster can not be reached, or a record is damaged.
    pub async fn fetch(&mut self, spi: u32) -> Result<Option<Stored>, RepositoryError> {
        let get = |table| TxnOp::get(self.keys.record(table, spi), None);
        // Both as they were at one moment.
        let txn = Txn::new().and_then([get(Table::Pairs), get(Table::Kept)]);
        let answer = patiently(
            &mut self.members,
            &self.keys,
            async |client: &mut Client| client.txn(txn.clone()).await,
        )
        .await?;
        let records = answer
            .op_responses()
            .into_iter()
            .map(|answer| match answer {
                TxnOpResponse::Get(get) => Some(get.kvs().first()?.value().to_vec()),
                _ => None,
            });
        let mut records = records.map(|record| record.map(|record| (spi, record)));
        let (pair, kept) = (records.next().flatten(), records.next().flatten());
        let mut all = Opener::new(&self.key)
            .all(Vec::from_iter(pair), Vec::from_iter(kept))
            .map_err(|(spi, kind): (u32, Kind)| {
                damaged(&self.keys, Some(spi), kind.name().to_owned())
            })?;
        Ok(all.pop())
    }
}
