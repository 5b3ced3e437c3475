//! The rows that a captured table had before its topic: what a table of `tables` asks its source for.

use async_trait::async_trait;
use bytes::Bytes;

use crate::outside::OutsideError;

/// The rows of a captured table, as its source has them now.
#[async_trait]
pub trait Listing: Send + Sync {
    /// Says which rows these are, and what they look like: what was kept under another print is listed anew.
    fn print(&self) -> String;

    /// Waits until its topic gets an event of every change that a page does not show. Cancel-safe.
    async fn is_captured(&self);

    /// Some rows behind a place in the order of keys, from the first row on if there is none. A page shows the table as it is at one
    /// moment after the call; pages need not be of the same moment. How many rows, and what bounds their size, is the listing's matter.
    ///
    /// # Errors
    /// The source does not answer, or has no such rows.
    async fn page(&self, after: Option<&str>) -> Result<Page, OutsideError>;
}

/// Rows of one moment.
#[derive(Debug, Default)]
pub struct Page {
    /// Keys as records of the table's topic have them, and rows as JSON.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Where the next page begins; none: there are no more rows.
    pub next: Option<String>,
}
