//! What can go wrong between an object file and a running program, one sentence each.

use std::io;

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, xdp::XdpError},
    sys::SyscallError,
};

/// Why a program could not be loaded or attached, or a map not be written.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such interface in this network namespace.
    #[error("interface {interface}: there is no interface of this name")]
    NoInterface {
        /// Name as configured.
        interface: String,
    },
    /// Another XDP program has the interface.
    #[error(
        "interface {interface}: another XDP program is attached already; detach it first \
         (`ip link set dev {interface} xdp off`, or stop the program that owns it)"
    )]
    Busy {
        /// Name of the interface.
        interface: String,
    },
    /// The process lacks a privilege.
    #[error("{what}: the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (or root) are needed")]
    Privilege {
        /// What was tried, with the interface's name where there is one.
        what: String,
    },
    /// The kernel lacks a feature.
    #[error("{what}: Linux {found} is too old or built without it; Linux 5.15 or later is needed")]
    Kernel {
        /// What was tried.
        what: String,
        /// Version of the running kernel.
        found: String,
    },
    /// The driver has no native XDP and native was asked for.
    #[error(
        "interface {interface}: the driver has no native XDP ({cause}); choose xdp = \"auto\" or \
         \"generic\""
    )]
    NotNative {
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The interface's or its peer's MTU is too big for XDP.
    #[error("interface {interface}: its MTU (or its veth peer's) is too big for native XDP")]
    Mtu {
        /// Name of the interface.
        interface: String,
    },
    /// A map is full.
    #[error("map {map} is full ({capacity} entries)")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Entries that it can hold.
        capacity: u32,
    },
    /// Something does not fit.
    #[error("{what}: {found} found, at most {limit} possible")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The kernel refused for another reason.
    #[error("{what}: {cause}")]
    Refused {
        /// What was tried, with the interface's name where there is one.
        what: String,
        /// What the kernel said.
        cause: String,
    },
}

/// The errno behind an error of aya, if there is one.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        // Transparent wrappers hide themselves from `source`.
        if let Some(SyscallError { io_error, .. }) = error.downcast_ref() {
            return io_error.raw_os_error();
        }
        if let Some(EbpfError::MapError(inner)) = error.downcast_ref() {
            return errno(inner);
        }
        if let Some(EbpfError::ProgramError(inner)) = error.downcast_ref() {
            return errno(inner);
        }
        if let Some(ProgramError::SyscallError(inner)) = error.downcast_ref() {
            return inner.io_error.raw_os_error();
        }
        if let Some(ProgramError::XdpError(XdpError::NetlinkError(_))) = error.downcast_ref() {
            return Some(libc::EOPNOTSUPP);
        }
        next = error.source();
    }
    None
}

/// The sentence for an error that is no matter of one interface.
pub(super) fn explain(what: &str, error: &(dyn std::error::Error + 'static)) -> LoadError {
    let what = what.to_owned();
    let found = || {
        std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
            |_| "of this machine".to_owned(),
            |text| text.trim().to_owned(),
        )
    };
    match errno(error) {
        Some(libc::EPERM | libc::EACCES) if !verifier_spoke(error) => LoadError::Privilege { what },
        Some(libc::ENOSYS | libc::EOPNOTSUPP) => LoadError::Kernel {
            what,
            found: found(),
        },
        Some(libc::EINVAL | libc::E2BIG) if !verifier_spoke(error) => LoadError::Kernel {
            what: format!("{what} ({})", one_line(error)),
            found: found(),
        },
        _ => LoadError::Refused {
            what,
            cause: one_line(error),
        },
    }
}

/// EACCES comes from the verifier too, and then with a log.
fn verifier_spoke(error: &(dyn std::error::Error + 'static)) -> bool {
    let program = match error.downcast_ref::<EbpfError>() {
        Some(EbpfError::ProgramError(inner)) => Some(inner),
        _ => error.downcast_ref(),
    };
    match program {
        Some(ProgramError::LoadError { verifier_log, .. }) => !verifier_log.to_string().is_empty(),
        _ => false,
    }
}

/// How the lines behind a verifier's reason begin.
const VERIFIER_STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// An error with its causes on one line; of a verifier's log the last line that says something.
fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(ProgramError::LoadError {
        io_error,
        verifier_log,
    }) = error.downcast_ref()
    {
        let log = verifier_log.to_string();
        let last = log
            .lines()
            .map(str::trim)
            .rfind(|line| {
                !line.is_empty() && !VERIFIER_STATISTICS.iter().any(|s| line.starts_with(s))
            })
            .unwrap_or("no word from the verifier");
        return format!("{io_error}; {last}");
    }
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The sentence for a map that could not be written.
pub(super) fn map_error(map: &'static str, capacity: u32, error: &MapError) -> LoadError {
    match errno(error) {
        Some(libc::E2BIG | libc::ENOSPC) => LoadError::Full { map, capacity },
        _ => explain(&format!("map {map}"), error),
    }
}
