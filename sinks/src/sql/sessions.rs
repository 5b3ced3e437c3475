//! Sessions at the database: one for each entry that is being written, kept for the next one.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tributary_processor::OutsideError;

use super::database::{Database, Session as _};

/// Sessions at a time. Entries of more partitions wait for their turn.
const MOST: usize = 8;

/// The sessions of a sink.
pub(super) struct Sessions<D: Database> {
    database: D,
    idle: Mutex<Vec<D::Session>>,
    permits: Semaphore,
}

/// A session, whose connection is closed when it is dropped and not given back.
pub(super) struct Lent<'a, D: Database> {
    session: D::Session,
    sessions: &'a Sessions<D>,
    _permit: SemaphorePermit<'a>,
}

impl<D: Database> std::fmt::Debug for Sessions<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("database", &self.database).finish_non_exhaustive()
    }
}

impl<D: Database> Sessions<D> {
    pub(super) fn new(database: D) -> Self {
        Self { database, idle: Mutex::default(), permits: Semaphore::new(MOST) }
    }

    /// Where the sessions lead.
    pub(super) fn place(&self) -> &str {
        self.database.place()
    }

    /// A session: an idle one, or a new one.
    pub(super) async fn get(&self) -> Result<Lent<'_, D>, OutsideError> {
        let closed = |_| OutsideError::transient(format!("{}: the sink was closed", self.place()));
        let permit = self.permits.acquire().await.map_err(closed)?;
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|session| session.is_open());
            idle.pop()
        };
        let session = match idle {
            Some(session) => session,
            None => self.database.connect().await.map_err(|failure| failure.outside(self.place()))?,
        };
        Ok(Lent { session, sessions: self, _permit: permit })
    }
}

impl<D: Database> Lent<'_, D> {
    /// Keeps the connection for the next one. Only outside of a transaction.
    pub(super) fn give_back(self) {
        self.sessions.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.session);
    }
}

impl<D: Database> Deref for Lent<'_, D> {
    type Target = D::Session;

    fn deref(&self) -> &D::Session {
        &self.session
    }
}

impl<D: Database> DerefMut for Lent<'_, D> {
    fn deref_mut(&mut self) -> &mut D::Session {
        &mut self.session
    }
}
