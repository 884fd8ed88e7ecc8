//! How many bytes pairs carry here: authorities add up what all edges say, and ask for fresh keys in time.

use std::time::{Duration, Instant};

use crate::cluster::Volume;
use crate::cluster::wire::{Carried, Up};
use crate::node::core::Node;

/// Authorities hear of it so often.
const PACE: Duration = Duration::from_secs(1);

/// Pairs in one message.
const PIECE: usize = 4096;

impl Node {
    /// Tells authorities what is new of it, now and then.
    pub(super) fn tell_volumes(&mut self, now: Instant) {
        let Some(edge) = self.edge.as_mut().filter(|edge| now >= edge.volumes_at) else {
            return;
        };
        edge.volumes_at = now + PACE;
        let mut news: Vec<Vec<Carried>> = vec![Vec::new(); edge.links.len()];
        let view = self.dataplane.views().load();
        for shown in view.sessions.iter() {
            let volume = Volume {
                inbound: shown.inbound.bytes,
                outbound: shown.outbound.bytes,
            };
            // Most have carried nothing.
            if !volume.is_news(&Volume::default()) {
                continue;
            }
            let live = self.table.live.get(&shown.id);
            let inbound = live.and_then(|live| live.spec.inbound.as_ref());
            let Some(spi) = inbound.map(|inbound| inbound.spi) else {
                continue;
            };
            if let Some(known) = edge.pairs.get_mut(&spi)
                && volume.is_news(&known.told)
                && let Some(news) = news.get_mut(known.link)
            {
                known.told = volume;
                news.push(Carried { spi, volume });
            }
        }
        for (link, news) in news.iter().enumerate() {
            for piece in news.chunks(PIECE) {
                let pairs = piece.to_vec();
                self.tell(link, Up::Carried { pairs });
            }
        }
    }
}
