//! Everything that must be right before the log is read: server, role, tables, publication, slot.
//!
//! The publication is made before the slot, for the log is decoded with the catalog of its own time: changes from before
//! the publication could not be read.

use std::collections::{BTreeSet, HashSet};

use tributary_event::{ErrorClass, Lsn, TableName, TableSchema};
use tributary_transport::Transport;

use super::slot::{self, SlotDecision, two_phase};
use super::tables::absent::no_such_table;
use super::tables::catalog::{self, TableInfo, TypeRow, Which, quoted};
use super::tables::known::Known;
use super::tables::publication::{self, Published};
use super::wire::endpoint::Endpoint;
use super::wire::hosts;
use super::wire::session;
use super::wire::sql::Sql;
use super::wire::sqlstate::{quote, replication_privilege};
use crate::checkpoint::PostgresCheckpoint;
use crate::dependent::Dependent;
use crate::dependent::carried::Carried;
use crate::error::ConnectorError;
use crate::settings::{ConnectorSettings, PostgresSettings, PreparedTransactions, SourceSettings};

/// A source that can be streamed.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The configured tables, in their order.
    pub tables: Vec<TableInfo>,
    /// Where the source resumes; none on its first run.
    pub checkpoint: Option<PostgresCheckpoint>,
    /// Where the slot stands: without a checkpoint, everything that commits after this is streamed.
    pub slot_position: Lsn,
    /// The server's version, as `server_version_num`.
    pub server_version: i32,
    /// Whether the slot is to be kept on standbys from now on.
    pub(super) make_failover: bool,
    /// Whether the slot sends transactions when they are prepared.
    pub(super) two_phase: bool,
    /// Types of the tables as they were when they were last looked at, some of which may be gone.
    pub(super) earlier_types: Vec<TypeRow>,
}

/// Checks the source and creates its topics, publication and slot if they are absent. When it returns, no later change is
/// missed: rows may be read. Reads the source's checkpoint from the transport, for a slot that is missing although
/// there is a checkpoint was lost, and is not created again. Another process may stream the source meanwhile; so whether the slot
/// still has everything behind the checkpoint is found out later, by who holds the slot.
///
/// Before anything is made, whoever depends on the tables sees them, and may refuse them in its own words. What is known of tables
/// that nobody looked at before is kept in the transport.
///
/// # Errors
/// Whatever makes streaming impossible or would lose changes, with its remedy.
pub async fn prepare(
    settings: &ConnectorSettings,
    transport: &dyn Transport,
    dependent: &dyn Dependent,
) -> Result<Prepared, ConnectorError> {
    let SourceSettings::Postgres(postgres) = &settings.source else {
        return Err(ConnectorError::settings(
            format!("source {}", settings.name),
            "it is no PostgreSQL source",
            "name another",
        ));
    };
    transport.ensure_topics(&settings.topic_specs()?).await?;
    let checkpoint = checkpoint(settings, transport).await?;
    let known = Known::load(&settings.name, transport).await?;
    prepare_from(postgres, checkpoint, known, dependent, transport).await
}

/// What the transport has as the source's last durable place; none before its first.
pub(crate) async fn checkpoint(
    settings: &ConnectorSettings,
    transport: &dyn Transport,
) -> Result<Option<PostgresCheckpoint>, ConnectorError> {
    let content = transport.checkpoint(&settings.name).await?;
    content.map(|c| PostgresCheckpoint::decode(&settings.name, &c)).transpose()
}

async fn prepare_from(
    settings: &PostgresSettings,
    checkpoint: Option<PostgresCheckpoint>,
    mut known: Known,
    dependent: &dyn Dependent,
    transport: &dyn Transport,
) -> Result<Prepared, ConnectorError> {
    let endpoint = hosts::find(&settings.url).await?;
    if settings.tables.is_empty() {
        return Err(ConnectorError::settings(endpoint.place(), "no tables are configured", "list them under tables"));
    }
    let sql = Sql::connect(&endpoint).await?;
    let server_version = server(&sql, &endpoint, checkpoint.as_ref(), &settings.slot).await?;
    let published = Published::read(&sql, &settings.publication).await?;
    let tables = catalog::tables(&sql, &settings.table_names(), Which::Published(&published)).await?;
    if let Some(name) = missing(settings, &tables) {
        return Err(gone(&sql, &name, &known).await?);
    }
    suffice(&tables, &endpoint, settings, &published.left_out, dependent)?;
    let hosts = hosts::endpoints(&settings.url)?;
    slot::check_failover(&hosts, server_version)?;
    let facts = slot::read(&sql, server_version, &settings.slot).await?;
    let at_prepare = settings.prepared == PreparedTransactions::AtPrepare;
    if at_prepare {
        two_phase::check(endpoint.place(), server_version, hosts.len(), &settings.slot, facts.as_ref())?;
    }
    let standby = slot::is_standby(&sql, server_version).await?;
    let decision = slot::decide(&settings.slot, &endpoint.database, facts.as_ref(), checkpoint.as_ref(), at_prepare)?;
    if let Some(before) = checkpoint.as_ref().filter(|c| c.database != endpoint.database) {
        tracing::info!(
            slot = settings.slot,
            from = before.database,
            to = endpoint.database,
            "the database was renamed"
        );
    }
    let added = publication::ensure(&sql, &endpoint, &settings.publication, &tables).await?;
    if checkpoint.is_some() {
        for table in added {
            tracing::warn!(
                table = table.schema.qualified_name(),
                publication = settings.publication,
                "the table was not published (newly listed? publication or table made anew?) and is from now on; what changed \
                 before is not in the log"
            );
        }
    }
    let slot_position = match decision {
        SlotDecision::Use(position) => position,
        SlotDecision::Create => {
            slot::create(&sql, &endpoint, server_version, &settings.slot, at_prepare, standby).await?
        }
    };
    let make_failover = hosts.len() > 1 && !standby && facts.as_ref().is_some_and(|f| f.failover == Some(false));
    let two_phase = facts.is_some_and(|f| f.two_phase);
    let earlier_types = known.types();
    if known.is_none() {
        // Before anybody reads rows: what changes them without events from now on is noticed, whatever happens to this process.
        let of = (settings.publication.as_str(), settings.tables.as_slice());
        known.begin(&sql, server_version, of, &tables, transport).await?;
    }
    Ok(Prepared { tables, checkpoint, slot_position, server_version, make_failover, two_phase, earlier_types })
}

/// Checks the server and the role; returns the server's version.
async fn server(
    sql: &Sql,
    endpoint: &Endpoint,
    checkpoint: Option<&PostgresCheckpoint>,
    slot: &str,
) -> Result<i32, ConnectorError> {
    const SQL: &str = "select current_setting('server_version_num')::int4, current_setting('wal_level'), \
        (select rolreplication or rolsuper from pg_catalog.pg_roles where rolname = current_user) \
        or exists (select from pg_catalog.pg_roles where rolname in ('rds_replication', 'rds_superuser') \
                   and pg_has_role(oid, 'USAGE')), \
        (select system_identifier::text from pg_catalog.pg_control_system()), \
        (select case when rolsuper then -1 else rolconnlimit end from pg_catalog.pg_roles where rolname = current_user), \
        (select case when r.rolsuper then -1 else datconnlimit end from pg_catalog.pg_database, pg_catalog.pg_roles r \
         where datname = current_database() and r.rolname = current_user), \
        coalesce((select setting::int4 from pg_catalog.pg_settings where name = 'idle_replication_slot_timeout'), 0), \
        coalesce((select unit from pg_catalog.pg_settings where name = 'idle_replication_slot_timeout'), '')";
    let rows = sql.query("reading the server's settings", SQL, &[]).await?;
    let row = rows.first().ok_or_else(|| ConnectorError::protocol(endpoint.place(), "no settings"))?;
    let (version, wal_level, replicates, system): (i32, String, bool, String) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    judge(endpoint, version, &wal_level, replicates)?;
    let limits = (row.get::<_, Option<i32>>(4).unwrap_or(-1), row.get::<_, Option<i32>>(5).unwrap_or(-1));
    session::check_limits(endpoint.place(), (&endpoint.user, limits.0), (&endpoint.database, limits.1))?;
    let (idle, unit): (i32, &str) = (row.get(6), row.get(7));
    if idle > 0 {
        // Since 18. It cannot be overruled for one slot, and takes nothing from a source that runs.
        tracing::warn!(
            slot,
            idle_replication_slot_timeout = format!("{idle}{unit}"),
            "the server gives the slot up, and the log with it, when nobody has read it for so long: a pipeline that is away for \
             longer must build everything anew. To lift it, run: ALTER SYSTEM SET idle_replication_slot_timeout = 0; then: SELECT \
             pg_reload_conf();"
        );
    }
    match checkpoint {
        Some(c) if c.system != system => Err(slot::other_system(slot, &c.system, &system)),
        _ => Ok(version),
    }
}

fn judge(endpoint: &Endpoint, version: i32, wal_level: &str, replicates: bool) -> Result<(), ConnectorError> {
    if version < 140_000 {
        return Err(ConnectorError::Server {
            place: endpoint.place(),
            cause: format!("its version is {}, and 14 is the oldest that is supported", version / 10_000),
            remedy: "upgrade the server".into(),
            class: ErrorClass::Fatal,
        });
    }
    if wal_level != "logical" {
        return Err(ConnectorError::Server {
            place: endpoint.place(),
            cause: format!("wal_level is {wal_level}, and changes can be decoded only with logical"),
            remedy:
                "run: ALTER SYSTEM SET wal_level = logical; then restart the server (on Amazon RDS and Aurora: set \
                     rds.logical_replication = 1 in its parameter group)"
                    .into(),
            class: ErrorClass::Fatal,
        });
    }
    if !replicates {
        return Err(replication_privilege(endpoint, "it lacks the attribute REPLICATION"));
    }
    Ok(())
}

/// The first of the configured tables that is not among those that were found.
pub(super) fn missing(settings: &PostgresSettings, found: &[TableInfo]) -> Option<(String, String)> {
    let found: HashSet<(String, String)> = found.iter().map(TableInfo::name).collect();
    settings.table_names().into_iter().find(|name| !found.contains(name))
}

/// Why a listed table is not there: it was renamed since it was looked at last, or it never was.
pub(super) async fn gone(sql: &Sql, name: &(String, String), known: &Known) -> Result<ConnectorError, ConnectorError> {
    let now = match known.oid_of(name) {
        Some(oid) => catalog::name_of(sql, oid).await?,
        None => None,
    };
    match now {
        Some(now) => Ok(renamed(&TableName::new(&*name.0, &*name.1), &now)),
        None => no_such_table(sql, name).await,
    }
}

/// A captured table has a name that is not listed.
pub(super) fn renamed(listed: &TableName, now: &TableName) -> ConnectorError {
    ConnectorError::Table {
        table: listed.to_string(),
        cause: format!("it was renamed to {now} while it was captured, and {now} is not listed"),
        remedy: format!(
            "give it its name again; or list {now} under tables in its place (its changes go to a topic of their own), and \
             start again"
        ),
    }
}

/// Whether each table can be captured, and the log will carry what is needed of them, through a
/// publication that leaves out these operations.
pub(super) fn suffice(
    tables: &[TableInfo],
    endpoint: &Endpoint,
    settings: &PostgresSettings,
    left_out: &[&'static str],
    dependent: &dyn Dependent,
) -> Result<(), ConnectorError> {
    readable(tables, endpoint)?;
    for table in tables {
        check(table, settings.key_of(&table.schema.schema, &table.schema.name))?;
        if let Some(heir) = table.heirs.iter().find(|heir| !settings.tables.contains(heir)) {
            return Err(ConnectorError::Table {
                table: table.schema.qualified_name(),
                cause: format!(
                    "{heir} inherits from it: a SELECT has the rows of both, the log has each under its own name"
                ),
                remedy: format!("list {heir} under tables too"),
            });
        }
    }
    let carried: Vec<Carried> = tables.iter().map(|table| table.carried(&settings.publication, left_out)).collect();
    dependent.check(&carried).map_err(ConnectorError::Refused)
}

/// Whether the log goes on to carry what is needed of a table that was found to suffice.
pub(super) fn still_suffices(
    table: &TableInfo,
    endpoint: &Endpoint,
    settings: &PostgresSettings,
    left_out: &[&'static str],
    dependent: &dyn Dependent,
) -> Result<(), ConnectorError> {
    let check = || {
        readable(std::slice::from_ref(table), endpoint)?;
        check(table, settings.key_of(&table.schema.schema, &table.schema.name))
    };
    if !table.persistent {
        return check();
    }
    match dependent.check(&[table.carried(&settings.publication, left_out)]) {
        Ok(()) => Ok(()),
        // What is wrong with the table itself has the better remedy.
        Err(text) => check().and(Err(ConnectorError::Refused(text))),
    }
}

/// Whether the role may read all of these tables. Whoever may not is told once what is to be granted, of all of them.
fn readable(tables: &[TableInfo], endpoint: &Endpoint) -> Result<(), ConnectorError> {
    let closed: Vec<&TableSchema> =
        tables.iter().filter(|table| !table.selectable && table.persistent).map(|table| &*table.schema).collect();
    let [first, others @ ..] = closed.as_slice() else { return Ok(()) };
    let schemas: BTreeSet<String> = closed.iter().map(|table| quote(&table.schema)).collect();
    let schemas: Vec<String> = schemas.into_iter().collect();
    let names: Vec<String> = closed.iter().map(|table| quoted(table)).collect();
    Err(ConnectorError::Privilege {
        place: format!("table {}", first.qualified_name()),
        cause: match others.len() {
            0 => format!("the role {} may not read it", endpoint.user),
            1 => format!("the role {} may not read it, nor {}", endpoint.user, others[0].qualified_name()),
            more => format!("the role {} may not read it, nor {more} others", endpoint.user),
        },
        remedy: format!(
            "GRANT USAGE ON SCHEMA {} TO {user}; GRANT SELECT ON {} TO {user};",
            schemas.join(", "),
            names.join(", "),
            user = quote(&endpoint.user)
        ),
    })
}

/// Whether a table can be captured, with the key that was declared for it if there is one.
fn check(table: &TableInfo, key: &[String]) -> Result<(), ConnectorError> {
    let name = table.schema.qualified_name();
    let quoted = format!("{}.{}", quote(&table.schema.schema), quote(&table.schema.name));
    let refuse = |cause: &str, remedy: String| {
        Err(ConnectorError::Table { table: name.clone(), cause: cause.to_owned(), remedy })
    };
    if ["pg_catalog", "information_schema"].contains(&&*table.schema.schema) {
        return refuse("it is a table of the system, whose changes are not decoded", "take it out of the list".into());
    }
    if !table.persistent && table.schema.schema.starts_with("pg_temp") {
        return refuse(
            "it is temporary, so only the session that made it sees it",
            "list a table that is not temporary in its place".into(),
        );
    }
    if !table.persistent {
        return refuse(
            "it is unlogged, so the log does not have its changes",
            format!("run: ALTER TABLE {quoted} SET LOGGED;"),
        );
    }
    if let Some(column) = key.iter().find(|c| table.schema.column(c).is_none()) {
        let known: Vec<&str> = table.schema.columns.iter().map(|c| &*c.name).collect();
        return refuse(
            &format!("its key names the column {column}, which it does not have"),
            format!("its columns are {}", known.join(", ")),
        );
    }
    if let Some(column) = key.iter().find(|c| !table.schema.column(c).is_some_and(|at| table.is_logged_before(at))) {
        return refuse(
            &format!("its key names the column {column}, which the log does not have for rows as they were"),
            format!("run: ALTER TABLE {quoted} REPLICA IDENTITY FULL;"),
        );
    }
    let add = format!("run: ALTER TABLE {quoted} ADD PRIMARY KEY (…); or: ALTER TABLE {quoted} REPLICA IDENTITY FULL;");
    let identity = match table.identity {
        'f' => Ok(()),
        'd' if !table.primary_key.is_empty() => Ok(()),
        'd' => refuse("it has no primary key, so updates and deletes cannot be attributed to a row", add),
        'i' if !table.identity_index.is_empty() => Ok(()),
        'i' => refuse(
            "the index of its replica identity was dropped",
            format!("run: ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT;"),
        ),
        _ => refuse(
            "its replica identity is NOTHING, so updates and deletes are not logged with a key",
            format!("run: ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT;"),
        ),
    };
    identity?;
    if let Some(partition) = &table.odd_partition {
        let form = match table.identity {
            'f' => "FULL",
            'd' => "DEFAULT",
            _ => "USING INDEX …",
        };
        return refuse(
            &format!(
                "its partition {partition} has another replica identity than the table, and logs less of old rows"
            ),
            format!("run: ALTER TABLE {partition} REPLICA IDENTITY {form};"),
        );
    }
    // With less than the identity as its key, an update could change what old images had and nobody would see them.
    let identity = if table.identity == 'i' { &table.identity_index } else { &table.primary_key };
    if let (false, Some(column)) = (key.is_empty() || table.identity == 'f', identity.iter().find(|c| !key.contains(c)))
    {
        return refuse(
            &format!("its declared key lacks the column {column} of its replica identity"),
            format!("add it to the key, or run: ALTER TABLE {quoted} REPLICA IDENTITY FULL;"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_decode_its_log_is_refused() {
        let endpoint = Endpoint::parse(&"postgres://ann@h/films".into()).expect("a URL");
        let says = |version, wal_level, replicates| {
            judge(&endpoint, version, wal_level, replicates).expect_err("refused").to_string()
        };
        assert!(judge(&endpoint, 180_000, "logical", true).is_ok());
        assert!(says(180_000, "replica", true).contains("ALTER SYSTEM SET wal_level = logical"));
        assert!(says(180_000, "logical", false).contains("ALTER ROLE \"ann\" REPLICATION"));
        assert!(says(130_000, "logical", true).contains("14 is the oldest"));
    }
}
