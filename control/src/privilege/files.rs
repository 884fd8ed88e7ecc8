//! Files, by Landlock (landlock(7)): the folders of configuration and state, the socket's, and what set-up
//! reads of the kernel.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, Scope,
};

use super::{Folders, NotConfined};

/// The newest that this list was thought through for; an older kernel does what it can of it.
const KNOWN: ABI = ABI::V6;

/// The type format of the kernel, processors, limits of the control group, threads.
const OF_THE_KERNEL: [&str; 2] = ["/sys", "/proc"];
/// Made into the device of a client.
const TUN: &str = "/dev/net/tun";

/// Limits the calling thread, and all that it begins, for good. Yields how, or `None` where the kernel
/// knows nothing of it.
pub(super) fn limit(folders: &Folders) -> Result<Option<String>, NotConfined> {
    let status = restrict(folders).map_err(|error| NotConfined::Files(error.to_string()))?;
    match status {
        LandlockStatus::Available { effective_abi, .. } => {
            Ok(Some(format!("its own (Landlock {})", effective_abi as i32)))
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
            tracing::warn!(
                "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, `lsm=`): files are limited by \
                 their modes only"
            );
            Ok(None)
        }
    }
}

fn restrict(folders: &Folders) -> Result<LandlockStatus, RulesetError> {
    let read = AccessFs::from_read(KNOWN) & !AccessFs::Execute;
    let write = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        // No TCP but for these; signals and abstract sockets of this process only.
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for folder in OF_THE_KERNEL {
        rules = allow(rules, Path::new(folder), read)?;
    }
    for folder in &folders.read {
        rules = allow(rules, folder, read)?;
    }
    for folder in folders.write.keys() {
        rules = allow(rules, folder, write)?;
    }
    for (ports, access) in [
        (&folders.listen, AccessNet::BindTcp),
        (&folders.connect, AccessNet::ConnectTcp),
    ] {
        for port in ports {
            rules = rules.add_rule(NetPort::new(*port, access))?;
        }
    }
    rules = allow(rules, Path::new(TUN), device)?;
    Ok(rules.restrict_self()?.landlock)
}

/// What is not there can not be allowed; whoever needs it says so when it is missing.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // The folder of `node.toml` is the current one.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    match PathFd::new(path) {
        Ok(opened) => rules.add_rule(PathBeneath::new(opened, access)),
        Err(_) => Ok(rules),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A port that nothing else here has.
    const LISTEN: u16 = 45_107;

    /// Landlock holds for the thread that asks for it, so the test needs no process of its own.
    #[test]
    fn only_the_folders_that_are_named_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (read, write, other) = (folder("read"), folder("write"), folder("other"));
        for folder in [&read, &write, &other] {
            fs::write(folder.join("old"), "text").unwrap();
        }
        let folders = Folders {
            read: [read.clone()].into(),
            write: [(write.clone(), 0o700)].into(),
            listen: [LISTEN].into(),
            connect: [LISTEN].into(),
        };
        std::thread::spawn(move || {
            assert!(fs::read(other.join("old")).is_ok());
            rustix::thread::set_no_new_privs(true).unwrap();
            let how = limit(&folders).unwrap();
            assert!(
                how.is_some(),
                "this kernel has no Landlock: nothing is tested"
            );
            assert!(fs::read(read.join("old")).is_ok());
            assert!(fs::read("/proc/self/status").is_ok());
            for refused in [
                fs::read(other.join("old")).map(drop),
                fs::write(other.join("new"), ""),
                fs::write(read.join("new"), ""),
                fs::write(read.join("old"), ""),
                fs::remove_file(read.join("old")),
                fs::read("/etc/passwd").map(drop),
                std::net::TcpListener::bind("127.0.0.1:0").map(drop),
            ] {
                let kind = refused.unwrap_err().kind();
                assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
            }
            let listener = std::net::TcpListener::bind(("127.0.0.1", LISTEN)).unwrap();
            std::net::TcpStream::connect(("127.0.0.1", LISTEN)).unwrap();
            let elsewhere = std::net::TcpStream::connect(("127.0.0.1", LISTEN + 1));
            let kind = elsewhere.unwrap_err().kind();
            assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
            drop(listener);
            // As the node does: a draft that gets its name, and a socket.
            fs::write(write.join("draft"), "new").unwrap();
            fs::rename(write.join("draft"), write.join("old")).unwrap();
            assert_eq!(fs::read_to_string(write.join("old")).unwrap(), "new");
            drop(UnixListener::bind(write.join("socket")).unwrap());
            fs::remove_file(write.join("socket")).unwrap();
        })
        .join()
        .unwrap();
    }
}
