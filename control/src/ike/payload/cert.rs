//! Certificate and Certificate Request payloads (RFC 7296 sections 3.6 and 3.7).

use super::Malformed;
use super::reader::Reader;

/// Encoding: X.509 certificate, signature.
pub const X509_SIGNATURE: u8 = 4;

/// Bytes of the hash by which a certificate request names a CA.
pub const AUTHORITY: usize = 20;

/// A certificate, or something else that helps to authenticate its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cert {
    /// 4: X.509 in DER; others are not looked into.
    pub encoding: u8,
    pub data: Vec<u8>,
}

impl Cert {
    pub fn x509(der: impl Into<Vec<u8>>) -> Cert {
        Cert {
            encoding: X509_SIGNATURE,
            data: der.into(),
        }
    }

    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Cert, Malformed> {
        let encoding = r.u8("certificate encoding")?;
        let data = r.rest().to_vec();
        Ok(Cert { encoding, data })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.encoding);
        out.extend_from_slice(&self.data);
    }
}

/// Which CAs the sender trusts: SHA-1 hashes of their SubjectPublicKeyInfo. Empty: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertReq {
    /// 4: X.509; of other encodings the authorities are not looked into.
    pub encoding: u8,
    /// With encoding 4 a multiple of 20 bytes.
    pub authorities: Vec<u8>,
}

impl CertReq {
    pub fn x509(authorities: impl IntoIterator<Item = [u8; AUTHORITY]>) -> CertReq {
        CertReq {
            encoding: X509_SIGNATURE,
            authorities: authorities.into_iter().flatten().collect(),
        }
    }

    pub(super) fn parse(r: &mut Reader<'_>) -> Result<CertReq, Malformed> {
        let encoding = r.u8("certificate encoding")?;
        let authorities = r.rest().to_vec();
        if encoding == X509_SIGNATURE && !authorities.len().is_multiple_of(AUTHORITY) {
            return Err(Malformed::Value {
                what: "length of certification authorities",
                found: authorities.len() as u64,
                expected: "a multiple of 20",
            });
        }
        Ok(CertReq {
            encoding,
            authorities,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.encoding);
        out.extend_from_slice(&self.authorities);
    }
}
