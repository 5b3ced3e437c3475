//! Beside the stream: what the server keeps for the slot, as metrics; whether the captured tables are still published, the log
//! carries enough of them, and their rows changed without events; heartbeats. While nothing happens, a round is two statements,
//! whatever the number of tables.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tributary_event::{ErrorClass, Reporter, Trouble};
use tributary_transport::Transport;

use super::prepare::{self, Prepared, gone, still_suffices, suffice};
use super::slot::heartbeat::Heartbeat;
use super::tables::catalog::{self, TableInfo, Which, state};
use super::tables::known::Known;
use super::tables::publication::{self, Published};
use super::wire::hosts;
use super::wire::sql::Sql;
use crate::dependent::Dependent;
use crate::error::ConnectorError;
use crate::pager::patiently;
use crate::settings::PostgresSettings;

const INTERVAL: Duration = Duration::from_secs(5);
/// A round that takes longer is worth a word: while it waits, nobody notices what the log does not tell.
const LONG: Duration = Duration::from_secs(30);

/// The primary keys of tables whose identity is `FULL`, by OID: of these the log does not tell.
type Keys = HashMap<u32, Vec<String>>;
/// How often more was needed of the tables.
type Needs = watch::Receiver<u64>;

/// What is watched, and who hears of it.
pub(crate) struct Watch<'a> {
    /// The source.
    pub name: &'a str,
    /// Its database.
    pub settings: &'a PostgresSettings,
    /// What the stream began with.
    pub prepared: &'a Prepared,
    /// Who depends on the tables.
    pub dependent: &'a dyn Dependent,
    /// Where what is known of the tables is kept.
    pub transport: &'a dyn Transport,
    /// How the source is.
    pub health: &'a Reporter,
    /// What is to be noted of it while there is nothing else.
    pub ahead: Option<&'a str>,
}

/// Watches until the stream must begin anew, and says why. Failures are left to the stream, which meets them too.
pub(crate) async fn monitor(watch: Watch<'_>, mut known: Known) -> ConnectorError {
    let tables = &watch.prepared.tables;
    let mut keys: Keys = tables.iter().filter(|t| t.identity == 'f').map(|t| (t.oid, t.primary_key.clone())).collect();
    let mut heartbeat = watch.settings.heartbeat.map(Heartbeat::new);
    let mut trouble = Trouble::default();
    let needs = watch.dependent.needs();
    loop {
        match watch.session(&needs, &mut keys, &mut known, &mut heartbeat, &mut trouble).await {
            Ok(reason) => return reason,
            Err(error) => {
                // Nobody notices then what the log does not tell.
                if let Some(lasting) = trouble.note(&error.to_string()).filter(|lasting| !lasting.is_zero()) {
                    tracing::warn!(source = watch.name, %error, ?lasting, "the catalog cannot be watched");
                    watch.health.note(Some(format!("the catalog cannot be watched: {error}")));
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Watch<'_> {
    /// Watches over one session. Ends with the reason why the stream must begin anew.
    async fn session(
        &self,
        needs: &Needs,
        keys: &mut Keys,
        known: &mut Known,
        heartbeat: &mut Option<Heartbeat>,
        trouble: &mut Trouble,
    ) -> Result<ConnectorError, ConnectorError> {
        let (name, settings) = (self.name, self.settings);
        let (version, names) = (self.prepared.server_version, settings.table_names());
        let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
        let (mut endangered, mut said, mut seen, mut met) = (false, String::new(), None, 0);
        loop {
            let (mut is_late, mut is_seen) = (false, false);
            let round = async {
                endangered = slot(&sql, name, settings, endangered).await?;
                // The tables are looked at when something of them, or of what is needed, has changed: thousands are too many to be
                // asked for each time.
                let (digest, needed) =
                    (state::digest(&sql, version, &settings.publication, &names).await?, *needs.borrow());
                if seen.as_ref() != Some(&digest) || met != needed {
                    if let Some(reason) = self.look(&sql, keys, known, &mut said).await? {
                        return Ok(Some(reason));
                    }
                    (seen, met, is_seen) = (Some(digest), needed, true);
                    trouble.over();
                }
                Ok(None)
            };
            let reason: Result<_, ConnectorError> = patiently(round, LONG, || {
                is_late = true;
                let why = format!("the server has not answered questions about its catalog for {LONG:?}; what the log does not tell is not noticed");
                tracing::warn!(source = name, "{why}");
                self.health.note(Some(why));
            }).await;
            if let Some(reason) = reason? {
                return Ok(reason);
            }
            if is_late && !is_seen {
                // What was noted is over, and what is to be noted is told by the next look.
                seen = None;
                continue;
            }
            let rest = async || {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = changed(needs, met) => {}
                }
            };
            match heartbeat {
                Some(heartbeat) => beat_during(rest(), heartbeat, &sql, name, settings).await?,
                None => rest().await,
            }
        }
    }

    /// Looks at the tables as the catalog has them now. Gives the reason why the stream must begin anew, if there is one.
    async fn look(
        &self,
        sql: &Sql,
        keys: &mut Keys,
        known: &mut Known,
        said: &mut String,
    ) -> Result<Option<ConnectorError>, ConnectorError> {
        let (settings, transport) = (self.settings, self.transport);
        let names = settings.table_names();
        let mut published = Published::read(sql, &settings.publication).await?;
        let mut found = catalog::tables(sql, &names, Which::Published(&published)).await?;
        let unpublished = published.missing(&found);
        if !unpublished.is_empty() {
            match publication::ensure(sql, sql.endpoint(), &settings.publication, &unpublished).await {
                Ok(added) => self.added(&added),
                Err(error) if error.class() == ErrorClass::Transient => return Err(error),
                Err(error) => {
                    known.unfit(&unpublished, transport).await?;
                    return Ok(Some(error));
                }
            }
            published = Published::read(sql, &settings.publication).await?;
            found = catalog::tables(sql, &names, Which::Published(&published)).await?;
        }
        let falls_short = |table: &&TableInfo| {
            still_suffices(table, sql.endpoint(), settings, &published.left_out, self.dependent).is_err()
        };
        let at_fault: Vec<TableInfo> = found.iter().filter(falls_short).cloned().collect();
        let of = (settings.publication.as_str(), settings.tables.as_slice());
        if let Some(first) = at_fault.first() {
            if known.is_none() {
                // What is not known of yet could not be kept as unfit.
                known.look(sql, self.prepared.server_version, of, &found, self.dependent, transport).await?;
            }
            known.unfit(&at_fault, transport).await?;
            let reason = still_suffices(first, sql.endpoint(), settings, &published.left_out, self.dependent);
            return Ok(reason.err());
        }
        for table in found.iter().filter(|table| table.identity == 'f') {
            if keys.insert(table.oid, table.primary_key.clone()).is_some_and(|key| key != table.primary_key) {
                return Ok(Some(ConnectorError::Server {
                    place: format!("table {}", table.schema.qualified_name()),
                    cause: "it has another primary key".into(),
                    remedy: "the stream begins anew with it".into(),
                    class: ErrorClass::Transient,
                }));
            }
        }
        known.look(sql, self.prepared.server_version, of, &found, self.dependent, transport).await?;
        let trouble = match prepare::missing(settings, &found) {
            Some(name) => Some(gone(sql, &name, known).await?),
            None => suffice(&found, sql.endpoint(), settings, &published.left_out, self.dependent).err(),
        };
        // The same trouble is told once.
        let trouble = trouble.map(|error| error.to_string()).unwrap_or_default();
        if !trouble.is_empty() && *said != trouble {
            tracing::warn!(source = self.name, error = trouble, "a table is not captured as it should be");
        }
        let note = Some(trouble.as_str()).filter(|trouble| !trouble.is_empty()).or(self.ahead);
        self.health.note(note.map(str::to_owned));
        *said = trouble;
        Ok(None)
    }

    /// Tables that were dropped and created again, or taken out of the publication, are published again.
    fn added(&self, tables: &[TableInfo]) {
        for table in tables {
            tracing::warn!(
                source = self.name,
                table = table.schema.qualified_name(),
                publication = self.settings.publication,
                "the table was not published (created anew, or taken out?) and is again; changes that were made meanwhile \
                 are not in the log"
            );
            metrics::counter!("tributary_connector_tables_lost_total", "source" => self.name.to_owned()).increment(1);
        }
    }
}

/// Waits until more is needed than before.
async fn changed(needs: &Needs, met: u64) {
    if needs.clone().wait_for(|needed| *needed != met).await.is_err() {
        // Nobody is left who could need more.
        std::future::pending::<()>().await;
    }
}

/// Writes heartbeats as they become due, for so long.
async fn beat_during(
    rest: impl Future<Output = ()>,
    heartbeat: &mut Heartbeat,
    sql: &Sql,
    name: &str,
    settings: &PostgresSettings,
) -> Result<(), ConnectorError> {
    let mut rest = std::pin::pin!(rest);
    loop {
        tokio::select! {
            () = heartbeat.due() => {}
            () = &mut rest => return Ok(()),
        }
        heartbeat.beat(sql, name, &settings.slot).await?;
    }
}

/// The states that a slot's log can be in (`pg_replication_slots.wal_status`).
const STATES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];
/// A warning is due when less than this part of what the server keeps at most is left.
const LITTLE: f64 = 0.25;

/// Reports the slot's state; returns whether its log is about to be lost.
async fn slot(sql: &Sql, name: &str, settings: &PostgresSettings, warned: bool) -> Result<bool, ConnectorError> {
    const SQL: &str = "select pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
        else pg_current_wal_lsn() end, restart_lsn)::float8, wal_status, safe_wal_size::float8, \
        (select setting::float8 * 1048576 from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size') \
        from pg_catalog.pg_replication_slots where slot_name = $1::text::name";
    let mut endangered = false;
    for row in sql.query("reading the slot's state", SQL, &[&settings.slot]).await? {
        let (retained, status): (Option<f64>, Option<String>) = (row.get(0), row.get(1));
        let (safe, most): (Option<f64>, Option<f64>) = (row.get(2), row.get(3));
        metrics::gauge!("tributary_connector_wal_retained_bytes", "source" => name.to_owned())
            .set(retained.unwrap_or(0.0));
        if let Some(safe) = safe {
            metrics::gauge!("tributary_connector_wal_safe_bytes", "source" => name.to_owned()).set(safe);
        }
        for state in STATES {
            metrics::gauge!("tributary_connector_slot_state", "source" => name.to_owned(), "state" => state)
                .set(f64::from(u8::from(status.as_deref() == Some(state))));
        }
        let little = safe.zip(most).is_some_and(|(safe, most)| safe < most * LITTLE);
        endangered = little || status.as_deref() == Some("unreserved");
        if endangered && !warned {
            tracing::warn!(
                source = name,
                slot = settings.slot,
                safe_bytes = safe,
                "the server will soon remove log that this slot still needs; raise max_slot_wal_keep_size"
            );
        }
    }
    Ok(endangered)
}
