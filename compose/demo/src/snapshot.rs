//! Reading the database as it was a while ago: what a service answers that has a cache, or reads a replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, Error, NoTls};

/// The snapshot that is answered from. Each is a connection with an open transaction; those who read an older one keep it.
pub(crate) struct Snapshots {
    config: Config,
    latest: Mutex<Option<Snapshot>>,
}

struct Snapshot {
    client: Arc<Client>,
    taken: Instant,
}

impl Snapshots {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, latest: Mutex::new(None) }
    }

    /// A connection that sees the latest snapshot, or a new one if that is older.
    pub(crate) async fn not_older_than(&self, age: Duration) -> Result<Arc<Client>, Error> {
        let mut latest = self.latest.lock().await;
        if let Some(snapshot) = &*latest
            && snapshot.taken.elapsed() < age
            && !snapshot.client.is_closed()
        {
            return Ok(snapshot.client.clone());
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        // It ends with the last reader, or with the database, which fails the reader's statement.
        tokio::spawn(connection);
        let client = Arc::new(client);
        // The first statement takes the snapshot.
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1").await?;
        *latest = Some(Snapshot { client: client.clone(), taken: Instant::now() });
        Ok(client)
    }
}
