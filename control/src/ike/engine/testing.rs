//! What tests do to an engine that no owner can: look inside, and say what a peer could say that has
//! keys but no manners.

use std::net::IpAddr;
use std::time::Instant;

use zeroize::Zeroizing;

use super::super::event::SaId;
use super::super::life::Busy;
use super::super::payload::header::Header;
use super::super::payload::{sk, skf};
use super::super::settings::NoHooks;
use super::super::state::Core;
use super::super::task::Request;
use super::Engine;

impl Engine {
    /// The cookie that a first message is asked for.
    pub(crate) fn cookie(
        &mut self,
        now: Instant,
        remote: IpAddr,
        spi_i: u64,
        ni: &[u8],
    ) -> Vec<u8> {
        self.cookies.make(now, &mut *self.rng, remote, spi_i, ni)
    }

    /// Has one side believe for ever that it is making a child SA.
    pub(crate) fn occupy(&mut self, id: SaId) {
        if let Some(entry) = self.sas.get_mut(&id) {
            entry.sa.core.busy = Busy::Create;
        }
    }

    /// How many exchanges of a session wait for their turn.
    pub(crate) fn waiting(&self, id: SaId) -> Option<usize> {
        Some(self.sas.get(&id)?.sa.waiting())
    }

    /// Starts any exchange, so that tests can say what no task says.
    pub(crate) fn start(&mut self, now: Instant, id: SaId, task: Box<dyn Request>) {
        self.with(id, now, &mut NoHooks, |sa, cx| sa.start(task, cx));
    }

    /// Changes what is inside a protected message that this engine has sent, and seals it again:
    /// what a peer could say that has keys but no manners.
    pub(crate) fn tamper(
        &self,
        message: &[u8],
        change: impl FnOnce(&mut u8, &mut Vec<u8>),
    ) -> Option<Vec<u8>> {
        let header = Header::parse(message).ok()?;
        let ours = if header.initiator {
            header.spi_i
        } else {
            header.spi_r
        };
        let sa = &self.sas.get(self.by_spi.get(&ours)?)?.sa;
        let key = &sa.core.keys.as_ref()?.seal;
        let (mut first, mut plain) = sk::open(&header, message, key).ok()?;
        change(&mut first, &mut plain);
        sk::seal(header, first, plain, key, u64::MAX).ok()
    }

    /// What an IKE SA knows, so that tests can speak for it.
    pub(crate) fn core(&self, id: SaId) -> Option<&Core> {
        Some(&self.sas.get(&id)?.sa.core)
    }

    /// Seals a protected message that this engine has sent again as one of another exchange.
    pub(crate) fn retitle(&self, message: &[u8], exchange: u8) -> Option<Vec<u8>> {
        let mut header = Header::parse(message).ok()?;
        let sa = &self.sas.get(self.by_spi.get(&header.spi_i)?)?.sa;
        let key = &sa.core.keys.as_ref()?.seal;
        let (first, plain) = sk::open(&header, message, key).ok()?;
        header.exchange = exchange;
        sk::seal(header, first, plain, key, u64::MAX).ok()
    }

    /// Seals the parts of a message that this engine has sent as one.
    pub(crate) fn join(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let header = Header::parse(parts.first()?).ok()?;
        let sa = &self.sas.get(self.by_spi.get(&header.spi_i)?)?.sa;
        let key = &sa.core.keys.as_ref()?.seal;
        let mut whole = Zeroizing::new(Vec::new());
        let mut kind = 0;
        for part in parts {
            let (first, plain) = skf::open(&header, part, key).ok()?;
            kind = kind.max(first);
            whole.extend_from_slice(&plain);
        }
        sk::seal(header, kind, whole, key, u64::MAX - 1).ok()
    }
}
