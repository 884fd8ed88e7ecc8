//! Why a certificate, or the signature made with it, proves nothing.

use std::time::{Duration, UNIX_EPOCH};

use webpki::Error;

use super::super::identity::Identity;

/// Why a peer's certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it sent no certificate")]
    Missing,
    #[error("it sent {found} certificates, expected at most {most}")]
    TooMany { found: usize, most: usize },
    #[error("its certificates have {found} bytes, expected at most {most}")]
    TooLong { found: usize, most: usize },
    #[error("its certificate can not be read")]
    Unreadable,
    #[error("its certificate does not name {0}")]
    Name(Identity),
    #[error("its certificate leads to a CA that is not to vouch for it")]
    OtherAuthority,
    #[error("no CA is trusted here")]
    NoTrust,
    #[error("its certificate, or the chain to a CA that is trusted here, is not complete")]
    UnknownIssuer,
    #[error("a certificate of its chain has expired at {}", date(*.0))]
    Expired(u64),
    #[error("a certificate of its chain is not valid before {}", date(*.0))]
    NotYetValid(u64),
    #[error("a certificate of its chain has been revoked")]
    Revoked,
    #[error("the CRL of its issuer has expired at {}", date(*.0))]
    CrlExpired(u64),
    #[error("the CRL of its issuer can not be believed: {0}")]
    Crl(String),
    #[error("its certificate is not for authentication by signature (key usage)")]
    Usage,
    #[error("a certificate of its chain is for other purposes (extended key usage)")]
    Purpose,
    #[error("a certificate of its chain is signed wrongly, or by too weak a key")]
    Chain,
    #[error("its chain is too long")]
    Depth,
    #[error("its certificate is a CA's")]
    Authority,
    #[error("a certificate of its chain is no CA's and has signed another one")]
    NoAuthority,
    #[error("its key is neither ECDSA on P-256 or P-384, nor Ed25519, nor RSA")]
    KeyKind,
    #[error("its RSA key has {0} bits, expected at least 2048")]
    WeakKey(usize),
    #[error("its signature is of an algorithm that does not fit its key, or is not allowed")]
    Algorithm,
    #[error("its signature is wrong")]
    Signature,
    #[error("a certificate of its chain is refused: {0}")]
    Other(String),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        match error {
            Error::CertExpired { not_after, .. } => Refused::Expired(not_after.as_secs()),
            Error::CertNotValidYet { not_before, .. } => Refused::NotYetValid(not_before.as_secs()),
            Error::CertRevoked => Refused::Revoked,
            Error::CrlExpired { next_update, .. } => Refused::CrlExpired(next_update.as_secs()),
            Error::UnknownIssuer => Refused::UnknownIssuer,
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => Refused::Purpose,
            Error::MaximumPathDepthExceeded
            | Error::PathLenConstraintViolated
            | Error::MaximumSignatureChecksExceeded
            | Error::MaximumPathBuildCallsExceeded => Refused::Depth,
            Error::CaUsedAsEndEntity => Refused::Authority,
            Error::EndEntityUsedAsCa => Refused::NoAuthority,
            Error::InvalidSignatureForPublicKey
            | Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | Error::SignatureAlgorithmMismatch => Refused::Chain,
            Error::InvalidCrlSignatureForPublicKey
            | Error::IssuerNotCrlSigner
            | Error::UnsupportedCrlSignatureAlgorithmContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
                Refused::Crl(format!("{error:?}"))
            }
            Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => Refused::Unreadable,
            other => Refused::Other(format!("{other:?}")),
        }
    }
}

/// Seconds since 1970 as a date.
fn date(seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        // What the formatter can not show is beyond the year 9999.
        Some(at) if seconds < 253_402_300_800 => humantime::format_rfc3339_seconds(at).to_string(),
        _ => format!("{seconds} s after 1970"),
    }
}
