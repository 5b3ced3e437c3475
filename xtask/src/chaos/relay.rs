//! A relay from a listener to a server that can be cut: no byte passes in either direction then, no connection ends, and nobody is
//! told. What was under way is held, and goes on when the relay is mended.
//!
//! As where packets are lost, with one difference: the kernel on this side of the relay still acknowledges. So a new connection is
//! made, and hears nothing; and whoever has TCP ask whether the other end lives hears that it does.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How much is read at a time, and at most held in a direction of a connection; the kernel holds the rest.
const BYTES: usize = 64 * 1024;

/// A relay. Its connections end when it is dropped.
pub(super) struct Relay {
    is_cut: watch::Sender<bool>,
    /// The task that accepts, and owns the connections.
    _accepting: JoinSet<()>,
}

impl Relay {
    /// Passes on whatever comes to a listener, and what is answered.
    pub(super) fn new(listener: TcpListener, to: SocketAddr) -> Self {
        let (is_cut, gate) = watch::channel(false);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, to, Gate(gate)));
        Self { is_cut, _accepting: accepting }
    }

    /// Holds everything from now on.
    pub(super) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lets everything pass again, what was held first.
    pub(super) fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

/// What a connection knows of its relay: whether it is cut.
#[derive(Clone)]
struct Gate(watch::Receiver<bool>);

impl Gate {
    /// An error once the relay is gone.
    async fn mended(&mut self) -> io::Result<()> {
        self.0.wait_for(|is_cut| !is_cut).await.map(drop).map_err(io::Error::other)
    }

    /// Never once the relay is gone.
    async fn cut(&mut self) {
        if self.0.wait_for(|is_cut| *is_cut).await.is_err() {
            std::future::pending().await
        }
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, gate: Gate) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((inside, _)) = listener.accept().await else { continue };
        connections.spawn(connection(inside, to, gate.clone()));
    }
}

/// A connection, until both directions have ended or one of them fails.
async fn connection(mut inside: TcpStream, to: SocketAddr, mut gate: Gate) -> io::Result<()> {
    gate.mended().await?;
    // Without a server the connection ends at once, as one that is refused.
    let mut outside = TcpStream::connect(to).await?;
    let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
    let (from_inside, to_inside) = inside.split();
    let (from_outside, to_outside) = outside.split();
    tokio::try_join!(pass(from_inside, to_outside, gate.clone()), pass(from_outside, to_inside, gate))?;
    Ok(())
}

/// One direction of a connection. What was read is kept while the relay is cut; an end or a failure is news as well, and waits too.
async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut gate: Gate) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(BYTES);
    loop {
        bytes.clear();
        let read = from.read_buf(&mut bytes).await;
        gate.mended().await?;
        if read? == 0 {
            return to.shutdown().await;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            gate.mended().await?;
            tokio::select! {
                biased;
                // Of a write that is dropped no byte was taken.
                () = gate.cut() => {}
                written = to.write_buf(&mut rest) => {
                    written?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with two relays to it: one that is cut, and one that shows that time has passed.
    struct Relays {
        server: TcpListener,
        relay: Relay,
        address: SocketAddr,
        _other: Relay,
        other: SocketAddr,
    }

    impl Relays {
        async fn start() -> Self {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = server.local_addr().unwrap();
            let (relay, address) = relay_to(to).await;
            let (_other, other) = relay_to(to).await;
            Self { server, relay, address, _other, other }
        }

        /// Both ends of a new connection.
        async fn connect(&self, to: SocketAddr) -> (TcpStream, TcpStream) {
            let mut client = TcpStream::connect(to).await.unwrap();
            let (mut served, _) = self.server.accept().await.unwrap();
            exchange(&mut client, &mut served).await;
            (client, served)
        }

        /// Several ways there and back by the other relay: what the first one passed on before would have arrived since.
        async fn meanwhile(&self) {
            let (mut client, mut served) = self.connect(self.other).await;
            for _ in 0..5 {
                exchange(&mut client, &mut served).await;
            }
        }
    }

    async fn relay_to(to: SocketAddr) -> (Relay, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Relay::new(listener, to), address)
    }

    async fn exchange(client: &mut TcpStream, served: &mut TcpStream) {
        client.write_all(b"marker").await.unwrap();
        assert_eq!(read(served, 6).await, b"marker");
        served.write_all(b"answer").await.unwrap();
        assert_eq!(read(client, 6).await, b"answer");
    }

    async fn read(from: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Neither bytes have come, nor the end.
    fn has_heard_nothing(socket: &TcpStream) -> bool {
        socket.try_read(&mut [0; 16]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn what_is_said_while_it_is_cut_arrives_afterwards() {
        let relays = Relays::start().await;
        let (mut client, mut served) = relays.connect(relays.address).await;
        for _ in 0..2 {
            relays.relay.cut();
            client.write_all(b"question").await.unwrap();
            served.write_all(b"news").await.unwrap();
            relays.meanwhile().await;
            assert!(has_heard_nothing(&client) && has_heard_nothing(&served));
            client.write_all(b", and another").await.unwrap();
            relays.relay.mend();
            assert_eq!(read(&mut served, 21).await, b"question, and another");
            assert_eq!(read(&mut client, 4).await, b"news");
            exchange(&mut client, &mut served).await;
        }
    }

    #[tokio::test]
    async fn what_is_under_way_when_it_is_cut_arrives_whole_and_in_order() {
        let relays = Relays::start().await;
        let (client, mut served) = relays.connect(relays.address).await;
        // More than the kernel usually takes while nobody reads: the relay has begun to write what it cannot end.
        let content = (0..4096_u32).map(|block| block.to_le_bytes().repeat(1024)).collect::<Vec<_>>().concat();
        let (mut from, mut to) = client.into_split();
        let sent = content.clone();
        let sending = tokio::spawn(async move {
            to.write_all(&sent).await?;
            to.shutdown().await
        });
        let mut received = read(&mut served, 4096).await;
        relays.relay.cut();
        served.write_all(b"news").await.unwrap();
        relays.meanwhile().await;
        relays.relay.mend();
        served.read_to_end(&mut received).await.unwrap();
        assert!(received == content, "{} of {} bytes", received.len(), content.len());
        sending.await.unwrap().unwrap();
        let mut news = [0; 4];
        from.read_exact(&mut news).await.unwrap();
        assert_eq!(&news, b"news");
    }

    #[tokio::test]
    async fn nobody_is_told_of_an_end_while_it_is_cut() {
        let relays = Relays::start().await;
        let (mut client, mut served) = relays.connect(relays.address).await;
        let (left, mut alone) = relays.connect(relays.address).await;
        relays.relay.cut();
        client.write_all(b"goodbye").await.unwrap();
        client.shutdown().await.unwrap();
        drop(left);
        relays.meanwhile().await;
        assert!(has_heard_nothing(&served) && has_heard_nothing(&alone));
        relays.relay.mend();
        assert_eq!(read(&mut served, 7).await, b"goodbye");
        assert_eq!(served.read(&mut [0; 16]).await.unwrap(), 0);
        assert_eq!(alone.read(&mut [0; 16]).await.unwrap(), 0);
        // The other direction goes on, as after a shutdown of one.
        served.write_all(b"farewell").await.unwrap();
        assert_eq!(read(&mut client, 8).await, b"farewell");
    }

    #[tokio::test]
    async fn a_connection_that_is_made_while_it_is_cut_is_served_afterwards() {
        let relays = Relays::start().await;
        relays.relay.cut();
        let mut client = TcpStream::connect(relays.address).await.unwrap();
        client.write_all(b"too late").await.unwrap();
        // The next one that the server accepts is not this one.
        relays.meanwhile().await;
        assert!(has_heard_nothing(&client));
        relays.relay.mend();
        let (mut served, _) = relays.server.accept().await.unwrap();
        assert_eq!(read(&mut served, 8).await, b"too late");
        exchange(&mut client, &mut served).await;
    }
}
