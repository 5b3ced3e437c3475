//! Transactions that are published when they are prepared (`PREPARE TRANSACTION`), if asked for: what that needs of the server,
//! the slot and the checkpoint, and what is remembered of those that are prepared.
//!
//! The first stream that asks for `two_phase` marks its slot for ever, and the position P that it begins at. What is prepared
//! behind P is sent when it is prepared, and at its end only that it ended. What was prepared before P is sent when it commits:
//! its changes as those of a prepared transaction, and at once that it committed. So each is sent once. From this follow:
//!
//! * *Resumption.* What was sent when it was prepared lies before the mark when its last change does, as a transaction that
//!   committed. What was prepared before P names a position before the mark though it is new: it comes late. It remains the
//!   half-done transaction of the mark until it has committed, for until then the server sends it again.
//! * *The way there.* A half-done transaction of the mark is known by its commit record. Were P to be before that, it could come
//!   as one that was prepared, and behind others. So the stream goes on without `two_phase` to the end of that transaction, and
//!   begins anew there.
//! * *No way back.* A stream that does not ask gets prepared transactions from such a slot all the same, so it is refused.
//!
//! Reference: PostgreSQL documentation, "Two-phase Commit Support for Logical Decoding", and `two_phase`, `two_phase_at` of
//! the view `pg_replication_slots`.

use std::collections::HashMap;

use super::SlotFacts;
use crate::error::ConnectorError;

/// `pgoutput` sends prepared transactions from this version on.
const TWO_PHASE: i32 = 150_000;
/// A slot of this major version cannot both send prepared transactions and be kept on standbys.
const NOT_WITH_FAILOVER: std::ops::Range<i32> = 170_000..180_000;

/// Whether a slot that sends prepared transactions can be kept on standbys, where slots can be.
pub(in crate::postgres) fn goes_with_failover(version: i32) -> bool {
    !NOT_WITH_FAILOVER.contains(&version)
}

/// Refuses a server, hosts or a slot with which transactions cannot be published when they are prepared. Pure.
pub(in crate::postgres) fn check(
    place: String,
    version: i32,
    hosts: usize,
    slot: &str,
    facts: Option<&SlotFacts>,
) -> Result<(), ConnectorError> {
    let refuse = |cause: String, remedy: String| Err(ConnectorError::settings(place.clone(), cause, remedy));
    let major = version / 10_000;
    if version < TWO_PHASE {
        return refuse(
            format!(
                "prepared transactions are to be published when they are prepared, which PostgreSQL {major} cannot send"
            ),
            "leave prepared_transactions out (they are published when they commit), or upgrade the server to 15".into(),
        );
    }
    if goes_with_failover(version) {
        return Ok(());
    }
    if hosts > 1 {
        return refuse(
            format!(
                "the url names {hosts} hosts, but slots of PostgreSQL {major} that send transactions when they are prepared are \
                 not kept on standbys"
            ),
            "leave prepared_transactions out, name one host (after a failover, dump its tables again), or upgrade the servers \
             to 18"
                .into(),
        );
    }
    if facts.is_some_and(|f| f.failover == Some(true) && !f.two_phase) {
        return refuse(
            format!(
                "the replication slot {slot} is kept on standbys, and PostgreSQL {major} does not send transactions when they \
                 are prepared from such a slot"
            ),
            format!(
                "leave prepared_transactions out, upgrade the servers to 18, or give up the failover: in a session with \
                 replication=database run: ALTER_REPLICATION_SLOT {slot} (FAILOVER false);"
            ),
        );
    }
    Ok(())
}

/// The transactions that were given when they were prepared, since the stream began, and have not ended: whether there were
/// events of them. As many as the server allows (`max_prepared_transactions`), at most.
#[derive(Default)]
pub(in crate::postgres) struct Unfinished(HashMap<u32, bool>);

impl Unfinished {
    /// A transaction was given.
    pub(in crate::postgres) fn given(&mut self, xid: u32, events: bool) {
        self.0.insert(xid, events);
    }

    /// It has committed.
    pub(in crate::postgres) fn committed(&mut self, xid: u32) {
        self.0.remove(&xid);
    }

    /// It was rolled back: what was published of it is not taken back, so somebody should know.
    pub(in crate::postgres) fn rolled_back(&mut self, source: &str, xid: u32, gid: &str) {
        match self.0.remove(&xid) {
            Some(false) => {}
            Some(true) => tracing::warn!(
                source,
                transaction = gid,
                "a prepared transaction was rolled back after its changes were published: they never happened"
            ),
            None => tracing::warn!(
                source,
                transaction = gid,
                "a transaction was rolled back that was prepared before the stream began: if changes of it were published then, \
                 they never happened"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(version: i32, hosts: usize, facts: Option<&SlotFacts>) -> String {
        check("h:1".into(), version, hosts, "s", facts).expect_err("refused").to_string()
    }

    #[test]
    fn what_cannot_send_prepared_transactions_is_refused() {
        let slot = |failover, two_phase| SlotFacts { failover, two_phase, ..SlotFacts::default() };
        assert!(says(140_000, 1, None).contains("upgrade the server to 15"));
        assert!(says(170_011, 2, None).contains("not kept on standbys"));
        assert!(says(170_011, 1, Some(&slot(Some(true), false))).contains("ALTER_REPLICATION_SLOT s (FAILOVER false)"));
        for (version, hosts, facts) in [
            (150_000, 1, None),
            (170_011, 1, Some(slot(Some(false), false))),
            (170_011, 1, Some(slot(Some(true), true))),
            (180_000, 2, Some(slot(Some(true), false))),
        ] {
            check("h:1".into(), version, hosts, "s", facts.as_ref()).expect("fits");
        }
    }
}
