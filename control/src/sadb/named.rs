//! Sessions in sets, found by their names.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{SessionId, SessionSpec};

/// A session that is as good as its name: in a set it takes half the room of a map's entry.
#[derive(Clone, Debug)]
pub struct Named(pub Arc<SessionSpec>);

impl Borrow<SessionId> for Named {
    fn borrow(&self) -> &SessionId {
        &self.0.id
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Named {}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}
