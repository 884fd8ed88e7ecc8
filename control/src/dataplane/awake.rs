//! What only a session with traffic has: its SAs and the header made ready for them. One without has fallen
//! asleep and takes little more memory than its description, from which it wakes.

use std::time::Instant;

use super::session::{Session, SessionError};
use super::tenure::Tenure;
use crate::esp::{Backend, InboundSa, OutboundSa, Outer, OuterConfig};
use crate::sadb::{SessionSpec, UdpEncap};

/// The SAs of a session whose packets come or go. Boxed as a whole, so that moving a session leaves no copies
/// of keys behind.
pub(super) struct Awake {
    pub(super) inbound: Option<InboundSa>,
    pub(super) outbound: Option<OutboundSa>,
    pub(super) outer: Outer,
    /// When its peer moved last.
    pub(super) moved: Option<Instant>,
    /// When its client last said something about the path.
    pub(super) path_heard: Option<Instant>,
    /// Of a shared session: the numbers that are this node's now.
    pub(super) tenure: Option<Tenure>,
    /// When numbers were asked for last, because something authentic came without.
    pub(super) claimed: Option<Instant>,
    /// Packets when it was last looked whether the session rests.
    packets_then: u64,
}

/// Where SAs that sleep go on: what no description says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// The highest sequence number that was seen.
    pub(super) opened: u64,
    /// The last one that was used: never again one of these.
    pub(super) sealed: u64,
}

impl Session {
    /// What carries its packets. None in a worker that does not have its SAs. Allocates if it sleeps, and when
    /// its keys are used for the first time since.
    #[inline]
    pub(super) fn awake(&mut self) -> Option<&mut Awake> {
        if self.awake.is_none() {
            self.wake();
        }
        self.awake.as_deref_mut()
    }

    #[cold]
    #[inline(never)]
    fn wake(&mut self) {
        if self.here {
            // Made from the same description once before, which found nothing wrong with it.
            self.awake = self.made().ok().map(Box::new);
        }
    }

    fn made(&self) -> Result<Awake, SessionError> {
        let spec = &self.spec;
        let (mut inbound, mut outbound) = sas(spec, self.backend)?;
        if let Some(sa) = &mut inbound {
            sa.resume(self.rest.opened);
        }
        if let Some(sa) = &mut outbound {
            sa.skip_to(self.rest.sealed);
        }
        if spec.shared {
            // It has no numbers but those that it is lent.
            inbound.iter_mut().for_each(|sa| sa.set_limit(0));
            outbound.iter_mut().for_each(|sa| sa.set_limit(0));
        }
        let packets = packets(inbound.as_ref(), outbound.as_ref());
        Ok(Awake {
            inbound,
            outbound,
            outer: Outer::new(&self.outer_config())?,
            moved: None,
            path_heard: None,
            tenure: None,
            claimed: None,
            packets_then: packets.wrapping_sub(1),
        })
    }

    /// The SA that receives, if it is here.
    #[inline]
    pub(super) fn inbound(&mut self) -> Option<&mut InboundSa> {
        self.awake()?.inbound.as_mut()
    }

    /// The SA that sends, if it is here.
    #[inline]
    pub(super) fn outbound(&mut self) -> Option<&mut OutboundSa> {
        self.awake()?.outbound.as_mut()
    }

    /// Goes on with numbers that are so much higher, unless that would use up half of those that are left: it
    /// is the peer who says so, and it may say so again.
    pub(super) fn skip_ahead(&mut self, by: u64) {
        if let Some(sa) = self.outbound()
            && by <= sa.remaining() / 2
        {
            sa.skip_to(sa.sequence().saturating_add(by));
        }
    }

    /// The SPI of the SA that sends, if it is here.
    pub(super) fn sends_with(&self) -> Option<u32> {
        let outbound = self.spec.outbound.as_ref().filter(|_| self.here);
        outbound.map(|sa| sa.spi)
    }

    /// The sequence number that it sent last.
    pub(super) fn sealed(&self) -> u64 {
        let awake = self.awake.as_ref();
        let outbound = awake.and_then(|awake| awake.outbound.as_ref());
        outbound.map_or(self.rest.sealed, OutboundSa::sequence)
    }

    /// Packets that the SA that receives has opened since it woke.
    pub(super) fn opened(&self) -> u64 {
        let awake = self.awake.as_ref();
        let inbound = awake.and_then(|awake| awake.inbound.as_ref());
        inbound.map_or(0, InboundSa::packets)
    }

    /// Bytes that the outer headers take.
    pub(super) fn header_len(&self) -> usize {
        self.outer_config().header_len()
    }

    /// The longest inner packet in a packet of `mtu` bytes.
    pub(super) fn inner_mtu(&self, mtu: usize) -> usize {
        Outer::inner_mtu_behind(self.header_len(), mtu)
    }

    /// The outer header toward where the peer is now.
    fn outer_config(&self) -> OuterConfig {
        let encap = self.spec.encap.map(|encap| UdpEncap {
            local_port: self.port().unwrap_or(encap.local_port),
            remote_port: self.peer_at().port(),
        });
        OuterConfig::new(self.spec.outside_local, self.peer_at().ip(), encap)
    }

    /// Whether its SAs take no memory.
    #[cfg(test)]
    pub(super) fn sleeps(&self) -> bool {
        self.awake.is_none()
    }

    /// Falls asleep if its SAs have carried nothing since the last look.
    pub(super) fn look(&mut self) {
        let Some(awake) = &mut self.awake else {
            return;
        };
        let packets = packets(awake.inbound.as_ref(), awake.outbound.as_ref());
        if packets != std::mem::replace(&mut awake.packets_then, packets) {
            return;
        }
        self.sleep();
    }

    /// Falls asleep.
    pub(super) fn sleep(&mut self) {
        let Some(awake) = &self.awake else {
            return;
        };
        // Which numbers it may use would be forgotten.
        if awake.tenure.is_some() {
            return;
        }
        let (inbound, outbound) = (awake.inbound.as_ref(), awake.outbound.as_ref());
        self.rest = Rest {
            opened: inbound.map_or(0, InboundSa::sequence),
            sealed: outbound.map_or(0, OutboundSa::sequence),
        };
        self.awake = None;
    }
}

fn packets(inbound: Option<&InboundSa>, outbound: Option<&OutboundSa>) -> u64 {
    let opened = inbound.map_or(0, InboundSa::packets);
    opened.wrapping_add(outbound.map_or(0, OutboundSa::sequence))
}

type Sas = (Option<InboundSa>, Option<OutboundSa>);

/// Both SAs as a session's description has them.
pub(super) fn sas(spec: &SessionSpec, backend: Backend) -> Result<Sas, SessionError> {
    let inbound = spec.inbound.as_ref().map(|sa| sa.receiver(backend));
    let outbound = spec.outbound.as_ref().map(|sa| sa.sender(backend));
    Ok((inbound.transpose()?, outbound.transpose()?))
}
