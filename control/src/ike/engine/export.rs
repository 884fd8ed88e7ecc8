//! Keys of IKE SAs for their owner, so that a recording of their messages can be read
//! ([`Settings::export_keys`](super::super::Settings::export_keys)). Those of child SAs it has anyway.

use super::super::crypto::{IkeCipher, Secret};
use super::super::event::Event;
use super::super::state::Core;
use super::super::task::Cx;
use super::Engine;

/// What protects the messages of an IKE SA. Whoever has it can read them, and forge them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeSaKeys {
    pub spi_i: u64,
    pub spi_r: u64,
    pub cipher: IkeCipher,
    /// SK_ei: key, then salt.
    pub sk_ei: Secret,
    /// SK_er: key, then salt.
    pub sk_er: Secret,
}

impl Core {
    /// Tells the owner the keys that a message is about to be sealed with or was opened with, once,
    /// and only if it wants them. Before that they are those of anyone who has sent a KE payload.
    pub(in super::super) fn export_keys(&mut self, cx: &mut Cx<'_>) {
        if cx.settings.export_keys && self.keys.as_ref().is_some_and(|keys| !keys.exported) {
            cx.events.extend(self.exported());
        }
    }

    fn exported(&mut self) -> Option<Event> {
        let keys = self.keys.as_mut()?;
        keys.exported = true;
        let (ours, theirs) = (keys.seal.material(), keys.open.material());
        let (sk_ei, sk_er) = match self.initiator {
            true => (ours, theirs),
            false => (theirs, ours),
        };
        let keys = Box::new(IkeSaKeys {
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            cipher: keys.seal.cipher(),
            sk_ei,
            sk_er,
        });
        Some(Event::Keys { id: self.id, keys })
    }
}

impl Engine {
    /// Begins or ends to tell the keys of IKE SAs ([`Event::Keys`]): at once those of all that are
    /// there, later those of each new one.
    pub fn set_export_keys(&mut self, on: bool) {
        self.settings.export_keys = on;
        if !on {
            return;
        }
        let mut cores: Vec<&mut Core> = self.sas.values_mut().map(|e| &mut e.sa.core).collect();
        cores.sort_by_key(|core| core.id);
        self.events
            .extend(cores.into_iter().filter_map(Core::exported));
    }
}
