//! Cargo, as the other tasks call it.

use crate::{paths, sh};
use anyhow::Result;
use std::process::Command;

/// Cargo in the workspace, with the same target folder that this program lies in.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(paths::workspace())
        .env("CARGO_TARGET_DIR", paths::target());
    // Of the crate that runs this program; a nested cargo sets its own.
    for (name, _) in std::env::vars().filter(|(name, _)| {
        name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || name == "CARGO_CRATE_NAME"
    }) {
        command.env_remove(name);
    }
    command
}

/// The binary that the lab runs. With etcd where it can be built: the tests install what that needs, the demo
/// does without.
pub(crate) fn release() -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--release", "--package", "evergate"]);
    if protobuf() {
        command.args(["--features", "etcd"]);
    }
    sh::run(&mut command)
}

/// Whether there is a compiler for etcd's messages, with the files that they refer to.
fn protobuf() -> bool {
    let words = ["-o", "/dev/null", "google/protobuf/descriptor.proto"];
    sh::read(Command::new("protoc").args(words)).is_ok()
}
