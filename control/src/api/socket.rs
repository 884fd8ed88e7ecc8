//! The socket file: who may own its path, who may connect, and who removes it.

use std::fs::{DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The longest path a Unix socket can have on Linux (`sun_path` less its final zero).
pub(crate) const MAX_PATH: usize = 107;

/// Why the API can not be offered.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another evergate already answers on {}", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} exists and is not a socket; remove it, or name another path with `socket` in the \
         configuration", .0.display()
    )]
    NotASocket(PathBuf),
    #[error(
        "the socket path {} has {} bytes; a Unix socket path has at most {MAX_PATH}",
        .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A listening socket and the right to remove its file.
#[derive(Debug)]
pub(crate) struct Owned {
    path: PathBuf,
    /// Device and inode of the file that is ours: another daemon's file is never removed.
    identity: (u64, u64),
}

fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Opens the listening socket at `path`: mode 0660, of that group, directory created with mode 0755. The
/// file of a daemon that was killed is replaced.
///
/// # Errors
/// [`SocketError::InUse`] if somebody accepts connections there, and each refusal of the kernel.
pub(crate) fn listen(
    path: &Path,
    group: Option<u32>,
) -> Result<(UnixListener, Owned), SocketError> {
    let failed = |what| {
        move |source| SocketError::Io {
            what,
            path: path.to_path_buf(),
            source,
        }
    };
    if path.as_os_str().len() > MAX_PATH {
        return Err(SocketError::TooLong(path.to_path_buf()));
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder
            .create(directory)
            .map_err(failed("create the directory of"))?;
    }
    // Between "nobody answers" and "bound", no other evergate may do the same: the lock is on the
    // directory, so that it leaves no file behind, and the kernel frees it if we die.
    let lock = std::fs::File::open(directory).map_err(failed("open the directory of"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|e| failed("lock the directory of")(e.into()))?;
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group).map_err(failed("set the group of"))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o660))
        .map_err(failed("set the mode of"))?;
    let meta = std::fs::symlink_metadata(path).map_err(failed("look at"))?;
    let owned = Owned {
        path: path.to_path_buf(),
        identity: identity(&meta),
    };
    listener.set_nonblocking(true).map_err(failed("prepare"))?;
    Ok((listener, owned))
}

/// Removes the socket file of a daemon that is no more.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |what| {
        move |source| SocketError::Io {
            what,
            path: path.to_path_buf(),
            source,
        }
    };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("look at")(e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_path_buf()));
        }
        Ok(_) => {}
    }
    if answers(path).map_err(failed("try"))? {
        return Err(SocketError::InUse(path.to_path_buf()));
    }
    tracing::info!(socket = %path.display(), "replacing the socket of an evergate that is gone");
    std::fs::remove_file(path).map_err(failed("remove the stale socket"))
}

/// Whether somebody listens at `path`. Never waits: a frozen daemon with a full queue listens too.
pub(crate) fn answers(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| identity(&meta) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_path_gets_directory_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/node.sock");
        let (_listener, owned) = listen(&path, None).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o660);
        assert_eq!(
            mode(path.parent().unwrap()) & !0o755,
            0,
            "no wider than 0755"
        );
        drop(owned);
        assert!(!path.exists(), "removed with its owner");
    }

    #[test]
    fn the_file_of_a_killed_daemon_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(
            path.exists(),
            "the standard library leaves the file, as SIGKILL does"
        );
        listen(&path, None).unwrap();
    }

    #[test]
    fn a_living_daemon_keeps_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        let _first = listen(&path, None).unwrap();
        let error = listen(&path, None).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("another evergate already answers on {}", path.display())
        );
        assert!(path.exists());
    }

    #[test]
    fn a_frozen_daemon_with_a_full_queue_lives_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        let (listener, _owned) = listen(&path, None).unwrap();
        // A queue of one, and nobody accepts.
        rustix::net::listen(&listener, 0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(matches!(
            listen(&path, None).unwrap_err(),
            SocketError::InUse(_)
        ));
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let error = listen(&path, None).unwrap_err().to_string();
        assert!(error.contains("exists and is not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
        let long = dir.path().join("x".repeat(120));
        let error = listen(&long, None).unwrap_err().to_string();
        assert!(error.contains("at most 107"), "{error}");
    }

    #[test]
    fn a_successor_s_file_survives_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        let (_listener, owned) = listen(&path, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(owned);
        assert!(path.exists());
    }
}
