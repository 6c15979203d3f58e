//! The socket, with two ways to misbehave: one byte a write, and a reset instead of a close.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    split_bytes: bool,
    reset: Arc<AtomicBool>,
}

impl Wire {
    /// Writes one byte at a time with `split_bytes`; is reset when dropped while `reset` is set.
    pub(super) fn new(socket: TcpStream, split_bytes: bool, reset: Arc<AtomicBool>) -> Self {
        Self { socket, split_bytes, reset }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // With zero linger, closing sends RST. Where that fails, the peer sees a plain close of an
            // unfinished body, which is the same fault in milder form.
            drop(self.socket.set_zero_linger());
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

/// Vectored writes are left out on purpose: hyper then joins the pieces of a chunk, so that one token
/// is one write and one segment.
impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let end = if self.split_bytes { bytes.len().min(1) } else { bytes.len() };
        Pin::new(&mut self.socket).poll_write(cx, &bytes[..end])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// What one write of five bytes hands to the kernel.
    async fn taken(split_bytes: bool) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Wire::new(socket, split_bytes, Arc::default()).write(b"hello").await.unwrap()
    }

    #[tokio::test]
    async fn a_write_is_whole_or_one_byte() {
        assert_eq!((taken(false).await, taken(true).await), (5, 1));
    }
}
