//! The log as it comes from the server: one event after another, and where each lies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::xxh3_128;

use super::endpoint::Endpoint;
use super::failure::ServerError;
use super::session::literal;
use super::{FULL, HEAD, Wire};
use crate::error::ConnectorError;
use crate::mysql::binlog::{EventKind, Header};
use crate::mysql::cursor::Malformed;
use crate::mysql::kept::{Event, Keeping};
use crate::mysql::position::LogPosition;

const READING: &str = "reading the log";
/// The server says that nothing has happened so often.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A server that says nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// The first bytes of every file.
const FIRST: u64 = 4;
/// The flag that the statements of rows are asked for (MariaDB, `BINLOG_SEND_ANNOTATE_ROWS_EVENT`).
const ANNOTATED: u16 = 0x2;

/// Who reads, as the server tells readers apart: one that comes again replaces the one before.
#[derive(Debug, Clone)]
pub(in crate::mysql) struct Identity {
    server_id: u32,
    uuid: String,
}

impl Identity {
    /// That of a name.
    pub(in crate::mysql) fn of(name: &str) -> Self {
        let digest = xxh3_128(name.as_bytes());
        let digits = format!("{digest:032x}");
        let uuid = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-");
        // Servers have small numbers, as a rule.
        Self { server_id: 0x4000_0000 | digest as u32 >> 2, uuid }
    }
}

/// The log, from a position on.
pub(in crate::mysql) struct LogStream {
    wire: Wire,
    /// Where compressed transactions of more than a packet are kept; none: in memory.
    folder: Option<PathBuf>,
    /// The one that is arriving.
    large: Option<Large>,
}

/// A compressed transaction of more than a packet that is arriving. What of it has arrived is in its file.
struct Large {
    keeping: Keeping,
    /// Bytes of its packet that have not arrived.
    left: usize,
    /// No packet continues that one.
    is_last: bool,
}

impl Large {
    /// Takes what has arrived of it: whether that is all.
    fn take(&mut self, wire: &mut Wire) -> Result<bool, ConnectorError> {
        loop {
            if self.left == 0 {
                if self.is_last {
                    return Ok(true);
                }
                let Some(length) = wire.head()? else { return Ok(false) };
                (self.left, self.is_last) = (length, length < FULL);
            }
            let part = wire.input.split_to(self.left.min(wire.input.len()));
            if part.is_empty() && self.left > 0 {
                return Ok(false);
            }
            self.keeping.add(&part)?;
            self.left -= part.len();
        }
    }
}

impl LogStream {
    /// Asks for the log. `with_queries`: and for the statements of its rows, which MariaDB sends to who asks for them.
    pub(in crate::mysql) async fn open(
        endpoint: &Endpoint,
        is_mariadb: bool,
        identity: &Identity,
        from: &LogPosition,
        with_queries: bool,
    ) -> Result<Self, ConnectorError> {
        let mut wire = Wire::connect(endpoint).await?;
        let beat = HEARTBEAT.as_nanos();
        let mut settings = format!(
            "set @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum, \
             @master_heartbeat_period = {beat}, @source_heartbeat_period = {beat}, @slave_uuid = '{uuid}', @replica_uuid = '{uuid}', \
             session net_write_timeout = 86400",
            uuid = identity.uuid
        );
        if is_mariadb {
            settings.push_str(", @mariadb_slave_capability = 4, @slave_gtid_strict_mode = 1");
        }
        if let LogPosition::Domains(domains) = from {
            settings.push_str(&format!(", @slave_connect_state = {}", literal(&domains.to_string())));
        }
        wire.set("preparing the stream", &settings).await?;
        let mut body = Vec::new();
        match from {
            LogPosition::Gtids(set) => {
                // The flag that heartbeats have offsets of 64 bits, and that a set follows.
                body.put_u16_le(0x2 | 0x4);
                body.put_u32_le(identity.server_id);
                body.put_u32_le(0);
                body.put_u64_le(FIRST);
                let set = set.encode();
                body.put_u32_le(set.len() as u32);
                body.extend_from_slice(&set);
                wire.command(0x1e, &body).await?;
            }
            LogPosition::Domains(_) | LogPosition::File(_) => {
                let (file, offset) = match from {
                    LogPosition::File(at) => (at.file.as_str(), at.offset.max(FIRST)),
                    _ => ("", FIRST),
                };
                let Ok(offset) = u32::try_from(offset) else {
                    return Err(ConnectorError::lost(
                        format!("{}: {READING}", endpoint.place()),
                        format!(
                            "the offset {offset} in {file} is above 4 GB, and a server can be asked for less alone"
                        ),
                        "set gtid_mode = ON there, and give the source a new name; or keep files below (max_binlog_size)",
                    ));
                };
                body.put_u32_le(offset);
                body.put_u16_le(if is_mariadb && with_queries { ANNOTATED } else { 0 });
                body.put_u32_le(identity.server_id);
                body.extend_from_slice(file.as_bytes());
                wire.command(0x12, &body).await?;
            }
        }
        Ok(Self { wire, folder: None, large: None })
    }

    /// The same, which keeps compressed transactions of more than a packet in a folder; none: in memory.
    pub(in crate::mysql) fn keeping(self, folder: Option<&Path>) -> Self {
        Self { folder: folder.map(Path::to_owned), ..self }
    }

    /// The next event, if it has arrived.
    pub(in crate::mysql) fn arrived(&mut self) -> Result<Option<Event>, ConnectorError> {
        if self.large.is_none() {
            self.large = self.begun_large()?;
        }
        if let Some(mut large) = self.large.take() {
            if large.take(&mut self.wire)? {
                return Ok(Some(Event::Kept(large.keeping.finish()?)));
            }
            self.large = Some(large);
            return Ok(None);
        }
        let Some(packet) = self.wire.arrived()? else { return Ok(None) };
        match packet.split_first() {
            Some((0, _)) => Ok(Some(packet.slice(1..).into())),
            Some((0xff, error)) => Err(ServerError::read(error).classify(self.wire.endpoint(), READING)),
            Some((0xfe, _)) => Err(self.wire.broken("the server ended the stream")),
            _ => Err(self.malformed("a packet", Malformed("it is none of the log"))),
        }
    }

    /// Begins to keep what has begun to arrive, if that is a compressed transaction of more than a packet.
    fn begun_large(&mut self) -> Result<Option<Large>, ConnectorError> {
        let (Some(folder), true, Some(FULL)) = (&self.folder, self.wire.begun.is_empty(), self.wire.length()) else {
            return Ok(None);
        };
        let is_payload = match self.wire.input.get(HEAD..) {
            Some([0, event @ ..]) => Header::read(event).is_ok_and(|header| header.kind() == Some(EventKind::Payload)),
            _ => false,
        };
        if !is_payload {
            return Ok(None);
        }
        let keeping = Keeping::begin(folder)?;
        self.wire.head()?;
        // That it is an event.
        self.wire.input.advance(1);
        Ok(Some(Large { keeping, left: FULL - 1, is_last: false }))
    }

    /// Whether an event has arrived.
    pub(in crate::mysql) fn has_arrived(&self) -> bool {
        self.wire.has_arrived()
    }

    /// Waits for more. Cancel-safe.
    pub(in crate::mysql) async fn wait(&mut self) -> Result<(), ConnectorError> {
        let begun = Instant::now();
        match timeout_at(begun + SILENCE, self.wire.read()).await {
            Ok(read) => read,
            Err(_) => Err(self.wire.broken(format!("the server has been silent for {SILENCE:?}"))),
        }
    }

    /// The next event. Cancel-safe.
    pub(in crate::mysql) async fn event(&mut self) -> Result<Event, ConnectorError> {
        loop {
            if let Some(event) = self.arrived()? {
                return Ok(event);
            }
            self.wait().await?;
        }
    }

    /// A packet that cannot be read.
    fn malformed(&self, what: &str, malformed: Malformed) -> ConnectorError {
        ConnectorError::protocol(format!("{}: {what}", self.wire.endpoint().place()), malformed.to_string())
    }

    pub(in crate::mysql) async fn close(&mut self) {
        self.wire.close().await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;
    use tributary_event::ErrorClass;

    use super::super::endpoint::endpoints;
    use super::*;
    use crate::mysql::binlog::{HEADER, Payload};
    use crate::mysql::position::FilePosition;
    use crate::mysql::stream::tracker::{Step, Tracker};
    use crate::net::Stream;

    const PAYLOAD: u8 = 40;
    const INSERT: u8 = 30;

    /// A log whose server is the other end of a socket of this machine.
    fn log(folder: &Path) -> (LogStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let endpoint = endpoints(&"mysql://u:p@h".into()).expect("a URL").remove(0);
        let (input, begun) = (BytesMut::new(), BytesMut::new());
        let wire = Wire { stream: Stream::Unix(ours), input, begun, number: 0, endpoint };
        (LogStream { wire, folder: None, large: None }.keeping(Some(folder)), theirs)
    }

    fn tracker() -> Tracker {
        let at = FilePosition { file: "bin.000001".into(), offset: 4 };
        Tracker::new(LogPosition::File(at.clone()), at, true)
    }

    /// An event; that of the log itself has a checksum behind it.
    fn event(kind: u8, body: &[u8], has_checksum: bool) -> Vec<u8> {
        let size = HEADER + body.len() + if has_checksum { 4 } else { 0 };
        let mut event = vec![0; HEADER];
        event[4] = kind;
        event[9..13].copy_from_slice(&(size as u32).to_le_bytes());
        event.extend_from_slice(body);
        if has_checksum {
            let sum = crc32fast::hash(&event);
            event.extend_from_slice(&sum.to_le_bytes());
        }
        event
    }

    /// Events whose bytes no compression makes fewer.
    fn events(number: usize, size: usize) -> Vec<Vec<u8>> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let mut body = || {
            let mut body = vec![0; size];
            body.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&word()));
            body
        };
        (0..number).map(|_| event(INSERT, &body(), false)).collect()
    }

    /// A payload with its fields, and one that nobody knows.
    fn payload(algorithm: u8, content: &[u8]) -> Vec<u8> {
        let mut body = vec![2, 1, algorithm, 99, 2, 7, 7, 1, 9, 0xfe];
        if algorithm == 255 {
            body = vec![2, 3, 0xfc, 255, 0, 1, 9, 0xfe];
        }
        body.put_u64_le(content.len() as u64);
        body.push(0);
        body.extend_from_slice(content);
        event(PAYLOAD, &body, true)
    }

    /// An event as it lies in packets, of which the first has a number.
    fn packets(event: &[u8], number: &mut u8) -> Vec<u8> {
        let (content, mut out) = ([&[0], event].concat(), Vec::new());
        let mut rest = &content[..];
        loop {
            let (now, later) = rest.split_at(rest.len().min(FULL));
            out.extend_from_slice(&(now.len() as u32).to_le_bytes()[..3]);
            out.push(*number);
            *number = number.wrapping_add(1);
            out.extend_from_slice(now);
            rest = later;
            if now.len() < FULL {
                return out;
            }
        }
    }

    /// The next event, of a caller that stops waiting whenever there is nothing.
    async fn impatient(log: &mut LogStream) -> Event {
        loop {
            tokio::select! {
                biased;
                event = log.event() => return event.expect("an event"),
                () = tokio::task::yield_now() => {}
            }
        }
    }

    fn read(mut payload: Payload) -> Vec<Bytes> {
        std::iter::from_fn(|| payload.next().expect("an event")).collect()
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_gone_and_one_that_says_something_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, mut server) = log(folder.path());
        server.write_all(b"a word").await.expect("written");
        log.wait().await.expect("it said something");
        // From here on time passes as soon as there is nothing to do.
        tokio::time::pause();
        let begun = Instant::now();
        let error = log.wait().await.expect_err("it is silent");
        assert!(begun.elapsed() >= SILENCE);
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(error.to_string().contains("the server has been silent for 30s"), "{error}");
    }

    #[tokio::test]
    async fn a_compressed_transaction_of_several_packets_is_kept_in_a_file_and_read_from_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, mut server) = log(folder.path());
        let inner = [events(9, 4 << 20), events(5, 4 << 20)];
        let compressed = zstd::encode_all(&*inner[1].concat(), 1).expect("compressed");
        let outer = [payload(255, &inner[0].concat()), payload(0, &compressed)];
        assert!(outer[0].len() > 2 * FULL && outer[1].len() > FULL);
        // Behind the first, rows of more than a packet, which stay in memory; behind the last, something small.
        let (rows, small) = (event(INSERT, &vec![7; FULL + 9], true), payload(255, &inner[1][0]));
        let mut number = 0;
        let all = [&outer[0], &rows, &outer[1], &small].map(|event| packets(event, &mut number));
        let serving = tokio::spawn(async move {
            for part in all.concat().chunks(1_000_003) {
                server.write_all(part).await.expect("written");
            }
            server
        });
        let mut tracker = tracker();
        for (inner, outer) in inner.iter().zip(&outer) {
            let event = impatient(&mut log).await;
            assert!(matches!(event, Event::Kept(_)), "it is in memory");
            assert_eq!(event.size(), outer.len() as u64);
            assert!(log.wire.begun.is_empty() && log.wire.input.len() < FULL);
            let Ok(Step::Payload(payload)) = tracker.take(event, false) else { panic!("no payload") };
            assert!(read(payload) == *inner);
            if inner.len() == 9 {
                assert!(matches!(impatient(&mut log).await, Event::Whole(event) if event == rows));
            }
        }
        assert!(matches!(impatient(&mut log).await, Event::Whole(event) if event == small));
        assert_eq!(tracker.at.offset, 4 + (outer[0].len() + outer[1].len()) as u64);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
        serving.await.expect("served");
    }

    #[tokio::test]
    async fn one_that_is_not_what_its_checksum_says_or_shorter_than_its_fields_say_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = payload(255, &event(INSERT, &vec![7; FULL], false));
        let (mut flipped, mut long) = (whole.clone(), whole.clone());
        flipped[FULL + 5] ^= 1;
        // The size that its fields tell, with a checksum that fits.
        long[HEADER + 8] += 1;
        let end = long.len() - 4;
        let sum = crc32fast::hash(&long[..end]);
        long[end..].copy_from_slice(&sum.to_le_bytes());
        for (event, why) in [(flipped, "its checksum does not fit"), (long, "it is shorter than its fields")] {
            let (mut log, mut server) = log(folder.path());
            let sent = packets(&event, &mut 0);
            let (event, ()) = tokio::join!(log.event(), async { server.write_all(&sent).await.expect("written") });
            let refused = tracker().take(event.expect("an event"), false).expect_err("refused").to_string();
            assert!(refused.contains("the event at bin.000001:") && refused.contains(why), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_is_told_when_one_comes() {
        let folder = tempfile::NamedTempFile::new().expect("a file");
        let (mut log, mut server) = log(folder.path());
        let sent = packets(&payload(255, &vec![7; FULL]), &mut 0);
        server.write_all(&sent[..100]).await.expect("written");
        let error = log.event().await.expect_err("there is no folder");
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(error.to_string().contains(&*folder.path().to_string_lossy()), "{error}");
    }
}
