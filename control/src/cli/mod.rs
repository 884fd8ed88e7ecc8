//! Room `cli`: the commands. Except for `run` and the checks of files, they only speak to a running
//! node's API.

mod args;
mod bench;
mod check;
mod debug;
mod drain;
mod events;
mod front;
mod logging;
mod number;
mod parties;
mod run;
mod sa;
mod socket;
mod status;
mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use rand::Rng as _;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::api::Client;
use crate::api::client::ClientError;
use crate::api::model::Done;
pub(crate) use events::render as show_events;
pub(crate) use sa::render as show_sas;
pub(crate) use status::render as show_status;

use args::{BenchCommand, Cli, Command, DebugCommand, NodeArgs, PolicyCommand, SessionCommand};

/// The command was refused, or a file has errors.
const EXIT_FAILED: u8 = 1;
/// No node was reached: none runs, it is frozen, or the socket may not be used. (2 is a mistake in
/// the command line.)
const EXIT_UNREACHED: u8 = 3;

/// Obeys the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let serves = matches!(cli.command, Command::Run { .. });
    let log = cli.log.unwrap_or_else(|| logging::default_filter(serves));
    logging::init(log);
    match obey(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // Whoever stopped reading has what he wants.
            if is_broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            eprintln!("evergate: {error:#}");
            let unreached = error
                .downcast_ref::<ClientError>()
                .is_some_and(|e| !e.reached())
                || error.is::<socket::NoSocket>();
            ExitCode::from(if unreached {
                EXIT_UNREACHED
            } else {
                EXIT_FAILED
            })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn obey(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { config, keylog } => run::run(&config, keylog).map(|()| ExitCode::SUCCESS),
        Command::Notary { config } => crate::node::notary::run(&config).map(|()| ExitCode::SUCCESS),
        Command::Check { config, json } => check::node(&config, json),
        Command::TicketKey => ticket_key().map(|()| ExitCode::SUCCESS),
        Command::Policy {
            command: PolicyCommand::Check { file, json },
        } => check::policy(&file, json),
        Command::Bench {
            command: BenchCommand::Handshakes(args),
        } => bench::handshakes(args),
        Command::Bench {
            command: BenchCommand::Clients(args),
        } => bench::clients(args),
        Command::Bench {
            command: BenchCommand::Send(args),
        } => bench::send(args),
        Command::Bench {
            command: BenchCommand::Receive(args),
        } => bench::receive(&args),
        remote => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(ask(remote)).map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Writes a new random key.
fn ticket_key() -> anyhow::Result<()> {
    let mut key = Zeroizing::new([0_u8; 32]);
    rand::rng().fill_bytes(&mut *key);
    let digits: Zeroizing<String> =
        Zeroizing::new(key.iter().map(|b| format!("{b:02x}")).collect());
    print(&format!("{}\n", *digits))?;
    Ok(())
}

/// The commands that speak to a running node.
async fn ask(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Status { node, watch } => status::command(&node, watch).await,
        Command::Events {
            node,
            since,
            follow,
        } => events::command(&node, since, follow).await,
        Command::Sa { node, command } => sa::command(&node, command).await,
        Command::Policy {
            command: PolicyCommand::Reload { node },
        } => {
            let done = client(&node)?.policy_reload().await?;
            print_done(&node, &done)
        }
        Command::Drain { node, undo, wait } => drain::command(&node, undo, wait).await,
        Command::Associate { node, address } => {
            let done = client(&node)?.associate(address).await?;
            print_done(&node, &done)
        }
        Command::Session {
            command: SessionCommand::Delete { node, peer },
        } => {
            let done = client(&node)?.session_delete(&peer).await?;
            print_done(&node, &done)
        }
        Command::Debug {
            command: DebugCommand::Keylog { node, switch },
        } => debug::keylog(&node, switch).await,
        Command::Run { .. }
        | Command::Notary { .. }
        | Command::Check { .. }
        | Command::Bench { .. }
        | Command::TicketKey
        | Command::Policy {
            command: PolicyCommand::Check { .. },
        } => {
            unreachable!("these speak to no node")
        }
    }
}

fn client(node: &NodeArgs) -> Result<Client, socket::NoSocket> {
    let path = match &node.socket {
        Some(path) => path.clone(),
        None => socket::find()?,
    };
    Ok(Client::new(path))
}

/// Writes all of it at once, so that a watcher never sees half a picture.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))?;
    Ok(())
}

fn print_json_line<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string(value)?))?;
    Ok(())
}

fn print_done(node: &NodeArgs, done: &Done) -> anyhow::Result<()> {
    if node.json {
        return print_json(done);
    }
    let mut text = format!("{}\n", done.text);
    for note in &done.notes {
        text.push_str(note);
        text.push('\n');
    }
    print(&text)?;
    Ok(())
}

/// Whether to colour what goes to standard output (<https://no-color.org>).
fn colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    io::stdout().is_terminal() && !refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn documented_lines_are_understood() {
        for line in [
            "evergate run -c node.toml",
            "evergate --log debug run --config node.toml",
            "evergate check -c node.toml --json",
            "evergate ticket-key",
            "evergate status",
            "evergate status --json --socket /run/evergate/gw-a.sock",
            "evergate status --watch",
            "evergate status --watch=0.2",
            "evergate events --since 12 --follow --json",
            "evergate policy check policy.conf",
            "evergate policy reload --socket s",
            "evergate sa list --json",
            "evergate sa add dir in spi 0x100 aead -1 mode tunnel",
            "evergate sa add -",
            "evergate sa --socket s add a b",
            "evergate sa delete 0x100",
            "evergate sa flush",
            "evergate drain --socket s",
            "evergate drain --wait --json",
            "evergate drain --undo",
            "evergate session delete client-1.example",
            "evergate bench handshakes --remote 192.0.2.1 --remote-id gw.example --local \
             192.0.2.7,192.0.2.8 --psk-file key --count 5 --ike aes256gcm16-prfsha256-x25519",
            "evergate bench send --interface eth0 --next-hop 02:00:00:00:00:01 --from 10.0.0.2 \
             --to 10.0.0.1 --size imix --tunnels 1000 --flows 4 --rate 1000 --seconds 0.5",
            "evergate bench send --interface eth0 --next-hop 02:00:00:00:00:01 --from 10.0.0.2 \
             --to 10.0.0.1 --spi 0x1000 --outer-from 192.0.2.2 --outer-to 192.0.2.1",
            "evergate bench receive --interface eth0 --json",
            "evergate run -c node.toml --keylog /run/evergate/keys",
            "evergate debug keylog",
            "evergate debug keylog on --json",
            "evergate debug keylog off",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        for line in [
            "evergate",
            "evergate run",
            "evergate sa add",
            "evergate sa delete x",
            "evergate debug keylog maybe",
            "evergate drain --undo --wait",
            "evergate bench send --interface eth0 --next-hop 02:00 --from 10.0.0.2 --to 10.0.0.1",
            "evergate bench send --interface eth0 --next-hop 02:00:00:00:00:01 --from 10.0.0.2 \
             --to 10.0.0.1 --spi 0x1000",
            "evergate bench send --interface eth0 --next-hop 02:00:00:00:00:01 --from 10.0.0.2 \
             --to 10.0.0.1 --tunnels 0",
        ] {
            parse(line).map(|_| ()).unwrap_err();
        }
    }
}
