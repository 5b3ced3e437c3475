//! Tables that steps look into: what a topic has, or what a captured table has, whole, in each process; in memory, or in a file. A stream
//! that looks into one waits until it is whole. All events that are looked for together see one state of it.
//!
//! A topic is read from its beginning. Of a captured table the topic has what changed since the capture began, so its rows are listed from
//! the source, and then the topic is followed. Why no event is replaced by an older row, and none is missed:
//!
//! * The listing begins when the source's log is captured. First the ends of the topic's partitions are asked for; then the rows are read,
//!   page by page; then the topic is read from those ends on, and each event is applied in the order of its partition, which is the order
//!   of its row's changes.
//! * An event that lies before those ends was published before any row was read. A source publishes a change when everybody sees it, or,
//!   where the server does not say when that is, a listing waits before its first page until everybody sees what the log has. So
//!   every page shows it, or a later change of the row.
//! * A change that a page does not show is thus of an event behind those ends, and is applied. A change that a page shows and whose event
//!   lies behind the ends too is applied once more: the row may go back to an earlier change then, but only to one that is not older than
//!   the position to which the topic has been read, and the later ones follow.
//! * So when the topic is read up to a position, each value of each row is as it was at that position, or newer. Nothing is put by a listing
//!   once an event has been applied, so a row that was listed never takes the place of an event.
//!
//! It goes on so after a crash in the middle of a listing: the ends are those that were asked for before its first page.
//!
//! Values that an update did not change, and that its event therefore lacks, are those that the row has, by the same argument. An event
//! that brings a row under a new key may lack values that nobody here has: then the table is listed anew, and as well when the source says
//! that rows may have changed without events, when the topic was made anew, and when it no longer has what was not read yet.
//!
//! How an event waits for the table to pass its own position is told in `waiting`.

mod change;
mod follow;
mod listing;
mod progress;
mod store;
mod waiting;

pub use self::listing::{Listing, Page};

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tributary_dsl::plan::{Keep, LookupTable};

use self::store::Store;
use self::waiting::Waiting;
use crate::outside::{Answer, Enricher, OutsideError};

/// The longest that a program may take for one record.
const DEADLINE: Duration = Duration::from_millis(50);

/// A table that steps look into.
pub struct Table {
    plan: LookupTable,
    /// Where it is kept, if on disk.
    file: PathBuf,
    /// What has the rows of a captured table.
    listing: Option<Arc<dyn Listing>>,
    state: RwLock<State>,
    waiting: Waiting,
    anew: Mutex<Option<String>>,
}

/// What can be asked now.
#[derive(Default)]
struct State {
    /// None: it is not read to its end yet.
    store: Option<Arc<Store>>,
    /// Why it cannot be looked into, and will not be by itself.
    trouble: Option<String>,
}

impl Table {
    /// A table, of which nothing is known yet. `folder`: where tables are kept that are kept on disk. `listing`: what has the rows of the
    /// captured table that it is of.
    pub fn new(plan: LookupTable, folder: &Path, listing: Option<Arc<dyn Listing>>) -> Arc<Self> {
        let file = folder.join(format!("{}.redb", plan.name));
        let (state, waiting, anew) = (RwLock::default(), Waiting::default(), Mutex::default());
        Arc::new(Self { plan, file, listing, state, waiting, anew })
    }

    /// What it is.
    pub fn plan(&self) -> &LookupTable {
        &self.plan
    }

    /// Rows of the captured table may have changed without events: they are listed anew, as they are from now on. This is durable when it
    /// returns.
    ///
    /// # Errors
    /// It could not be noted.
    pub fn list_anew(&self, why: &str) -> std::io::Result<()> {
        let mut anew = self.anew();
        if self.plan.keep == Keep::Disk {
            let mark = self.mark();
            let folder = mark.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            std::fs::write(&mark, why)?;
            std::fs::File::open(&mark)?.sync_all()?;
            std::fs::File::open(folder)?.sync_all()?;
        }
        *anew = Some(why.to_owned());
        self.waiting.wake();
        Ok(())
    }

    /// The file that says that what is kept is to be listed anew.
    fn mark(&self) -> PathBuf {
        self.file.with_extension("anew")
    }

    fn anew(&self) -> MutexGuard<'_, Option<String>> {
        self.anew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Enricher for Table {
    async fn ask(&self, keys: &[Bytes]) -> Result<Vec<Answer>, OutsideError> {
        let name = &self.plan.name;
        let store = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            match (&state.trouble, &state.store) {
                (Some(trouble), _) => return Err(OutsideError::fatal(trouble.clone())),
                (None, store) => store.clone(),
            }
        };
        let not_yet = || OutsideError::transient(format!("the table {name} is not read to its end yet"));
        let store = store.ok_or_else(not_yet)?;
        let keys: Vec<Bytes> = keys.iter().map(|key| change::normal(key)).collect();
        let rows = match &*store {
            Store::Memory(_) => store.rows(&keys),
            Store::Disk(_) => {
                let looking = tokio::task::spawn_blocking(move || store.rows(&keys)).await;
                looking.map_err(|e| OutsideError::transient(format!("looking into the table {name}: {e}")))?
            }
        };
        let rows = rows.map_err(|e| OutsideError::transient(format!("the table {name}: {e}")))?.ok_or_else(not_yet)?;
        Ok(rows.into_iter().map(|row| row.map_or(Answer::Missing, Answer::Found)).collect())
    }

    async fn has_passed(&self, sequence: Option<u64>) -> Result<(), OutsideError> {
        let passed = self.waiting.has_passed(sequence).await;
        passed.map_err(|why| {
            OutsideError::transient(format!("the table {} does not come up to the event: {why}", self.plan.name))
        })
    }
}
