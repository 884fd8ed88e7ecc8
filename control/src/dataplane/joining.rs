//! What leaves by the TUN device: segments of one TCP stream go in one write, so that the host's stack has
//! one large packet to take in instead of many small ones.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use arrayvec::ArrayVec;

use super::net::coalesce::{MOST, Segment, Train, VNET_HEADER};
use super::xsk::{Frame, Umem};

/// Streams that are joined at the same time.
const STREAMS: usize = 8;

/// Segments that wait for more of their stream; never beyond one turn of the worker.
pub(super) struct Joining {
    waiting: Vec<Waiting>,
    /// Room for more of them, so that none is allocated.
    spare: Vec<Vec<Frame>>,
}

struct Waiting {
    train: Train,
    frames: Vec<Frame>,
}

impl Joining {
    pub(super) fn new() -> Self {
        Self {
            waiting: Vec::with_capacity(STREAMS),
            spare: (0..=STREAMS).map(|_| Vec::with_capacity(MOST)).collect(),
        }
    }

    /// Takes a packet that is to be written to `device`, now or at the next [`Self::flush`], and frees
    /// it then. Yields how many packets the device has refused meanwhile.
    pub(super) fn send(&mut self, device: impl AsFd, umem: &mut Umem, frame: Frame) -> usize {
        let Some(segment) = Segment::read(umem.bytes(&frame)) else {
            // It must not overtake what is before it in its stream.
            return self.flush(&device, umem) + write_one(&device, umem, frame);
        };
        let mut refused = 0;
        let flow = segment.flow;
        if let Some(at) = self.waiting.iter().position(|w| w.train.flow() == flow) {
            if let Some(waiting) = self.waiting.get_mut(at)
                && waiting.train.append(&segment, umem.bytes(&frame))
            {
                waiting.frames.push(frame);
                return match waiting.train.is_complete() {
                    true => self.write(at, &device, umem),
                    false => 0,
                };
            }
            refused += self.write(at, &device, umem);
        }
        if self.waiting.len() >= STREAMS {
            refused += self.write(0, &device, umem);
        }
        let train = Train::begin(segment, umem.bytes(&frame)).filter(|train| !train.is_complete());
        match (train, self.spare.pop()) {
            (Some(train), Some(mut frames)) => {
                frames.push(frame);
                self.waiting.push(Waiting { train, frames });
            }
            (_, spare) => {
                self.spare.extend(spare);
                refused += write_one(&device, umem, frame);
            }
        }
        refused
    }

    /// Writes all that waits. Yields how many packets the device has refused.
    pub(super) fn flush(&mut self, device: impl AsFd, umem: &mut Umem) -> usize {
        let mut refused = 0;
        while !self.waiting.is_empty() {
            refused += self.write(0, &device, umem);
        }
        refused
    }

    fn write(&mut self, at: usize, device: impl AsFd, umem: &mut Umem) -> usize {
        if at >= self.waiting.len() {
            return 0;
        }
        let Waiting { train, mut frames } = self.waiting.remove(at);
        let refused = match frames.len() {
            1 => frames
                .pop()
                .map_or(0, |frame| write_one(device, umem, frame)),
            count => match write_train(&train, device, umem, &frames) {
                Ok(()) => 0,
                Err(_) => count,
            },
        };
        for frame in frames.drain(..) {
            umem.free(frame);
        }
        self.spare.push(frames);
        refused
    }
}

/// Writes one packet by itself and frees it. Needs [`VNET_HEADER`] bytes before it in its chunk, which every
/// frame that came in as ESP has. Yields whether it was refused, as a number.
fn write_one(device: impl AsFd, umem: &mut Umem, frame: Frame) -> usize {
    let range = frame.range();
    let written = range
        .start
        .checked_sub(VNET_HEADER)
        .ok_or(io::ErrorKind::InvalidInput.into())
        .and_then(|start| {
            let bytes = &mut umem.chunk_mut(&frame)[start..range.end];
            // No offload asked for: the packet is whole and its checksums are right.
            bytes[..VNET_HEADER].fill(0);
            rustix::io::write(device, bytes).map_err(io::Error::from)
        });
    umem.free(frame);
    usize::from(written.is_err())
}

fn write_train(
    train: &Train,
    device: impl AsFd,
    umem: &mut Umem,
    frames: &[Frame],
) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let first = frames.first().ok_or_else(invalid)?;
    let range = first.range();
    let start = range.start.checked_sub(VNET_HEADER).ok_or_else(invalid)?;
    let headers = range.start + train.headers();
    let before = umem.chunk_mut(first).get_mut(start..headers);
    before
        .and_then(|before| train.finish(before))
        .ok_or_else(invalid)?;
    let whole = {
        let mut whole = ArrayVec::<IoSlice<'_>, { MOST + 1 }>::new();
        let chunk = umem.chunk(first);
        whole.push(IoSlice::new(
            chunk.get(start..range.end).ok_or_else(invalid)?,
        ));
        for frame in frames.iter().skip(1) {
            let payload = umem.bytes(frame).get(train.headers()..);
            whole
                .try_push(IoSlice::new(payload.ok_or_else(invalid)?))
                .map_err(|_| invalid())?;
        }
        whole
    };
    rustix::io::writev(device, &whole)?;
    Ok(())
}

#[cfg(test)]
#[path = "joining_tests.rs"]
mod tests;
