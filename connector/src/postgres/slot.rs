//! The replication slot: what its state means for us, and its creation.
//!
//! Reference: PostgreSQL documentation, view `pg_replication_slots`; "Logical Decoding Concepts", Replication Slots.

pub(super) mod heartbeat;
pub(super) mod timeline;
pub(super) mod two_phase;

use std::time::Duration;

use tributary_event::{ErrorClass, Lsn};

use super::wire::endpoint::Endpoint;
use super::wire::hosts;
use super::wire::sql::Sql;
use super::wire::sqlstate::{literal, replication_privilege};
use crate::checkpoint::PostgresCheckpoint;
use crate::error::ConnectorError;
use crate::pager::patiently;
use crate::settings::PostgresSettings;

/// The facts about a slot that decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SlotFacts {
    pub plugin: Option<String>,
    pub database: Option<String>,
    /// Why the slot can never be used again, if that is so.
    pub invalidated: Option<String>,
    pub confirmed: Option<Lsn>,
    /// Whether it is kept on standbys; none where the server has no such slots.
    pub failover: Option<bool>,
    /// Whether transactions are sent when they are prepared, whatever a reader asks for.
    pub two_phase: bool,
}

/// What is to be done about the slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SlotDecision {
    /// It is absent, and so is a checkpoint.
    Create,
    /// It fits; without a checkpoint, streaming begins at this position.
    Use(Lsn),
}

/// What to do about a slot that cannot go on.
pub(super) const AFRESH: &str = "changes since then are lost to this source; give it a new name, drop the old slot \
    (select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = …), and run tributary reindex";

/// Decides by the slot and the checkpoint; `at_prepare`: transactions are to be sent when they are prepared. Pure.
///
/// Where the two stand is not compared: another process may publish meanwhile, and then the slot has gone on since the checkpoint
/// was read. See [`continues`].
pub(super) fn decide(
    slot: &str,
    database: &str,
    facts: Option<&SlotFacts>,
    checkpoint: Option<&PostgresCheckpoint>,
    at_prepare: bool,
) -> Result<SlotDecision, ConnectorError> {
    let lost =
        |cause: String, remedy: &str| Err(ConnectorError::lost(format!("replication slot {slot}"), cause, remedy));
    if let Some(c) = checkpoint {
        // A slot stays with its database when that gets another name.
        let renamed = facts.is_some_and(|f| f.database.as_deref() == Some(database));
        if c.database != database && !renamed {
            let cause = format!(
                "the checkpoint belongs to the database {}, and the url names {database}, which the slot is not of",
                c.database
            );
            return lost(cause, "point the url back to the first database, or give the source a new name");
        }
        if c.slot != slot {
            let cause = format!("the checkpoint was made with the slot {}", c.slot);
            return lost(cause, "set the slot's name back; two slots do not stand at the same position");
        }
    }
    let Some(facts) = facts else {
        return match checkpoint {
            None => Ok(SlotDecision::Create),
            Some(c) => lost(format!("it does not exist any more, and the checkpoint stands at {}", c.lsn), AFRESH),
        };
    };
    match (&facts.plugin, &facts.database) {
        (Some(plugin), _) if plugin != "pgoutput" => {
            return lost(format!("its plugin is {plugin}, not pgoutput"), "choose another name for the source's slot");
        }
        (None, _) => {
            return lost(
                "it is a physical slot, not a logical one".into(),
                "choose another name for the source's slot",
            );
        }
        (_, Some(other)) if other != database => {
            return lost(
                format!("it belongs to the database {other}, and the url names {database}"),
                "choose another name for the source's slot, or correct the url",
            );
        }
        _ => {}
    }
    if facts.two_phase && !at_prepare {
        // Streaming it without asking would not change what it sends.
        let remedy = match checkpoint {
            Some(_) => {
                "set prepared_transactions to at-prepare again; to have them when they commit, give the source a new name, drop \
                 the old slot, and dump or reindex its tables"
            }
            None => "choose another name for the source's slot, or set prepared_transactions to at-prepare",
        };
        return lost(
            "it sends transactions when they are prepared (two_phase), though they may be rolled back, and always will"
                .into(),
            remedy,
        );
    }
    if let Some(reason) = &facts.invalidated {
        return lost(format!("the server has invalidated it ({reason})"), AFRESH);
    }
    match facts.confirmed {
        Some(confirmed) => Ok(SlotDecision::Use(confirmed)),
        // By another process; it is gone if that does not succeed.
        None => Err(ConnectorError::SlotInUse { slot: slot.to_owned(), cause: "another process is making it".into() }),
    }
}

/// Whether a slot that stands at `confirmed` gives everything behind the checkpoint. To be asked only by who holds the slot, with
/// the checkpoint as it is since: then nobody moves either, and a slot ahead of the checkpoint was moved by somebody else. Pure.
pub(crate) fn continues(
    slot: &str,
    confirmed: Option<Lsn>,
    checkpoint: &PostgresCheckpoint,
) -> Result<(), ConnectorError> {
    match confirmed {
        // START_REPLICATION from before the confirmed position silently starts behind it.
        Some(confirmed) if confirmed > checkpoint.lsn => Err(ConnectorError::lost(
            format!("replication slot {slot}"),
            format!(
                "it was moved forward to {confirmed} (by another reader or pg_replication_slot_advance), and the checkpoint \
                 stands at {}",
                checkpoint.lsn
            ),
            AFRESH,
        )),
        _ => Ok(()),
    }
}

/// Where the slot stands.
pub(crate) async fn position(settings: &PostgresSettings) -> Result<Option<Lsn>, ConnectorError> {
    const SQL: &str =
        "select confirmed_flush_lsn::text from pg_catalog.pg_replication_slots where slot_name = $1::text::name";
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    let rows = sql.query("reading pg_replication_slots", SQL, &[&settings.slot]).await?;
    Ok(rows.first().and_then(|row| row.get::<_, Option<String>>(0)).and_then(|text| text.parse().ok()))
}

/// Where the log of a source ends now: whoever has replayed so much shows everything that anybody sees on the server.
///
/// # Errors
/// The server cannot be reached.
pub async fn end_of_log(settings: &PostgresSettings) -> Result<Lsn, ConnectorError> {
    // What committed without waiting for the disk is visible before it is written, so the end is that of what is inserted.
    const SQL: &str = "select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end::text, \
        (select setting::int8 from pg_catalog.pg_settings where name = 'wal_block_size'), \
        (select setting::int8 from pg_catalog.pg_settings where name = 'wal_segment_size')";
    const ACTION: &str = "reading where the log ends";
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    let rows = sql.query(ACTION, SQL, &[]).await?;
    let row = rows.first();
    let end = row.and_then(|row| row.get::<_, Option<String>>(0)).and_then(|text| text.parse().ok());
    let size = |i| row.and_then(|row| u64::try_from(row.get::<_, i64>(i)).ok()).filter(|size| *size > 0);
    match (end, size(1), size(2)) {
        (Some(end), Some(page), Some(segment)) => Ok(end_of_last_record(end, page, segment)),
        _ => Err(ConnectorError::protocol(sql.endpoint().place(), "the server does not say where its log ends")),
    }
}

/// The end of the last record before the place where the next one will be inserted: between them is the header of a page, where the
/// last one filled its page. Nobody replays a header before there is a record behind it. Pure.
fn end_of_last_record(next: Lsn, page: u64, segment: u64) -> Lsn {
    const SHORT: u64 = 24;
    const LONG: u64 = 40;
    match (next.0 % page, next.0 % segment) {
        (_, LONG) => Lsn(next.0 - LONG),
        (SHORT, _) => Lsn(next.0 - SHORT),
        _ => next,
    }
}

/// Refuses, transiently, while another process reads the slot.
pub(crate) async fn wait_turn(settings: &PostgresSettings) -> Result<(), ConnectorError> {
    const SQL: &str = "select coalesce(active_pid, 0) from pg_catalog.pg_replication_slots \
        where slot_name = $1::text::name and active";
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    match sql.query("reading pg_replication_slots", SQL, &[&settings.slot]).await?.first() {
        Some(row) => {
            let cause = format!("another process reads it (the server's process {})", row.get::<_, i32>(0));
            Err(ConnectorError::SlotInUse { slot: settings.slot.clone(), cause })
        }
        None => Ok(()),
    }
}

/// Reads the slot's facts.
pub(super) async fn read(sql: &Sql, version: i32, slot: &str) -> Result<Option<SlotFacts>, ConnectorError> {
    // Columns that came with 16 and 17.
    let conflicting = if version >= 160_000 { "conflicting" } else { "false" };
    let reason = if version >= 170_000 { "invalidation_reason" } else { "null::text" };
    let failover = if version >= FAILOVER_SLOTS { "failover" } else { "null::bool" };
    let two_phase = if version >= 140_000 { "two_phase" } else { "false" };
    let statement = format!(
        "select plugin::text, database::text, confirmed_flush_lsn::text, case when {reason} is not null then {reason} \
         when wal_status = 'lost' then 'wal_removed: max_slot_wal_keep_size was exceeded' \
         when {conflicting} then 'conflict with recovery' end, {failover}, {two_phase} \
         from pg_catalog.pg_replication_slots where slot_name = $1::text::name"
    );
    let rows = sql.query("reading pg_replication_slots", &statement, &[&slot]).await?;
    Ok(rows.first().map(|row| SlotFacts {
        plugin: row.get(0),
        database: row.get(1),
        confirmed: row.get::<_, Option<String>>(2).and_then(|t| t.parse().ok()),
        invalidated: row.get(3),
        failover: row.get(4),
        two_phase: row.get(5),
    }))
}

/// Logical slots survive a failover from this version on.
const FAILOVER_SLOTS: i32 = 170_000;

/// Refuses several hosts where a failover would lose the slot, and with it changes.
pub(super) fn check_failover(hosts: &[Endpoint], version: i32) -> Result<(), ConnectorError> {
    if hosts.len() < 2 || version >= FAILOVER_SLOTS {
        return Ok(());
    }
    let first = hosts.first().map_or_else(String::new, Endpoint::place);
    Err(ConnectorError::settings(
        first,
        format!(
            "the url names {} hosts, but slots of PostgreSQL {} stay behind at a failover, and changes would be lost",
            hosts.len(),
            version / 10_000
        ),
        "name one host (after a failover, dump its tables again), or upgrade the servers to 17",
    ))
}

/// Whether the server is a standby, and can be read from. Slots of standbys came with 16.
pub(super) async fn is_standby(sql: &Sql, version: i32) -> Result<bool, ConnectorError> {
    let rows = sql.query("asking whether it is a standby", "select pg_is_in_recovery()", &[]).await?;
    let standby = rows.first().is_some_and(|row| row.get(0));
    if standby && version < STANDBY_SLOTS {
        return Err(ConnectorError::Server {
            place: sql.endpoint().place(),
            cause: format!("it is a standby, whose log PostgreSQL {} cannot decode", version / 10_000),
            remedy: "let the url lead to the primary, or upgrade the servers to 16".into(),
            class: ErrorClass::Fatal,
        });
    }
    Ok(standby)
}

/// Standbys decode their log from this version on.
const STANDBY_SLOTS: i32 = 160_000;
/// The creation of a slot that takes longer is worth a word about what it waits for.
const LONG: Duration = Duration::from_secs(5);

/// Creates the slot and returns the position it starts at. Waits for transactions that are running or prepared; on a standby,
/// for the primary to write down which those are.
pub(super) async fn create(
    sql: &Sql,
    endpoint: &Endpoint,
    version: i32,
    slot: &str,
    at_prepare: bool,
    standby: bool,
) -> Result<Lsn, ConnectorError> {
    tracing::info!(slot, "creating the replication slot; this waits for transactions that are running or prepared");
    if standby {
        warn_of_conflicts(sql, slot).await?;
    }
    // From 17 on the slot can be kept on standbys too, so that it is there after a failover; but not one that a standby made.
    let kept = version >= FAILOVER_SLOTS && !standby && (!at_prepare || two_phase::goes_with_failover(version));
    let failover = if kept { ", failover => true" } else { "" };
    let statement =
        format!("select pg_catalog.pg_create_logical_replication_slot({}, 'pgoutput'{failover})", literal(slot));
    let say = || tracing::warn!(slot, "the replication slot is not created yet: {}", waits_for(standby));
    let created = patiently(sql.execute(&statement), LONG, say).await?;
    if let Err(error) = created {
        return Err(match error.code.as_str() {
            "42501" => replication_privilege(endpoint, &error.text()),
            "42602" => ConnectorError::settings(
                format!("replication slot {slot}"),
                error.text(),
                "name it with lower-case letters, digits and underscores only",
            ),
            // Another process was faster; its slot is as good.
            "42710" => ConnectorError::Server {
                place: format!("replication slot {slot}"),
                cause: error.text(),
                remedy: "trying again".into(),
                class: ErrorClass::Transient,
            },
            _ => error.classify(endpoint, "creating the replication slot"),
        });
    }
    let facts = read(sql, 0, slot).await?;
    facts.and_then(|f| f.confirmed).ok_or_else(|| {
        ConnectorError::protocol(format!("replication slot {slot}"), "it is not there after it was created")
    })
}

/// Warns if the primary may remove what a standby's slot needs.
async fn warn_of_conflicts(sql: &Sql, slot: &str) -> Result<(), ConnectorError> {
    let rows = sql.query("reading a setting", "select current_setting('hot_standby_feedback') = 'on'", &[]).await?;
    if rows.first().is_some_and(|row| !row.get::<_, bool>(0)) {
        tracing::warn!(
            slot,
            "hot_standby_feedback is off on this standby: the primary may remove rows of its catalog that decoding needs, which \
             invalidates the slot; run on the standby: ALTER SYSTEM SET hot_standby_feedback = on; select pg_reload_conf();"
        );
    }
    Ok(())
}

/// What the creation of a slot waits for.
fn waits_for(standby: bool) -> &'static str {
    if standby {
        "a standby waits until the primary writes down which transactions run; to have that at once, run on the primary: \
         select pg_log_standby_snapshot();"
    } else {
        "it waits for the end of transactions that began before; to see them, run: select pid, xact_start, query from \
         pg_stat_activity where backend_xid is not null order by xact_start; select * from pg_prepared_xacts;"
    }
}

/// The url leads to another cluster than the checkpoint's.
pub(super) fn other_system(slot: &str, expected: &str, actual: &str) -> ConnectorError {
    ConnectorError::lost(
        format!("replication slot {slot}"),
        format!(
            "the checkpoint belongs to the database cluster with system identifier {expected}, and the url leads to the \
             cluster {actual}"
        ),
        "point the url back to the first cluster, or give the source a new name and dump its tables afresh",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_page_is_no_record() {
        let ends = |next| end_of_last_record(Lsn(next), 8192, 16 << 20).0;
        assert_eq!((ends(0x0200_0028), ends(0x0200_2018)), (0x0200_0000, 0x0200_2000));
        // Records that end at these places of a page.
        assert_eq!((ends(0x0200_2028), ends(0x0200_2020), ends(0x0200_2000)), (0x0200_2028, 0x0200_2020, 0x0200_2000));
    }

    fn facts() -> SlotFacts {
        SlotFacts {
            plugin: Some("pgoutput".into()),
            database: Some("films".into()),
            invalidated: None,
            confirmed: Some(Lsn(100)),
            failover: None,
            two_phase: false,
        }
    }

    fn checkpoint(lsn: u64) -> PostgresCheckpoint {
        PostgresCheckpoint {
            version: 1,
            system: "7".into(),
            timeline: 1,
            database: "films".into(),
            slot: "s".into(),
            lsn: Lsn(lsn),
            transaction: None,
            changed: None,
            sequence: 0,
        }
    }

    fn says(facts: Option<SlotFacts>, checkpoint: Option<PostgresCheckpoint>, expected: &str) {
        let error = decide("s", "films", facts.as_ref(), checkpoint.as_ref(), false).expect_err(expected);
        assert_eq!(error.class(), ErrorClass::Fatal);
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn a_slot_is_created_only_where_nothing_can_be_lost() {
        assert_eq!(decide("s", "films", None, None, false).expect("create"), SlotDecision::Create);
        assert_eq!(decide("s", "films", Some(&facts()), None, false).expect("use"), SlotDecision::Use(Lsn(100)));
        let same = checkpoint(100);
        assert_eq!(decide("s", "films", Some(&facts()), Some(&same), false).expect("use"), SlotDecision::Use(Lsn(100)));
        says(None, Some(checkpoint(100)), "does not exist any more");
    }

    #[test]
    fn a_database_that_was_renamed_is_the_same_one() {
        let before = PostgresCheckpoint { database: "movies".into(), ..checkpoint(100) };
        assert_eq!(
            decide("s", "films", Some(&facts()), Some(&before), false).expect("use"),
            SlotDecision::Use(Lsn(100))
        );
    }

    #[test]
    fn a_slot_that_would_skip_changes_is_refused() {
        says(Some(SlotFacts { plugin: Some("test_decoding".into()), ..facts() }), None, "not pgoutput");
        says(Some(SlotFacts { plugin: None, ..facts() }), None, "physical");
        says(Some(SlotFacts { database: Some("other".into()), ..facts() }), None, "belongs to the database other");
        says(Some(SlotFacts { invalidated: Some("wal_removed".into()), ..facts() }), None, "wal_removed");
        let two_phase = SlotFacts { two_phase: true, ..facts() };
        says(Some(two_phase.clone()), None, "choose another name");
        says(Some(two_phase.clone()), Some(checkpoint(100)), "set prepared_transactions to at-prepare again");
        assert!(decide("s", "films", Some(&two_phase), Some(&checkpoint(100)), true).is_ok());
        let elsewhere = || Some(PostgresCheckpoint { database: "x".into(), ..checkpoint(100) });
        says(None, elsewhere(), "belongs to the database x");
        says(Some(SlotFacts { database: Some("x".into()), ..facts() }), elsewhere(), "belongs to the database x");
        says(Some(facts()), Some(PostgresCheckpoint { slot: "x".into(), ..checkpoint(100) }), "slot x");
    }

    #[test]
    fn a_slot_that_is_being_made_is_waited_for() {
        let error =
            decide("s", "films", Some(&SlotFacts { confirmed: None, ..facts() }), None, false).expect_err("wait");
        assert_eq!(error.class(), ErrorClass::Transient);
    }

    #[test]
    fn only_a_slot_ahead_of_the_checkpoint_skips_changes() {
        assert!(continues("s", Some(Lsn(99)), &checkpoint(100)).is_ok());
        assert!(continues("s", Some(Lsn(100)), &checkpoint(100)).is_ok());
        let error = continues("s", Some(Lsn(101)), &checkpoint(100)).expect_err("lost");
        assert_eq!(error.class(), ErrorClass::Fatal);
        assert!(error.to_string().contains("moved forward"), "{error}");
    }
}
