//! System calls, by seccomp (seccomp(2)), in three layers of which the strictest answer counts: what a
//! running node never calls and an intruder would ends the process; what is on no list is refused, so
//! that a new version of the C library costs no gateway its life; and `clone3`, whose flags a filter can
//! not see, is said to be missing, upon which the C library uses `clone`.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

/// May be called with any arguments.
const ALLOWED: &[c_long] = &[
    // Time, and waiting for something.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Threads and their end.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_prctl,
    libc::SYS_capget,
    // To have less is always allowed.
    libc::SYS_capset,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_getrandom,
    // What is open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_flock,
    // Files; which, Landlock says.
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    // Sockets.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_listen,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // About oneself.
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
];

/// Older names of the same, where the C library still uses them.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_chmod,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// Nothing of a node calls these; each gives an intruder more than the node has.
const DEADLY: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_open_by_handle_at,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_personality,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
];

/// Commands of bpf(2) for maps that are there: look up, update, delete, next key, the same for many at
/// once, and what a descriptor is. No map and no program can be made.
const BPF_COMMANDS: [u64; 10] = [1, 2, 3, 4, 15, 21, 24, 25, 26, 27];

/// Families of sockets that a node opens while it runs: of IKE at another address, of netlink, and of the
/// kernel's word on an interface.
const FAMILIES: [libc::c_int; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Limits all threads of the process, for good.
pub(super) fn limit() -> Result<(), String> {
    for filter in filters().map_err(|error| error.to_string())? {
        apply_filter_all_threads(&filter).map_err(|error| {
            match std::error::Error::source(&error) {
                Some(source) => format!("{error} ({source})"),
                None => error.to_string(),
            }
        })?;
    }
    Ok(())
}

/// The list of what is allowed comes last: seccomp(2) is not on it.
fn filters() -> Result<[BpfProgram; 3], BackendError> {
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let plain = |calls: &[c_long]| calls.iter().map(|call| (*call, Vec::new())).collect();
    Ok([
        compiled(
            plain(DEADLY),
            SeccompAction::Allow,
            SeccompAction::KillProcess,
        )?,
        compiled(plain(&[libc::SYS_clone3]), SeccompAction::Allow, missing)?,
        compiled(allowed()?, refused, SeccompAction::Allow)?,
    ])
}

fn compiled(
    rules: Rules,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, on_match, arch)?.try_into()
}

fn allowed() -> Result<Rules, BackendError> {
    let mut rules: Rules = [ALLOWED, OLD]
        .concat()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    let any_of = |argument: u8, values: &[u64]| -> Result<Vec<SeccompRule>, BackendError> {
        let rule = |value: &u64| one(argument, SeccompCmpOp::Eq, *value);
        values.iter().map(rule).collect()
    };
    rules.insert(libc::SYS_bpf, any_of(0, &BPF_COMMANDS)?);
    rules.insert(
        libc::SYS_socket,
        any_of(0, &FAMILIES.map(|family| family as u64))?,
    );
    // A limit may be read, not set.
    rules.insert(libc::SYS_prlimit64, vec![none_at(2)?]);
    // Threads, no processes.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(
        libc::SYS_clone,
        vec![one(0, SeccompCmpOp::MaskedEq(thread), thread)?],
    );
    // No code that is not in the program.
    let code = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![one(2, code.clone(), 0)?]);
    }
    // To oneself only, which abort(3) does by `tgkill`; zero asks whether somebody is there.
    rules.insert(libc::SYS_kill, vec![one(1, SeccompCmpOp::Eq, 0)?]);
    Ok(rules)
}

fn one(argument: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Dword, how, value)?])
}

fn none_at(argument: u8) -> Result<SeccompRule, BackendError> {
    let length = seccompiler::SeccompCmpArgLen::Qword;
    let null = SeccompCondition::new(argument, length, SeccompCmpOp::Eq, 0)?;
    SeccompRule::new(vec![null])
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, ExitStatus};

    use super::*;

    /// Names what the process that a test starts is to do.
    const DEED: &str = "EVERGATE_TEST_DEED";

    /// This test alone, in a process of its own, which is limited and then does the deed.
    fn done_by_a_limited_process(deed: &str) -> ExitStatus {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "privilege::syscalls::tests::limited_process",
                "--ignored",
            ])
            .env(DEED, deed)
            .output()
            .unwrap()
            .status
    }

    #[test]
    #[ignore = "a part of `what_a_limited_process_may_do`, which starts it"]
    fn limited_process() {
        let Ok(deed) = std::env::var(DEED) else {
            return;
        };
        rustix::thread::set_no_new_privs(true).unwrap();
        let other =
            std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_millis(200)));
        limit().unwrap();
        match deed.as_str() {
            "live" => {
                other.join().unwrap();
                let more = std::thread::spawn(|| std::fs::read("/proc/self/status").unwrap().len());
                assert!(more.join().unwrap() > 0);
                std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                std::hint::black_box(vec![1u8; 64 << 20]);
            }
            "refused" => {
                let refused = rustix::net::socket(
                    rustix::net::AddressFamily::PACKET,
                    rustix::net::SocketType::DGRAM,
                    None,
                );
                assert_eq!(refused.unwrap_err(), rustix::io::Errno::PERM);
                let sysctl = rustix::process::setpriority_process(None, 5);
                assert_eq!(sysctl.unwrap_err(), rustix::io::Errno::PERM);
                let pid = rustix::process::getpid();
                let kill = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                assert_eq!(kill.unwrap_err(), rustix::io::Errno::PERM);
            }
            "exec" => drop(std::os::unix::process::CommandExt::exec(&mut Command::new(
                "true",
            ))),
            "fork" => assert!(Command::new("true").spawn().is_err()),
            "chroot" => drop(rustix::process::chroot("/")),
            other => panic!("unknown deed {other}"),
        }
    }

    #[test]
    fn what_a_limited_process_may_do() {
        for (deed, signal) in [
            ("live", None),
            ("refused", None),
            ("exec", Some(libc::SIGSYS)),
            ("fork", None),
            ("chroot", Some(libc::SIGSYS)),
        ] {
            let status = done_by_a_limited_process(deed);
            assert_eq!(status.signal(), signal, "{deed}: {status}");
            assert!(signal.is_some() || status.success(), "{deed}: {status}");
        }
    }

    #[test]
    fn no_call_is_both_allowed_and_deadly() {
        let allowed = allowed().unwrap();
        for call in DEADLY {
            assert!(!allowed.contains_key(call), "{call}");
        }
        assert_eq!(filters().unwrap().len(), 3);
    }
}
