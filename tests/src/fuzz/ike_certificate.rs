//! Certificates, keys and CRLs in DER.

use evergate::ike::x509::{Scheme, Trust};

/// Bytes 0 and 1: length of the first part, a certificate; the second part is a CRL.
pub fn ike_certificate(data: &[u8]) {
    let [high, low, data @ ..] = data else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (first, second) = data.split_at(data.len().min(length));
    let _ = Trust::new(&[first.to_vec()], &[second.to_vec()]);
    let _ = Scheme::from_der(first);
}
