//! What the sink asks of a database. How it is said there is the business of the folder of each kind.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use tributary_processor::sink::{Entry, Mark};
use tributary_transport::TopicPartition;

use super::failure::Failure;
use super::fold::Row;
use super::marks::Marks;
use super::table::{Kind, Table, Target};

/// A kind of database, at a place.
#[async_trait]
pub(super) trait Database: Debug + Send + Sync + 'static {
    type Session: Session;

    /// Server and database as messages name them.
    fn place(&self) -> &str;

    /// A new session.
    async fn connect(&self) -> Result<Self::Session, Failure>;
}

/// A connection to it. When it is dropped nobody knows in what state it is, and it is closed.
#[async_trait]
pub(super) trait Session: Send + Sync {
    /// The words of this server.
    fn dialect(&self) -> &'static dyn Dialect;

    /// Whether it can still be used, as far as that is known.
    fn is_open(&self) -> bool;

    /// Begins a transaction that sees what was committed before each of its statements, with settings of ours.
    async fn begin(&mut self) -> Result<(), Failure>;

    /// Runs statements for their effect.
    async fn run(&mut self, statements: &str) -> Result<(), Failure>;

    /// Waits for every transaction that moves the mark of a partition, and holds up those that want to, until this one ends.
    async fn lock(&mut self, marks: &Marks, place: &TopicPartition) -> Result<(), Failure>;

    /// Before definitions are changed: by one session at a time, before the transaction writes a row, for else one that waits here
    /// could have a lock of the table that the other one waits for.
    async fn begin_definitions(&mut self, schema: &str) -> Result<(), Failure>;

    /// After them. [`Failure::Again`]: the transaction was given up for them.
    async fn end_definitions(&mut self) -> Result<(), Failure>;

    /// Looks at the table; none: there is none.
    async fn table(&mut self, target: &Target) -> Result<Option<Table>, Failure>;

    /// Whether there are tables of marks.
    async fn has_marks(&mut self, marks: &Marks) -> Result<bool, Failure>;

    /// Whether they have what this version keeps in them.
    async fn has_complete_marks(&mut self, marks: &Marks) -> Result<bool, Failure> {
        self.has_marks(marks).await
    }

    /// The mark of a partition, and the table that was written up to it, where that was noted.
    async fn mark(&mut self, marks: &Marks, place: &TopicPartition) -> Result<Option<(Mark, Option<String>)>, Failure>;

    /// Moves the mark, if it is where the entry says.
    async fn advance(&mut self, marks: &Marks, entry: &Entry<'_>) -> Result<bool, Failure>;

    /// Notes that the source had come to `seq` by now, unless something was noted within `pause`; the sequence that it had come to `keep`
    /// ago, if that is known. What was noted before that is forgotten.
    async fn sample(
        &mut self,
        marks: &Marks,
        seq: u64,
        pause: Duration,
        keep: Duration,
    ) -> Result<Option<i64>, Failure>;

    /// Has constraints looked at with each statement that would else be looked at when the transaction ends.
    async fn check_at_once(&mut self) -> Result<(), Failure>;

    /// Writes rows of different keys that have the same columns; none: they are deleted. A row is written if it is newer than the one
    /// that is there.
    async fn write(
        &mut self,
        target: &Target,
        table: &Table,
        columns: Option<&[String]>,
        rows: &[Row],
    ) -> Result<(), Failure>;

    /// Marks all rows that are older as deleted, however many there are.
    async fn truncate(&mut self, target: &Target, sequence: i64) -> Result<(), Failure>;

    /// Removes some of the rows, `most` at once, that were deleted and whose sequence is not above `old`: how many.
    async fn remove(&mut self, target: &Target, old: i64, most: i64) -> Result<u64, Failure>;
}

/// How definitions are written. Pure.
pub(super) trait Dialect: Send + Sync {
    /// A name, whatever it contains.
    fn quote(&self, name: &str) -> String;

    /// The type for values of a kind, in a key with so many columns.
    fn kind(&self, kind: Kind, in_key_of: Option<usize>) -> String;

    /// Types as the catalog tells them: of a column for integers, and of one for true and false.
    fn own_kinds(&self) -> [&'static str; 2];

    /// What a table of these columns is made by; `deleted` and `seq` are quoted.
    fn create(&self, table: &str, columns: &str, seq: &str, deleted: &str) -> Vec<String>;

    /// The tables of marks and of samples.
    fn create_marks(&self, marks: &Marks) -> String;

    /// What a column of integers becomes one of numbers by; none: it would lose more than its type.
    fn widen(&self, name: &str, column: &super::table::Column) -> Option<String>;

    /// Why a key cannot be of this kind, if so.
    fn unfit_key(&self, kind: Kind) -> Option<&'static str>;

    /// A unique index for these columns, as a part of `alter table`.
    fn add_unique(&self, columns: &str) -> String {
        format!("add unique ({columns})")
    }

    /// Names in SQL, with commas between.
    fn list(&self, names: &[String]) -> String {
        names.iter().map(|name| self.quote(name)).collect::<Vec<_>>().join(", ")
    }
}
