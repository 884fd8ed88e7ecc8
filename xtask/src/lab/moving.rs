//! A client that goes from one network to another.

use super::topology::{CLIENT_ELSEWHERE, CLIENT_OUTSIDE};
use super::{Lab, Place};
use anyhow::Result;

impl Lab {
    /// The client's outside address is replaced by one of another network, and its default route with
    /// it.
    pub(crate) fn client_moves_away(&self) -> Result<()> {
        let router = ["ip", "addr", "replace", "203.0.113.1/24", "dev", "client"];
        self.exec(Place::Wan, &router)?;
        self.replace_address([CLIENT_OUTSIDE, CLIENT_ELSEWHERE], "203.0.113.1")
    }

    /// The counterpart.
    pub(crate) fn client_moves_back(&self) -> Result<()> {
        self.replace_address([CLIENT_ELSEWHERE, CLIENT_OUTSIDE], "198.51.100.1")
    }

    fn replace_address(&self, [old, new]: [&str; 2], router: &str) -> Result<()> {
        let script = format!(
            "set -e\nip addr add {new}/24 dev out0\nip route replace default via {router}\n\
             ip addr del {old}/24 dev out0\n"
        );
        self.exec(Place::Client, &["sh", "-c", &script]).map(drop)
    }

    /// No NAT any more, and nothing that is dropped.
    pub(crate) fn no_nat(&self) -> Result<()> {
        self.exec(Place::Wan, &["nft", "flush", "ruleset"])
            .map(drop)
    }
}
