//! `evergate sa`: security associations.

use std::io::Read as _;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::args::{NodeArgs, SaCommand};
use super::number::{bytes, count};
use super::table::{self, Cell, Look};
use super::{client, colour, print, print_done, print_json};
use crate::api::Client;
use crate::api::model::{Direction, Done, SaView, SaWords};

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
        SaCommand::Add { words } => add(&client, whole(SaWords(words))?).await?,
        SaCommand::Delete { spi } => client.sa_delete(spi).await?,
        SaCommand::Flush => client.sa_flush().await?,
    };
    print_done(node, &done)
}

/// The words of the command line, or those of standard input, which may have several SAs.
fn whole(words: SaWords) -> anyhow::Result<Vec<SaWords>> {
    if *words != ["-"] {
        return Ok(vec![words]);
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read the SA from standard input")?;
    Ok(several(&text))
}

/// SAs with empty lines between them; one without words if there is none.
fn several(text: &str) -> Vec<SaWords> {
    let mut list = vec![SaWords::default()];
    for line in text.lines() {
        let words = line.split_whitespace().map(str::to_owned);
        match (line.trim(), list.last_mut()) {
            ("", Some(last)) if last.is_empty() => {}
            ("", _) | (_, None) => list.push(SaWords::default()),
            (_, Some(last)) => last.0.extend(words),
        }
    }
    if list.len() > 1 && list.last().is_some_and(|last| last.is_empty()) {
        list.pop();
    }
    list
}

/// Adds one after the other, up to the first that is refused.
async fn add(client: &Client, list: Vec<SaWords>) -> anyhow::Result<Done> {
    let count = list.len();
    let mut done = Done::default();
    for (number, words) in (1..).zip(list) {
        let added = client.sa_add(words).await;
        done = match count {
            1 => added?,
            _ => added.with_context(|| {
                format!("number {number} of {count} was not added, those before it were")
            })?,
        };
    }
    Ok(match count {
        1 => done,
        _ => Done::new(format!("added {count} SAs or pairs of them")),
    })
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

    #[test]
    fn an_empty_line_ends_an_sa() {
        let words =
            |text: &str| -> Vec<String> { several(text).iter().map(|sa| sa.join(" ")).collect() };
        assert_eq!(words("in spi 1\n key 2\nout\n"), ["in spi 1 key 2 out"]);
        assert_eq!(
            words("\nin a\n\n \nin b\nout c\n\n"),
            ["in a", "in b out c"]
        );
        assert_eq!(words(""), [""], "which is refused");
        assert_eq!(words("\n \n"), [""]);
    }
}
