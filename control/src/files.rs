//! Files of certificates and keys, for all rooms that are told of some: errors name the file, what was
//! found and what was expected.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// A longer file holds no certificates, keys or CRLs that anybody would want to read at a start.
const MAX_FILE: u64 = 16 * 1024 * 1024;
const MAX_KEY: u64 = 64 * 1024;

/// Reads a file that holds a secret: one that is not open to everybody, of at most `most` bytes.
pub(crate) fn read_private(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let shown = path.display();
    let failed = |e: std::io::Error| format!("cannot read {shown}: {e}");
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(format!(
            "{shown} is open to everybody (mode {mode:04o}), expected 0600 or 0640; run \
             `chmod 600 {shown}`"
        ));
    }
    if meta.len() > most {
        let len = meta.len();
        return Err(format!("{shown} has {len} bytes, expected at most {most}"));
    }
    Ok(Zeroizing::new(std::fs::read(path).map_err(failed)?))
}

/// All PEM sections of one kind in a file, in DER.
pub(crate) fn read_pem<T: PemObject + AsRef<[u8]>>(
    path: &Path,
    label: &str,
) -> Result<Vec<Vec<u8>>, String> {
    let shown = path.display();
    let failed = |e: std::io::Error| format!("cannot read {shown}: {e}");
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    if meta.len() > MAX_FILE {
        let length = meta.len();
        return Err(format!(
            "{shown} has {length} bytes, expected at most {MAX_FILE}"
        ));
    }
    let text = std::fs::read(path).map_err(failed)?;
    let items: Result<Vec<_>, _> = T::pem_slice_iter(&text).collect();
    let items = items.map_err(|error| format!("{shown} is no PEM: {error}"))?;
    if items.is_empty() {
        return Err(format!(
            "{shown}: found nothing, expected PEM with -----BEGIN {label}-----"
        ));
    }
    Ok(items.iter().map(|item| item.as_ref().to_vec()).collect())
}

/// A private key: PKCS #8, SEC 1 or PKCS #1 in PEM, in a file that is not open to everybody. Whoever has it
/// wipes it.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let shown = path.display();
    let text = read_private(path, MAX_KEY)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let encrypted = text.windows(9).any(|w| w == b"ENCRYPTED");
        match encrypted {
            true => format!("{shown}: found an encrypted key, expected one without a password"),
            false => format!(
                "{shown}: found no private key, expected PEM with -----BEGIN PRIVATE KEY-----, \
                 -----BEGIN EC PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----"
            ),
        }
    })
}
