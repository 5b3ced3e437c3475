//! Events that are larger than the transport takes: the connector stops at them, or publishes them without their largest values
//! and keeps the whole event in a file.
//!
//! Values that are left out are unchanged values to whoever reads the event, so what is built of it fetches the row as it does
//! for values that the source itself left out. Values of the row before go first, for the row after says what is there now.

use std::cmp::Reverse;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tributary_event::debezium::{DecimalMode, Encoder, encode_event_key, encode_value};
use tributary_event::{ChangeEvent, ErrorClass, Position, Row, Value};
use tributary_transport::{Batch, DeadLetter, Headers, MAX_RECORD, Replays, Retention, WayBack, as_setting};

use crate::error::ConnectorError;
use crate::publish::write_with;
use crate::settings::{ConnectorSettings, Oversized, OversizedPolicy};

/// Values of at most so many bytes go last: keys of other rows are among them.
const SMALL: usize = 1024;
/// The most of an event that its dead letter holds: what is needed to try it again.
const IN_LETTER: usize = 64 << 10;
/// Characters of a key that a message shows.
const SHOWN: usize = 200;

/// Knows what becomes of events that are too large for the transport.
pub(crate) struct Guard {
    source: String,
    settings: Oversized,
    /// Bytes of key and value that an event may have.
    limit: usize,
    /// How long the topics keep events.
    keep: Option<Duration>,
    letters: Arc<str>,
    cloud_events: Option<String>,
}

impl Guard {
    pub fn new(settings: &ConnectorSettings, limit: usize) -> Self {
        let keep = match settings.topics.retention {
            Retention::Delete { age, .. } => age,
            Retention::Compact => None,
        };
        let oversized = settings.oversized.clone();
        let letters = oversized.letters.as_str().into();
        let cloud_events = settings.cloud_events.clone();
        Self { source: settings.name.clone(), settings: oversized, limit, keep, letters, cloud_events }
    }

    /// Whether a record of this size can be appended.
    pub fn fits(&self, size: usize) -> bool {
        size <= self.limit
    }

    /// Appends what is published of an event whose record has `size` bytes.
    pub async fn publish(
        &self,
        batch: &mut Batch,
        topic: &Arc<str>,
        encoder: &mut Encoder,
        event: &ChangeEvent,
        size: usize,
    ) -> Result<(), ConnectorError> {
        if self.settings.policy == OversizedPolicy::Stop {
            return Err(self.stop(encoder, event, size));
        }
        let mut whole = Vec::with_capacity(size);
        encoder.value(event, &mut whole);
        let path = self.path(event);
        self.keep_file(path.clone(), whole).await?;
        let shown = path.display().to_string();
        let part = in_part(event, encoder, &shown, self.limit);
        let (left_out, published) = match &part {
            Some(part) => {
                let told = (part, self.cloud_events.as_deref());
                write_with(batch, topic, encoder, told, |encoder, out| encoder.value_in_part(part, &shown, out));
                (names(event, part), true)
            }
            None => (Vec::new(), false),
        };
        let what = describe(event, encoder.decimals());
        tracing::warn!(
            source = self.source,
            event = what,
            size,
            limit = self.limit,
            ?left_out,
            published,
            whole = shown,
            "an event is larger than max_record; its largest values are left out"
        );
        let policy = self.settings.policy.name();
        metrics::counter!("tributary_oversized_events_total", "source" => self.source.clone(), "policy" => policy)
            .increment(1);
        // An event of which nothing could be published is told by its letter, whatever the policy.
        if self.settings.policy == OversizedPolicy::SetAside || !published {
            let did = match published {
                true => format!("it was published without the values of {}", left_out.join(", ")),
                false => "nothing of it could be published, for its key alone is too large".to_owned(),
            };
            let cause = format!(
                "{what}: the event has {size} bytes, and max_record is {}; {did}; the whole event lies in {shown}",
                self.limit
            );
            self.letter(batch, encoder, event, &shown, cause);
        }
        Ok(())
    }

    fn stop(&self, encoder: &Encoder, event: &ChangeEvent, size: usize) -> ConnectorError {
        // Beyond what can be set only a policy helps.
        let raise = match size <= MAX_RECORD {
            true => format!("raise `max_record` of the transport to {} or more, or ", as_setting(size)),
            false => String::new(),
        };
        ConnectorError::Oversized {
            place: describe(event, encoder.decimals()),
            cause: format!("the event has {size} bytes, and the transport's max_record is {}", self.limit),
            remedy: format!(
                "{raise}say `oversized: set-aside` or `oversized: spill` in the transport, which publish it without its largest values, and \
                 start again; nothing is lost, and source {} goes on at this event",
                self.source
            ),
        }
    }

    /// The file of a whole event: the same if the event is read again.
    fn path(&self, event: &ChangeEvent) -> PathBuf {
        let lsn = match &event.position {
            Position::Postgres { lsn, .. } => lsn.0,
            Position::MySql { group, .. } => xxhash_rust::xxh3::xxh3_64(group.id().as_bytes()),
            Position::None => event.sequence,
        };
        let order = event.transaction.map_or(0, |transaction| transaction.total_order);
        self.folder().join(format!("{lsn:016X}-{order}.json"))
    }

    fn folder(&self) -> PathBuf {
        self.settings.folder.join(self.settings.policy.name())
    }

    async fn keep_file(&self, path: PathBuf, content: Vec<u8>) -> Result<(), ConnectorError> {
        // A spilled event is of use as long as its topic keeps what names it; what was set aside stays until somebody looks.
        let age = self.keep.filter(|_| self.settings.policy == OversizedPolicy::Spill);
        let folder = self.folder();
        let place = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            if let Some(age) = age {
                remove_older(&folder, age);
            }
            write_durably(&folder, &path, &content)
        });
        let written = written.await.map_err(|error| ConnectorError::Task(error.to_string()))?;
        written.map_err(|error| ConnectorError::Keep { place, cause: error.to_string() })
    }

    fn letter(&self, batch: &mut Batch, encoder: &mut Encoder, event: &ChangeEvent, whole: &str, cause: String) {
        let small = in_part(event, encoder, whole, IN_LETTER);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let has_key = small.is_some() && encode_event_key(&mut key, event, encoder.decimals());
        if let Some(small) = &small {
            encoder.value_in_part(small, whole, &mut value);
        }
        let subject = Path::new(whole).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let subject = format!("{}/{subject}", self.source);
        let letter = DeadLetter {
            id: subject.clone(),
            stage: format!("source {}", self.source),
            topic: self.settings.replays.clone(),
            topic_id: None,
            partition: 0,
            offset: 0,
            key: has_key.then_some(key),
            value: small.is_some().then_some(value),
            headers: Headers::NONE,
            class: ErrorClass::Definite,
            cause,
            attempts: 1,
            first_failed_us: event.capture_us,
            last_failed_us: event.capture_us,
            subject,
            replays: Replays::default(),
            way_back: WayBack::Topic,
            plan: None,
        };
        metrics::counter!("tributary_dead_letters_total", "stage" => letter.stage.clone()).increment(1);
        let (id, content) = letter.encode(self.limit);
        batch.push(&self.letters, event.capture_us / 1_000, Some(&id), Some(&content));
    }
}

/// The event without its largest values, so that its record has at most `limit` bytes. None if even that is too large.
fn in_part(event: &ChangeEvent, encoder: &mut Encoder, whole: &str, limit: usize) -> Option<ChangeEvent> {
    let mut part = event.clone();
    let mut rest = lengths(event, encoder.decimals()).into_iter().peekable();
    let mut scratch = Vec::new();
    let mut size = record_size(&part, encoder, whole, &mut scratch);
    if size > limit && part.query.take().is_some() {
        size = record_size(&part, encoder, whole, &mut scratch);
    }
    if size > limit
        && let Some(message) = &mut part.message
    {
        message.content = bytes::Bytes::new();
        size = record_size(&part, encoder, whole, &mut scratch);
    }
    while size > limit {
        rest.peek()?;
        let mut expected = size;
        while expected > limit {
            let Some(Left { image, column, length }) = rest.next() else { break };
            let row = if image == BEFORE { &mut part.before } else { &mut part.after };
            if let Some(value) = row.as_mut().and_then(|row| row.values.get_mut(column)) {
                *value = Value::Unchanged;
            }
            expected = expected.saturating_sub(length);
        }
        size = record_size(&part, encoder, whole, &mut scratch);
    }
    Some(part)
}

fn record_size(event: &ChangeEvent, encoder: &mut Encoder, whole: &str, scratch: &mut Vec<u8>) -> usize {
    scratch.clear();
    encode_event_key(scratch, event, encoder.decimals());
    encoder.value_in_part(event, whole, scratch);
    scratch.len()
}

const BEFORE: u8 = 0;
const AFTER: u8 = 1;

/// A value that can be left out.
struct Left {
    image: u8,
    column: usize,
    length: usize,
}

/// The values that can be left out, in the order in which they are.
fn lengths(event: &ChangeEvent, decimals: DecimalMode) -> Vec<Left> {
    let mut scratch = Vec::new();
    let mut all = Vec::new();
    for (image, row) in [(BEFORE, &event.before), (AFTER, &event.after)] {
        let Some(Row { table, values }) = row else { continue };
        for (column, value) in values.iter().enumerate() {
            if !value.is_known() || *value == Value::Null || table.key.contains(&column) {
                continue;
            }
            scratch.clear();
            encode_value(&mut scratch, value, decimals);
            all.push(Left { image, column, length: scratch.len() });
        }
    }
    all.sort_by_key(|left| (left.length <= SMALL, left.image, Reverse(left.length)));
    all
}

/// What was left out, in words.
fn names(event: &ChangeEvent, part: &ChangeEvent) -> Vec<String> {
    let mut names = Vec::new();
    for (which, whole, part) in [("before", &event.before, &part.before), ("after", &event.after, &part.after)] {
        let Some((whole, part)) = whole.as_ref().zip(part.as_ref()) else { continue };
        for ((column, value), left) in whole.table.columns.iter().zip(&whole.values).zip(&part.values) {
            if !left.is_known() && value.is_known() {
                names.push(format!("{} ({which})", column.name));
            }
        }
    }
    if event.query != part.query {
        names.push("the statement".to_owned());
    }
    if event.message != part.message {
        names.push("the message's content".to_owned());
    }
    names
}

/// `table public.doc, insert of {"id":5}`.
fn describe(event: &ChangeEvent, decimals: DecimalMode) -> String {
    let mut key = Vec::new();
    encode_event_key(&mut key, event, decimals);
    let key = String::from_utf8_lossy(&key);
    let shown: String = key.chars().take(SHOWN).collect();
    let more = if shown.len() < key.len() { "…" } else { "" };
    let op = event.op.letter();
    if event.message.is_some() {
        return format!("a logical message, {shown}{more}");
    }
    let key = if shown.is_empty() { "without a key".to_owned() } else { format!("key {shown}{more}") };
    format!("table {}, {key}, operation {op}", event.table.qualified_name())
}

/// The file is whole or not there, whatever happens.
fn write_durably(folder: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Best effort: what cannot be removed now is tried again at the next event.
fn remove_older(folder: &Path, age: Duration) {
    let Some(oldest) = SystemTime::now().checked_sub(age) else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        if written.is_ok_and(|at| at < oldest) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use tributary_event::{Column, LogGroup, Op, Scope, SourceInfo, SourceKind, TableSchema};

    use super::*;

    fn event(before: Option<Vec<Value>>, after: Option<Vec<Value>>) -> ChangeEvent {
        let column = |name: &str| Column { name: name.into(), type_name: "text".into() };
        let columns = ["id", "parent", "title", "body"].map(column).to_vec();
        let table = Arc::new(TableSchema::new("public", "doc", columns, vec![0]));
        let row = |values: Vec<Value>| Row { table: table.clone(), values };
        ChangeEvent {
            source: Arc::new(SourceInfo { name: "s".into(), kind: SourceKind::PostgreSql, database: "d".into() }),
            table: table.clone(),
            op: Op::Update,
            scope: Scope::Row,
            before: before.map(row),
            after: after.map(row),
            message: None,
            position: Position::None,
            transaction: None,
            origin: None,
            query: None,
            commit_us: 1,
            capture_us: 2,
            sequence: 3,
        }
    }

    fn row(id: &str, title: usize, body: usize) -> Vec<Value> {
        let text = |length| Value::text("\n".repeat(length));
        vec![Value::text(id), Value::Int(7), text(title), text(body)]
    }

    fn reduced(event: &ChangeEvent, limit: usize) -> Option<(Vec<String>, usize)> {
        let mut encoder = Encoder::new(&event.source, DecimalMode::Precise);
        let part = in_part(event, &mut encoder, "/kept/1.json", limit)?;
        Some((names(event, &part), record_size(&part, &mut encoder, "/kept/1.json", &mut Vec::new())))
    }

    #[test]
    fn the_largest_values_are_left_out_and_those_of_the_row_before_first() {
        let large = event(Some(row("5", 20, 50_000)), Some(row("5", 30_000, 40_000)));
        for (limit, expected) in [
            (1_000_000, vec![]),
            (200_000, vec!["body (before)"]),
            (100_000, vec!["body (before)", "body (after)"]),
            (5_000, vec!["body (before)", "title (after)", "body (after)"]),
        ] {
            let (names, size) = reduced(&large, limit).expect("it fits");
            assert_eq!(names, expected, "{limit}");
            assert!(size <= limit, "{size} > {limit}");
        }
    }

    #[test]
    fn the_statement_is_left_out_before_any_value() {
        let mut large = event(None, Some(row("5", 1_000, 30_000)));
        large.query = Some("x".repeat(60_000).into());
        large.position = Position::MySql { group: Arc::new(LogGroup::default()), offset: 4, row: 0 };
        for (limit, expected) in
            [(1_000_000, vec![]), (100_000, vec!["the statement"]), (10_000, vec!["body (after)", "the statement"])]
        {
            assert_eq!(reduced(&large, limit).expect("it fits").0, expected, "{limit}");
        }
    }

    #[test]
    fn what_leads_to_other_rows_stays_while_it_can_and_a_key_always() {
        let wide = event(None, Some(row("5", 1_000, 2_000)));
        let (names, _) = reduced(&wide, 3_500).expect("it fits");
        assert_eq!(names, ["body (after)"]);
        let key = "k".repeat(10_000);
        assert_eq!(reduced(&event(None, Some(row(&key, 1, 1))), 5_000), None);
        let shown = describe(&event(None, Some(row(&key, 1, 1))), DecimalMode::Precise);
        assert!(shown.starts_with("table public.doc, key {\"id\":\"kkk") && shown.len() < 300, "{shown}");
    }
}
