//! Where things are: the workspace, the target folder, this program itself.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static OWN: OnceLock<PathBuf> = OnceLock::new();

/// Notes this program's path; to be called first. Later `cargo` may replace the file, and then
/// the kernel would call the running one deleted.
pub(crate) fn init() -> std::io::Result<()> {
    let path = std::env::current_exe()?;
    let _ = OWN.set(path);
    Ok(())
}

/// This program.
pub(crate) fn own() -> &'static Path {
    OWN.get_or_init(|| PathBuf::from("/proc/self/exe"))
}

/// The workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Cargo's target folder: this program lies in `TARGET/debug/` or `TARGET/release/`.
pub(crate) fn target() -> PathBuf {
    let mut folders = own()
        .ancestors()
        .skip(1)
        .filter(|p| p.ends_with("debug") || p.ends_with("release"));
    let profile = folders.next().and_then(Path::parent);
    profile.map_or_else(|| workspace().join("target"), Path::to_path_buf)
}
