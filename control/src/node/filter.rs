//! The packet filter of a gateway, as its configuration has it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;
use rtnetlink::Handle;

use super::config;
use super::core::Node;
use crate::api::model::FilterClass;
use crate::dataplane::loader::{LoadError, Outside};
use crate::dataplane::net::links;
use crate::dataplane::{Dataplane, Filter};
use crate::ike::Identity;
use crate::sadb::SessionId;

/// Puts classes and users into the program. What is the node's own address is asked of the kernel now.
pub(super) async fn set_up(
    dataplane: &mut Dataplane,
    filter: &config::Filter,
    handle: &Handle,
) -> Result<()> {
    let own = links::addresses(handle).await?;
    dataplane.set_filter_own(own.into_iter().map(|own| own.address))?;
    for (name, spec) in &filter.classes {
        dataplane.set_class(name, spec)?;
    }
    for (user, class) in &filter.users {
        dataplane.set_user(*user, class)?;
    }
    // Last: nobody has it who has a class of his own.
    dataplane.set_default_class(filter.default.as_deref())?;
    Ok(())
}

/// The same on a front, which has nothing but the program.
pub(super) fn apply(
    filter: &mut Filter,
    outside: &mut Outside,
    spec: &config::Filter,
    own: BTreeSet<IpAddr>,
) -> Result<(), LoadError> {
    filter.set_own(outside, own)?;
    for (name, class) in &spec.classes {
        filter.set_class(outside, name, class)?;
    }
    for (user, class) in &spec.users {
        filter.set_user(outside, *user, class)?;
    }
    filter.set_default(outside, spec.default.as_deref())
}

/// What it has done, by class.
pub(super) fn view(node: &Node) -> Vec<FilterClass> {
    // Without counters a status is still of use.
    let hits = node.dataplane.class_hits().unwrap_or_default();
    let class = |hits: crate::dataplane::ClassHits| FilterClass {
        name: hits.name,
        direct: hits.direct,
        refused: hits.refused,
        service: hits.service,
    };
    hits.into_iter().map(class).collect()
}

impl Node {
    /// The class that a client has while it has a session.
    fn class_of(&self, client: &Identity) -> Option<String> {
        match &self.edge {
            Some(edge) => edge.class_of(client),
            None => self.answers.peer(client)?.class.clone(),
        }
    }

    /// The client of a pair of SAs has its class where the pair leads; or the pair is no more.
    pub(super) fn classify(&mut self, id: SessionId) -> Result<(), LoadError> {
        if !self.dataplane.has_filter() {
            return Ok(());
        }
        let user = self.table.live.get(&id).and_then(|live| {
            let class = self.class_of(&live.peer)?;
            Some((live.peer.clone(), live.spec.outside_remote, class))
        });
        let at = user.as_ref().map(|(_, at, class)| (*at, class.as_str()));
        let known = self.dataplane.set_session_class(id, at)?;
        if let Some((client, _, class)) = user.filter(|_| !known) {
            tracing::warn!(
                "{client} is of class `{class}`, which this node's [filter] does not have"
            );
        }
        Ok(())
    }
}
