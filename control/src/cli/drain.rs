//! `evergate drain`: a gateway lets go of its clients.

use std::time::Duration;

use anyhow::bail;

use super::args::NodeArgs;
use super::{client, print_done};
use crate::api::model::Done;

/// How often the node is asked how many sessions are left.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn command(node: &NodeArgs, undo: bool, wait: bool) -> anyhow::Result<()> {
    let client = client(node)?;
    let done = client.drain(undo).await?;
    if !wait {
        return print_done(node, &done);
    }
    loop {
        match client.status().await?.drain {
            Some(drain) if drain.sessions == 0 => {
                return print_done(node, &Done::new("drained: no session is left"));
            }
            Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            None => bail!("somebody has ended the draining: clients are taken again"),
        }
    }
}
