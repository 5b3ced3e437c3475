//! Rows of a table of PostgreSQL, MySQL or MariaDB, exactly once: an entry is one transaction, with the mark of its partition.
//!
//! The transaction begins with a compare-and-swap of the mark. Of two processes that have a partition during a handover, the second one
//! waits for the first and then finds the mark elsewhere: it is fenced, and has changed nothing.
//!
//! Whether a transaction whose client lost its connection came to its end, nobody knows but the database. Whoever asks for a mark
//! therefore waits for the lock that every such transaction holds to its end: in PostgreSQL one with the partition's name, in MySQL and
//! MariaDB that of the mark's row.
//!
//! Beside that, a row is written only if it is newer (`_seq`) than the one that is there, so that a partition may also be read again
//! from any offset. A deleted row stays as a mark of its own (`_deleted`) for a while: an older event must not bring it back.
//!
//! What is decided stands here once; how it is said to a database, and what that answers, is behind the traits of `database.rs`.

mod database;
mod failure;
mod fold;
mod in_memory;
mod ledger;
mod marks;
mod mysql;
mod postgres;
mod sessions;
mod table;
mod write;

use async_trait::async_trait;
use tributary_dsl::plan::SqlPlan;
use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Entry, LedgerSink, Mark};
use tributary_transport::TopicPartition;

use ledger::Writer;

pub use in_memory::InMemory;

/// A table that keeps the rows of a stream.
///
/// Connects when it is asked for something first, and again whenever a connection is lost. Entries of up to eight partitions are written at
/// a time. A call that is dropped may have been committed, which [`LedgerSink::next`] tells.
#[derive(Debug)]
pub struct Sql(Kind);

#[derive(Debug)]
enum Kind {
    Postgres(Box<Writer<postgres::Endpoint>>),
    MySql(Box<Writer<mysql::Endpoint>>),
}

impl Sql {
    /// The sink `sink` of the stream `stream`, for a plan. Nothing is connected to; marks are kept under the two names.
    ///
    /// # Errors
    /// Fatal: the URL or a name cannot be used.
    pub fn new(plan: &SqlPlan, stream: &str, sink: &str) -> Result<Self, OutsideError> {
        let table = &plan.table;
        let kind = if mysql::Endpoint::is_meant(&plan.url) {
            let mut endpoint = mysql::Endpoint::parse(&plan.url).map_err(OutsideError::fatal)?;
            endpoint.place = format!("{}, table {table}", endpoint.place);
            check_names(plan, &endpoint.place)?;
            Kind::MySql(Box::new(Writer::new(endpoint, plan, stream, sink)))
        } else {
            let mut endpoint = postgres::Endpoint::parse(&plan.url).map_err(OutsideError::fatal)?;
            endpoint.place = format!("{}, table {table}", endpoint.place);
            check_names(plan, &endpoint.place)?;
            Kind::Postgres(Box::new(Writer::new(endpoint, plan, stream, sink)))
        };
        Ok(Self(kind))
    }

    /// Looks whether the table can take rows, as far as that is known without one: what it may lack. Nothing is changed. `fields`: those that
    /// rows can have, where they are known.
    ///
    /// # Errors
    /// Fatal: somebody has to change something first. Transient: the database does not answer now.
    pub async fn check(&self, fields: Option<&[String]>) -> Result<Option<String>, OutsideError> {
        match &self.0 {
            Kind::Postgres(writer) => writer.check(fields).await,
            Kind::MySql(writer) => writer.check(fields).await,
        }
    }
}

fn check_names(plan: &SqlPlan, place: &str) -> Result<(), OutsideError> {
    let (table, key) = (&plan.table, &plan.row.key);
    let names = key.iter().map(String::as_str).chain([&*table.schema, &*table.name]);
    let unfit = |name: &&str| name.is_empty() || name.len() > fold::LONGEST_NAME || name.contains('\0');
    if let Some(name) = names.into_iter().find(unfit) {
        return Err(OutsideError::fatal(format!(
            "{place}: {name:?} cannot be the name of a table or column; use 1 to {} bytes",
            fold::LONGEST_NAME
        )));
    }
    if key.is_empty() {
        return Err(OutsideError::fatal(format!("{place}: rows have no key; name its fields in `key`")));
    }
    Ok(())
}

#[async_trait]
impl LedgerSink for Sql {
    async fn next(&self, place: &TopicPartition) -> Result<Option<Mark>, OutsideError> {
        match &self.0 {
            Kind::Postgres(writer) => writer.next(place).await,
            Kind::MySql(writer) => writer.next(place).await,
        }
    }

    async fn commit(&self, entry: &Entry<'_>) -> Result<Committed, OutsideError> {
        match &self.0 {
            Kind::Postgres(writer) => writer.commit(entry).await,
            Kind::MySql(writer) => writer.commit(entry).await,
        }
    }
}
