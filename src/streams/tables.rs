//! The tables that steps of streams look into, and the rows that captured ones are listed from.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};
use tracing::warn;
use tributary_connector::{ConnectorError, ConnectorSettings, Doubt, RowPager, SourceSettings};
use tributary_dsl::Definition;
use tributary_dsl::plan::{CapturedTable, Keep, LookupTable};
use tributary_event::ErrorClass;
use tributary_processor::{Listing, OutsideError, Page, Table};

use crate::backends;

/// What tables are opened with.
pub struct Surroundings {
    /// The folder of those that are kept on disk: of this process alone.
    pub folder: PathBuf,
    /// Whether the log of each source is captured, by name.
    pub captured: HashMap<String, watch::Receiver<bool>>,
}

impl Surroundings {
    /// Opens a table, of which nothing is known yet.
    pub fn table(&self, definition: &Definition, plan: &LookupTable) -> Arc<Table> {
        let listing = plan.captured.as_ref().and_then(|table| self.listing(definition, table));
        Table::new(plan.clone(), &self.folder, listing)
    }

    /// Removes what is kept of tables that are no longer there, or no longer kept on disk.
    pub fn sweep(&self, definition: &Definition) {
        let kept = |name: &str| definition.tables().iter().any(|table| table.name == name && table.keep == Keep::Disk);
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_of_none = path.file_stem().is_some_and(|name| !kept(&name.to_string_lossy()));
            if is_of_none && let Err(error) = std::fs::remove_file(&path) {
                warn!(file = %path.display(), %error, "what was kept of a table cannot be removed");
            }
        }
    }

    fn listing(&self, definition: &Definition, table: &CapturedTable) -> Option<Arc<dyn Listing>> {
        let source = definition.sources().iter().find(|source| source.name == table.source)?;
        let captured = self.captured.get(&source.name)?.clone();
        let settings = backends::connector_settings(definition, source);
        Some(Arc::new(Rows { settings, table: table.clone(), captured, pager: Mutex::new(None) }))
    }
}

/// The rows of a captured table.
struct Rows {
    settings: ConnectorSettings,
    table: CapturedTable,
    captured: watch::Receiver<bool>,
    /// Opened at the first page; dropped behind the last, and after an error, so that the next page opens it again.
    pager: Mutex<Option<RowPager>>,
}

#[async_trait]
impl Listing for Rows {
    fn print(&self) -> String {
        let (values, invalid_text) = match &self.settings.source {
            SourceSettings::Postgres(postgres) => (postgres.values, postgres.invalid_text),
            SourceSettings::MySql(mysql) => (mysql.values, mysql.invalid_text),
        };
        let (CapturedTable { source, table, columns }, decimals) = (&self.table, self.settings.decimals);
        let keys = self.settings.source.keys().iter();
        let keys: Vec<_> = keys.filter(|(s, t, _)| **s == *table.schema && **t == *table.name).collect();
        format!("{source} {table} {columns:?} {decimals:?} {values:?} {invalid_text:?} {keys:?}")
    }

    async fn is_captured(&self) {
        let mut captured = self.captured.clone();
        if captured.wait_for(|captured| *captured).await.is_err() {
            // The source has come to its end, and the process does.
            std::future::pending::<()>().await;
        }
    }

    async fn page(&self, after: Option<&str>) -> Result<Page, OutsideError> {
        let place: Option<Vec<String>> = after.and_then(|place| serde_json::from_str(place).ok());
        let read = async {
            let mut held = self.pager.lock().await;
            let mut pager = match held.take() {
                Some(pager) => pager,
                None => {
                    let CapturedTable { table, columns, .. } = &self.table;
                    RowPager::open(&self.settings.source, table, columns, self.settings.decimals).await?
                }
            };
            let (rows, next) = pager.page(place.as_deref()).await?;
            *held = next.is_some().then_some(pager);
            Ok::<_, ConnectorError>((rows, next))
        };
        let (rows, next) = read.await.map_err(|error| {
            let message = format!("listing the rows of {}: {error}", self.table.table);
            // Whatever is wrong there can be mended there.
            OutsideError { class: ErrorClass::Transient, message }
        })?;
        let rows = rows.into_iter().map(|row| (row.key.into(), row.row.into())).collect();
        Ok(Page { rows, next: next.and_then(|place| serde_json::to_string(&place).ok()) })
    }
}

/// Rows of tables of a source may have changed without events: those that are looked into are listed anew. This is durable when it returns.
///
/// # Errors
/// It could not be noted.
pub fn list_anew(tables: &[Arc<Table>], source: &str, doubts: &[Doubt]) -> Result<(), ConnectorError> {
    for table in tables {
        let Some(captured) = table.plan().captured.as_ref().filter(|captured| captured.source == source) else {
            continue;
        };
        let Some(doubt) = doubts.iter().find(|doubt| doubt.table == captured.table) else { continue };
        let why = format!("its rows may have changed without events: {}", doubt.why);
        if let Err(error) = table.list_anew(&why) {
            return Err(ConnectorError::Server {
                place: format!("table {}", table.plan().name),
                cause: format!("it cannot be noted on disk that it is to be listed anew: {error}"),
                remedy: "check the disk and the permissions of the data folder".to_owned(),
                class: ErrorClass::Transient,
            });
        }
    }
    Ok(())
}
