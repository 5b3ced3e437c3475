//! Whoever derives something of a source's tables: what it needs of them, and what it must hear of.

pub(crate) mod carried;
pub(crate) mod description;

use async_trait::async_trait;
use tokio::sync::watch;
use tributary_event::TableName;

use self::carried::Carried;
use crate::error::ConnectorError;

/// Rows of a table may have changed without an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The table, as it is listed.
    pub table: TableName,
    /// Why, for people.
    pub why: String,
}

/// What depends on a source's tables.
#[async_trait]
pub trait Dependent: Send + Sync {
    /// Whether it is enough that the log carries these tables so. Asked before anything is made on the server, again whenever
    /// the catalog changes, and at every place of the log from which on it carries a table in another way.
    ///
    /// # Errors
    /// Place, cause and remedy. The source is down for as long as the answer stays so, and skips nothing.
    fn check(&self, tables: &[Carried]) -> Result<(), String>;

    /// A number that changes whenever more is needed of the tables than before: then they are checked again.
    fn needs(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }

    /// Hears that rows may have changed without an event, and returns when this is durably noted: whatever was derived of the
    /// tables is to be derived anew, from the tables as they are from now on. May be told the same twice.
    ///
    /// # Errors
    /// It could not be noted; the connector tries again.
    async fn doubt(&self, doubts: &[Doubt]) -> Result<(), ConnectorError>;
}

/// Nothing depends on the tables: whoever reads the topics is told by the log alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Independent;

#[async_trait]
impl Dependent for Independent {
    fn check(&self, _: &[Carried]) -> Result<(), String> {
        Ok(())
    }

    async fn doubt(&self, _: &[Doubt]) -> Result<(), ConnectorError> {
        Ok(())
    }
}
