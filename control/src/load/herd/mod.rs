//! Many clients that stay: each has a session of its own and sends echo requests by it, so that it shows how
//! long each of them is without answers when something happens to their gateway.

mod tally;
mod traffic;

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Plan;
use super::client::Client;
use crate::esp;
use crate::ike::{self, EspCipher};
use traffic::Flow;

/// Handshakes at a time.
const AT_A_TIME: usize = 64;

/// What the first client receives on; the others have those that follow.
const FIRST_SPI: u32 = 0x1000_0000;

/// Packets that the clients' replay windows have room for.
const WINDOW: u32 = 1024;

/// What the clients do once they have their sessions.
#[derive(Debug)]
pub struct Herd {
    /// Of the sessions: a client at each of its addresses.
    pub sessions: Plan,
    /// Where an echo service listens on the port of test packets.
    pub to: Ipv4Addr,
    /// Echo requests of each client in a second.
    pub rate: NonZeroU32,
    /// One of so many packets is sent a second time, as it was, as if somebody had recorded it.
    pub repeat: Option<NonZeroU32>,
}

/// What is said while they run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// All have their sessions, and begin to send.
    Up {
        clients: usize,
        seconds: f64,
    },
    Report(Report),
}

/// How they fare.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Echo requests so far that are old enough to have been answered, and those of them that were not.
    pub sent: u64,
    pub lost: u64,
    /// Requests that were answered twice.
    pub twice: u64,
    /// Packets that were sent a second time.
    pub repeated: u64,
    /// ESP that could not be opened, or had come before.
    pub refused: u64,
    /// Requests that this host's kernel did not take; they are lost too.
    pub unsent: u64,
    /// Datagrams of IKE, either way, since all had their sessions.
    pub ike: u64,
    /// Of each client, in milliseconds: from the event to the first answer to what was sent after it, if there
    /// is one.
    pub outages_ms: Vec<Option<f64>>,
    /// Of each client: the longest time without an answer since then.
    pub gaps_ms: Vec<f64>,
}

/// What they are told by lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// What comes from now on is remembered.
    Arm,
    /// How they have fared since an event, by the machine's monotonic clock.
    Report { since_ns: u64 },
}

/// Makes the sessions and sends until `words` end: lines `arm` and `report NS`.
///
/// # Errors
/// A session that does not come about, or what the kernel refuses.
pub async fn run<W: BufRead + Send + 'static>(
    herd: Herd,
    words: W,
    mut say: impl FnMut(&Said) -> Result<()> + Send + 'static,
) -> Result<()> {
    let plan = Rc::new(herd.sessions);
    let clients = plan.local.len();
    let locals: Vec<Ipv4Addr> = plan.local.iter().filter_map(v4).collect();
    let IpAddr::V4(remote) = plan.remote else {
        anyhow::bail!(
            "expected an IPv4 address of the gateway, found {}",
            plan.remote
        );
    };
    ensure!(
        (1..=usize::from(u16::MAX)).contains(&clients) && locals.len() == clients,
        "expected 1 to 65535 IPv4 addresses to send from"
    );
    allow_files()?;
    let start = Instant::now();
    let datagrams = Arc::new(AtomicU64::new(0));
    let turns = Rc::new(Semaphore::new(AT_A_TIME));
    let (tell, mut told) = mpsc::unbounded_channel();
    let tasks = tokio::task::LocalSet::new();
    for (number, local) in (1..).zip(plan.local.clone()) {
        let client = Client::bind(local, Rc::clone(&plan)).await?;
        let (tell, turns, datagrams) = (tell.clone(), Rc::clone(&turns), Arc::clone(&datagrams));
        tasks.spawn_local(one(client, number, tell, turns, datagrams));
    }
    drop(tell);
    let work = async {
        let mut flows: Vec<Option<Flow>> = (0..clients).map(|_| None).collect();
        for _ in 0..clients {
            let (number, child, inner): (usize, ike::Child, Ipv4Addr) =
                told.recv().await.context("no client")??;
            let at = number - 1;
            let outer = (locals[at], remote);
            flows[at] = Some(flow(&child, inner, outer)?);
        }
        let flows: Option<Vec<Flow>> = flows.into_iter().collect();
        let flows = flows.context("a client without a session")?;
        say(&Said::Up {
            clients,
            seconds: start.elapsed().as_secs_f64(),
        })?;
        let traffic = traffic::Traffic::new(flows, herd.to, herd.rate, herd.repeat)?;
        let (ended, end) = oneshot::channel();
        let words = read(words);
        std::thread::spawn(move || {
            // Whoever waits for it is there until then.
            let _ = ended.send(traffic.run(&words, &datagrams, say));
        });
        end.await.map_err(|_| anyhow!("the traffic has ended"))?
    };
    tasks.run_until(work).await
}

type Made = (usize, ike::Child, Ipv4Addr);

/// A client: its handshake when it is its turn, then whatever the gateway wants.
async fn one(
    mut client: Client,
    number: usize,
    tell: mpsc::UnboundedSender<Result<Made>>,
    turns: Rc<Semaphore>,
    datagrams: Arc<AtomicU64>,
) {
    let Ok(turn) = turns.acquire().await else {
        return;
    };
    let made = client.establish(number, spi(number), &mut 0).await;
    drop(turn);
    let said = match &made {
        Err(why) => Err(anyhow!("client {number}: {why}")),
        Ok(made) => match made.assigned.iter().find_map(v4) {
            Some(inner) => Ok((number, made.child.clone(), inner)),
            None => Err(anyhow!("client {number} got no inner IPv4 address")),
        },
    };
    let _ = tell.send(said);
    if let Ok(made) = made {
        client.keep(made, &datagrams).await;
    }
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}

fn spi(number: usize) -> u32 {
    FIRST_SPI.saturating_add(u32::try_from(number).unwrap_or(u32::MAX) - 1)
}

fn flow(child: &ike::Child, inner: Ipv4Addr, outer: (Ipv4Addr, Ipv4Addr)) -> Result<Flow> {
    let cipher = match child.cipher {
        EspCipher::Aes128Gcm => esp::Cipher::Aes128Gcm,
        EspCipher::Aes256Gcm => esp::Cipher::Aes256Gcm,
        EspCipher::ChaCha20Poly1305 => esp::Cipher::ChaCha20Poly1305,
    };
    let aead = |key: &[u8]| {
        let key = esp::Key::new(key)?;
        anyhow::Ok(esp::Aead::new(esp::Backend::default(), cipher, &key)?)
    };
    let (esn, window) = (child.esn, esp::Window::new(WINDOW)?);
    let (salt_in, salt_out) = (child.salt_in.into(), child.salt_out.into());
    let config = esp::OuterConfig::new(outer.0.into(), outer.1.into(), None);
    Ok(Flow::new(
        esp::InboundSa::new(child.spi_in, aead(&child.key_in)?, salt_in, esn, window),
        esp::OutboundSa::new(child.spi_out, aead(&child.key_out)?, salt_out, esn, 0),
        esp::Outer::new(&config)?,
        inner,
    ))
}

/// Two sockets for each client, beside what a process has anyway.
fn allow_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).context("can not have more files open")
}

/// Reads lines in a thread of its own; its end is theirs.
fn read<W: BufRead + Send + 'static>(words: W) -> Receiver<Word> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell_all(words, &tell));
    told
}

fn tell_all(words: impl BufRead, tell: &Sender<Word>) {
    for line in words.lines().map_while(Result::ok) {
        let Some(word) = word(&line) else {
            eprintln!("found {line:?}, expected `arm` or `report NS`");
            continue;
        };
        if tell.send(word).is_err() {
            return;
        }
    }
}

fn word(line: &str) -> Option<Word> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["arm"] => Some(Word::Arm),
        ["report", since] => Some(Word::Report {
            since_ns: since.parse().ok()?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lines() {
        let (tell, told) = channel();
        tell_all(&b"arm\nreport 17\nreport\nstop now\n"[..], &tell);
        drop(tell);
        let words: Vec<Word> = told.iter().collect();
        assert_eq!(words, [Word::Arm, Word::Report { since_ns: 17 }]);
    }

    #[test]
    fn each_client_has_an_spi() {
        assert_eq!((spi(1), spi(2)), (FIRST_SPI, FIRST_SPI + 1));
    }
}
