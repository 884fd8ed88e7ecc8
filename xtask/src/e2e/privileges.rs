//! What a running node may still do, and who may speak to it.

use super::{Case, active, ensure, in_order, must_ping, up};
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, NODE_USER, Place};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Output;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("privileges_of_a_running_node_are_few", few),
    ("privileges_without_sandbox_are_told", no_sandbox),
    ("privileges_of_a_user_that_is_not_there", no_such_user),
    ("api_answers_its_group_only", group_only),
    ("node_is_closed_to_its_own_user", closed),
];

/// capabilities(7).
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;
const CAP_IPC_LOCK: u64 = 1 << 14;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// Somebody who is neither root nor the nodes' user.
const STRANGER: u32 = NODE_USER - 1;

/// Whose members may use the API.
const GROUP: u32 = NODE_USER + 1;

/// The lines of a file such as `/proc/PID/status`.
fn table(path: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn number(of: &BTreeMap<String, String>, name: &str) -> Result<u64> {
    let text = of.get(name).with_context(|| format!("no {name}"))?;
    let text = text.trim_end_matches(" kB");
    if name.starts_with("Cap") {
        return u64::from_str_radix(text, 16).with_context(|| format!("{name}: {text}"));
    }
    text.parse().with_context(|| format!("{name}: {text}"))
}

/// All threads of all nodes, after a session and a failover.
fn few(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order(1))?;
    // Memory is locked by a capability only where root itself can not lift the limit.
    let set_up =
        CAP_NET_BIND_SERVICE | CAP_NET_ADMIN | CAP_NET_RAW | CAP_IPC_LOCK | CAP_PERFMON | CAP_BPF;
    for place in [Place::Client, Place::Gateway(1), Place::Gateway(2)] {
        let pid = lab.pid(place)?;
        let own = match place {
            Place::Client => CAP_NET_ADMIN | CAP_NET_BIND_SERVICE,
            _ => CAP_NET_ADMIN,
        };
        let mut threads = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.file_name();
            let thread = thread.to_string_lossy();
            let status = table(&format!("/proc/{pid}/task/{thread}/status"))?;
            let name = status.get("Name").cloned().unwrap_or_default();
            let main = thread == pid.to_string();
            let allowed = CAP_IPC_LOCK | if main { own } else { 0 };
            let what = |text: &str| format!("{place}, thread {name}: {text}: {status:?}");
            for set in ["CapPrm", "CapEff"] {
                let has = number(&status, set)?;
                ensure(has & !allowed == 0, || what(&format!("{set} {has:#x}")))?;
            }
            for set in ["CapInh", "CapAmb"] {
                let has = number(&status, set)?;
                ensure(has == 0, || what(&format!("{set} {has:#x}")))?;
            }
            let bound = number(&status, "CapBnd")?;
            ensure(bound & !set_up == 0, || what("CapBnd"))?;
            ensure(number(&status, "NoNewPrivs")? == 1, || what("NoNewPrivs"))?;
            ensure(number(&status, "Seccomp")? == 2, || what("Seccomp"))?;
            let user = NODE_USER.to_string();
            for ids in ["Uid", "Gid"] {
                let ids = status.get(ids).context("no ids")?;
                ensure(ids.split_whitespace().all(|id| id == user), || what("ids"))?;
            }
            threads += 1;
        }
        ensure(threads >= 3, || format!("{place} has {threads} threads"))?;
        let status = table(&format!("/proc/{pid}/status"))?;
        let locked = number(&status, "VmLck")?;
        ensure(locked > 0, || format!("{place}: no memory is locked"))?;
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let core = core.context("no limit of core files")?;
        ensure(core.split_whitespace().nth(4) == Some("0"), || {
            core.to_owned()
        })?;
    }
    // It can still do what it is there for: next hops, another gateway, other routes.
    next_hop_is_kept(lab)?;
    lab.kill(Place::Gateway(1))?;
    must_ping(lab, Place::Client, &["-c3", TARGETS[0]])?;
    lab.evergate(Place::Client, &["policy", "reload"])?;
    must_ping(lab, Place::Client, &[TARGETS[0]])
}

/// A neighbour that only XDP sends to is confirmed by the kernel, which the node has to ask for that.
fn next_hop_is_kept(lab: &Lab) -> Result<()> {
    let gateway = Place::Gateway(active(lab)?);
    let shown = || lab.exec(gateway, &["ip", "neigh", "show", TARGETS[0], "dev", "lan0"]);
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    let before = shown()?;
    let mut words = before.split_whitespace();
    let mac = words.by_ref().skip_while(|word| *word != "lladdr").nth(1);
    let mac = mac.with_context(|| format!("no neighbour: {before:?}"))?;
    let stale = [
        "ip", "neigh", "replace", TARGETS[0], "lladdr", mac, "nud", "stale", "dev", "lan0",
    ];
    lab.exec(gateway, &stale)?;
    lab.wait(
        "the next hop is confirmed",
        Duration::from_secs(15),
        |lab| {
            must_ping(lab, Place::Client, &[TARGETS[0]])?;
            Ok(shown()?.contains("REACHABLE").then_some(()))
        },
    )
}

fn no_sandbox(lab: &mut Lab) -> Result<()> {
    let user = format!("user = \"{NODE_USER}\"");
    lab.nodes_stay_root();
    lab.configure(&in_order(0))?;
    for place in Place::ALL {
        let file = lab.dir().join(format!("{place}.toml"));
        if let Ok(text) = fs::read_to_string(&file) {
            let otherwise = format!("socket_group = \"{GROUP}\"\nsandbox = false");
            fs::write(&file, text.replace(&user, &otherwise))?;
        }
    }
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let pid = lab.pid(Place::Gateway(1))?;
    let status = table(&format!("/proc/{pid}/status"))?;
    ensure(number(&status, "Seccomp")? == 0, || {
        "there is a filter".into()
    })?;
    let group = fs::metadata(lab.socket(Place::Gateway(1)))?.gid();
    ensure(group == GROUP, || format!("the socket has gid {group}"))?;
    // Root with one capability.
    ensure(
        number(&status, "CapEff")? & !(CAP_IPC_LOCK | CAP_NET_ADMIN) == 0,
        || format!("{status:?}"),
    )?;
    let log = fs::read_to_string(lab.log(Place::Gateway(1)))?;
    for word in [
        "runs as root",
        "no sandbox",
        "neither files nor system calls are limited",
    ] {
        ensure(log.contains(word), || {
            format!("{word:?} is not in the log: {log}")
        })?;
    }
    Ok(())
}

fn no_such_user(lab: &mut Lab) -> Result<()> {
    lab.configure(&in_order(0))?;
    let file = lab.dir().join("gw1.toml");
    let text = fs::read_to_string(&file)?;
    let user = NODE_USER.to_string();
    fs::write(&file, text.replace(&user, "evergate-nobody"))?;
    let (status, said) = lab.start_refused(Place::Gateway(1))?;
    ensure(status.code() == Some(1), || format!("{status}"))?;
    let expected = "privileges.user: this machine has no user `evergate-nobody`";
    ensure(said.contains(expected), || said.clone())
}

/// Runs as somebody else, in the namespace of the client.
fn as_user(lab: &Lab, uid: u32, groups: &str, words: &[&str]) -> Result<Output> {
    let (uid, groups) = (uid.to_string(), format!("--groups={groups}"));
    let mut all = vec!["setpriv", "--reuid", &uid, "--regid", &uid, &groups];
    all.extend(words);
    lab.try_exec(Place::Client, &all)
}

fn group_only(lab: &mut Lab) -> Result<()> {
    lab.configure(&in_order(0))?;
    let file = lab.dir().join("gw1.toml");
    let text = fs::read_to_string(&file)?;
    let with_group = format!("[privileges]\nsocket_group = \"{GROUP}\"");
    fs::write(&file, text.replace("[privileges]", &with_group))?;
    lab.start_gateway(1)?;
    let socket = lab.socket(Place::Gateway(1));
    let found = fs::metadata(&socket)?;
    let (mode, owner, group) = (found.permissions().mode() & 0o777, found.uid(), found.gid());
    ensure((mode, owner, group) == (0o660, NODE_USER, GROUP), || {
        format!("the socket has mode {mode:o}, uid {owner}, gid {group}")
    })?;
    let program = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                   s.send(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\nprint(s.recv(12))";
    let socket = socket.to_string_lossy();
    let words = ["/usr/bin/python3", "-c", program, &socket];
    let ask = |groups: &str| as_user(lab, STRANGER, groups, &words);
    let member = ask(&GROUP.to_string())?;
    let said = String::from_utf8_lossy(&member.stdout);
    ensure(said.contains("HTTP/1.1 200"), || {
        format!("a member got {member:?}")
    })?;
    for groups in [STRANGER, NODE_USER] {
        let stranger = ask(&groups.to_string())?;
        let said = String::from_utf8_lossy(&stranger.stderr);
        ensure(said.contains("PermissionError"), || {
            format!("a stranger got {stranger:?}")
        })?;
    }
    Ok(())
}

/// Another process of the same user reads no memory and gets at no descriptor; root can, so that this
/// is not for another reason.
fn closed(lab: &mut Lab) -> Result<()> {
    up(lab, &in_order(0))?;
    let pid = lab.pid(Place::Client)?;
    let path = |file: &str| format!("/proc/{pid}/{file}");
    for (words, file) in [
        (["head", "-c1"], "mem"),
        (["head", "-c1"], "maps"),
        (["head", "-c1"], "environ"),
        (["ls", "-l"], "fd/"),
    ] {
        let path = path(file);
        let words = [words[0], words[1], &path];
        let read = as_user(lab, NODE_USER, &NODE_USER.to_string(), &words)?;
        let said = String::from_utf8_lossy(&read.stderr);
        ensure(said.contains("Permission denied"), || {
            format!("another process of the node's user got {read:?} of {path}")
        })?;
    }
    let maps = fs::read_to_string(path("maps"))?;
    ensure(maps.contains("evergate"), || maps.clone())
}
