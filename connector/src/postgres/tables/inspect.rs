//! Looks at a source without making anything: what is wrong with its tables and with what the log will carry of them.

use super::absent::no_such_table;
use super::catalog::{self, Which};
use super::publication::Published;
use crate::dependent::Dependent;
use crate::error::ConnectorError;
use crate::postgres::prepare::{missing, suffice};
use crate::postgres::wire::hosts;
use crate::postgres::wire::sql::Sql;
use crate::postgres::wire::sqlstate::literal;
use crate::settings::PostgresSettings;

/// Whether the source's slot is there.
///
/// # Errors
/// The server cannot be reached, or lets us not in.
pub async fn has_slot(settings: &PostgresSettings) -> Result<bool, ConnectorError> {
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    let statement = format!(
        "select slot_name::text from pg_catalog.pg_replication_slots where slot_name = {}",
        literal(&settings.slot)
    );
    Ok(!sql.texts("looking for the replication slot", &statement).await?.is_empty())
}

/// Checks the listed tables as [`prepare`](crate::postgres::prepare()) does at a start, but for the slot, which need not exist yet; changes nothing.
///
/// # Errors
/// The first thing that is wrong with a table; all that the dependent refuses; or the server does not answer.
pub async fn inspect(settings: &PostgresSettings, dependent: &dyn Dependent) -> Result<(), ConnectorError> {
    let endpoint = hosts::find(&settings.url).await?;
    let sql = Sql::connect(&endpoint).await?;
    let published = Published::read(&sql, &settings.publication).await?;
    let tables = catalog::tables(&sql, &settings.table_names(), Which::Published(&published)).await?;
    if let Some(name) = missing(settings, &tables) {
        return Err(no_such_table(&sql, &name).await?);
    }
    suffice(&tables, &endpoint, settings, &published.left_out, dependent)
}
