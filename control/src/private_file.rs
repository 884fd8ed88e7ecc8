//! Files that hold a secret.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// Reads a file that holds a secret: one that is not open to everybody, of at most `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, String> {
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
