//! The relay of IKE by address translation, in the XDP programs.

use std::net::IpAddr;

use evergate_common::translation::{TOWARD_SLOTS, Translation};

use super::handle::Dataplane;
use super::loader::{Answers, Attached, Inside, LoadError, XdpMode};

/// How IKE is relayed by address translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslationOptions {
    /// The outside address, which edges share.
    pub shared: IpAddr,
    /// What stands for this edge at authorities: answers come from there.
    pub answers: Vec<IpAddr>,
    /// The interface that they come by.
    pub interface: String,
}

impl TranslationOptions {
    pub(super) fn addresses(&self) -> Translation {
        Translation::new(self.shared, &self.answers)
    }

    /// The program of the inside interface, which answers may come by.
    pub(super) fn inside(&self, name: &str) -> Result<Inside, LoadError> {
        if name != self.interface {
            return Inside::load();
        }
        let mut program = Inside::load_translating()?;
        program.set_translation(self.addresses())?;
        Ok(program)
    }

    /// The program of another interface that answers come by, attached. `inside`: the interface that has a
    /// program which sees to it.
    pub(super) fn elsewhere(
        &self,
        inside: Option<&str>,
        attached: &mut Vec<(String, Attached)>,
    ) -> Result<Option<Answers>, LoadError> {
        if inside == Some(self.interface.as_str()) {
            return Ok(None);
        }
        let mut program = Answers::load(self.addresses())?;
        let how = program.attach(&self.interface, XdpMode::Auto)?;
        attached.push((self.interface.clone(), how));
        Ok(Some(program))
    }
}

impl Dataplane {
    /// From now on the messages of a slot of [`TOWARD_SLOTS`] go where `to` says, or nowhere.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn translate(&mut self, to: impl Fn(u32) -> Option<IpAddr>) -> Result<(), LoadError> {
        let Some(outside) = &mut self.outside else {
            return Ok(());
        };
        (0..TOWARD_SLOTS).try_for_each(|slot| outside.set_toward(slot, to(slot)))
    }
}
