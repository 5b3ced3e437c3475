//! `to:` of a stream.

mod files;
mod nulls;

use std::sync::Arc;

use tributary_event::{Op, debezium};
use tributary_expression::{Program, Shape};

use self::nulls::Flowing;
use super::programs::looking;
use super::secrets;
use crate::definition::headers::headers;
use crate::definition::servers::store;
use crate::definition::sources::Captured;
use crate::diagnostic::Spot;
use crate::keys::graph::LEAVES;
use crate::keys::indexes::STORE;
use crate::keys::streams::{self, sinks as key};
use crate::keys::values::NameOf;
use crate::plan::{
    ConductorPlan, DeliveryOrder, DeliveryPlan, IndexSinkPlan, KnownFields, Place, Redelivery, RowPlan, Secret,
    SinkPlan, SqlPlan, Step, StepPlan, StorePlan, StreamInput, StreamPlan, TopicSink, WebhookFormat, WebhookPlan,
};
use crate::yaml::{At, Hidden, Key, Map, MappingKey, Node, Reader, Required};

/// Fields of a row that are named at most where one is missing.
const SHOWN: usize = 12;

/// What is around a sink.
pub(super) struct Surroundings<'a> {
    /// The pipeline's name, if it has one.
    pub pipeline: Option<&'a str>,
    /// What is captured.
    pub captured: &'a Captured,
    /// The names of the indexes.
    pub indexes: &'a [String],
    /// The streams before this one.
    pub streams: &'a [StreamPlan],
    /// What flows into this one.
    pub from: &'a [StreamInput],
    /// Which changes.
    pub ops: &'a [Op],
}

impl Surroundings<'_> {
    /// The sinks of the streams before this one, and those of this one that were read.
    fn sinks<'s>(&'s self, read: &'s [DeliveryPlan]) -> impl Iterator<Item = &'s SinkPlan> {
        self.streams.iter().flat_map(|stream| &stream.deliveries).chain(read).map(|delivery| &delivery.sink)
    }
}

/// The topics, and the other sinks.
pub(super) fn read(
    r: &mut Reader,
    stream: &Map,
    shape: Option<&Shape>,
    steps: &[Step],
    around: &Surroundings,
) -> (Vec<TopicSink>, Vec<DeliveryPlan>) {
    let (mut topics, mut deliveries): (Vec<TopicSink>, Vec<DeliveryPlan>) = (Vec::new(), Vec::new());
    let path = stream.path_of(streams::TO.name);
    for node in r.optional(stream, &streams::TO).into_iter().flatten() {
        let at = At { path: &path, key: None, example: "{ topic: { name: movies.changed } }" };
        let Some(map) = r.map(&node, at, &key::SINK) else { continue };
        let when = when(r, &map, shape);
        let flowing = Flowing { shape, steps, when: when.as_ref(), around };
        if let Some(map) = r.optional(&map, &key::TOPIC) {
            topics.extend(topic(r, &map, &flowing, &topics).map(|topic| TopicSink { when: when.clone(), ..topic }));
        }
        let (kind, map, sink) = if let Some(map) = r.optional(&map, &key::WEBHOOK) {
            let sink = webhook(r, &map).map(SinkPlan::Webhook);
            ("webhook", map, sink)
        } else if let Some(map) = r.optional(&map, &key::CONDUCTOR) {
            let sink = conductor(r, &map, shape).map(SinkPlan::Conductor);
            ("conductor", map, sink)
        } else if let Some(map) = r.optional(&map, &key::SQL) {
            let sink = sql(r, &map, &flowing, &deliveries).map(SinkPlan::Sql);
            ("sql", map, sink)
        } else if let Some(map) = r.optional(&map, &key::INDEX) {
            let sink = index(r, &map, &flowing, &deliveries).map(SinkPlan::Index);
            ("index", map, sink)
        } else if let Some(map) = r.optional(&map, &key::FILES) {
            let sink = files::read(r, &map, around, &deliveries).map(SinkPlan::Files);
            ("files", map, sink)
        } else {
            continue;
        };
        let name = match &sink {
            // Its own name is one.
            Some(SinkPlan::Index(index)) => index.name.clone(),
            None if map.node(&key::INDEX_NAME).is_some() && kind == "index" => continue,
            _ => name(r, &map, kind, &deliveries),
        };
        let on_error = r.value(&map, &key::ON_ERROR);
        let redelivery = redelivery(r, &map);
        let order = match kind {
            "webhook" | "conductor" => order(r, &map),
            "index" => r.value(&map, &key::ROW_ORDER),
            _ => DeliveryOrder::Partition,
        };
        let place = Place::of(&r.spot(map.place));
        deliveries.extend(sink.map(|sink| DeliveryPlan { name, when, sink, on_error, redelivery, order, place }));
    }
    (topics, deliveries)
}

/// Which events go to a sink.
fn when(r: &mut Reader, map: &Map, shape: Option<&Shape>) -> Option<Program> {
    let text = r.optional(map, &key::WHEN)?;
    let compiled = looking(r, &text, shape, "a condition")?;
    if !compiled.is_condition() {
        let message = format!("a condition says whether an event goes there, and this answers {}", compiled.answer());
        r.found.push(text.spot.error(message).help("compare something, such as `.op == \"c\"`"));
    }
    Some(compiled)
}

fn topic(r: &mut Reader, map: &Map, flowing: &Flowing, before: &[TopicSink]) -> Option<TopicSink> {
    let around = flowing.around;
    let name = r.required(map, &key::TOPIC_NAME)?;
    if let Some(problem) = refused(&name.value, around) {
        r.found.push(name.spot.error(problem).help("give it a name of its own"));
        return None;
    }
    let mut others = around.streams.iter().flat_map(|stream| &stream.topics).chain(before);
    if others.any(|other| other.name == name.value) {
        let message = format!("the topic `{}` is written by two streams, or twice", name.shown);
        r.found.push(name.spot.error(message).help("give one of the two another name"));
        return None;
    }
    let text = r.optional(map, &key::TOPIC_KEY);
    let key = text.as_ref().and_then(|text| looking(r, text, flowing.shape, "a key"));
    let warning = text.zip(key.as_ref()).and_then(|(text, key)| flowing.null_of_record(&text, key, &r.functions));
    r.found.extend(warning);
    let (compact, cloud_events) = (r.value(map, &key::COMPACT), r.value(map, &key::HEADERS_OF_TOPIC));
    Some(TopicSink { name: name.value, key, compact, cloud_events, when: None })
}

/// Why a topic may not be written.
fn refused(name: &str, around: &Surroundings) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.len() > 249 || !name.chars().all(legal) || name.chars().all(|c| c == '.') {
        return Some(format!("`{name}` is no name of a topic (letters, digits, `.`, `_` and `-`, 249 at most)"));
    }
    let topic = |(table, source, _): &(tributary_event::TableName, String, Spot)| {
        debezium::topic(source, &table.schema, &table.name)
    };
    if around.captured.tables.iter().any(|captured| topic(captured) == name) {
        return Some(format!("`{name}` is the topic of a table that is captured"));
    }
    let pipeline = around.pipeline.unwrap_or_default();
    let inside = !pipeline.is_empty() && name.strip_prefix(pipeline).is_some_and(|rest| rest.starts_with('.'));
    inside.then(|| format!("topics whose names begin with `{pipeline}.` are the pipeline's own"))
}

/// The name that a sink was given, or its kind.
fn name(r: &mut Reader, map: &Map, kind: &str, before: &[DeliveryPlan]) -> String {
    let is_taken = |name: &str| before.iter().any(|sink| sink.name == name);
    match r.optional(map, &key::NAME) {
        Some(given) if NameOf::SINK.check(r, &given.value, &given.shown, &given.spot) => {
            if is_taken(&given.value) {
                let message = format!("two sinks have the name `{}`", given.shown);
                r.found.push(given.spot.error(message).help("give one of the two another name"));
            }
            given.value
        }
        _ => {
            // Its progress is kept under its name, which must not depend on what stands before it.
            if map.node(&key::NAME).is_none() && is_taken(kind) {
                let message = format!("a stream with several sinks `{kind}` needs names for them");
                let help =
                    format!("give this one a `name`, such as `name: {kind}-audit`; its progress is kept under it");
                r.error(map.place, message, Some(help));
            }
            kind.to_owned()
        }
    }
}

/// Which events wait for which.
fn order(r: &mut Reader, map: &Map) -> DeliveryOrder {
    let order = r.value(map, &key::ORDER);
    let is_batched = map.node(&key::BATCH).is_some() && r.value(map, &key::BATCH) > 1;
    if order == DeliveryOrder::Partition && is_batched {
        let message = "`order: partition` is one event at a time, and `batch` is several";
        r.error(map.key_place(&key::BATCH), message, Some("leave `batch` out, or write `order: key`".into()));
    }
    order
}

fn redelivery(r: &mut Reader, sink: &Map) -> Redelivery {
    match r.optional(sink, &key::RETRY) {
        Some(map) => Redelivery { within: r.value(&map, &key::WITHIN), max_pause: r.value(&map, &key::MAX_PAUSE) },
        None => Redelivery { within: key::WITHIN.left_out.0, max_pause: key::MAX_PAUSE.left_out.0 },
    }
}

fn webhook(r: &mut Reader, map: &Map) -> Option<WebhookPlan> {
    secrets::in_url(r, map, &key::URL);
    secrets::written(r, map, &key::SECRET);
    secrets::in_headers(r, map, &key::HEADERS);
    let url = r.required(map, &key::URL);
    let plan = WebhookPlan {
        url: Secret::new(""),
        secrets: r.optional(map, &key::SECRET).unwrap_or_default(),
        headers: headers(r, map, &key::HEADERS).unwrap_or_default(),
        format: r.value(map, &key::FORMAT),
        timeout: r.value(map, &key::TIMEOUT),
        concurrency: r.value(map, &key::CONCURRENCY),
        batch: r.value(map, &key::BATCH),
        private: r.value(map, &key::PRIVATE),
    };
    if plan.batch > 1 && plan.format == WebhookFormat::CloudEventsBinary {
        let help = "write `format: cloudevents`, or leave `batch` out";
        r.error(map.key_place(&key::BATCH), "several events of one request have one set of headers", Some(help.into()));
    }
    let url = http(r, map, &key::URL, url?, "a webhook's URL")?;
    Some(WebhookPlan { url, ..plan })
}

/// The URL, if it is one of HTTP.
fn http(r: &mut Reader, map: &Map, key: &Key<Hidden, Required>, url: Secret, what: &str) -> Option<Secret> {
    if ["http://", "https://"].iter().any(|scheme| url.reveal().starts_with(scheme)) {
        return Some(url);
    }
    r.error(map.key_place(key), format!("{what} begins with `http://` or `https://`"), None);
    None
}

fn conductor(r: &mut Reader, map: &Map, shape: Option<&Shape>) -> Option<ConductorPlan> {
    secrets::in_url(r, map, &key::CONDUCTOR_URL);
    secrets::in_headers(r, map, &key::HEADERS);
    let url = r.required(map, &key::CONDUCTOR_URL);
    let url = url.and_then(|url| http(r, map, &key::CONDUCTOR_URL, url, "the URL of a Conductor server"));
    let workflow = r.required(map, &key::WORKFLOW);
    let flavor = r.required(map, &key::FLAVOR);
    let text = r.optional(map, &key::INPUT);
    let input = text.as_ref().map(|text| looking(r, text, shape, "an input"));
    if let Some((text, program)) = text.as_ref().zip(input.as_ref().and_then(Option::as_ref))
        && program.only_looks()
        && !program.is_object()
    {
        let message = format!("the input of a workflow is an object, and this answers {}", program.answer());
        r.found.push(text.spot.error(message).help("write `{ \"movie\": … }`, or `object!(…)` around it"));
    }
    let plan = ConductorPlan {
        url: Secret::new(""),
        workflow: String::new(),
        version: r.optional(map, &key::VERSION),
        input_fields: KnownFields::new(input.as_ref().and_then(|program| program.as_ref()?.answer_fields())),
        input: None,
        flavor: flavor?,
        headers: headers(r, map, &key::HEADERS).unwrap_or_default(),
        settle: r.value(map, &key::SETTLE),
        timeout: r.value(map, &key::TIMEOUT),
        concurrency: r.value(map, &key::CONCURRENCY),
        private: r.value(map, &key::PRIVATE),
        dry_run: r.value(map, &key::DRY_RUN),
    };
    let input = match input {
        Some(program) => Some(program?),
        None => None,
    };
    Some(ConductorPlan { url: url?, workflow: workflow?.value, input, ..plan })
}

fn sql(r: &mut Reader, map: &Map, flowing: &Flowing, before: &[DeliveryPlan]) -> Option<SqlPlan> {
    secrets::in_url(r, map, &key::SQL_URL);
    let url = r.required(map, &key::SQL_URL);
    let table = r.required(map, &key::TABLE);
    let row = row(r, map, flowing);
    let create = r.value(map, &key::CREATE);
    let keep_deleted = r.value(map, &key::KEEP_DELETED);
    let (url, table) = (Secret::new(url?.value), table?);
    let mut others = flowing.around.sinks(before);
    if others.any(|other| matches!(other, SinkPlan::Sql(sql) if sql.url == url && sql.table == table.name)) {
        let message = format!("the table `{}` is written by two sinks", table.shown);
        let help = "a TRUNCATE of the one would delete rows of the other: give each a table, or let one stream read `from` both";
        r.found.push(table.spot.error(message).help(help));
        return None;
    }
    Some(SqlPlan { url, table: table.name, row: row?, create, keep_deleted })
}

/// Whether what a step leaves is made by it alone.
fn is_row(step: &StepPlan) -> bool {
    match step {
        StepPlan::Transform(_) => true,
        StepPlan::Call(call) => call.into.is_root(),
        _ => false,
    }
}

/// Which row an event is about.
fn row(r: &mut Reader, map: &Map, flowing: &Flowing) -> Option<RowPlan> {
    let Flowing { shape, steps, .. } = *flowing;
    let columns = r.required(map, &key::ROW_KEY);
    let is_written = map.node(&key::ROW).is_some();
    let text = r.optional(map, &key::ROW);
    let row = text.as_ref().and_then(|text| looking(r, text, shape, "a row"));
    let last = steps.iter().rev().find(|step| step.plan.changes());
    let is_envelope = last.is_none();
    // What a transform leaves is a row; what was only added to is none.
    if let Some(step) = last.filter(|step| !is_written && !is_row(&step.plan)) {
        let message = format!("which row is meant behind the step `{}` is not clear", step.name);
        let help = "say so with `row`, such as `row: '{ \"id\": .after.id, \"title\": .movie.title }'`";
        r.error(map.place, message, Some(help.into()));
        return None;
    }
    if is_written && row.is_none() && shape.is_some() {
        return None;
    }
    let columns = columns?;
    let is_known =
        !steps.iter().any(|step| matches!(&step.plan, StepPlan::Transform(program) if program.renames_fields()));
    let whole = || Some(Program::compile(if is_envelope { ".after" } else { "." }, shape?).ok()?.0);
    let fields = row.clone().or_else(whole).and_then(|row| row.row_fields()).filter(|_| is_known);
    if let Some(fields) = &fields {
        for column in columns.iter().filter(|column| !fields.contains(&column.value)) {
            let message = format!("the row never has the field `{}`, so no row would have a key", column.shown);
            let known: Vec<String> = fields.iter().take(SHOWN).map(|field| format!("`{field}`")).collect();
            r.found.push(column.spot.error(message).help(format!("it has {}", known.join(", "))));
        }
        let code = text.as_ref().map_or(if is_envelope { ".after" } else { "." }, |text| &text.value);
        let found = flowing.nulls_of_row(code, &columns, &r.functions);
        r.found.extend(found);
    }
    let key = columns.into_iter().map(|column| column.value).collect();
    Some(RowPlan { row, is_envelope, key, fields: KnownFields::new(fields) })
}

fn index(r: &mut Reader, map: &Map, flowing: &Flowing, before: &[DeliveryPlan]) -> Option<IndexSinkPlan> {
    let name = r.required(map, &key::INDEX_NAME);
    let name = name.filter(|name| NameOf::INDEX.check(r, &name.value, &name.shown, &name.spot));
    let row = row(r, map, flowing);
    let fields = r.required(map, &key::FIELDS).map(|entries| {
        let leaf = |entry: &(MappingKey, Arc<Node>)| {
            let leaf = r.entry(&entries, entry, &LEAVES, "keyword")?;
            Some((entry.0.name.clone(), (leaf.0)()))
        };
        entries.entries().iter().filter_map(leaf).collect()
    });
    let store = r.optional(map, &STORE).map_or(StorePlan::Embedded, |map| store(r, &map));
    let name = name?;
    let mut others = flowing.around.sinks(before);
    let is_taken = others.any(|other| match other {
        SinkPlan::Index(index) => index.name == name.value,
        _ => false,
    });
    let is_taken = is_taken || before.iter().any(|sink| sink.name == name.value);
    if is_taken || flowing.around.indexes.contains(&name.value) {
        let message = format!("there is another index or sink `{}`", name.shown);
        r.found.push(name.spot.error(message).help("give one of the two another name"));
        return None;
    }
    Some(IndexSinkPlan { name: name.value, row: row?, fields: fields?, store })
}
