//! `tables:`: what steps of streams look into, a captured table or a topic; and which of them an event can wait for.

use std::collections::BTreeSet;

use tributary_event::{ColumnType, JsonType, debezium};
use tributary_expression::{Content, Program, Shape};

use super::programs::looking;
use super::remembering::Ground;
use crate::definition::sources::Captured;
use crate::keys::TABLES;
use crate::keys::streams::lookups as key;
use crate::keys::tables::TableText;
use crate::keys::values::NameOf;
use crate::plan::{CapturedTable, LookupTable, Missing, Origin, StreamInput, StreamPlan};
use crate::suggest::suggestion;
use crate::yaml::{Map, Reader, Text};

/// The tables, as far as they could be read.
pub(in crate::definition) fn read(r: &mut Reader, pipeline: &Map, captured: &Captured) -> Vec<LookupTable> {
    let mut tables = Vec::new();
    let Some(entries) = r.optional(pipeline, &TABLES) else { return tables };
    for entry in entries.entries() {
        NameOf::TABLE.check_key(r, &entry.0);
        let Some(map) = r.entry(&entries, entry, &&key::TABLE, "{ topic: finance.rates }") else { continue };
        let from = r.optional(&map, &key::FROM);
        let columns = r.optional(&map, &key::VALUE).unwrap_or_default();
        let topic = r.optional(&map, &key::TOPIC);
        let row_key = r.optional(&map, &key::ROW_KEY);
        let row_key = row_key.and_then(|text| looking(r, &text, Some(&Shape::any()), "a key"));
        let (keep, limit) = (r.value(&map, &key::KEEP), r.value(&map, &key::LIMIT));
        let max_age = r.optional(&map, &key::MAX_AGE);
        let of = match (from, topic) {
            (Some(from), _) => self::captured(r, &from, &columns, captured).map(|table| {
                let topic = debezium::topic(&table.source, &table.table.schema, &table.table.name);
                (topic, Some(table))
            }),
            (None, topic) => topic.map(|topic| (topic.value, None)),
        };
        let name = entry.0.name.clone();
        tables.extend(of.map(|(topic, captured)| LookupTable {
            name,
            topic,
            captured,
            key: row_key,
            keep,
            limit,
            max_age,
        }));
    }
    tables
}

fn captured(r: &mut Reader, from: &TableText, columns: &[Text], captured: &Captured) -> Option<CapturedTable> {
    let source = captured.known_source(r, &from.name, &from.shown, &from.spot)?.to_owned();
    if captured.at_prepare.iter().any(|(name, _)| *name == source) {
        let message = format!(
            "`{}` is of the source `{source}`, which tells of changes when they are prepared: of some that are rolled back, too",
            from.shown
        );
        let help = "steps would find rows that the table never had. Remove `prepared_transactions: at-prepare` from the source\n\
                    (`at-commit` is the default), or capture the table by a source of its own";
        r.found.push(from.spot.error(message).help(help));
        return None;
    }
    if let Some(known) = r.inputs.columns(&from.name) {
        let names: Vec<&str> = known.iter().map(|column| column.name.as_str()).collect();
        for column in columns.iter().filter(|column| !names.contains(&column.value.as_str())) {
            let message = format!("the table `{}` has no column `{}`", from.shown, column.shown);
            let help = suggestion(&column.value, names.iter().copied());
            r.found.push(column.spot.error(message).maybe_help(help));
        }
    }
    let columns = columns.iter().map(|column| column.value.clone()).collect();
    Some(CapturedTable { source, table: from.name.clone(), columns })
}

/// What a table has of a key, as far as the columns of its rows are known.
pub(super) fn content(r: &Reader, table: &LookupTable, missing: Missing) -> Option<Content> {
    let captured = table.captured.as_ref()?;
    let is_there = |column: &ColumnType| captured.columns.is_empty() || captured.columns.contains(&column.name);
    let fields = r.inputs.columns(&captured.table)?.into_iter().filter(is_there).map(|column| {
        let content = Content::of(column.json);
        (column.name, if column.is_nullable { content.or_null() } else { content })
    });
    let row = Content::object(fields);
    Some(if missing == Missing::Keep { row.or_null() } else { row })
}

/// Why no row of a table can have such a key, as far as its columns are known, and what to do; none: one can. Text and a number are the same
/// key where they are written alike.
pub(super) fn never_found(r: &Reader, table: &LookupTable, key: &Program, ground: &Ground) -> Option<(String, String)> {
    let captured = table.captured.as_ref().filter(|_| table.key.is_none())?;
    let names = ground.key(&captured.table, || r.inputs.columns(&captured.table))?;
    let may_be = |kinds: &[JsonType]| kinds.iter().any(|kind| key.may_answer(*kind));
    let (is_right, shown, help) = match names.as_slice() {
        [] => return None,
        [name] => {
            let is_right = may_be(&[JsonType::Text, JsonType::Integer, JsonType::Number, JsonType::Boolean]);
            (is_right, format!("`{name}`"), "give it what that column has".to_owned())
        }
        several => {
            let fields: Vec<String> = several.iter().map(|name| format!("{name}: …")).collect();
            let help = format!("write an object of them: `{{ {} }}`", fields.join(", "));
            (may_be(&[JsonType::Object]), format!("`{}`", several.join("`, `")), help)
        }
    };
    let message = || format!("the key of `{}` is {shown}, and this is {}: no row has it", table.name, key.answer());
    (!is_right).then(|| (message(), help))
}

/// The sources whose changes a stream has, directly or by way of other streams; none: it has what somebody else writes.
pub(super) fn sources<'a>(from: &'a [StreamInput], streams: &'a [StreamPlan]) -> Option<BTreeSet<&'a str>> {
    let mut sources = BTreeSet::new();
    for input in from {
        match &input.origin {
            Origin::Table { source, .. } => {
                sources.insert(source.as_str());
            }
            Origin::Stream(name) => {
                // Streams stand behind those that they read, so this comes to an end.
                let place = streams.iter().position(|other| other.name == *name)?;
                sources.extend(self::sources(&streams[place].from, &streams[..place])?);
            }
            Origin::Topic => return None,
        }
    }
    Some(sources)
}

/// Why an event of a stream cannot wait until a table has passed its position, and what to do; none: it can.
pub(super) fn waits_in_vain(table: &LookupTable, sources: Option<&BTreeSet<&str>>) -> Option<(String, &'static str)> {
    let name = &table.name;
    let Some(captured) = &table.captured else {
        let message =
            format!("`{name}` is a topic that somebody else writes, in which changes of a source have no position");
        return Some((message, "remove `wait: position`: an event sees the table as it is then"));
    };
    let help = "remove `wait: position`: positions of one source say nothing about another one";
    match sources {
        None => Some((
            format!(
                "the records of this stream are no changes of `{}`, which `{name}` is captured by",
                captured.source
            ),
            help,
        )),
        Some(sources) => {
            let other = sources.iter().find(|source| **source != captured.source)?;
            Some((
                format!("`{name}` is captured by `{}`, and this stream has changes of `{other}`", captured.source),
                help,
            ))
        }
    }
}
