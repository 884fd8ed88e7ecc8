//! Messages out of the bytes that have come; no I/O.

use serde::de::DeserializeOwned;
use zeroize::{Zeroize as _, Zeroizing};

use crate::cluster::wire::{self, PREFIX, WireError};

/// What there is room for without a long message, in bytes.
const ROOM: usize = 64 * 1024;

/// Bytes that have come, and are to be taken out as messages. What was taken out is wiped.
pub(super) struct Frames {
    bytes: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            bytes: Zeroizing::new(vec![0; ROOM]),
            start: 0,
            end: 0,
        }
    }

    /// Where more bytes go: never empty after [`Frames::next`] has said that there is no whole message.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let needed = match self.length() {
            Some(Ok(length)) => PREFIX + length,
            _ => PREFIX,
        };
        let long = needed > self.bytes.len();
        let idle = self.start == self.end && self.bytes.len() > ROOM;
        if long || idle {
            // The old memory is wiped as it goes.
            let mut bytes = Zeroizing::new(vec![0; needed.max(ROOM)]);
            for (to, from) in bytes.iter_mut().zip(self.held()) {
                *to = *from;
            }
            self.end -= self.start;
            (self.start, self.bytes) = (0, bytes);
        } else if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + needed > self.bytes.len() || self.end == self.bytes.len() {
            let held = self.end - self.start;
            self.bytes.copy_within(self.start..self.end, 0);
            if let Some(behind) = self.bytes.get_mut(held..self.end) {
                behind.zeroize();
            }
            (self.start, self.end) = (0, held);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes have been put into the room.
    pub(super) fn filled(&mut self, count: usize) {
        self.end = self.bytes.len().min(self.end + count);
    }

    /// The next message, if it is there as a whole.
    ///
    /// # Errors
    /// It can not be read: neither can what follows.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let length = match self.length() {
            Some(length) => length?,
            None => return Ok(None),
        };
        let Some(content) = self.held().get(PREFIX..PREFIX + length) else {
            return Ok(None);
        };
        let message = wire::decode(content);
        let until = self.start + PREFIX + length;
        if let Some(taken) = self.bytes.get_mut(self.start..until) {
            taken.zeroize();
        }
        self.start = until;
        message.map(Some)
    }

    fn held(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Of the content of the next message.
    fn length(&self) -> Option<Result<usize, WireError>> {
        let prefix = self.held().first_chunk::<PREFIX>()?;
        Some(wire::content_len(*prefix))
    }
}

#[cfg(test)]
impl Frames {
    /// Nothing is left of what was taken out.
    pub(super) fn wiped(&self) -> bool {
        self.start == self.end && self.bytes.iter().all(|byte| *byte == 0)
    }
}
