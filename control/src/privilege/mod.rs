//! Room `privilege`: what a node may still do while it runs, which is little: whoever takes it over by a
//! packet gets no more.
//!
//! In the order of a start: [`memory::forbid_core_dumps`], before the first key is read; [`enter`], before
//! the first thread; set-up, with the capabilities that it needs; [`Confinement::seal`], when all is open
//! that needs a privilege to be opened. Threads that begin before the seal call [`drop_capabilities`].
//! `docs/security.md` tells operators what is left.

mod account;
pub mod capabilities;
mod files;
pub mod memory;
mod syscalls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

pub use account::NoAccount;
use account::{Account, Group};
pub use capabilities::drop_capabilities;

/// What an operator may choose: `[privileges]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Whom a node that is started as root becomes: a name, or a number.
    pub user: Option<String>,
    /// Who may use the API's socket, besides root and the node itself; otherwise the user's group.
    pub socket_group: Option<String>,
    /// Files and system calls are limited to what a node uses.
    pub sandbox: bool,
}

impl Default for Privileges {
    fn default() -> Self {
        Self {
            user: None,
            socket_group: None,
            sandbox: true,
        }
    }
}

/// The folders that a running node uses, with all that is in them, and its TCP ports.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// Read again at a reload.
    pub read: BTreeSet<PathBuf>,
    /// Of sockets and state: made with that mode and given to the user, if missing.
    pub write: BTreeMap<PathBuf, u32>,
    /// TCP ports of this node.
    pub listen: BTreeSet<u16>,
    /// TCP ports of others that it connects to.
    pub connect: BTreeSet<u16>,
}

/// Why a node can not be confined as it is told to.
#[derive(Debug, thiserror::Error)]
pub enum NotConfined {
    #[error(transparent)]
    Account(#[from] NoAccount),
    #[error(
        "this process is of uid {found} and can not become {wanted}: start it as root, or leave out \
         `privileges.user`"
    )]
    NotRoot { found: u32, wanted: String },
    #[error("can not {what}: {source}")]
    Step {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("system calls can not be limited: {0}")]
    Syscalls(String),
    #[error("files can not be limited: {0}")]
    Files(String),
}

/// A failure of one step.
fn step<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> NotConfined {
    let what = what.into();
    move |error| NotConfined::Step {
        what,
        source: error.into(),
    }
}

/// How far a node is confined; [`Self::seal`] does the rest.
#[derive(Debug)]
pub struct Confinement {
    user: String,
    /// Whom the API's socket is given to.
    pub(crate) socket_group: Option<u32>,
    locked: bool,
    files: Option<String>,
    sandbox: bool,
}

/// Locks the memory, becomes the user, keeps the capabilities of set-up only, and limits the files. To
/// be called before there is a second thread.
///
/// # Errors
/// There is no such user or group, or the kernel refuses what it would not refuse to root.
pub fn enter(wish: &Privileges, folders: &Folders) -> Result<Confinement, NotConfined> {
    let locked = match memory::lock() {
        Ok(()) => true,
        Err(why) => {
            tracing::warn!("keys may get to swap space: {why}");
            false
        }
    };
    // What is made from here on is its owner's only, unless it says otherwise.
    rustix::process::umask(rustix::fs::Mode::from(0o077));
    let user = wish.user.as_deref().map(Account::find).transpose()?;
    let group = wish.socket_group.as_deref().map(Group::find).transpose()?;
    let own = rustix::process::geteuid().as_raw();
    let group = group.map(|group| group.0);
    match &user {
        Some(user) if own == 0 => {
            let group = group.unwrap_or(user.gid);
            for (folder, mode) in &folders.write {
                account::hand_over(folder, *mode, user, group)?;
            }
            capabilities::keep_over_change_of_user()?;
            user.assume(group)?;
        }
        Some(user) if user.uid == own => {}
        Some(user) => {
            return Err(NotConfined::NotRoot {
                found: own,
                wanted: user.name.clone(),
            });
        }
        None => {
            for (folder, mode) in &folders.write {
                account::make(folder, *mode)?;
            }
            // To give a file to a group one must be in it, root too once it has no capability for that.
            if let (Some(group), 0) = (group, own) {
                account::join(group)?;
            }
        }
    }
    capabilities::keep_for_set_up()?;
    // A change of user makes a process dumpable or not by a setting of the kernel.
    memory::forbid_core_dumps();
    rustix::thread::set_no_new_privs(true).map_err(step("give up new privileges"))?;
    // Before the list of users is out of reach.
    let user = user.map_or_else(|| account::name(own), |user| user.name);
    let files = match wish.sandbox {
        true => files::limit(folders)?,
        false => None,
    };
    Ok(Confinement {
        user,
        socket_group: group,
        locked,
        files,
        sandbox: wish.sandbox,
    })
}

impl Confinement {
    /// Gives up what set-up needed: of the calling thread the capabilities beyond `keep`, of all threads
    /// the system calls that a running node does not make.
    ///
    /// # Errors
    /// The kernel refuses, or can not do it.
    pub fn seal(&self, keep: capabilities::CapabilitySet) -> Result<(), NotConfined> {
        let kept = capabilities::keep_for_running(keep)?;
        let mut text = format!("runs as {}, capabilities: {kept}", self.user);
        if self.sandbox {
            syscalls::limit().map_err(NotConfined::Syscalls)?;
            match &self.files {
                Some(how) => _ = write!(text, ", files: {how}"),
                None => text += ", files: as its user may",
            }
            text += ", system calls: those of a running node";
        } else {
            text += ", no sandbox";
        }
        text += if self.locked {
            ", memory: locked"
        } else {
            ", memory: may be swapped"
        };
        tracing::info!("{text}");
        if !self.sandbox {
            tracing::warn!(
                "`privileges.sandbox = false`: neither files nor system calls are limited"
            );
        }
        Ok(())
    }
}
