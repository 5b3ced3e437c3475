//! A relay in front of a server: it cuts the network, so that nothing arrives and nobody is told, and alters an event of the log on its way.
//!
//! It reads packets, so its connections are without TLS.
//!
//! Reference: MySQL Source Code Documentation, "MySQL Packets" and "Binlog Event".

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// Bytes before the content of a packet: its length, and its number.
const HEAD: usize = 4;
/// Commands that ask for the log: from a file and an offset on, and without what is named by GTIDs.
const DUMPS: [u8; 2] = [0x12, 0x1e];
/// Where a packet of the log has its event: behind a byte that says so.
const EVENT: usize = HEAD + 1;
/// Numbers of events with rows.
const ROWS: [u8; 6] = [23, 24, 25, 30, 31, 32];
/// The number of no kind of event.
pub const UNKNOWN: u8 = 250;
/// The flag of events that whoever does not know them may skip, in the lower byte of the two.
const IGNORABLE: u8 = 0x80;

/// What gets through, in both directions. The rest waits, and no connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    Everything,
    /// Events of the log.
    Events,
    Nothing,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A bit of it is another one.
    Flipped,
    /// Its kind is one that nobody knows; its checksum is right.
    Unknown,
    /// The same, and it says that it may be skipped.
    Ignorable,
}

/// A relay; it ends when dropped, and its connections with it.
pub struct Relay {
    url: Url,
    way: Arc<Way>,
    _accepting: AbortOnDropHandle<()>,
}

struct Way {
    server: String,
    passing: watch::Sender<Passing>,
    /// The text in the event with rows that is altered, once.
    fault: Mutex<Option<(&'static str, Fault)>>,
}

impl Relay {
    /// In front of the server of a URL.
    pub async fn before(url: &str) -> Self {
        let mut url = Url::parse(url).expect("a URL");
        let server = format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(3306));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(listener.local_addr().expect("an address").port())).expect("a port");
        url.set_query(Some("ssl-mode=DISABLED"));
        let way = Arc::new(Way { server, passing: watch::Sender::new(Passing::Everything), fault: Mutex::default() });
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, way.clone())));
        Self { url, way, _accepting: accepting }
    }

    /// The server's URL, through the relay.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    pub fn pass(&self, passing: Passing) {
        self.way.passing.send_replace(passing);
    }

    /// Alters the next event with rows in which the text is.
    pub fn alter(&self, text: &'static str, fault: Fault) {
        *self.way.fault.lock().expect("lock") = Some((text, fault));
    }

    /// Whether it did.
    pub fn has_altered(&self) -> bool {
        self.way.fault.lock().expect("lock").is_none()
    }
}

async fn accept(listener: TcpListener, way: Arc<Way>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(carry(client, way.clone()));
    }
}

/// Carries packets between a client and the server until one of them ends, and the other may hear of it.
async fn carry(client: TcpStream, way: Arc<Way>) -> io::Result<()> {
    let server = TcpStream::connect(&way.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, mut to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    let reads_log = AtomicBool::new(false);
    let up = async {
        let mut from_client = BufReader::new(from_client);
        while let Ok(packet) = packet(&mut from_client).await {
            if packet[HEAD - 1] == 0 && packet.get(HEAD).is_some_and(|command| DUMPS.contains(command)) {
                reads_log.store(true, Ordering::Release);
            }
            way.open(false).await;
            if to_server.write_all(&packet).await.is_err() {
                break;
            }
        }
        way.open(false).await;
    };
    let down = async {
        let mut from_server = BufReader::new(from_server);
        while let Ok(mut packet) = packet(&mut from_server).await {
            let is_event = reads_log.load(Ordering::Acquire) && packet.get(HEAD) == Some(&0);
            if is_event {
                way.alter(&mut packet[EVENT..]);
            }
            way.open(is_event).await;
            if to_client.write_all(&packet).await.is_err() {
                break;
            }
        }
        way.open(false).await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    Ok(())
}

/// The next packet, with its head.
async fn packet(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; HEAD];
    from.read_exact(&mut packet).await?;
    let length = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]) as usize;
    packet.resize(HEAD + length, 0);
    from.read_exact(&mut packet[HEAD..]).await?;
    Ok(packet)
}

impl Way {
    /// Waits until it is open.
    async fn open(&self, is_event: bool) {
        let may_pass = |passing: &Passing| match passing {
            Passing::Everything => true,
            Passing::Events => is_event,
            Passing::Nothing => false,
        };
        self.passing.subscribe().wait_for(may_pass).await.expect("the relay lives");
    }

    /// Alters the event, if it is the one.
    fn alter(&self, event: &mut [u8]) {
        let mut armed = self.fault.lock().expect("lock");
        let Some((text, fault)) = *armed else { return };
        let found = event.windows(text.len()).position(|window| window == text.as_bytes());
        let Some(at) = found.filter(|_| ROWS.contains(&event[4])) else { return };
        *armed = None;
        match fault {
            Fault::Flipped => event[at] ^= 1,
            Fault::Unknown => event[4] = UNKNOWN,
            Fault::Ignorable => {
                event[4] = UNKNOWN;
                event[17] |= IGNORABLE;
            }
        }
        if !matches!(fault, Fault::Flipped) {
            let (content, sum) = event.split_last_chunk_mut::<4>().expect("a checksum");
            *sum = crc32fast::hash(content).to_le_bytes();
        }
    }
}
