//! An edge's notary: once the edge's process is dead, it says by a connection of its own how far that came.

use std::net::SocketAddr;

use tokio_rustls::TlsConnector;

use super::{ChannelError, Credentials, uplink};
use crate::cluster::wire::{Up, VERSION};
use crate::cluster::{Reached, Run};

/// What an authority is told with, ready before it is needed.
pub struct Notary {
    connector: TlsConnector,
    authorities: Vec<(SocketAddr, String)>,
}

impl Notary {
    /// Speaks to these authorities, which have such names in their certificates, as the edge that these credentials
    /// are of.
    ///
    /// # Errors
    /// The credentials are of no use.
    pub fn new(
        authorities: Vec<(SocketAddr, String)>,
        credentials: &Credentials,
    ) -> Result<Self, ChannelError> {
        Ok(Self {
            connector: std::sync::Arc::new(credentials.client()?).into(),
            authorities,
        })
    }

    /// Tells all authorities how far a run came, at the same time; each takes what is its own. Yields whom it could
    /// not tell, and why. Each is tried once: a second later it would be of no use.
    pub async fn testify(&self, run: Run, reached: Vec<Reached>) -> Vec<(SocketAddr, String)> {
        let testimony = Up::Testimony {
            version: VERSION,
            run,
            reached,
        };
        let each = self.authorities.iter().map(|(authority, name)| {
            let told = uplink::connect(&self.connector, *authority, name, &testimony);
            async { (*authority, told.await) }
        });
        let told = futures_util::future::join_all(each).await;
        let failed =
            |(authority, told): (SocketAddr, Result<_, String>)| Some((authority, told.err()?));
        told.into_iter().filter_map(failed).collect()
    }
}
