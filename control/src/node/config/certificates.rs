//! The part of the check that is about certificates: which files there are, and what is in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use toml::Spanned;
use zeroize::Zeroize as _;

use super::Identity;
use super::check::{Checker, Place};
use super::file::{self, Table};
use crate::files;
pub(super) use crate::files::read_pem as read;
use crate::ike::X509;
use crate::ike::x509::{BadTrust, KeyEncoding, Own, PrivateKey, Trust};

/// A certificate that expires within this time gets a warning, in seconds.
const SOON: u64 = 14 * 24 * 3600;

impl Checker<'_> {
    /// Certificates of the node and of CAs, with their files read.
    pub(super) fn x509(&mut self, table: Table<file::Local>, identity: Option<&Identity>) -> X509 {
        let Some(table) = table else {
            return X509::default();
        };
        let table = table.into_inner();
        let own = match (table.cert, table.key) {
            (Some(cert), Some(key)) => self.own(&cert, &key, identity),
            (None, None) => None,
            (Some(cert), None) => {
                let said = "local.cert: found without `key`, expected the file of its private key";
                self.error(&cert.span(), said);
                None
            }
            (None, Some(key)) => {
                let said = "local.key: found without `cert`, expected the file of its certificate";
                self.error(&key.span(), said);
                None
            }
        };
        if let (Some(crl), true) = (table.crl.first(), table.ca.is_empty()) {
            let said = "local.crl: found without `ca`, expected the CA certificates too";
            self.error(&crl.span(), said);
        }
        let authorities = self.items::<CertificateDer<'_>>(&table.ca, "local.ca", "CERTIFICATE");
        let crls =
            self.items::<CertificateRevocationListDer<'_>>(&table.crl, "local.crl", "X509 CRL");
        let trust = self.trust(&authorities, &crls);
        let own = own.map(Arc::new);
        let trust = Arc::new(trust.unwrap_or_default());
        X509 { own, trust }
    }

    fn own(
        &mut self,
        cert: &Spanned<String>,
        key: &Spanned<String>,
        identity: Option<&Identity>,
    ) -> Option<Own> {
        let (cert_path, key_path) = (self.beside(cert.get_ref()), self.beside(key.get_ref()));
        let chain = match read::<CertificateDer<'_>>(&cert_path, "CERTIFICATE") {
            Ok(chain) => Some(chain),
            Err(said) => {
                self.error(&cert.span(), format!("local.cert: {said}"));
                None
            }
        };
        let private = match read_key(&key_path) {
            Ok(private) => private,
            Err(said) => {
                self.error(&key.span(), format!("local.key: {said}"));
                return None;
            }
        };
        let shown = cert_path.display();
        let own = match Own::new(chain?, private) {
            Ok(own) => own,
            Err(bad) => {
                self.error(&cert.span(), format!("local.cert: {shown}: {bad}"));
                return None;
            }
        };
        let named = |identity: &Identity| own.names(&super::super::peers::identity(identity));
        if let Some(identity) = identity
            && !named(identity)
        {
            let names = own.shown().join(", ");
            self.error(
                &cert.span(),
                format!(
                    "local.cert: {shown}: the certificate names {names}; expected this node's \
                     identity {identity} among its subject alternative names"
                ),
            );
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        let (from, until) = own.validity();
        let when = |seconds| {
            let at = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            humantime::format_rfc3339_seconds(at)
        };
        let said = if now < from {
            Some(format!("is not valid before {}", when(from)))
        } else if now > until {
            Some(format!("has expired at {}", when(until)))
        } else if until.saturating_sub(now) < SOON {
            Some(format!("expires at {}", when(until)))
        } else {
            None
        };
        if let Some(said) = said {
            self.warn(
                &cert.span(),
                format!("local.cert: {shown}: the certificate {said}"),
            );
        }
        Some(own)
    }

    /// All items of all files, each with its file.
    fn items<T: PemObject + AsRef<[u8]>>(
        &mut self,
        files: &[Spanned<String>],
        key: &str,
        label: &str,
    ) -> Vec<Item> {
        let mut items = Vec::new();
        for file in files {
            let path = self.beside(file.get_ref());
            match read::<T>(&path, label) {
                Ok(found) => items.extend(found.into_iter().enumerate().map(|(index, der)| Item {
                    der,
                    path: path.clone(),
                    number: index + 1,
                    at: file.span(),
                })),
                Err(said) => self.error(&file.span(), format!("{key}: {said}")),
            }
        }
        items
    }

    fn trust(&mut self, authorities: &[Item], crls: &[Item]) -> Option<Trust> {
        let ders = |items: &[Item]| {
            items
                .iter()
                .map(|item| item.der.clone())
                .collect::<Vec<_>>()
        };
        let bad = match Trust::new(&ders(authorities), &ders(crls)) {
            Ok(trust) => return Some(trust),
            Err(bad) => bad,
        };
        let (items, key, index) = match &bad {
            BadTrust::Authority(index) | BadTrust::NoAuthority(index, _) => {
                (authorities, "local.ca", *index)
            }
            BadTrust::Crl(index, _) => (crls, "local.crl", *index),
        };
        if let Some(Item {
            path, number, at, ..
        }) = index.checked_sub(1).and_then(|i| items.get(i))
        {
            let shown = path.display();
            let said = match bad {
                BadTrust::Authority(_) => "can not be read".to_owned(),
                BadTrust::NoAuthority(_, subject) => format!("of {subject} is no CA's"),
                BadTrust::Crl(_, why) => {
                    format!("can not be read, expected version 2 with a CRL number: {why}")
                }
            };
            let what = if key == "local.ca" {
                "certificate"
            } else {
                "CRL"
            };
            self.error(at, format!("{key}: {shown}: {what} {number} {said}"));
        }
        None
    }
}

/// One certificate or CRL of a file, counted from 1.
struct Item {
    der: Vec<u8>,
    path: PathBuf,
    number: usize,
    at: Place,
}

/// A private key: PKCS #8, SEC 1 or PKCS #1 in PEM, in a file that is not open to everybody.
fn read_key(path: &Path) -> Result<PrivateKey, String> {
    let shown = path.display();
    let mut der = files::read_key(path)?;
    let encoding = match &der {
        PrivateKeyDer::Pkcs1(_) => KeyEncoding::Pkcs1,
        PrivateKeyDer::Sec1(_) => KeyEncoding::Sec1,
        _ => KeyEncoding::Pkcs8,
    };
    let key = PrivateKey::from_der(encoding, der.secret_der());
    der.zeroize();
    key.map_err(|bad| format!("{shown}: {bad}"))
}
