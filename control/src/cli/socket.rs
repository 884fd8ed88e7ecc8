//! Which node is meant when no socket is named.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::api::socket::answers;
use crate::node::config::SOCKET_DIRECTORY;

/// Why no node could be chosen.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSocket {
    #[error(
        "no evergate is running: nothing answers in {} (start one with `evergate run -c FILE`, or \
         name its socket with --socket)", .0.display()
    )]
    None(PathBuf),
    #[error("several evergates run here; choose one with --socket: {}", shown(.0))]
    Several(Vec<PathBuf>),
    #[error("cannot look for sockets in {}: {source}", .directory.display())]
    Unreadable {
        directory: PathBuf,
        source: std::io::Error,
    },
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

pub(super) fn find() -> Result<PathBuf, NoSocket> {
    find_in(Path::new(SOCKET_DIRECTORY))
}

/// The only `*.sock` of a directory. Where there are several, those whose daemon was killed do not
/// count.
fn find_in(directory: &Path) -> Result<PathBuf, NoSocket> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(NoSocket::None(directory.to_path_buf()));
        }
        Err(source) => {
            return Err(NoSocket::Unreadable {
                directory: directory.to_path_buf(),
                source,
            });
        }
    };
    let mut sockets: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "sock")
        })
        .collect();
    if sockets.len() > 1 {
        // One that may not be used still counts: the error then names the permission.
        sockets.retain(|path| answers(path).unwrap_or(true));
    }
    sockets.sort();
    match sockets.len() {
        1 => Ok(sockets.remove(0)),
        0 => Err(NoSocket::None(directory.to_path_buf())),
        _ => Err(NoSocket::Several(sockets)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn one_is_taken_several_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let missing = find_in(&at("none")).unwrap_err().to_string();
        assert!(
            missing.starts_with("no evergate is running: nothing answers in"),
            "{missing}"
        );
        assert!(matches!(
            find_in(dir.path()).unwrap_err(),
            NoSocket::None(_)
        ));
        std::fs::write(at("not-a.sock"), "").unwrap();
        let _other = UnixListener::bind(at("other")).unwrap();
        let a = UnixListener::bind(at("a.sock")).unwrap();
        assert_eq!(find_in(dir.path()).unwrap(), at("a.sock"));
        let _b = UnixListener::bind(at("b.sock")).unwrap();
        let several = find_in(dir.path()).unwrap_err().to_string();
        let list = format!(
            "--socket: {}, {}",
            at("a.sock").display(),
            at("b.sock").display()
        );
        assert!(several.ends_with(&list), "{several}");
        drop(a);
        assert_eq!(find_in(dir.path()).unwrap(), at("b.sock"), "a was killed");
    }
}
