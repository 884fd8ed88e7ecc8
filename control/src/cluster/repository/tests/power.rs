//! A disk that loses power: of what was written after the last sync, some is there and some is not.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redb::StorageBackend;

use super::super::embedded;
use super::super::plan::{Batch, Planner};
use super::super::seal::Sealer;
use super::super::{Stored, Write};
use super::{LATE, apply, kept, key, pair};

/// What a disk keeps or loses as a whole.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Event {
    Write { at: u64, data: Vec<u8> },
    Length(u64),
    Sync,
}

/// Remembers all that was done to it.
#[derive(Clone, Debug, Default)]
struct Recorder {
    now: Arc<Mutex<Vec<u8>>>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    fn of(image: Vec<u8>) -> Self {
        Self {
            now: Arc::new(Mutex::new(image)),
            ..Self::default()
        }
    }

    fn note(&self, event: Event) {
        happen(&mut self.now.lock().unwrap(), &event);
        self.events.lock().unwrap().push(event);
    }

    fn events(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// The disk after the power went before this event.
    fn after(&self, event: usize, random: &mut StdRng) -> Vec<u8> {
        let events = self.events.lock().unwrap();
        let before = &events[..event];
        let synced = before.iter().rposition(|e| matches!(e, Event::Sync));
        let (safe, open) = before.split_at(synced.unwrap_or(0));
        let mut image = Vec::new();
        safe.iter().for_each(|event| happen(&mut image, event));
        for event in open {
            match event {
                Event::Write { at, data } => {
                    for (n, part) in data.chunks(SECTOR).enumerate() {
                        if random.random_bool(0.5) {
                            let (at, data) = (at + (n * SECTOR) as u64, part.to_vec());
                            happen(&mut image, &Event::Write { at, data });
                        }
                    }
                }
                // A file system keeps its own order.
                Event::Length(_) | Event::Sync => happen(&mut image, event),
            }
        }
        image
    }
}

fn happen(image: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { at, data } => {
            let from = usize::try_from(*at).unwrap();
            let end = from + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[from..end].copy_from_slice(data);
        }
        Event::Length(len) => image.resize(usize::try_from(*len).unwrap(), 0),
        Event::Sync => (),
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.now.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let now = self.now.lock().unwrap();
        let found = now.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(Event::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(Event::Sync);
        Ok(())
    }

    fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let data = data.to_vec();
        self.note(Event::Write { at, data });
        Ok(())
    }
}

#[test]
fn what_was_done_is_there_after_the_power_was_lost() {
    let mut random = StdRng::seed_from_u64(0xe4e7_9a7e);
    let disk = Recorder::default();
    let database = embedded::start(disk.clone()).unwrap();
    embedded::found(&database, &key()).unwrap();
    let mut planner = Planner::new(Sealer::new(&key()), &[]);
    let mut model = BTreeMap::new();
    // How many events there were when a state was done.
    let mut states = vec![(disk.events(), Vec::new())];
    for round in 0..60_u64 {
        let mut batch = Batch::default();
        for number in 0..random.random_range(1..20) {
            let spi = 0x0100_0000 + random.random_range(0..40);
            let kept = kept(round * 100 + number);
            let write = match random.random_range(0..4) {
                0 => Write::Erase { spi },
                1 => Write::Kept { spi, kept },
                _ => Write::Pair {
                    pair: Box::new(pair(spi, round as u8, LATE)),
                    kept,
                },
            };
            planner.add(&mut batch, number, &write);
            apply(&mut model, &write);
        }
        embedded::write(&database, &batch).unwrap();
        let state: Vec<Stored> = model.values().cloned().collect();
        states.push((disk.events(), state));
    }
    let (mut halfway, mut earlier) = (0, 0);
    for _ in 0..150 {
        let event = random.random_range(states[0].0..=disk.events());
        let image = disk.after(event, &mut random);
        let again = embedded::start(Recorder::of(image)).unwrap();
        let stored = embedded::read(&again, Path::new("memory"), &key()).unwrap();
        let done = states.iter().rposition(|(at, _)| *at <= event).unwrap();
        let next = states.get(done + 1).map(|(_, state)| state);
        halfway += usize::from(states[done].0 < event);
        earlier += usize::from(stored == states[done].1);
        assert!(
            stored == states[done].1 || Some(&stored) == next,
            "{done} of {} were done, and what is there is another state",
            states.len() - 1
        );
    }
    // Most were in the middle of a commit, and not all of those counted.
    assert!(halfway > 75 && earlier > 20, "{halfway} {earlier}");
}
