//! What the stream's receivers hold: topic, webhook, Parquet files, derived table and index, each read back as events.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Value as Json};
use tokio_postgres::Client;
use tributary_transport::{Embedded, EmbeddedSettings, TopicPartition, Transport as _};

use super::event::{ByMovie, Raised, by_movie};
use super::outside::Arrived;
use crate::answers;

/// Records of a page of a topic.
const PAGE: usize = 5_000;

/// The events of a topic of the embedded log, whose process must have ended.
pub(super) async fn topic(log: &Path, topic: &str) -> Result<ByMovie> {
    let place = || format!("the topic {topic} in {}", log.display());
    let transport = Embedded::open(log, EmbeddedSettings::default()).with_context(place)?;
    let mut events = Vec::new();
    for (partition, ends) in (0..).zip(transport.watermarks(topic).await.with_context(place)?) {
        let (from, mut offset) = (TopicPartition { topic: topic.into(), partition }, ends.low);
        loop {
            let page = transport.read(&from, offset, PAGE).await.with_context(place)?;
            let Some(last) = page.last() else { break };
            offset = last.offset + 1;
            for record in page {
                events.push(serde_json::from_slice(record.value.as_deref().unwrap_or(b"null")).with_context(place)?);
            }
        }
    }
    Ok(by_movie(events))
}

/// What came by webhook: each event once, in the order in which they came first.
pub(super) struct Told {
    pub(super) events: ByMovie,
    /// Requests that repeated an earlier one.
    pub(super) duplicates: usize,
    /// Ids that came with more than one body.
    pub(super) unequal: Vec<String>,
}

/// The events of requests.
pub(super) fn told(arrived: &[Arrived]) -> Result<Told> {
    let (mut bodies, mut events, mut unequal) = (BTreeMap::new(), Vec::new(), Vec::new());
    for Arrived { id, body } in arrived {
        if let Some(first) = bodies.get(id) {
            if first != body {
                unequal.push(id.clone());
            }
            continue;
        }
        bodies.insert(id.clone(), body.clone());
        let mut envelope: Json = serde_json::from_slice(body).with_context(|| format!("the webhook {id}"))?;
        events.push(serde_json::from_value(envelope["data"].take()).with_context(|| format!("the webhook {id}"))?);
    }
    let duplicates = arrived.len() - events.len();
    Ok(Told { events: by_movie(events), duplicates, unequal })
}

/// The events of all Parquet files below a folder, in the order of their changes, and how many files there are.
pub(super) fn files(folder: &Path) -> Result<(ByMovie, usize)> {
    let mut paths = Vec::new();
    parquet_files(folder, &mut paths)?;
    let mut rows = Vec::new();
    for path in &paths {
        let place = || format!("the file {}", path.display());
        let reader = SerializedFileReader::new(File::open(path).with_context(place)?).with_context(place)?;
        for row in reader.get_row_iter(None).with_context(place)? {
            rows.push(event_of(&row.with_context(place)?).with_context(place)?);
        }
    }
    rows.sort_by_key(|(sequence, _)| *sequence);
    Ok((by_movie(rows.into_iter().map(|(_, event)| event)), paths.len()))
}

fn parquet_files(folder: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() {
            parquet_files(&path, found)?;
        } else if !hidden && path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    Ok(())
}

/// The sequence of a row's change, and its event: the columns that are not the sink's own.
fn event_of(row: &Row) -> Result<(i64, Raised)> {
    let (mut sequence, mut event) = (None, Map::new());
    for (name, field) in row.get_column_iter() {
        match field {
            Field::Long(number) if name == "_seq" => sequence = Some(*number),
            _ if name.starts_with('_') => {}
            Field::Long(number) => drop(event.insert(name.clone(), (*number).into())),
            Field::Double(number) => drop(event.insert(name.clone(), (*number).into())),
            Field::Str(text) => drop(event.insert(name.clone(), text.clone().into())),
            Field::Null => {}
            other => bail!("the column {name} holds {other}, which no event of the demo has"),
        }
    }
    Ok((sequence.context("a row without _seq")?, serde_json::from_value(event.into())?))
}

/// The last event of each movie in the derived table; nothing where it was not made yet.
pub(super) async fn table(client: &Client) -> Result<BTreeMap<i64, Raised>> {
    const SQL: &str = "SELECT to_jsonb(r) - '_seq' - '_deleted' FROM derived.raised r WHERE NOT _deleted";
    if client.query_one("SELECT to_regclass('derived.raised') IS NULL", &[]).await?.try_get(0)? {
        return Ok(BTreeMap::new());
    }
    let mut last = BTreeMap::new();
    for row in client.query(SQL, &[]).await.context("reading derived.raised")? {
        let event: Raised = serde_json::from_value(row.try_get(0)?).context("a row of derived.raised")?;
        last.insert(event.id, event);
    }
    Ok(last)
}

/// The last event of each movie in the index.
pub(super) async fn index(address: &str) -> Result<BTreeMap<i64, Raised>> {
    let documents = answers::documents_of(address, "raised").await?;
    let event = |(id, document): (String, Json)| {
        let event: Raised =
            serde_json::from_value(document).with_context(|| format!("the document {id} of the index raised"))?;
        Ok((event.id, event))
    };
    documents.into_iter().map(event).collect()
}
