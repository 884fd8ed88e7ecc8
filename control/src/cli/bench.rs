//! `evergate bench`: measurements that need no lab.

use std::io::BufRead;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use zeroize::Zeroizing;

use super::args::{Clients, Handshakes, ReceiveArgs, SendArgs};
use super::{EXIT_FAILED, print, print_json, print_json_line};
use crate::esp::{Aead, Backend, Cipher, Key, OutboundSa, OuterConfig, Salt, decode_hex};
use crate::ike::{EspProposal, IkeProposal};
use crate::load::herd::{self, Herd};
use crate::load::packets::{self, Received, Seal, Sent};
use crate::load::{self, Credentials, Plan, Report};
use crate::sadb::HIGHEST_SPI;

/// Makes sessions, and tells how many a second.
pub(super) fn handshakes(args: Handshakes) -> Result<ExitCode> {
    let credentials = match (&args.psk_file, &args.credentials, &args.ca) {
        (Some(file), ..) => Credentials::psk(file)?,
        (None, Some(file), Some(ca)) => Credentials::certificates(file, ca)?,
        _ => anyhow::bail!("expected --psk-file, or --credentials with --ca"),
    };
    let or = |proposals: Vec<IkeProposal>| match proposals.is_empty() {
        true => vec![IkeProposal::default()],
        false => proposals,
    };
    let plan = Plan {
        remote: args.remote,
        remote_id: args.remote_id,
        local: args.local,
        identity: args.identity,
        credentials,
        count: args.count,
        ike_proposals: or(args.ike),
        esp_proposals: match args.esp.is_empty() {
            true => vec![EspProposal::default()],
            false => args.esp,
        },
        leave: args.leave,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(load::run(plan))?;
    match args.json {
        true => print_json(&report)?,
        false => print(&shown(&report))?,
    }
    Ok(match report.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_FAILED),
    })
}

/// Keeps the sessions of many clients, and tells how each fares.
pub(super) fn clients(args: Clients) -> Result<ExitCode> {
    let first = args.local.to_bits();
    let last = first.checked_add(u32::from(args.count) - 1);
    let last = last.with_context(|| {
        format!(
            "there are no {} addresses from {} on",
            args.count, args.local
        )
    })?;
    let herd = Herd {
        sessions: Plan {
            remote: args.remote.into(),
            remote_id: args.remote_id,
            local: (first..=last).map(|a| Ipv4Addr::from(a).into()).collect(),
            identity: args.identity,
            credentials: Credentials::psk(&args.psk_file)?,
            count: usize::from(args.count),
            ike_proposals: vec![IkeProposal::default()],
            esp_proposals: vec![EspProposal::default()],
            leave: true,
        },
        to: args.to,
        rate: args.rate,
        repeat: args.repeat,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let words = std::io::BufReader::new(std::io::stdin());
    runtime.block_on(herd::run(herd, words, print_json_line))?;
    Ok(ExitCode::SUCCESS)
}

fn shown(report: &Report) -> String {
    let Report {
        established,
        failed,
        failure,
        seconds,
        per_second,
        median_ms,
        p99_ms,
        worst_ms,
        sent_each,
    } = report;
    let failures = match failure {
        Some(why) => format!("{failed} failed, the first one because: {why}\n"),
        None => String::new(),
    };
    format!(
        "{established} sessions in {seconds:.2} s: {per_second:.0} handshakes a second\n\
         a handshake took {median_ms:.1} ms (median), {p99_ms:.1} ms (99 %), {worst_ms:.1} ms \
         (worst), and {sent_each:.2} datagrams of the client\n{failures}"
    )
}

/// Sends test packets, and tells how many.
pub(super) fn send(args: SendArgs) -> Result<ExitCode> {
    let seal = match (args.spi, args.outer_from, args.outer_to) {
        (Some(spi), Some(from), Some(to)) => {
            let last = spi.0.checked_add(u32::from(args.tunnels) - 1);
            ensure!(
                last.is_some_and(|last| last <= HIGHEST_SPI),
                "there are no {} SPIs from {spi} on",
                args.tunnels
            );
            let spis = spi.0..;
            let sas = spis.zip(0..args.tunnels).map(|(spi, _)| {
                let (key, salt) = secret(&mut std::io::stdin().lock())?;
                let aead = Aead::new(Backend::default(), Cipher::Aes256Gcm, &key)?;
                Ok(OutboundSa::new(spi, aead, salt, true, args.after))
            });
            let sas = sas.collect::<Result<_>>()?;
            let outer = OuterConfig::new(from.into(), to.into(), None);
            Some(Seal { sas, outer })
        }
        _ => None,
    };
    let sent = packets::send(packets::Plan {
        interface: args.interface,
        next_hop: args.next_hop,
        from: args.from,
        to: args.to,
        sizes: args.size,
        tunnels: args.tunnels,
        flows: args.flows,
        rate: args.rate,
        time: args.seconds,
        run: args.run,
        seal,
    })?;
    match args.json {
        true => print_json(&sent)?,
        false => {
            let Sent {
                sent,
                seconds,
                per_second,
                ..
            } = sent;
            print(&format!(
                "{sent} packets in {seconds:.2} s: {per_second:.0} a second\n"
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line with a key and its salt.
fn secret(lines: &mut impl BufRead) -> Result<(Key, Salt)> {
    let mut line = Zeroizing::new(String::new());
    lines.read_line(&mut line)?;
    let secret = decode_hex(line.trim()).context("key and salt on standard input")?;
    let (key, salt) = secret
        .split_last_chunk::<4>()
        .context("expected a key followed by four bytes of salt for each tunnel, a line each")?;
    Ok((Key::new(key)?, Salt::from(*salt)))
}

/// Counts test packets; says `ready` when it does.
pub(super) fn receive(args: &ReceiveArgs) -> Result<ExitCode> {
    packets::receive(&args.interface, args.seconds, |report| match report {
        Some(received) if args.json => print_json_line(received),
        Some(received) => Ok(print(&arrived(received))?),
        None => Ok(print("ready\n")?),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn arrived(received: &Received) -> String {
    let Received {
        run,
        received,
        tunnels,
        flows,
        duplicated,
        reordered,
        missing,
        seconds,
        latency,
    } = received;
    format!(
        "run {run}: {received} packets of {flows} flows in {tunnels} tunnels in {seconds:.2} s, {missing} missing \
         among them, {reordered} late in their flow, {duplicated} twice\n\
         one way: {:.1} µs (median), {:.1} µs (99 %), {:.1} µs (99.9 %), {:.1} µs (worst)\n",
        latency.p50_us, latency.p99_us, latency.p999_us, latency.worst_us
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line() {
        let text = format!("{}\n{}\nff\n", "05".repeat(36), "06".repeat(36));
        let mut lines = text.as_bytes();
        for byte in [5, 6] {
            let (key, salt) = secret(&mut lines).unwrap();
            assert_eq!((key.expose(), salt.expose()), (&[byte; 32][..], &[byte; 4]));
        }
        assert!(secret(&mut lines).is_err(), "too short");
        assert!(secret(&mut lines).is_err(), "the end");
    }
}
