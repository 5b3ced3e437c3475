//! The streaming replication sub-protocol: frames in, standby status updates out.
//!
//! Reference: PostgreSQL documentation, "Streaming Replication Protocol" (`START_REPLICATION`, XLogData, Primary keepalive
//! message, Standby status update).
//!
//! The walsender flushes every change on its own, so a reader that wakes for each would spend most of its time in system
//! calls. While changes come densely, the stream therefore waits a millisecond before it reads again, and finds many; its
//! socket is quiet meanwhile (see `socket`).

use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::time::{Instant, sleep_until};
use tributary_event::Lsn;
use tributary_event::clock::now_us;

use super::endpoint::Endpoint;
use super::frame::{self, Frame};
use super::sqlstate::{IDENTIFY, STREAMING};
use super::{Wire, server_error};
use crate::error::ConnectorError;
use crate::net::QUIET_READ;
use crate::postgres::stream::pgoutput::EPOCH_2000_US;

/// A status is sent at least this often, well within the `wal_sender_timeout` that we ask for.
const STATUS_INTERVAL: Duration = Duration::from_secs(4);
/// News about what is durable wait at most this long.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// A server that was asked for a reply and says nothing for this long is given up. One that is gone is noticed within
/// seconds, by the connection's keepalives; before PostgreSQL 16 a live one may be silent for minutes, while it decodes a
/// large transaction of which nothing is published.
const SILENCE: Duration = Duration::from_secs(900);
/// Reads that follow each other faster than this are dense.
const DENSE: Duration = Duration::from_micros(300);
/// After this many dense reads in a row the stream begins to wait before reading.
const DENSE_READS: u32 = 16;
/// How long it waits, and below how many bytes a wait was not worth it.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_BYTES: usize = 1 << 10;

/// What `IDENTIFY_SYSTEM` says.
#[derive(Debug, Clone)]
pub(in crate::postgres) struct System {
    pub identifier: String,
    pub timeline: u32,
}

/// A running replication stream.
pub(in crate::postgres) struct ReplicationStream {
    wire: Wire,
    received: Lsn,
    confirmed: Lsn,
    /// The server waits for a later position than the confirmed one.
    hurry: bool,
    next_status: Instant,
    last_status: Instant,
    last_read: Instant,
    dense: u32,
    pause_until: Option<Instant>,
}

impl ReplicationStream {
    /// Connects and asks who the server is.
    pub(in crate::postgres) async fn connect(endpoint: &Endpoint) -> Result<(Wire, System), ConnectorError> {
        let mut wire = Wire::connect(endpoint).await?;
        let rows = wire.query(IDENTIFY, IDENTIFY).await?;
        let cell = |i: usize| rows.first().and_then(|row| row.get(i)).cloned().flatten();
        let (Some(identifier), Some(timeline)) = (cell(0), cell(1).and_then(|t| t.parse().ok())) else {
            return Err(ConnectorError::protocol(endpoint.place(), "IDENTIFY_SYSTEM gave no system identifier"));
        };
        Ok((wire, System { identifier, timeline }))
    }

    /// Starts streaming from `from`.
    pub(in crate::postgres) async fn start(
        mut wire: Wire,
        command: &str,
        slot: &str,
        from: Lsn,
    ) -> Result<Self, ConnectorError> {
        frontend::query(command, wire.output()).map_err(|e| wire.broken(e))?;
        wire.flush().await?;
        if let Err(error) = wire.start_copy().await? {
            if error.code == "55006" {
                return Err(ConnectorError::SlotInUse { slot: slot.to_owned(), cause: error.text() });
            }
            return Err(error.classify(wire.endpoint(), "START_REPLICATION"));
        }
        let now = Instant::now();
        Ok(Self {
            wire,
            received: from,
            confirmed: from,
            hurry: false,
            next_status: now,
            last_status: now,
            last_read: now,
            dense: 0,
            pause_until: None,
        })
    }

    /// Everything before `lsn` is durable.
    pub(in crate::postgres) fn confirm(&mut self, lsn: Lsn) {
        if lsn <= self.confirmed {
            return;
        }
        self.confirmed = lsn;
        let due = if self.hurry { Instant::now() } else { self.last_status + NEWS_INTERVAL };
        self.hurry = false;
        self.next_status = self.next_status.min(due);
    }

    /// The server and the database.
    pub(in crate::postgres) fn place(&self) -> String {
        self.wire.endpoint().place()
    }

    /// The last confirmed position.
    pub(in crate::postgres) fn confirmed(&self) -> Lsn {
        self.confirmed
    }

    /// The next frames, at least one, complete. Cancel-safe.
    pub(in crate::postgres) async fn frames(&mut self) -> Result<Bytes, ConnectorError> {
        loop {
            if let Some(frames) = self.wire.frames()? {
                return Ok(frames);
            }
            if Instant::now() >= self.next_status {
                self.queue_status(self.last_read.elapsed() > STATUS_INTERVAL);
            }
            self.wire.flush().await?;
            if let Some(until) = self.pause_until {
                sleep_until(until).await;
                self.pause_until = None;
            }
            tokio::select! {
                biased;
                read = self.wire.read() => self.pace(read?)?,
                () = sleep_until(self.next_status) => self.check_silence()?,
            }
        }
    }

    /// Sends a status update if one is due. Cancel-safe.
    pub(in crate::postgres) async fn tend(&mut self) -> Result<(), ConnectorError> {
        if Instant::now() >= self.next_status {
            self.queue_status(false);
        }
        // Time in which nobody reads says nothing about the server.
        self.last_read = Instant::now();
        self.wire.flush().await
    }

    /// Sends status updates as they become due; ends only with an error. Cancel-safe.
    pub(in crate::postgres) async fn keep_alive(&mut self) -> Result<(), ConnectorError> {
        loop {
            if Instant::now() >= self.next_status {
                self.queue_status(false);
            }
            self.wire.flush().await?;
            // Time in which nobody reads says nothing about the server.
            self.last_read = Instant::now();
            sleep_until(self.next_status).await;
        }
    }

    /// The last status, then the end of the copy and of the session. Best effort.
    pub(in crate::postgres) async fn close(&mut self) {
        self.queue_status(false);
        frontend::copy_done(self.wire.output());
        frontend::terminate(self.wire.output());
        let _ = tokio::time::timeout(NEWS_INTERVAL, self.wire.flush()).await;
    }

    /// Reads one frame at `at` of complete `frames` and moves `at` behind it. `None`: a frame without meaning here.
    pub(in crate::postgres) fn frame<'a>(
        &mut self,
        frames: &'a [u8],
        at: &mut usize,
    ) -> Result<Option<Frame<'a>>, ConnectorError> {
        let broken =
            |wire: &Wire| ConnectorError::protocol(wire.endpoint().place(), "a frame is shorter than its fields");
        let begin = *at;
        let (kind, body) = frame::next(frames, at).ok_or_else(|| broken(&self.wire))?;
        match kind {
            b'd' => {
                let frame = frame::copied(body).ok_or_else(|| broken(&self.wire))?;
                match &frame {
                    Some(Frame::Data { start, .. }) => self.received = self.received.max(*start),
                    Some(Frame::Keepalive { end, reply }) => {
                        self.received = self.received.max(*end);
                        if *reply {
                            self.hurry = true;
                            self.next_status = Instant::now();
                        }
                    }
                    None => {}
                }
                Ok(frame)
            }
            b'E' => {
                let mut copy = bytes::BytesMut::from(&frames[begin..*at]);
                match Message::parse(&mut copy) {
                    Ok(Some(Message::ErrorResponse(body))) => {
                        Err(server_error(body.fields()).classify(self.wire.endpoint(), STREAMING))
                    }
                    _ => Err(broken(&self.wire)),
                }
            }
            b'c' | b'C' | b'Z' => Err(self.wire.broken("the server ended the stream")),
            _ => Ok(None),
        }
    }

    fn pace(&mut self, read: usize) -> Result<(), ConnectorError> {
        let now = Instant::now();
        let gap = now - self.last_read;
        self.last_read = now;
        let paused = self.dense >= DENSE_READS;
        if paused && read >= PAUSE_BYTES || !paused && gap < DENSE {
            self.dense = self.dense.saturating_add(1);
        } else {
            self.dense = 0;
        }
        if self.dense >= DENSE_READS {
            self.wire.be_quiet()?;
            // A read as large as a quiet socket's can be means that more is there already.
            if read < QUIET_READ {
                self.pause_until = Some(now + PAUSE);
            }
        }
        Ok(())
    }

    fn check_silence(&self) -> Result<(), ConnectorError> {
        if self.last_read.elapsed() > SILENCE {
            return Err(self.wire.broken(format!("the server has been silent for {SILENCE:?}")));
        }
        Ok(())
    }

    fn queue_status(&mut self, ask: bool) {
        let now = Instant::now();
        let output = self.wire.output();
        output.put_u8(b'd');
        output.put_u32(4 + 34);
        output.put_u8(b'r');
        output.put_u64(self.received.max(self.confirmed).0);
        output.put_u64(self.confirmed.0);
        output.put_u64(self.confirmed.0);
        output.put_i64(now_us() - EPOCH_2000_US);
        output.put_u8(u8::from(ask));
        self.last_status = now;
        self.next_status = now + STATUS_INTERVAL;
    }
}
