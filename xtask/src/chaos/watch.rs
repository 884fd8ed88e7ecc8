//! The watcher of the wire: a helper in the router's namespace, at the other end of the cable of the
//! client and of each gateway. A node's own packets pass no tap of its own machine, since they go
//! over AF_XDP.

use super::wire::{Checker, Seen, Way};
use crate::lab::{Lab, Place, Process};
use crate::probe::{now_ns, wait_ready};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt::RcvBufForce,
    sockopt::RxqOvfl,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io::{BufRead, IoSliceMut, Write as _};
use std::os::fd::AsRawFd;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// `ETH_P_ALL` of `linux/if_ether.h`, in network order.
const ALL: i32 = 0x0003_u16.to_be() as i32;
/// `PACKET_OUTGOING` of `linux/if_packet.h`.
const OUTGOING: u8 = 4;
/// The router's ends of the cables.
const PORTS: [&str; 4] = ["client", "gw1", "gw2", "gw3"];
/// For what comes while we do not run.
const BUFFER: usize = 64 << 20;
/// So many different findings are enough.
const MOST: usize = 50;
/// How often it tells what it has seen.
const TELL_NS: u64 = 500_000_000;

/// Reads every frame until stdin ends. Stdout: `ready`; a line of JSON now and then and at the end;
/// a line `! TEXT` for each thing that must not be. Stdin: the number of a gateway that is about to be started
/// again, a line each.
pub(crate) fn watch() -> Result<()> {
    let (stop, begun) = (Arc::new(AtomicBool::new(false)), mpsc::channel());
    let (flag, (tell, begun)) = (Arc::clone(&stop), begun);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = line.trim().parse::<u8>().map(|number| tell.send(number));
        }
        flag.store(true, Ordering::Relaxed);
    });
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL)))
        .context("packet sockets need root")?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    setsockopt(&socket, RxqOvfl, &1)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let ports: Vec<usize> = PORTS
        .iter()
        .map(|name| Ok(usize::try_from(if_nametoindex(*name)?)?))
        .collect::<Result<_>>()?;
    println!("ready");
    let mut checker = Checker::default();
    let mut buffer = vec![0u8; 65536];
    let mut space = nix::cmsg_space!(u32);
    let mut told = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let got = recvmsg::<LinkAddr>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        );
        let (length, from) = match got {
            Ok(got) => {
                for control in got.cmsgs()? {
                    // A counter since the beginning, told with each frame once it is not zero.
                    if let ControlMessageOwned::RxqOvfl(unseen) = control {
                        checker.seen.unseen = unseen.into();
                    }
                }
                (got.bytes, got.address)
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => (0, None),
            Err(error) => return Err(error).context("reading frames"),
        };
        checker.now_ns = now_ns();
        begun.try_iter().for_each(|number| checker.forget(number));
        if let Some(from) = from.filter(|from| ports.contains(&from.ifindex())) {
            let way = match from.pkttype() {
                OUTGOING => Way::ToNode,
                _ => Way::FromNode,
            };
            if let Some(found) = checker.look(&buffer[..length], way) {
                println!("! {found}");
            }
        }
        if now_ns().saturating_sub(told) > TELL_NS {
            told = now_ns();
            println!("{}", serde_json::to_string(&checker.seen)?);
        }
    }
    println!("{}", serde_json::to_string(&checker.seen)?);
    Ok(())
}

/// What the watcher has told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) seen: Seen,
    /// What must not be, and how often.
    pub(super) found: HashMap<String, u64>,
}

/// A running watcher.
pub(super) struct Watch {
    process: Process,
    tell: ChildStdin,
    told: Arc<Mutex<Told>>,
    reader: JoinHandle<()>,
}

impl Watch {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let mut process = lab.helper(Place::Wan, &["watch"])?;
        let tell = process.stdin().context("the watcher has no stdin")?;
        let output = wait_ready(&mut process)?;
        let told = Arc::new(Mutex::new(Told::default()));
        let shared = Arc::clone(&told);
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut told = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match line.strip_prefix("! ") {
                    Some(found) if told.found.len() < MOST => {
                        *told.found.entry(found.to_owned()).or_default() += 1;
                    }
                    Some(_) => {}
                    None => told.seen = serde_json::from_str(&line).unwrap_or_default(),
                }
            }
        });
        Ok(Self {
            process,
            tell,
            told,
            reader,
        })
    }

    /// What it has told so far.
    pub(super) fn so_far(&self) -> Told {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.clone()
    }

    /// A gateway is about to be started again: what it receives by the same SPI has another key then.
    pub(super) fn begins_anew(&mut self, gateway: u8) -> Result<()> {
        writeln!(self.tell, "{gateway}").context("the watcher of the wire does not listen")
    }

    /// Ends it; yields all.
    pub(super) fn finish(mut self) -> Result<Told> {
        drop(self.tell);
        let status = self.process.wait(Duration::from_secs(10))?;
        anyhow::ensure!(status.success(), "the watcher of the wire ended: {status}");
        let _ = self.reader.join();
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(told.clone())
    }
}
