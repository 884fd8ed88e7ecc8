//! Keys stay in memory: not in a core dump, not in swap space, not for another process of the same user.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{CapabilitySet, capabilities};

/// Why memory is not locked.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    /// Memory that is mapped later would be refused, and with it service.
    #[error(
        "memory can be locked up to {limit} bytes only, expected no limit (`LimitMEMLOCK=infinity` in \
         a unit of systemd) or CAP_IPC_LOCK"
    )]
    Limit { limit: u64 },
    #[error("mlockall: {0}")]
    Refused(#[from] rustix::io::Errno),
}

/// How much memory the process may lock without a capability; `None`: any.
pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// Keeps all memory of the process, also what it gets later, out of swap space. Memory that is never
/// touched takes no room by it.
///
/// # Errors
/// There is a limit that the process may not lift.
pub(super) fn lock() -> Result<(), NotLocked> {
    let free = Rlimit {
        current: None,
        maximum: None,
    };
    // Not even root may do that everywhere.
    let _ = setrlimit(Resource::Memlock, free);
    let may =
        || capabilities(None).is_ok_and(|has| has.effective.contains(CapabilitySet::IPC_LOCK));
    if let Some(limit) = limit()
        && !may()
    {
        return Err(NotLocked::Limit { limit });
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    Ok(())
}

/// Large tables lie in pages of their own from now on, so that one that has grown leaves no hole behind: a GNU libc
/// puts them among small things once a large one was freed (`mallopt(3)`, `M_MMAP_THRESHOLD`). Before threads begin.
pub fn keep_tables_apart() {
    #[cfg(target_env = "gnu")]
    {
        /// Bytes from which on an allocation is a table: what it is at first.
        const TABLE: libc::c_int = 128 * 1024;
        // SAFETY: it sets a number of the allocator's and takes no pointer.
        if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, TABLE) } == 0 {
            tracing::debug!("tables that grow leave holes: mallopt was refused");
        }
    }
}

/// Keys must not reach a disk by way of a crash, nor another process of the same user by ptrace. A
/// node that can not have that runs all the same, and says so.
pub fn forbid_core_dumps() {
    if tracing::enabled!(tracing::Level::TRACE) {
        tracing::warn!("core dumps stay allowed, because `trace` is logged: they hold keys");
        return;
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // The limit alone does not count where the kernel pipes core dumps to a program.
    for (what, result) in [
        ("RLIMIT_CORE", setrlimit(Resource::Core, none)),
        (
            "PR_SET_DUMPABLE",
            set_dumpable_behavior(DumpableBehavior::NotDumpable),
        ),
    ] {
        if let Err(error) = result {
            tracing::warn!("a core dump of this process could hold keys: {what}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_crash_leaves_no_core() {
        let before = dumpable_behavior().unwrap();
        forbid_core_dumps();
        let after = dumpable_behavior().unwrap();
        // Other tests of this process look into /proc.
        set_dumpable_behavior(before).unwrap();
        assert_eq!(after, DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
