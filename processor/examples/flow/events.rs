//! The events that are measured: updates of a row, of about 930 bytes, as a connector makes them.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;

use tributary_event::Op;
use tributary_processor::stream::put_attributes;
use tributary_transport::{Batch, Purpose, Transport};

use crate::Failure;

/// The topic of their table.
pub const TABLE: &str = "db.public.movie";
/// The own topic of the stream `flow` of the pipeline `bench`.
pub const OWN: &str = "bench.flow.events";
/// Events of a transaction.
const TOGETHER: u64 = 1_000;
/// One event of so many names a studio that none before it named.
const NEW: u64 = 10;

/// Appends events to a topic; to the own topic of a stream, as it would itself.
pub async fn fill(transport: &dyn Transport, topic: &str, events: u64) -> Result<(), Failure> {
    let mut producer = transport.producer("fill", Purpose::Source).await?;
    let name: Arc<str> = topic.into();
    let mut next = 0;
    while next < events {
        let mut batch = Batch::new();
        for n in next..(next + TOGETHER).min(events) {
            let key = format!(r#"{{"id":{n}}}"#);
            batch.push(&name, 1_700_000_000_007, Some(key.as_bytes()), Some(event(n, events).as_bytes()));
            if topic == OWN {
                put_attributes(&mut batch, "flow", Op::Update, n, 1_700_000_000_000_000);
            }
        }
        producer.append(&batch).await?;
        next += TOGETHER;
    }
    Ok(())
}

/// Writes events as lines.
pub fn lines(file: &Path, events: u64) -> Result<(), Failure> {
    let mut out = BufWriter::new(File::create(file)?);
    for n in 0..events {
        writeln!(out, "{}", event(n, events))?;
    }
    Ok(out.flush()?)
}

/// An event as a connector makes it. Of all, the last one has a runtime of a minute.
pub fn event(n: u64, events: u64) -> String {
    let text = "in a world where nobody sleeps in a world where nobody sleeps in a world where nobody sleeps in a world where nobody sleeps ";
    let minutes = if n + 1 == events { 1 } else { 117 };
    let studio = studio(n);
    let row = |votes: u64| {
        format!(
            r#"{{"id":{n},"title":"Movie number {n}","released":19723,"runtime_min":{minutes},"imdb_rating":"8.5","imdb_votes":{votes},"studio_id":{studio},"budget_usd":11000000,"plot":"{text}"}}"#
        )
    };
    format!(
        r#"{{"before":{},"after":{},"source":{{"connector":"postgresql","name":"db","ts_ms":1700000000000,"db":"studio","schema":"public","table":"movie","txId":{n},"lsn":{n}}},"op":"u","ts_ms":1700000000007,"sequence":{n}}}"#,
        row(n),
        row(n + 1)
    )
}

/// One that an earlier event named, at random, or a new one.
fn studio(n: u64) -> u64 {
    if n.is_multiple_of(NEW) { n / NEW } else { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (n / NEW + 1) }
}
