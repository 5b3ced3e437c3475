//! What the sink knows beside the rows: how far it was given each partition, and when it had come to which sequence.

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tributary_event::{ErrorClass, TableName};
use tributary_processor::sink::{Entry, Mark};
use tributary_transport::TopicPartition;

use super::failure::Failure;
use super::session::Session;
use super::table::quote;

/// The tables of marks and of samples, in the schema of the target, for one sink of one stream.
#[derive(Debug)]
pub(super) struct Marks {
    marks: String,
    /// Moments, and up to which sequence the source had come by then.
    samples: String,
    stream: String,
    sink: String,
}

/// A number of a partition or a mark that the database's type has no room for; there are none in practice.
fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Marks {
    pub(super) fn new(table: &TableName, stream: &str, sink: &str) -> Self {
        let name = |name: &str| format!("{}.{}", quote(&table.schema), quote(name));
        let (marks, samples) = (name("tributary_marks"), name("tributary_samples"));
        Self { marks, samples, stream: stream.to_owned(), sink: sink.to_owned() }
    }

    /// The lock of a partition: whoever moves its mark, or wants to know it, waits for a transaction of before whose end nobody heard of.
    pub(super) fn lock(&self, place: &TopicPartition) -> String {
        format!("{} {:?} {:?} {:?} {}", self.marks, self.stream, self.sink, place.topic, place.partition)
    }

    /// Whether there are tables of marks.
    pub(super) async fn exist(&self, session: &Session<'_>) -> Result<bool, Failure> {
        self.is_true(session, "pg_catalog.to_regclass($1) is not null and pg_catalog.to_regclass($2) is not null").await
    }

    /// Whether they have what this version keeps in them.
    pub(super) async fn are_complete(&self, session: &Session<'_>) -> Result<bool, Failure> {
        let condition = "pg_catalog.to_regclass($2) is not null and exists (select from pg_catalog.pg_attribute where attrelid = \
                         pg_catalog.to_regclass($1) and attname = 'topic_id' and not attisdropped)";
        self.is_true(session, condition).await
    }

    async fn is_true(&self, session: &Session<'_>, condition: &str) -> Result<bool, Failure> {
        let names = [(&self.marks as &(dyn ToSql + Sync), Type::TEXT), (&self.samples, Type::TEXT)];
        let rows = session.query(&format!("select {condition}"), &names).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Makes the tables. Under the lock of definitions.
    pub(super) async fn create(&self, session: &Session<'_>) -> Result<(), Failure> {
        let definitions = format!(
            "create table if not exists {0} (stream text, sink text, topic text, \"partition\" bigint, next bigint not null, \
             topic_id text, primary key (stream, sink, topic, \"partition\")); \
             alter table {0} add column if not exists topic_id text; \
             create table if not exists {1} (stream text, sink text, at timestamptz, seq bigint not null, \
             primary key (stream, sink, at));",
            self.marks, self.samples
        );
        session.run(&definitions).await.map_err(|failure| match failure {
            Failure::Outside(mut error) if error.class == ErrorClass::Fatal => {
                error.message.push_str(&format!("; or let somebody who may run: {definitions}"));
                Failure::Outside(error)
            }
            other => other,
        })
    }

    /// The mark of a partition.
    pub(super) async fn next(&self, session: &Session<'_>, place: &TopicPartition) -> Result<Option<Mark>, Failure> {
        // A table that was made before topics had identities has no column for them.
        let select = format!(
            "select next, pg_catalog.to_jsonb(m) ->> 'topic_id' from {} m where stream = $1 and sink = $2 and topic = $3 and \
             \"partition\" = $4",
            self.marks
        );
        let partition = i64::from(place.partition);
        let rows = session.query(&select, &self.place(&&*place.topic, &partition)).await?;
        Ok(rows.first().and_then(|row| {
            let next = u64::try_from(row.get::<_, i64>(0)).ok()?;
            let topic = row.get::<_, Option<String>>(1).and_then(|topic| topic.parse().ok());
            Some(Mark { next, topic })
        }))
    }

    /// Moves the mark, if it is where the entry says.
    pub(super) async fn advance(&self, session: &Session<'_>, entry: &Entry<'_>) -> Result<bool, Failure> {
        let text = |mark: Mark| mark.topic.map(|topic| topic.to_string());
        let (partition, to, to_topic) = (i64::from(entry.place.partition), bigint(entry.to.next), text(entry.to));
        let topic = &*entry.place.topic;
        let mut parameters = self.place(&topic, &partition).to_vec();
        parameters.extend([(&to as &(dyn ToSql + Sync), Type::INT8), (&to_topic, Type::TEXT)]);
        let marks = &self.marks;
        let from = entry.from.map(|from| (bigint(from.next), text(from)));
        let moved = match &from {
            None => {
                let insert = format!(
                    "insert into {marks} (stream, sink, topic, \"partition\", next, topic_id) values ($1, $2, $3, $4, $5, $6) \
                     on conflict do nothing"
                );
                session.execute(&insert, &parameters).await?
            }
            Some((from, from_topic)) => {
                let update = format!(
                    "update {marks} set next = $5, topic_id = $6 where stream = $1 and sink = $2 and topic = $3 and \
                     \"partition\" = $4 and next = $7 and topic_id is not distinct from $8"
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
        &self,
        session: &Session<'_>,
        seq: u64,
        pause: Duration,
        keep: Duration,
    ) -> Result<Option<i64>, Failure> {
        let samples = &self.samples;
        let (seq, pause, keep) = (bigint(seq), pause.as_secs_f64(), keep.as_secs_f64());
        let note = format!(
            "insert into {samples} select $1, $2, now(), $3 where not exists (select 1 from {samples} where stream = $1 and sink = $2 \
             and at > now() - make_interval(secs => $4)) on conflict do nothing"
        );
        let ours = [(&self.stream as &(dyn ToSql + Sync), Type::TEXT), (&self.sink, Type::TEXT)];
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

    fn place<'a>(&'a self, topic: &'a &str, partition: &'a i64) -> [(&'a (dyn ToSql + Sync), Type); 4] {
        [(&self.stream, Type::TEXT), (&self.sink, Type::TEXT), (topic, Type::TEXT), (partition, Type::INT8)]
    }
}
