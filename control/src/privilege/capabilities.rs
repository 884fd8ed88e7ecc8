//! Capabilities (capabilities(7)): a few for set-up, fewer while the node runs, none in its other threads.

use std::io;

use rustix::thread::{
    CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
};

pub use rustix::thread::CapabilitySet;

use super::{NotConfined, memory, step};

/// What set-up needs: interfaces, AF_XDP and raw sockets, ports 500 and 4500, XDP programs and maps, frame
/// memory that stays in its place.
pub const SET_UP: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::IPC_LOCK);

/// A gateway that runs: it has the kernel confirm next hops that only XDP uses (`NTF_USE`).
pub const GATEWAY: CapabilitySet = CapabilitySet::NET_ADMIN;

/// A client that runs: the same, routes and addresses of its TUN device, and the ports of its next
/// outside address.
pub const CLIENT: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_BIND_SERVICE);

/// The kernel from which on a map may be used by whoever has its descriptor, where others may not use
/// BPF at all (`kernel.unprivileged_bpf_disabled`).
const MAPS_ARE_FREE: (u32, u32) = (5, 19);

/// The next change of user takes none of the capabilities of set-up.
pub(super) fn keep_over_change_of_user() -> Result<(), NotConfined> {
    bound();
    set_keep_capabilities(true).map_err(step("keep capabilities"))
}

/// Leaves the calling thread what set-up needs, of what it has.
pub(super) fn keep_for_set_up() -> Result<(), NotConfined> {
    bound();
    set_keep_capabilities(false).map_err(step("let go of capabilities"))?;
    keep(SET_UP)
        .map(drop)
        .map_err(step("keep the capabilities of set-up"))
}

/// Leaves the calling thread these, and yields the names of those that it has.
pub(super) fn keep_for_running(wanted: CapabilitySet) -> Result<String, NotConfined> {
    let kept = keep(wanted | always()).map_err(step("let go of capabilities"))?;
    Ok(names(kept))
}

/// Leaves the calling thread none of its capabilities, but what maps and locked memory need on this
/// machine. For threads that begin during set-up.
pub fn drop_capabilities() {
    if let Err(error) = keep(always()) {
        // Capabilities can always be given up; a kernel that says otherwise is no reason to stop traffic.
        tracing::warn!("a thread keeps the capabilities of set-up: {error}");
    }
}

/// Limits the calling thread, and what it starts, to `wanted`, as far as it has that.
fn keep(wanted: CapabilitySet) -> io::Result<CapabilitySet> {
    let kept = capabilities(None)?.permitted & wanted;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    clear_ambient_capability_set()?;
    Ok(kept)
}

/// No program that this process runs can have more. Without the right to say so, whoever started it has
/// said it or not; nothing is run anyway.
fn bound() {
    // The kernel has bits that this list does not name, and ends it by EINVAL.
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !SET_UP.contains(one) && remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
}

/// What no thread can do without on this machine.
fn always() -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    let release = rustix::system::uname();
    set.set(
        CapabilitySet::BPF,
        is_before(&release.release().to_string_lossy(), MAPS_ARE_FREE),
    );
    // All memory is locked, so under a limit no more could be had.
    set.set(CapabilitySet::IPC_LOCK, memory::limit().is_some());
    set
}

/// Whether a release such as `6.1.0-13-amd64` is before a version. What can not be read is.
fn is_before(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < version,
        _ => true,
    }
}

fn names(set: CapabilitySet) -> String {
    let names: Vec<String> = set
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for (release, before) in [
            ("5.15.0-91-generic", true),
            ("5.18.9", true),
            ("5.19", false),
            ("5.19.0-rc1", false),
            ("6.1.0-13-amd64", false),
            ("10.0", false),
            ("strange", true),
        ] {
            assert_eq!(is_before(release, MAPS_ARE_FREE), before, "{release}");
        }
    }

    #[test]
    fn a_thread_loses_what_is_not_kept_and_gets_nothing_back() {
        std::thread::spawn(|| {
            let before = capabilities(None).unwrap().permitted;
            let kept = keep(CapabilitySet::NET_RAW).unwrap();
            assert_eq!(kept, before & CapabilitySet::NET_RAW);
            let after = capabilities(None).unwrap();
            assert_eq!((after.permitted, after.effective), (kept, kept));
            drop_capabilities();
            let after = capabilities(None).unwrap().permitted;
            assert!(!after.contains(CapabilitySet::NET_RAW));
            assert_eq!(keep(CapabilitySet::all()).unwrap(), after);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn sets_are_told_by_name() {
        assert_eq!(names(CLIENT), "CAP_NET_BIND_SERVICE CAP_NET_ADMIN");
        assert_eq!(names(CapabilitySet::empty()), "none");
    }
}
