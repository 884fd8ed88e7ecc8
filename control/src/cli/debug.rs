//! `evergate debug`: what helps to find faults.

use super::args::{NodeArgs, Switch};
use super::status::keylog_line;
use super::{client, colour, print, print_done, print_json};

pub(super) async fn keylog(node: &NodeArgs, switch: Option<Switch>) -> anyhow::Result<()> {
    let client = client(node)?;
    if let Some(switch) = switch {
        let done = client.keylog(switch == Switch::On).await?;
        return print_done(node, &done);
    }
    let keylog = client.status().await?.keylog;
    if node.json {
        return print_json(&keylog);
    }
    let text = match &keylog {
        Some(keylog) => {
            let (text, look) = keylog_line(keylog);
            look.paint(&text, colour())
        }
        None => "keys are not written: the node was not started with `--keylog DIR`".to_owned(),
    };
    print(&format!("{text}\n"))?;
    Ok(())
}
