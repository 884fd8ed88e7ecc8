//! What is to be sent on a connection and has not gone yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use thiserror::Error;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::cluster::wire::{self, WireError};

/// Messages that wait for one connection at most.
pub(super) const MOST_MESSAGES: usize = 65_536;
/// The same in bytes.
pub(super) const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Why a message does not wait.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum NotQueued {
    #[error("it does not take what is sent to it: {messages} messages, {bytes} bytes wait")]
    Full { messages: usize, bytes: usize },
    #[error("there is no connection")]
    Closed,
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The end for those who send.
pub(super) struct Outgoing {
    messages: mpsc::Sender<Zeroizing<Vec<u8>>>,
    bytes: Arc<AtomicUsize>,
}

/// The end for the one who writes.
pub(super) struct Queued {
    messages: mpsc::Receiver<Zeroizing<Vec<u8>>>,
    bytes: Arc<AtomicUsize>,
}

/// An empty queue.
pub(super) fn queue() -> (Outgoing, Queued) {
    let (sender, receiver) = mpsc::channel(MOST_MESSAGES);
    let bytes = Arc::new(AtomicUsize::new(0));
    let outgoing = Outgoing {
        messages: sender,
        bytes: Arc::clone(&bytes),
    };
    let queued = Queued {
        messages: receiver,
        bytes,
    };
    (outgoing, queued)
}

impl Outgoing {
    /// Never waits. Only one task sends, so what it counts can not grow meanwhile.
    pub(super) fn push<T: Serialize>(&mut self, message: &T) -> Result<(), NotQueued> {
        let message = wire::encode(message)?;
        let (length, bytes) = (message.len(), self.bytes.load(Ordering::Relaxed));
        let full = |bytes| NotQueued::Full {
            messages: self.messages.max_capacity() - self.messages.capacity(),
            bytes,
        };
        if bytes + length > MOST_BYTES {
            return Err(full(bytes));
        }
        // Before it is there to be taken, so that the count never falls below nothing.
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.messages.try_send(message).map_err(|error| {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => full(bytes),
                mpsc::error::TrySendError::Closed(_) => NotQueued::Closed,
            }
        })
    }
}

impl Queued {
    /// The next message, once there is one; `None`: nobody sends any more.
    pub(super) async fn next(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let message = self.messages.recv().await?;
        Some(self.taken(message))
    }

    /// The next message, if it is there.
    pub(super) fn ready(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let message = self.messages.try_recv().ok()?;
        Some(self.taken(message))
    }

    fn taken(&self, message: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
        self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        message
    }
}
