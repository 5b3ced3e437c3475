//! The tables of marks and samples in PostgreSQL.

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tributary_processor::sink::{Entry, Mark};
use tributary_transport::TopicPartition;

use super::super::failure::Failure;
use super::super::marks::{Marks, bigint, topic as topic_of};
use super::dialect::Postgres;
use super::session::PostgresSession;

/// Whether there are both tables.
pub(super) async fn are_there(session: &PostgresSession, marks: &Marks) -> Result<bool, Failure> {
    is_true(session, marks, "pg_catalog.to_regclass($1) is not null and pg_catalog.to_regclass($2) is not null").await
}

/// Whether they have what this version keeps in them.
pub(super) async fn are_complete(session: &PostgresSession, marks: &Marks) -> Result<bool, Failure> {
    let condition = "pg_catalog.to_regclass($2) is not null and (select count(*) from pg_catalog.pg_attribute where attrelid = \
                     pg_catalog.to_regclass($1) and attname in ('topic_id', 'target') and not attisdropped) = 2";
    is_true(session, marks, condition).await
}

async fn is_true(session: &PostgresSession, marks: &Marks, condition: &str) -> Result<bool, Failure> {
    let [marks, samples] = marks.tables(&Postgres);
    let names = [(&marks as &(dyn ToSql + Sync), Type::TEXT), (&samples, Type::TEXT)];
    let rows = session.query(&format!("select {condition}"), &names).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// The mark of a partition, and the table that was written up to it.
pub(super) async fn next(
    session: &PostgresSession,
    marks: &Marks,
    place: &TopicPartition,
) -> Result<Option<(Mark, Option<String>)>, Failure> {
    // A table of marks that an earlier version made has fewer columns.
    let select = format!(
        "select next, pg_catalog.to_jsonb(m) ->> 'topic_id', pg_catalog.to_jsonb(m) ->> 'target' from {} m where stream = $1 and sink = $2 and topic = $3 and \
         \"partition\" = $4",
        marks.tables(&Postgres)[0]
    );
    let partition = i64::from(place.partition);
    let rows = session.query(&select, &of(marks, &&*place.topic, &partition)).await?;
    Ok(rows.first().and_then(|row| {
        let next = u64::try_from(row.get::<_, i64>(0)).ok()?;
        let topic = row.get::<_, Option<String>>(1).and_then(|topic| topic.parse().ok());
        Some((Mark { next, topic }, row.get(2)))
    }))
}

/// Moves the mark, if it is where the entry says.
pub(super) async fn advance(session: &PostgresSession, marks: &Marks, entry: &Entry<'_>) -> Result<bool, Failure> {
    let (partition, to, to_topic) = (i64::from(entry.place.partition), bigint(entry.to.next), topic_of(entry.to));
    let topic = &*entry.place.topic;
    let mut parameters = of(marks, &topic, &partition).to_vec();
    parameters.extend([(&to as &(dyn ToSql + Sync), Type::INT8), (&to_topic, Type::TEXT), (&marks.target, Type::TEXT)]);
    let [marks, _] = marks.tables(&Postgres);
    let from = entry.from.map(|from| (bigint(from.next), topic_of(from)));
    let moved = match &from {
        None => {
            let insert = format!(
                "insert into {marks} (stream, sink, topic, \"partition\", next, topic_id, target) values ($1, $2, $3, $4, $5, $6, $7) \
                 on conflict do nothing"
            );
            session.execute(&insert, &parameters).await?
        }
        Some((from, from_topic)) => {
            let update = format!(
                "update {marks} set next = $5, topic_id = $6, target = $7 where stream = $1 and sink = $2 and topic = $3 and \
                 \"partition\" = $4 and next = $8 and topic_id is not distinct from $9"
            );
            parameters.extend([(from as &(dyn ToSql + Sync), Type::INT8), (from_topic, Type::TEXT)]);
            session.execute(&update, &parameters).await?
        }
    };
    Ok(moved == 1)
}

/// Notes that the source had come to `seq` by now, unless something was noted within `pause`; the sequence that it had come to `keep`
/// ago, if that is known. What was noted before that is forgotten.
pub(super) async fn sample(
    session: &PostgresSession,
    marks: &Marks,
    seq: u64,
    pause: Duration,
    keep: Duration,
) -> Result<Option<i64>, Failure> {
    let [_, samples] = marks.tables(&Postgres);
    let (seq, pause, keep) = (bigint(seq), pause.as_secs_f64(), keep.as_secs_f64());
    let note = format!(
        "insert into {samples} select $1, $2, now(), $3 where not exists (select 1 from {samples} where stream = $1 and sink = $2 \
         and at > now() - make_interval(secs => $4)) on conflict do nothing"
    );
    let ours = [(&marks.stream as &(dyn ToSql + Sync), Type::TEXT), (&marks.sink, Type::TEXT)];
    let [stream, sink] = ours.clone();
    session.execute(&note, &[stream, sink, (&seq, Type::INT8), (&pause, Type::FLOAT8)]).await?;
    let old = format!(
        "select at, seq from {samples} where stream = $1 and sink = $2 and at <= now() - make_interval(secs => $3) \
         order by at desc limit 1"
    );
    let forget =
        format!("delete from {samples} s using ({old}) old where s.stream = $1 and s.sink = $2 and s.at < old.at");
    let [stream, sink] = ours.clone();
    session.execute(&forget, &[stream, sink, (&keep, Type::FLOAT8)]).await?;
    let [stream, sink] = ours;
    let rows = session.query(&old, &[stream, sink, (&keep, Type::FLOAT8)]).await?;
    Ok(rows.first().map(|row| row.get(1)))
}

fn of<'a>(marks: &'a Marks, topic: &'a &str, partition: &'a i64) -> [(&'a (dyn ToSql + Sync), Type); 4] {
    [(&marks.stream, Type::TEXT), (&marks.sink, Type::TEXT), (topic, Type::TEXT), (partition, Type::INT8)]
}
