//! The TCP socket below TLS, which remembers how its connection ended: the kernel says it once, to whoever
//! reads or writes first.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

use crate::cluster::Parting;

/// A connection that is silent for so long is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// And again after that time, if it says nothing.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(1);
const KEEPALIVE_TRIES: u32 = 3;
/// It has ended if nothing was acknowledged for so long. Nothing here may be near `Terms::alone`: a living
/// edge must not lose its connection before it takes itself to be alone.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Ciphertext that is read at once, in bytes.
const READ: usize = 64 * 1024;

/// What the kernel said first of a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer's kernel has nothing more to send.
    Eof,
    /// An error, by its number.
    Error(i32),
}

/// The socket of one connection, with what the kernel said first of its end.
pub(super) struct Watched {
    stream: TcpStream,
    end: OnceLock<End>,
}

/// What TLS reads from and writes to.
pub(super) struct Socket(Arc<Watched>);

impl Socket {
    /// Takes a connection, and sets what all connections of the channel have.
    pub(super) fn new(stream: TcpStream) -> io::Result<(BufReader<Self>, Arc<Watched>)> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE_AGAIN)
            .with_retries(KEEPALIVE_TRIES);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let watched = Arc::new(Watched {
            stream,
            end: OnceLock::new(),
        });
        // TLS asks for 4 KiB at a time.
        let socket = BufReader::with_capacity(READ, Self(Arc::clone(&watched)));
        Ok((socket, watched))
    }
}

impl Watched {
    /// The end, in the ledger's terms; without a word of the kernel there is none.
    pub(super) fn parting(&self) -> Option<(Parting, String)> {
        Some(match *self.end.get()? {
            End::Eof => (
                Parting::Closed,
                "the other side has ended the connection".to_owned(),
            ),
            End::Error(code) => {
                let ended = [Errno::CONNRESET, Errno::PIPE];
                let parting = match ended.iter().any(|errno| errno.raw_os_error() == code) {
                    true => Parting::Closed,
                    false => Parting::Lost,
                };
                (parting, io::Error::from_raw_os_error(code).to_string())
            }
        })
    }

    /// Waits for the kernel's word, and throws away what comes before it. Nobody else may read or write.
    pub(super) async fn ended(&self) {
        let mut waste = [0; 4096];
        while self.end.get().is_none() {
            let result = match self.stream.readable().await {
                Ok(()) => self.stream.try_read(&mut waste),
                Err(error) => Err(error),
            };
            match result {
                Ok(0) => self.note(End::Eof),
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) => return drop(self.noted::<()>(Err(error))),
            }
        }
    }

    fn note(&self, end: End) {
        // Only the first word counts: an error that was told once reads as an ordinary end thereafter.
        let _ = self.end.set(end);
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if let Some(code) = error.raw_os_error() {
                self.note(End::Error(code));
            }
        })
    }

    fn write(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                result => return Poll::Ready(self.noted(result)),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let watched = &self.0;
        loop {
            ready!(watched.stream.poll_read_ready(cx))?;
            match watched.stream.try_read(buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) => return Poll::Ready(watched.noted(Err(error))),
                Ok(count) => {
                    if count == 0 && buf.remaining() > 0 {
                        watched.note(End::Eof);
                    }
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.write(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.write(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = SockRef::from(&self.0.stream).shutdown(Shutdown::Write);
        Poll::Ready(self.0.noted(result))
    }
}
