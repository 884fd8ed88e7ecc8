//! Which certificates are believed: the CAs that are trusted, their CRLs, and the check of a chain.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeId, KeyPurposeIdIter, KeyUsage, OwnedCertRevocationList, RequiredEkuNotFoundContext,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
    VerifiedPath,
};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::BasicConstraints;

use super::super::crypto::{sha1, sha256};
use super::super::identity::Identity;
use super::super::payload::cert::AUTHORITY;
use super::name;
use super::refused::Refused;
use super::signature::PublicKey;
use super::subject::Subject;

/// So many certificates a peer may send.
pub const MOST_CERTIFICATES: usize = 8;
/// So many bytes they may have together.
const MOST_BYTES: usize = 24 * 1024;
/// So many CAs are named in a certificate request.
const MOST_AUTHORITIES: usize = 32;

/// The CAs that are trusted, and what they have revoked.
#[derive(Default)]
pub struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    /// Seconds since 1970, of the anchor at the same place.
    validity: Vec<(u64, u64)>,
    authorities: Vec<[u8; AUTHORITY]>,
    crls: Vec<CertRevocationList<'static>>,
    /// When each CRL is to be followed by the next one, in seconds since 1970.
    next_updates: Vec<u64>,
    digest: [u8; 32],
}

/// Names a CA by its key: SHA-256 of the body of its SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityId([u8; 32]);

impl AuthorityId {
    fn of(key: &[u8]) -> AuthorityId {
        AuthorityId(sha256(&[key]))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A CA certificate or a CRL that can not be used. Counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTrust {
    #[error("CA certificate {0} can not be read")]
    Authority(usize),
    #[error("certificate {0}, of {1}, is no CA's")]
    NoAuthority(usize, String),
    #[error("CRL {0} can not be read, expected a version 2 CRL with a number: {1}")]
    Crl(usize, String),
}

impl Trust {
    /// From CA certificates and CRLs in DER. A CRL may be of an intermediate CA too.
    ///
    /// # Errors
    /// One can not be read, or is of another kind.
    pub fn new(authorities: &[Vec<u8>], crls: &[Vec<u8>]) -> Result<Trust, BadTrust> {
        let mut trust = Trust::default();
        for (index, der) in authorities.iter().enumerate() {
            let number = index + 1;
            let unreadable = |_| BadTrust::Authority(number);
            let read = Certificate::from_der(der).map_err(unreadable)?;
            let tbs = read.tbs_certificate();
            let constraints = tbs
                .get_extension::<BasicConstraints>()
                .map_err(unreadable)?;
            // Certificates of version 1 have no extensions.
            let is_ca = match constraints {
                Some((_, constraints)) => constraints.ca,
                None => tbs.extensions().is_none(),
            };
            if !is_ca {
                return Err(BadTrust::NoAuthority(number, tbs.subject().to_string()));
            }
            let der = CertificateDer::from(der.as_slice());
            let anchor = webpki::anchor_from_trusted_cert(&der);
            let anchor = anchor.map_err(|_| BadTrust::Authority(number))?.to_owned();
            let spki = tbs.subject_public_key_info().to_der().map_err(unreadable)?;
            let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
            let validity = tbs.validity();
            trust.anchors.push(anchor);
            trust.authorities.push(sha1(&[&spki]));
            trust
                .validity
                .push((seconds(&validity.not_before), seconds(&validity.not_after)));
        }
        for (index, der) in crls.iter().enumerate() {
            let crl = OwnedCertRevocationList::from_der(der)
                .map_err(|error| BadTrust::Crl(index + 1, format!("{error:?}")))?;
            trust.crls.push(CertRevocationList::from(crl));
            let list: Option<CertificateList> = CertificateList::from_der(der).ok();
            let next = list.and_then(|list| list.tbs_cert_list.next_update);
            trust
                .next_updates
                .extend(next.map(|time| time.to_unix_duration().as_secs()));
        }
        let hashes = [authorities, crls].map(|list| {
            let each: Vec<_> = list.iter().map(|der| sha256(&[der])).collect();
            sha256(&each.iter().map(|hash| &hash[..]).collect::<Vec<_>>())
        });
        trust.digest = sha256(&[&hashes[0], &hashes[1]]);
        Ok(trust)
    }

    /// No CA is trusted.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// How many CAs and CRLs there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.anchors.len(), self.crls.len())
    }

    /// The CAs that are trusted.
    pub fn ids(&self) -> Vec<AuthorityId> {
        let keys = self.anchors.iter().map(|a| &a.subject_public_key_info);
        keys.map(|key| AuthorityId::of(key)).collect()
    }

    /// Their names, the bodies of DER sequences, as many as are told to a peer.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        let anchors = self.anchors.iter().take(MOST_AUTHORITIES);
        anchors.map(|anchor| anchor.subject.as_ref())
    }

    /// A hash of all CAs and CRLs: who is believed by one `Trust` is so by another with the same.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Until when a chain that is believed at `time` will be, unless other CAs or CRLs come: the
    /// first end of a certificate of the chain, of a CA that issued one, or of a CRL; in seconds
    /// since 1970.
    pub fn believes_until(&self, chain: &[&[u8]], time: u64) -> u64 {
        let read: Vec<Certificate> = chain
            .iter()
            .filter_map(|der| Certificate::from_der(der).ok())
            .collect();
        let ends = read.iter().map(|certificate| {
            let validity = certificate.tbs_certificate().validity();
            validity.not_after.to_unix_duration().as_secs()
        });
        let anchors = self.validity.iter().map(|(_, not_after)| *not_after);
        // What has ended already plays no part in what is believed now.
        let all = ends.chain(anchors).chain(self.next_updates.iter().copied());
        all.filter(|end| *end > time).min().unwrap_or(time)
    }

    /// What a certificate request names: SHA-1 of the SubjectPublicKeyInfo of each CA.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = [u8; AUTHORITY]> {
        self.authorities.iter().copied().take(MOST_AUTHORITIES)
    }

    /// Whether the first of `chain` names `identity`, is for signatures, and leads to a CA that is
    /// trusted at `time` (seconds since 1970). Yields its key. The others of `chain` may help, in
    /// any order.
    ///
    /// A CRL counts for the certificates of its issuer, wherever they are in the chain; one that
    /// has expired refuses them. Of an issuer without a CRL nothing is revoked.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(
        &self,
        chain: &[&[u8]],
        identity: &Identity,
        time: u64,
    ) -> Result<PublicKey, Refused> {
        self.verify_named(chain, identity, time).map(|(key, _)| key)
    }

    /// The same; yields also the CA that it leads to.
    pub(crate) fn verify_named(
        &self,
        chain: &[&[u8]],
        identity: &Identity,
        time: u64,
    ) -> Result<(PublicKey, AuthorityId), Refused> {
        // What costs little comes before signatures are computed.
        let leaf = self.read(chain)?;
        if !name::names(&leaf, identity) {
            return Err(Refused::Name(identity.clone()));
        }
        self.check(&leaf, chain, time)
    }

    /// The same of a certificate, whomever it names.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn believe(&self, chain: &[&[u8]], time: u64) -> Result<Subject, Refused> {
        let leaf = self.read(chain)?;
        let (_, authority) = self.check(&leaf, chain, time)?;
        Ok(Subject::new(leaf, authority))
    }

    /// The first of a chain of bounded size.
    fn read(&self, chain: &[&[u8]]) -> Result<Certificate, Refused> {
        if self.is_empty() {
            return Err(Refused::NoTrust);
        }
        if chain.len() > MOST_CERTIFICATES {
            let (found, most) = (chain.len(), MOST_CERTIFICATES);
            return Err(Refused::TooMany { found, most });
        }
        let bytes: usize = chain.iter().map(|der| der.len()).sum();
        if bytes > MOST_BYTES {
            let (found, most) = (bytes, MOST_BYTES);
            return Err(Refused::TooLong { found, most });
        }
        let first = chain.first().ok_or(Refused::Missing)?;
        Certificate::from_der(first).map_err(|_| Refused::Unreadable)
    }

    fn check(
        &self,
        leaf: &Certificate,
        chain: &[&[u8]],
        time: u64,
    ) -> Result<(PublicKey, AuthorityId), Refused> {
        name::check_usage(leaf)?;
        let key = PublicKey::of(leaf)?;
        let (first, others) = chain.split_first().ok_or(Refused::Missing)?;
        let first = CertificateDer::from(*first);
        let others: Vec<_> = others
            .iter()
            .map(|der| CertificateDer::from(*der))
            .collect();
        let leaf = EndEntityCert::try_from(&first)?;
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        let path = leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.anchors,
            &others,
            UnixTime::since_unix_epoch(Duration::from_secs(time)),
            Purposes,
            revocation(&crls),
            Some(&|path: &VerifiedPath<'_>| self.check_anchor(path, time)),
        )?;
        let anchor = path.anchor();
        Ok((key, AuthorityId::of(&anchor.subject_public_key_info)))
    }

    /// A CA's own certificate must be valid too.
    fn check_anchor(&self, path: &VerifiedPath<'_>, time: u64) -> Result<(), Error> {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let anchors = self.anchors.iter().zip(&self.validity);
        let mut outcome = Err(Error::UnknownIssuer);
        for (_, (not_before, not_after)) in anchors.filter(|(a, _)| *a == path.anchor()) {
            let time = at(time);
            outcome = if time < at(*not_before) {
                let not_before = at(*not_before);
                Err(Error::CertNotValidYet { time, not_before })
            } else if time > at(*not_after) {
                let not_after = at(*not_after);
                Err(Error::CertExpired { time, not_after })
            } else {
                return Ok(());
            };
        }
        outcome
    }
}

fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let options = RevocationOptionsBuilder::new(crls).ok()?;
    let options = options
        .with_depth(RevocationCheckDepth::Chain)
        .with_status_policy(UnknownStatusPolicy::Allow)
        .with_expiration_policy(ExpirationPolicy::Enforce);
    Some(options.build())
}

/// The extended key usages of which one must be there, if there are any: serverAuth, clientAuth,
/// ipsecIKE (RFC 4945 section 5.1.3.12), iKEIntermediate of older software, any.
struct Purposes;

const PURPOSES: [&[u8]; 5] = [
    &[0x2b, 6, 1, 5, 5, 7, 3, 1],
    &[0x2b, 6, 1, 5, 5, 7, 3, 2],
    &[0x2b, 6, 1, 5, 5, 7, 3, 17],
    &[0x2b, 6, 1, 5, 5, 8, 2, 2],
    &[0x55, 0x1d, 37, 0],
];

impl ExtendedKeyUsageValidator for Purposes {
    fn validate(&self, found: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut any = false;
        for purpose in found {
            any = true;
            let purpose = purpose?;
            if PURPOSES
                .iter()
                .any(|known| KeyPurposeId::new(known) == purpose)
            {
                return Ok(());
            }
        }
        match any {
            false => Ok(()),
            true => Err(Error::RequiredEkuNotFoundContext(
                RequiredEkuNotFoundContext {
                    required: KeyUsage::required(PURPOSES[2]),
                    present: Vec::new(),
                },
            )),
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (anchors, crls) = (self.anchors.len(), self.crls.len());
        write!(f, "Trust({anchors} CAs, {crls} CRLs)")
    }
}
