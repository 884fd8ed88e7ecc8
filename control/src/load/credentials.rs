//! What the clients prove themselves by.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::ike::x509::{KeyEncoding, Own, PrivateKey, Trust};
use crate::ike::{Methods, Proof, Psk, X509};
use crate::node::config;

/// Keys or certificates of all clients.
#[derive(Clone)]
pub enum Credentials {
    /// One key for all.
    Psk(Psk),
    /// A certificate and a private key for each, in order, and what gateways are judged by.
    Certificates {
        own: Vec<Arc<Own>>,
        trust: Arc<Trust>,
    },
}

impl Credentials {
    /// A file with a pre-shared key, as in a node's configuration.
    ///
    /// # Errors
    /// It can not be read, or is open to everybody.
    pub fn psk(file: &Path) -> Result<Credentials> {
        let psk = config::Psk::from_file(file).map_err(|said| anyhow!(said))?;
        Ok(Credentials::Psk(Psk::new(psk.as_bytes().to_vec())))
    }

    /// A file with a certificate and a private key (PKCS #8) for each client, and a file of CAs.
    ///
    /// # Errors
    /// One can not be read, or certificates and keys do not belong together.
    pub fn certificates(file: &Path, authorities: &Path) -> Result<Credentials> {
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("can not read {}", path.display()))
        };
        let (pem, shown) = (read(file)?, file.display());
        let certificates: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>()?;
        let keys: Vec<PrivatePkcs8KeyDer<'_>> =
            PrivatePkcs8KeyDer::pem_slice_iter(&pem).collect::<Result<_, _>>()?;
        let (found, keys_found) = (certificates.len(), keys.len());
        ensure!(
            found == keys_found && found > 0,
            "{shown}: found {found} certificates and {keys_found} keys, expected one of each for \
             each client"
        );
        let mut own = Vec::with_capacity(found);
        for (number, (certificate, key)) in (1..).zip(certificates.into_iter().zip(keys)) {
            let key = PrivateKey::from_der(KeyEncoding::Pkcs8, key.secret_pkcs8_der());
            let pair = key
                .map_err(anyhow::Error::from)
                .and_then(|key| Ok(Own::new(vec![certificate.to_vec()], key)?));
            own.push(Arc::new(
                pair.with_context(|| format!("{shown}: client {number}"))?,
            ));
        }
        let pem = read(authorities)?;
        let authorities: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>()?;
        let ders: Vec<Vec<u8>> = authorities.iter().map(|der| der.to_vec()).collect();
        let trust = Arc::new(Trust::new(&ders, &[])?);
        Ok(Credentials::Certificates { own, trust })
    }

    /// How many clients these are for; `None`: any number.
    pub(super) fn most(&self) -> Option<usize> {
        match self {
            Credentials::Psk(_) => None,
            Credentials::Certificates { own, .. } => Some(own.len()),
        }
    }

    /// How client `number` and the gateway prove who they are, and the certificates for it.
    pub(super) fn of(&self, number: usize) -> (Methods, X509) {
        match self {
            Credentials::Psk(psk) => (psk.clone().into(), X509::default()),
            Credentials::Certificates { own, trust } => {
                let methods = Methods {
                    local: Proof::Certificate,
                    remote: Proof::Certificate,
                };
                let x509 = X509 {
                    own: number.checked_sub(1).and_then(|at| own.get(at)).cloned(),
                    trust: Arc::clone(trust),
                };
                (methods, x509)
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Psk(_) => f.write_str("a pre-shared key"),
            Credentials::Certificates { own, .. } => write!(f, "{} certificates", own.len()),
        }
    }
}
