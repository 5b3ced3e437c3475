//! What the sink knows beside the rows: how far it was given each partition, and when it had come to which sequence.

use tributary_event::{ErrorClass, TableName};
use tributary_processor::sink::Mark;
use tributary_transport::TopicPartition;

use super::database::{Dialect, Session};
use super::failure::Failure;

/// The name of the table of marks.
pub(super) const MARKS: &str = "tributary_marks";
/// The name of the table of moments, and up to which sequence the source had come by then.
pub(super) const SAMPLES: &str = "tributary_samples";

/// The tables of marks and of samples, in the schema of the target, for one sink of one stream.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) schema: String,
    /// The table that is written.
    pub(super) target: String,
    pub(super) stream: String,
    pub(super) sink: String,
}

/// A number of a partition or a mark that the database's type has no room for; there are none in practice.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The topic of a mark as a text.
pub(super) fn topic(mark: Mark) -> Option<String> {
    mark.topic.map(|topic| topic.to_string())
}

impl Marks {
    pub(super) fn new(table: &TableName, stream: &str, sink: &str) -> Self {
        Self {
            schema: table.schema.to_string(),
            target: table.name.to_string(),
            stream: stream.to_owned(),
            sink: sink.to_owned(),
        }
    }

    /// The tables in SQL: of marks, and of samples.
    pub(super) fn tables(&self, dialect: &dyn Dialect) -> [String; 2] {
        [MARKS, SAMPLES].map(|name| format!("{}.{}", dialect.quote(&self.schema), dialect.quote(name)))
    }

    /// What a partition is called where locks have names.
    pub(super) fn lock(&self, dialect: &dyn Dialect, place: &TopicPartition) -> String {
        let [marks, _] = self.tables(dialect);
        format!("{marks} {:?} {:?} {:?} {}", self.stream, self.sink, place.topic, place.partition)
    }

    /// Whether what the mark says was written to this very table.
    ///
    /// # Errors
    /// It was another one: the rows of before are there, and not here.
    pub(super) fn are_of(&self, target: Option<&str>, mark: Mark, dialect: &dyn Dialect) -> Result<(), String> {
        let Some(other) = target.filter(|other| *other != self.target) else { return Ok(()) };
        let Self { target, stream, sink, .. } = self;
        let [marks, _] = self.tables(dialect);
        Err(format!(
            "the sink {sink} of the stream {stream} has written the table {other} up to offset {}, and {target} would lack the rows of before: \
             give the sink another name, under which it begins with what the topic still has; if {target} has them already (it was renamed), run: \
             update {marks} set target = '{}' where stream = '{}' and sink = '{}'",
            mark.next,
            target.replace('\'', "''"),
            stream.replace('\'', "''"),
            sink.replace('\'', "''"),
        ))
    }

    /// Makes the tables, while definitions may be changed.
    pub(super) async fn create<S: Session>(&self, session: &mut S) -> Result<(), Failure> {
        let definitions = session.dialect().create_marks(self);
        session.run(&definitions).await.map_err(|failure| match failure {
            Failure::Outside(mut error) if error.class == ErrorClass::Fatal => {
                error.message.push_str(&format!("; or let somebody who may run: {definitions}"));
                Failure::Outside(error)
            }
            other => other,
        })
    }
}
