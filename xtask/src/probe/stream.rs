//! A TCP connection whose every byte is known: sent one way, returned, and compared.

use super::record::wait_ready;
use super::{now_ns, until_stdin_ends};
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Place, Process};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes written each time, and the pause between: about 0.8 MB/s each way.
const CHUNK: usize = 8192;
const PAUSE: Duration = Duration::from_millis(10);
const PORT: u16 = 7001;
/// What is inside bears it: eight times in a row, so that whoever looks for it on the wire need not
/// look at each byte.
pub(crate) const MARK: [u8; 8] = *b"EVERGATE";
/// So often, in bytes of the stream: at least once in each full segment.
const MARKED: u64 = 1024;

/// What the checker found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StreamReport {
    /// Bytes that came back as they were sent.
    pub(crate) checked: u64,
    pub(crate) longest_stall_ms: f64,
    /// Why the connection ended before it was asked to.
    pub(crate) error: Option<String>,
}

/// Returns every byte of every connection until stdin ends.
pub(super) fn echo(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("can not bind {listen}"))?;
    println!("ready");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = &connection;
                let mut writer = &connection;
                std::io::copy(&mut reader, &mut writer)
            });
        }
    });
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}

/// Sends the known stream until stdin ends, or so many bytes of it, then prints the report as JSON.
pub(super) fn check(to: SocketAddr, bytes: Option<u64>) -> Result<()> {
    let stop = until_stdin_ends();
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))
        .with_context(|| format!("no connection to {to}"))?;
    println!("ready");
    let reader = stream.try_clone()?;
    let checker = std::thread::spawn(move || {
        let report = compare(&reader);
        // Nobody reads any more: whoever still writes shall not wait for that.
        let _ = reader.shutdown(std::net::Shutdown::Both);
        report
    });
    let sent = match bytes {
        Some(bytes) => pour(&stream, bytes),
        None => feed(&stream, &stop),
    };
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut report = checker
        .join()
        .map_err(|_| anyhow!("the checker panicked"))?;
    match sent {
        Ok(sent) if report.error.is_none() && sent != report.checked => {
            report.error = Some(format!("{sent} bytes sent, {} came back", report.checked));
        }
        Err(error) if report.error.is_none() => report.error = Some(format!("sending: {error}")),
        _ => {}
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn feed(mut stream: &TcpStream, stop: &AtomicBool) -> std::io::Result<u64> {
    let mut pattern = Pattern::new();
    let mut sent = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let chunk: Vec<u8> = pattern.by_ref().take(CHUNK).collect();
        stream.write_all(&chunk)?;
        sent += chunk.len() as u64;
        std::thread::sleep(PAUSE);
    }
    Ok(sent)
}

/// So many bytes without a pause.
fn pour(mut stream: &TcpStream, bytes: u64) -> std::io::Result<u64> {
    let mut pattern = Pattern::new();
    let mut left = bytes;
    while left > 0 {
        let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let chunk: Vec<u8> = pattern.by_ref().take(size).collect();
        stream.write_all(&chunk)?;
        left -= chunk.len() as u64;
    }
    Ok(bytes)
}

fn compare(mut stream: &TcpStream) -> StreamReport {
    let mut report = StreamReport {
        checked: 0,
        longest_stall_ms: 0.0,
        error: None,
    };
    let mut pattern = Pattern::new();
    let mut buffer = vec![0u8; 65536];
    let mut last = now_ns();
    // Longer than any failover; a connection that hangs for ever is broken too.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return report,
            Ok(length) => length,
            Err(error) => {
                report.error = Some(format!("receiving: {error}"));
                return report;
            }
        };
        let now = now_ns();
        report.longest_stall_ms = report
            .longest_stall_ms
            .max(now.saturating_sub(last) as f64 / 1e6);
        last = now;
        for byte in &buffer[..length] {
            if pattern.next() != Some(*byte) {
                report.error = Some(format!("byte {} is not the one sent", report.checked));
                return report;
            }
            report.checked += 1;
        }
    }
}

/// The known bytes: xorshift64, so that no shifted or repeated part looks right, and the mark now
/// and then.
struct Pattern {
    state: u64,
    at: u64,
}

impl Pattern {
    fn new() -> Self {
        Self {
            state: 0x9E37_79B9_7F4A_7C15,
            at: 0,
        }
    }
}

impl Iterator for Pattern {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let at = (self.at % MARKED) as usize;
        self.at += 1;
        match at < 8 * MARK.len() {
            true => MARK.get(at % MARK.len()).copied(),
            false => Some((self.state >> 32) as u8),
        }
    }
}

/// A running checker from the client to the target.
#[derive(Debug)]
pub(crate) struct Stream {
    client: Process,
    output: std::io::BufReader<std::process::ChildStdout>,
    _server: Process,
}

impl Stream {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        Self::start_at(lab, TARGETS[1])
    }

    /// To another address of the target.
    pub(crate) fn start_at(lab: &Lab, address: &str) -> Result<Self> {
        Self::start_with(lab, address, &[])
    }

    /// So many bytes to an address of the target and back, as fast as they go. An error if one is
    /// wrong or missing.
    pub(crate) fn transfer(lab: &Lab, address: &str, bytes: u64) -> Result<StreamReport> {
        let mut stream = Self::start_with(lab, address, &["--bytes", &bytes.to_string()])?;
        stream.client.wait(Duration::from_secs(60))?;
        let report = stream.finish()?;
        match &report.error {
            None if report.checked == bytes => Ok(report),
            _ => Err(anyhow!("{bytes} bytes to {address} and back: {report:?}")),
        }
    }

    fn start_with(lab: &Lab, address: &str, extra: &[&str]) -> Result<Self> {
        let to = match address.contains(':') {
            true => format!("[{address}]:{PORT}"),
            false => format!("{address}:{PORT}"),
        };
        let mut server = lab.helper(Place::Target, &["stream-echo", &to])?;
        wait_ready(&mut server)?;
        let words = [&["stream-check", &to], extra].concat();
        let mut client = lab.helper(Place::Client, &words)?;
        let output = wait_ready(&mut client)
            .with_context(|| format!("TCP from the client to {to} does not come up"))?;
        Ok(Self {
            client,
            output,
            _server: server,
        })
    }

    /// Whether it has ended before it was asked to: [`Self::finish`] says why.
    pub(crate) fn broken(&mut self) -> Result<bool> {
        Ok(self.client.ended()?.is_some())
    }

    /// Ends the stream and returns what was found.
    pub(crate) fn finish(mut self) -> Result<StreamReport> {
        drop(self.client.stdin());
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        serde_json::from_str(&text).with_context(|| format!("the checker said {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn right_bytes_are_counted_and_a_wrong_one_is_found() {
        let (client, mut server) = connected();
        let mut bytes: Vec<u8> = Pattern::new().take(5000).collect();
        server.write_all(&bytes).unwrap();
        drop(server);
        let report = compare(&client);
        assert_eq!((report.checked, report.error), (5000, None));

        let (client, mut server) = connected();
        bytes[4000] ^= 1;
        server.write_all(&bytes).unwrap();
        drop(server);
        let report = compare(&client);
        assert_eq!(report.checked, 4000);
        assert!(report.error.unwrap().contains("byte 4000"));
    }
}
