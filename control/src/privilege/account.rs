//! Users and groups: found by name or number, and become.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::unistd::{Gid, Uid, User};

use super::{NotConfined, step};
use crate::node::config::{SOCKET_DIRECTORY, STATE_DIRECTORY};

/// There is no such user or group.
#[derive(Debug, thiserror::Error)]
#[error("privileges.{key}: this machine has no {kind} `{name}`{}", .why.as_ref().map(|e| format!(" ({e})")).unwrap_or_default())]
pub struct NoAccount {
    key: &'static str,
    kind: &'static str,
    name: String,
    why: Option<nix::Error>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// It is in the system's list, so that it may be in further groups.
    known: bool,
}

/// The number of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group(pub(super) u32);

impl Account {
    /// By name, or by number; a number needs no entry in the system's list, and its group has the same.
    pub(super) fn find(text: &str) -> Result<Self, NoAccount> {
        let missing = |why| NoAccount {
            key: "user",
            kind: "user",
            name: text.to_owned(),
            why,
        };
        let number = text.parse::<u32>().ok();
        let found = match number {
            Some(uid) => User::from_uid(Uid::from_raw(uid)),
            None => User::from_name(text),
        };
        match (found, number) {
            (Ok(Some(user)), _) => Ok(Self {
                name: user.name,
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                known: true,
            }),
            (_, Some(uid)) => Ok(Self {
                name: format!("uid {uid}"),
                uid,
                gid: uid,
                known: false,
            }),
            (Ok(None), None) => Err(missing(None)),
            (Err(why), None) => Err(missing(Some(why))),
        }
    }

    /// Becomes it, for good: real, effective and saved.
    pub(super) fn assume(&self, socket_group: u32) -> Result<(), NotConfined> {
        let what = |text: &str| format!("{text} of {}", self.name);
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // The socket can be given to a group that one is in.
        let mut groups = vec![gid, Gid::from_raw(socket_group)];
        if self.known
            && let Ok(name) = std::ffi::CString::new(self.name.as_str())
        {
            let known = nix::unistd::getgrouplist(&name, gid);
            groups.extend(known.map_err(step(what("find the groups")))?);
        }
        groups.sort_by_key(|group| group.as_raw());
        groups.dedup();
        nix::unistd::setgroups(&groups).map_err(step(what("take the groups")))?;
        nix::unistd::setresgid(gid, gid, gid).map_err(step(what("take the group")))?;
        nix::unistd::setresuid(uid, uid, uid).map_err(step(what("take the place")))
    }
}

impl Group {
    /// By name, or by number.
    pub(super) fn find(text: &str) -> Result<Self, NoAccount> {
        let missing = |why| NoAccount {
            key: "socket_group",
            kind: "group",
            name: text.to_owned(),
            why,
        };
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        match nix::unistd::Group::from_name(text) {
            Ok(Some(group)) => Ok(Self(group.gid.as_raw())),
            Ok(None) => Err(missing(None)),
            Err(why) => Err(missing(Some(why))),
        }
    }
}

/// Enters a group, besides those that the process is in.
pub(super) fn join(group: u32) -> Result<(), NotConfined> {
    let what = || step(format!("enter the group {group}"));
    let mut groups = nix::unistd::getgroups().map_err(what())?;
    groups.push(Gid::from_raw(group));
    nix::unistd::setgroups(&groups).map_err(what())
}

/// How a user is called, for an operator.
pub(super) fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

/// Makes a folder that is missing, and those above it, into which anybody may look.
///
/// # Errors
/// It can not be made.
pub(super) fn make(folder: &Path, mode: u32) -> Result<bool, NotConfined> {
    if folder.as_os_str().is_empty() || folder.exists() {
        return Ok(false);
    }
    let what = || format!("make {}", folder.display());
    if let Some(above) = folder.parent() {
        make(above, 0o755)?;
    }
    DirBuilder::new()
        .mode(mode)
        .create(folder)
        .and_then(|()| std::fs::set_permissions(folder, Permissions::from_mode(mode)))
        .map_err(step(what()))?;
    Ok(true)
}

/// Lets a user write in a folder: one that is missing is made and given to it, and so are the two that
/// are ours by name, which an earlier start may have made as root. Any other one is as the operator
/// wants it.
pub(super) fn hand_over(
    folder: &Path,
    mode: u32,
    user: &Account,
    group: u32,
) -> Result<(), NotConfined> {
    let made = make(folder, mode)?;
    let ours = [SOCKET_DIRECTORY, STATE_DIRECTORY].map(Path::new);
    let of_root = || std::fs::metadata(folder).is_ok_and(|meta| meta.uid() == 0);
    if made || (ours.contains(&folder) && of_root()) {
        // While root is its owner nobody else has put anything in it, so nothing leads elsewhere.
        give(folder, user.uid, group).map_err(step(format!(
            "give {} to {}",
            folder.display(),
            user.name
        )))?;
    }
    Ok(())
}

fn give(folder: &Path, uid: u32, gid: u32) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        std::os::unix::fs::lchown(entry?.path(), Some(uid), Some(gid))?;
    }
    std::os::unix::fs::lchown(folder, Some(uid), Some(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let root = Account::find("root").unwrap();
        assert_eq!((root.uid, root.gid, root.known), (0, 0, true));
        assert_eq!(Account::find("0").unwrap(), root);
        let other = Account::find("4123456789").unwrap();
        assert_eq!(
            (other.uid, other.gid, other.known),
            (4_123_456_789, 4_123_456_789, false)
        );
        assert_eq!(Group::find("root").unwrap(), Group(0));
        assert_eq!(Group::find("77").unwrap(), Group(77));
        let said = Account::find("nobody-has-this").unwrap_err().to_string();
        assert_eq!(
            said,
            "privileges.user: this machine has no user `nobody-has-this`"
        );
        let said = Group::find("nobody-has-this").unwrap_err().to_string();
        assert_eq!(
            said,
            "privileges.socket_group: this machine has no group `nobody-has-this`"
        );
    }

    #[test]
    fn folders_that_exist_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        assert!(make(&deep, 0o700).unwrap());
        assert!(!make(&deep, 0o700).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&deep), mode(&dir.path().join("a"))), (0o700, 0o755));
        let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
        let before = owner(&deep);
        let nobody = Account::find("65534").unwrap();
        hand_over(&deep, 0o700, &nobody, 65534).unwrap();
        assert_eq!(
            owner(&deep),
            before,
            "it is not ours by name, and was there"
        );
        if before == 0 {
            let fresh = dir.path().join("c");
            hand_over(&fresh, 0o700, &nobody, 65534).unwrap();
            assert_eq!(owner(&fresh), 65534);
        }
    }
}
