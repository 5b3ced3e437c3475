//! A TCP socket that can be kept quiet: then its arrivals wake nobody.
//!
//! The walsender sends every change on its own. A socket that the runtime watches wakes a thread for each, also while we
//! are busy with what came before: hundreds of thousands of times in a million changes. While changes come densely, the
//! socket is therefore not watched; what has arrived is read at once, and only if there is nothing it is watched again.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much is read at once while the socket is quiet: the memory for it is cleared each time.
pub(crate) const QUIET_READ: usize = 64 << 10;

/// A connected socket.
pub(crate) enum Socket {
    /// The runtime watches it.
    Watched(TcpStream),
    /// Nobody does.
    Quiet(std::net::TcpStream),
    /// Between the two, or lost there.
    Lost,
}

impl Socket {
    /// Lets nobody be woken until there is nothing to read.
    pub(crate) fn be_quiet(&mut self) -> io::Result<()> {
        if let Self::Watched(_) = self
            && let Self::Watched(stream) = mem::replace(self, Self::Lost)
        {
            *self = Self::Quiet(stream.into_std()?);
        }
        Ok(())
    }

    /// The socket, watched.
    fn watched(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Self::Quiet(_) = self
            && let Self::Quiet(stream) = mem::replace(self, Self::Lost)
        {
            *self = Self::Watched(TcpStream::from_std(stream)?);
        }
        match self {
            Self::Watched(stream) => Ok(Pin::new(stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// What a quiet socket says at once; `None` if it would have to be waited for.
fn at_once<T>(result: io::Result<T>) -> Option<io::Result<T>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
        result => Some(result),
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Self::Quiet(stream) = &mut *self {
            let room = buf.remaining().min(QUIET_READ);
            if let Some(read) = at_once(stream.read(buf.initialize_unfilled_to(room))) {
                return Poll::Ready(read.map(|n| buf.advance(n)));
            }
        }
        self.watched()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Self::Quiet(stream) = &mut *self
            && let Some(written) = at_once(stream.write(bytes))
        {
            return Poll::Ready(written);
        }
        self.watched()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets of the system have nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_quiet_socket_reads_and_writes_and_waits_when_there_is_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
        let (mut theirs, _) = listener.accept().await.expect("a connection");
        let mut socket = Socket::Watched(ours);
        for round in 0..3u8 {
            socket.be_quiet().expect("quiet");
            socket.be_quiet().expect("already");
            socket.write_all(&[round]).await.expect("written");
            assert!(matches!(socket, Socket::Quiet(_)));
            assert_eq!(theirs.read_u8().await.expect("a byte"), round);
            let answer = async {
                // Whoever reads has found nothing by now, and waits.
                tokio::task::yield_now().await;
                theirs.write_all(&[round; 3]).await.expect("written");
            };
            let mut read = [0; 3];
            let (count, ()) = tokio::join!(biased; socket.read_exact(&mut read), answer);
            assert_eq!(count.expect("read"), 3);
            assert_eq!(read, [round; 3]);
            assert!(matches!(socket, Socket::Watched(_)));
        }
        drop(theirs);
        socket.be_quiet().expect("quiet");
        assert_eq!(socket.read(&mut [0]).await.expect("the end"), 0);
    }
}
