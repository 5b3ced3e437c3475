//! Indexes that the pipeline had once and this process does not have: they were taken out of its file, or other processes have them.
//!
//! While such an index is away, nobody holds the tables to what it needs, and rows may change without events. So it is listed anew
//! when it is back, whether its plan is the same or not; and one that another process works on hears of what this one doubts.

use std::sync::Arc;

use tributary_event::Health;
use tributary_transport::TransportError;

use super::board::Board;
use super::lease::Listings;

/// The indexes of the board that a process does not have.
pub struct Absent {
    board: Arc<Board>,
    present: Vec<String>,
}

impl Absent {
    /// Those that are not among the ones that are present.
    pub fn new(board: Arc<Board>, present: impl IntoIterator<Item = String>) -> Self {
        Self { board, present: present.into_iter().collect() }
    }

    /// Notes durably that the pipeline runs without them. Before anything is captured.
    ///
    /// # Errors
    /// The transport did not answer.
    pub async fn leave(&self) -> Result<(), TransportError> {
        for listings in self.listings().await? {
            listings.leave().await?;
        }
        Ok(())
    }

    /// Begins to list them anew, for whoever works on them.
    ///
    /// # Errors
    /// The transport did not answer.
    pub async fn begin_anew(&self, why: &str) -> Result<(), TransportError> {
        for listings in self.listings().await? {
            listings.begin_anew(Some(why.to_owned())).await?;
        }
        Ok(())
    }

    async fn listings(&self) -> Result<Vec<Listings>, TransportError> {
        if !self.board.is_made().await? {
            return Ok(Vec::new());
        }
        self.board.look().await?;
        let absent = self.board.indexes().into_iter().filter(|index| !self.present.contains(index));
        // Nobody is told how an index is that is not there.
        Ok(absent.map(|index| Listings::new(&index, self.board.clone(), Health::default().part(&*index))).collect())
    }
}
