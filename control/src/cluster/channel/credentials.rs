//! What a node shows on the channel, and whom it believes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;

use super::{ALPN, ChannelError};
use crate::files;

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Own chain and key, and the CAs that the other side's certificate must come from.
#[derive(Clone)]
pub struct Credentials {
    own: Arc<CertifiedKey>,
    authorities: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Credentials {
    /// From PEM files: the own certificate with those that lead from it to a CA, its key, and CAs.
    ///
    /// # Errors
    /// A file can not be read, has something else in it, or the key is open to everybody.
    pub fn read(
        certificate: &Path,
        key: &Path,
        authorities: &[PathBuf],
    ) -> Result<Self, ChannelError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let read = |path: &Path| {
            let ders = files::read_pem::<CertificateDer<'_>>(path, "CERTIFICATE");
            ders.map_err(ChannelError::File)
        };
        let chain = read(certificate)?.into_iter().map(CertificateDer::from);
        let key_der = files::read_key(key).map_err(ChannelError::File)?;
        let own = CertifiedKey::from_der(chain.collect(), key_der, &provider).map_err(|error| {
            let (certificate, key) = (certificate.display(), key.display());
            ChannelError::File(match error {
                rustls::Error::InconsistentKeys(_) => format!(
                    "{key}: found the key of another certificate, expected that of the first one in \
                     {certificate}"
                ),
                _ => format!("{certificate} with {key}: {error}"),
            })
        })?;
        let mut roots = RootCertStore::empty();
        for path in authorities {
            for (index, der) in read(path)?.into_iter().enumerate() {
                roots.add(der.into()).map_err(|error| {
                    let (shown, number) = (path.display(), index + 1);
                    let said = "can not be read, expected that of a CA";
                    ChannelError::File(format!("{shown}: certificate {number} {said}: {error}"))
                })?;
            }
        }
        if roots.is_empty() {
            let said = "found no CA for the channel, expected at least one file of CA certificates";
            return Err(ChannelError::File(said.to_owned()));
        }
        Ok(Self {
            own: Arc::new(own),
            authorities: Arc::new(roots),
            provider,
        })
    }

    fn shown(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.own)))
    }

    /// For the side that listens.
    pub(super) fn server(&self) -> Result<ServerConfig, ChannelError> {
        let (roots, provider) = (&self.authorities, &self.provider);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.shown());
        // Connections are few and last: each one shows its certificate anew.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// For the side that connects.
    pub(super) fn client(&self) -> Result<ClientConfig, ChannelError> {
        let (roots, provider) = (&self.authorities, &self.provider);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(VERSIONS)?
            .with_webpki_verifier(verifier)
            .with_client_cert_resolver(self.shown());
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chain, authorities) = (self.own.cert.len(), self.authorities.len());
        write!(
            f,
            "Credentials({chain} certificates, {authorities} authorities)"
        )
    }
}
