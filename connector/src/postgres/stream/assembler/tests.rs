//! Transactions that are half done, sent again, prepared.

use super::*;
use crate::postgres::slot::heartbeat;
use crate::postgres::tables::relation::Decoder;
use crate::postgres::values::value::Codec;

const ROW: u32 = 9;

fn begin(commit: u64) -> Vec<u8> {
    [&b"B"[..], &commit.to_be_bytes(), &0i64.to_be_bytes(), &7u32.to_be_bytes()].concat()
}

fn commit(commit: u64) -> Vec<u8> {
    [&b"C\0"[..], &commit.to_be_bytes(), &(commit + 8).to_be_bytes(), &0i64.to_be_bytes()].concat()
}

fn insert(id: u8) -> Vec<u8> {
    [&b"I"[..], &ROW.to_be_bytes(), b"N\0\x01t\0\0\0\x01", &[b'0' + id]].concat()
}

fn assembler(lsn: u64, transaction: Option<InProgress>) -> Assembler {
    let source = SourceInfo { name: "s".into(), kind: tributary_event::SourceKind::PostgreSql, database: "d".into() };
    let mark = PostgresCheckpoint {
        version: 1,
        system: "7".into(),
        timeline: 1,
        database: "d".into(),
        slot: "slot".into(),
        lsn: Lsn(lsn),
        transaction,
        changed: None,
        sequence: 5,
    };
    let mut assembler = Assembler::new(Arc::new(source), mark);
    let message =
        [&b"R"[..], &ROW.to_be_bytes(), b"public\0t\0d\0\x01\x01id\0", &[0, 0, 0, 23, 255, 255, 255, 255]].concat();
    let Ok(Message::Relation(relation)) = pgoutput::decode(&message) else { panic!("a relation") };
    let decoders = vec![Decoder { codec: Codec::Int, form: None }];
    let table = Relayed::new(
        &relation,
        Bytes::new(),
        &("public".into(), "t".into()),
        &["id".into()],
        decoders,
        vec!["integer".into()],
        true,
    );
    assembler.learn(ROW, table);
    assembler
}

fn feed(assembler: &mut Assembler, messages: Vec<Vec<u8>>) -> Result<Vec<ChangeEvent>, ConnectorError> {
    let mut events = Vec::new();
    for message in messages {
        let owner = Bytes::from(message);
        assembler.message(&owner, &owner, Lsn(1), 0, &mut events)?;
    }
    Ok(events)
}

#[test]
fn a_half_done_transaction_goes_on_behind_its_durable_changes() {
    let mut whole = assembler(100, None);
    let all = feed(&mut whole, vec![begin(200), insert(1), insert(2), insert(3)]).expect("events");
    let middle = whole.mark(all.last());
    assert_eq!(
        (middle.lsn, middle.transaction),
        (Lsn(100), Some(InProgress { commit: Lsn(200), changes: 3, messages: 0 }))
    );
    let mut resumed = assembler(100, Some(InProgress { commit: Lsn(200), changes: 2, messages: 0 }));
    let transaction = vec![begin(200), insert(1), insert(2), insert(3), commit(200)];
    let rest = feed(&mut resumed, transaction).expect("events");
    assert_eq!(rest.len(), 1);
    assert_eq!((rest[0].transaction, rest[0].after.clone()), (all[2].transaction, all[2].after.clone()));
    let end = resumed.mark(rest.last());
    assert_eq!((end.lsn, end.transaction), (Lsn(208), None));
    assert!(end.sequence > 5);
}

#[test]
fn a_mark_among_durable_changes_still_names_them() {
    let half = InProgress { commit: Lsn(200), changes: 2, messages: 0 };
    let mut resumed = assembler(100, Some(half.clone()));
    resumed.keepalive(Lsn(500));
    assert!(feed(&mut resumed, vec![begin(200), insert(1)]).expect("events").is_empty());
    let mark = resumed.mark(None);
    assert_eq!((mark.lsn, mark.transaction), (Lsn(100), Some(half)));
}

#[test]
fn a_finished_transaction_that_is_sent_again_gives_nothing() {
    let mut resumed = assembler(300, None);
    let again = vec![begin(200), insert(1), commit(200), begin(300), insert(2), commit(300)];
    assert_eq!(feed(&mut resumed, again).expect("events").len(), 1);
}

#[test]
fn a_heartbeat_moves_the_mark_alone() {
    let message = |prefix: &str, lsn: u64| {
        [&b"M\0"[..], &lsn.to_be_bytes(), prefix.as_bytes(), b"\0", &0u32.to_be_bytes()].concat()
    };
    let mut idle = assembler(100, None);
    let events = feed(&mut idle, vec![message("outbox", 200), message(heartbeat::PREFIX, 300)]).expect("events");
    let mark = idle.mark(events.last());
    assert_eq!((events.len(), mark.lsn, mark.changed), (1, Lsn(300), Some(Lsn(200))));
}

#[test]
fn a_half_done_transaction_that_is_gone_means_a_lost_position() {
    let mut resumed = assembler(100, Some(InProgress { commit: Lsn(200), changes: 2, messages: 0 }));
    let error = feed(&mut resumed, vec![begin(300)]).expect_err("lost");
    assert!(matches!(error, ConnectorError::PositionLost { .. }), "{error}");
}

fn begin_prepared(prepare: u64) -> Vec<u8> {
    let (lsn, end) = (prepare.to_be_bytes(), (prepare + 8).to_be_bytes());
    [&b"b"[..], &lsn, &end, &0i64.to_be_bytes(), &7u32.to_be_bytes(), b"gid\0"].concat()
}

fn prepare(prepare: u64) -> Vec<u8> {
    let (lsn, end) = (prepare.to_be_bytes(), (prepare + 8).to_be_bytes());
    [&b"P\0"[..], &lsn, &end, &0i64.to_be_bytes(), &7u32.to_be_bytes(), b"gid\0"].concat()
}

fn commit_prepared(commit: u64) -> Vec<u8> {
    let (lsn, end) = (commit.to_be_bytes(), (commit + 8).to_be_bytes());
    [&b"K\0"[..], &lsn, &end, &0i64.to_be_bytes(), &7u32.to_be_bytes(), b"gid\0"].concat()
}

#[test]
fn a_prepared_transaction_is_done_when_its_changes_are() {
    let mut fresh = assembler(100, None);
    let events = feed(&mut fresh, vec![begin_prepared(200), insert(1), prepare(200)]).expect("events");
    let mark = fresh.mark(events.last());
    assert_eq!((events.len(), mark.lsn, mark.transaction), (1, Lsn(208), None));
    assert!(feed(&mut fresh, vec![commit_prepared(300)]).expect("nothing").is_empty());
    assert_eq!(fresh.mark(None).lsn, Lsn(308));
}

#[test]
fn a_transaction_that_was_prepared_before_the_mark_is_done_when_it_has_committed() {
    let late = || vec![begin_prepared(50), insert(1), insert(2), prepare(50)];
    let mut fresh = assembler(100, None);
    let events = feed(&mut fresh, late()).expect("events");
    let mark = fresh.mark(events.last());
    let done = InProgress { commit: Lsn(50), changes: 2, messages: 0 };
    assert_eq!((events.len(), mark.lsn, mark.transaction), (2, Lsn(100), Some(done.clone())));
    // A keepalive meanwhile says nothing, for the server would send it again.
    fresh.keepalive(Lsn(500));
    assert_eq!(fresh.mark(None).lsn, Lsn(100));
    let mut resumed = assembler(100, Some(done));
    assert!(feed(&mut resumed, late()).expect("nothing").is_empty());
    for assembler in [&mut fresh, &mut resumed] {
        feed(assembler, vec![commit_prepared(300)]).expect("nothing");
        let mark = assembler.mark(None);
        assert_eq!((mark.lsn, mark.transaction), (Lsn(308), None));
    }
}

#[test]
fn changes_out_of_place_are_refused() {
    assert!(feed(&mut assembler(0, None), vec![insert(1)]).is_err());
    let mut unknown = insert(1);
    unknown[4] = 8;
    assert!(feed(&mut assembler(0, None), vec![begin(1), unknown]).is_err());
}
