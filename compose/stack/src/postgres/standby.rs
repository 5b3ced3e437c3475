//! A standby of a server: a copy of its data that follows its log.

use super::{Postgres, PostgresOptions, config};
use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio_postgres::NoTls;

/// The slot by which a primary keeps the log for its standby.
const SLOT: &str = "standby";

impl Postgres {
    /// Starts a standby that streams from this server, which is stopped while its data is copied. What the options say of a data folder
    /// is replaced; the copy goes with this server's own.
    ///
    /// # Errors
    /// If the data cannot be copied, or one of the two does not start.
    pub async fn standby(&self, options: PostgresOptions) -> Result<Postgres> {
        let password = self.password.as_deref();
        let (sql, connection) = tokio_postgres::connect(&config(self.port(), "postgres", password), NoTls).await?;
        let connection = tokio::spawn(connection);
        sql.execute("SELECT pg_create_physical_replication_slot($1, true)", &[&SLOT]).await?;
        drop(sql);
        connection.await??;
        self.stop().await?;
        let copy = self.data_dir().with_file_name("standby");
        let copied =
            Command::new("cp").arg("-a").arg(self.data_dir()).arg(&copy).status().await.context("starting cp")?;
        if !copied.success() {
            bail!("{} cannot be copied to {}: cp failed ({copied})", self.data_dir().display(), copy.display());
        }
        std::fs::write(copy.join("standby.signal"), "").context("writing standby.signal")?;
        self.start_again().await?;
        let ours = [
            ("primary_conninfo", config(self.port(), "postgres", password)),
            ("primary_slot_name", SLOT.to_owned()),
            // What is read is not taken away, however long that takes.
            ("hot_standby_feedback", "on".to_owned()),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), value));
        let settings = ours.into_iter().chain(options.settings).collect();
        Self::start(PostgresOptions { data_dir: Some(copy), settings, ..options }).await
    }
}
