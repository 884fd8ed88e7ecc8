//! `evergate sa`: security associations.

use std::io::Read as _;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::args::{NodeArgs, SaCommand};
use super::number::{bytes, count};
use super::table::{self, Cell, Look};
use super::{client, colour, print, print_done, print_json};
use crate::api::model::{Direction, SaView, SaWords};

pub(super) async fn command(node: &NodeArgs, command: SaCommand) -> anyhow::Result<()> {
    let client = client(node)?;
    let done = match command {
        SaCommand::List => {
            let list = client.sa_list().await?;
            if node.json {
                return print_json(&list);
            }
            print(&render(&list, colour()))?;
            return Ok(());
        }
        SaCommand::Add { words } => client.sa_add(whole(SaWords(words))?).await?,
        SaCommand::Delete { spi } => client.sa_delete(spi).await?,
        SaCommand::Flush => client.sa_flush().await?,
    };
    print_done(node, &done)
}

/// The words of the command line, or those of standard input.
fn whole(words: SaWords) -> anyhow::Result<SaWords> {
    if *words != ["-"] {
        return Ok(words);
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read the SA from standard input")?;
    Ok(SaWords(
        text.split_whitespace().map(str::to_owned).collect(),
    ))
}

pub(crate) fn render(list: &[SaView], colour: bool) -> String {
    if list.is_empty() {
        return "no SAs\n".to_owned();
    }
    let mut rows = vec![table::head(&[
        "dir", "SPI", "local", "remote", "cipher", "origin", "packets", "bytes", "traffic",
    ])];
    rows.extend(list.iter().map(|sa| {
        let direction = match sa.direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        let traffic = if sa.selectors.is_empty() {
            "any".to_owned()
        } else {
            sa.selectors.join(" ")
        };
        vec![
            Cell::new(direction),
            Cell::new(sa.spi.to_string()).look(Look::Bold),
            Cell::new(sa.local.to_string()),
            Cell::new(sa.remote.to_string()),
            Cell::new(&sa.cipher),
            Cell::new(&sa.origin),
            Cell::new(count(sa.packets)),
            Cell::new(bytes(sa.bytes)),
            Cell::new(traffic),
        ]
    }));
    let mut out = String::new();
    table::write(&mut out, 0, &rows, colour);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn the_list_looks_like_this() {
        assert_eq!(
            render(&sample::sas(), false),
            include_str!("testdata/sas.txt")
        );
        assert_eq!(render(&[], false), "no SAs\n");
    }
}
