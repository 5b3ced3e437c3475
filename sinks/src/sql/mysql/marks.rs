//! The tables of marks and samples in MySQL and MariaDB.

use std::time::Duration;

use tributary_processor::sink::{Entry, Mark};
use tributary_transport::TopicPartition;

use super::super::failure::Failure;
use super::super::marks::{MARKS, Marks, SAMPLES, bigint, topic};
use super::dialect::texts;
use super::literal::quote;
use super::session::MySqlSession;

/// The number of a row of a unique index that is there already.
const THERE_ALREADY: u16 = 1062;

/// Whether there are both tables.
pub(super) async fn are_there(session: &mut MySqlSession, marks: &Marks) -> Result<bool, Failure> {
    let [names, more] = texts([MARKS, SAMPLES]);
    let count = format!(
        "select cast(count(*) as signed) from information_schema.tables where table_schema = {} and table_name in ({names}, {more})",
        quote(&marks.schema)
    );
    Ok(session.numbers(&count).await?.first() == Some(&2))
}

/// Whether they have what this version keeps in them.
pub(super) async fn are_complete(session: &mut MySqlSession, marks: &Marks) -> Result<bool, Failure> {
    Ok(are_there(session, marks).await? && has_targets(session, marks).await?)
}

async fn has_targets(session: &mut MySqlSession, marks: &Marks) -> Result<bool, Failure> {
    let count = format!("select cast(count(*) as signed) from {}", targets(&marks.schema));
    Ok(session.numbers(&count).await?.first() == Some(&1))
}

/// Where the catalog has the column for the table that is written, which a table of marks of an earlier version lacks.
pub(super) fn targets(schema: &str) -> String {
    format!(
        "information_schema.columns where table_schema = {} and table_name = {} and column_name = 'target'",
        quote(schema),
        quote(MARKS)
    )
}

/// Which row of marks is a partition's.
fn of(marks: &Marks, place: &TopicPartition) -> String {
    format!(
        "stream = {} and sink = {} and topic = {} and `partition` = {}",
        quote(&marks.stream),
        quote(&marks.sink),
        quote(&place.topic),
        place.partition
    )
}

/// The topic of a mark as a literal.
fn topic_of(mark: Mark) -> String {
    topic(mark).map_or("null".to_owned(), |topic| quote(&topic))
}

/// The mark of a partition, and the table that was written up to it. It waits for a transaction that is moving it.
pub(super) async fn next(
    session: &mut MySqlSession,
    marks: &Marks,
    place: &TopicPartition,
) -> Result<Option<(Mark, Option<String>)>, Failure> {
    let [table, _] = marks.tables(session.words());
    let target = if has_targets(session, marks).await? { "target" } else { "null" };
    let select = format!("select next, topic_id, {target} from {table} where {} for update", of(marks, place));
    let rows = session.texts(&select).await?;
    Ok(rows.first().and_then(|row| {
        let next = row.first()?.as_ref()?.parse().ok()?;
        let topic = row.get(1).and_then(Option::as_ref).and_then(|topic| topic.parse().ok());
        Some((Mark { next, topic }, row.get(2).cloned().flatten()))
    }))
}

/// Moves the mark, if it is where the entry says.
pub(super) async fn advance(session: &mut MySqlSession, marks: &Marks, entry: &Entry<'_>) -> Result<bool, Failure> {
    let ([table, _], to, to_topic) = (marks.tables(session.words()), bigint(entry.to.next), topic_of(entry.to));
    let moved = match entry.from {
        None => {
            let insert = format!(
                "insert into {table} (stream, sink, topic, `partition`, next, topic_id, target) values ({}, {}, {}, {}, {to}, {to_topic}, {})",
                quote(&marks.stream),
                quote(&marks.sink),
                quote(&entry.place.topic),
                entry.place.partition,
                quote(&marks.target)
            );
            session.execute_unless(&insert, THERE_ALREADY).await?
        }
        Some(from) => {
            let update = format!(
                "update {table} set next = {to}, topic_id = {to_topic}, target = {} where {} and next = {} and topic_id <=> {}",
                quote(&marks.target),
                of(marks, entry.place),
                bigint(from.next),
                topic_of(from)
            );
            session.execute(&update).await?
        }
    };
    Ok(moved == 1)
}

/// See [`Session::sample`](super::super::database::Session::sample).
pub(super) async fn sample(
    session: &mut MySqlSession,
    marks: &Marks,
    seq: u64,
    pause: Duration,
    keep: Duration,
) -> Result<Option<i64>, Failure> {
    let ([_, samples], seq) = (marks.tables(session.words()), bigint(seq));
    let (stream, sink) = (quote(&marks.stream), quote(&marks.sink));
    let ago = |time: Duration| format!("utc_timestamp(6) - interval {} microsecond", time.as_micros());
    let note = format!(
        "insert into {samples} (stream, sink, at, seq) select {stream}, {sink}, utc_timestamp(6), {seq} from dual \
         where not exists (select 1 from {samples} as s where s.stream = {stream} and s.sink = {sink} and s.at > {})",
        ago(pause)
    );
    session.execute_unless(&note, THERE_ALREADY).await?;
    let old = format!(
        "from {samples} where stream = {stream} and sink = {sink} and at <= {} order by at desc limit 1",
        ago(keep)
    );
    let forget = format!(
        "delete from {samples} where stream = {stream} and sink = {sink} and at < (select at from (select at {old}) as old)"
    );
    session.execute(&forget).await?;
    Ok(session.numbers(&format!("select seq {old}")).await?.first().copied())
}
