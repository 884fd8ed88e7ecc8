//! What tests and benchmarks of other crates can not see otherwise: a worker's table of sessions, and the worker
//! of an edge.

pub mod edge;

use std::net::IpAddr;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::session::{Session, Sessions};
use crate::esp::{Backend, Key};
use crate::sadb::{Cipher, Producer, SaSpec, Sadb, SessionId, SessionSpec};

/// A worker's sessions.
pub struct Table(Sessions);

impl Table {
    /// `count` sessions, and their inbound SPIs: drawn as those of IKE, or scattered as those that people
    /// choose.
    ///
    /// # Panics
    /// Never: keys and addresses are in order.
    #[must_use]
    pub fn new(count: u32, drawn: bool) -> (Self, Vec<u32>) {
        let (mut sessions, mut sadb) = (Sessions::default(), Sadb::new());
        let mut rng = StdRng::seed_from_u64(1);
        let key = Key::new(&[7; 32]).expect("an allowed length");
        let [local, remote] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        let make = |number: u32| {
            let spi = match drawn {
                true => sadb.allocate_spi(&mut rng),
                false => 0x1000 + number.wrapping_mul(0x9E37_79B1) % 0xFFF0_0000,
            };
            let mut spec = SessionSpec::new(local, remote, Producer::Ike);
            spec.id = SessionId(u64::from(number) + 1);
            spec.inbound = Some(SaSpec::new(
                spi,
                Cipher::Aes256Gcm,
                key.clone(),
                [1; 4].into(),
            ));
            let session = Session::new(Arc::new(spec), 0, Backend::default());
            let mut session = session.expect("a session in order");
            session.awake();
            sessions.insert(session);
            spi
        };
        let spis = (0..count).map(make).collect();
        (Self(sessions), spis)
    }

    /// Where the packets of an SPI are counted: the first thing of a session that the way of a packet
    /// needs.
    #[must_use]
    pub fn find(&self, spi: u32) -> Option<u64> {
        let session = self.0.get(self.0.by_spi(spi)?)?;
        Some(session.opened())
    }
}
