//! Statements go with their own rows and with no others. Events are as servers write them, without checksums.

use tributary_event::SourceKind;

use super::*;
use crate::mysql::position::GtidSet;
use crate::mysql::tables::ColumnShape;
use crate::mysql::values::Described;
use crate::settings::{ConnectorSettings, SourceSettings};

/// An event of a kind.
fn event(type_code: u8, body: &[u8]) -> Vec<u8> {
    let size = (19 + body.len() as u32).to_le_bytes();
    [&[0; 4][..], &[type_code], &1_u32.to_le_bytes(), &size, &[0; 4], &[0; 2], body].concat()
}

/// The beginning of a transaction, by the number in its GTID.
fn gtid(number: u64) -> Vec<u8> {
    event(33, &[&[0][..], &[7; 16], &number.to_le_bytes()].concat())
}

fn query(text: &str) -> Vec<u8> {
    event(2, &[&[9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'd', 0][..], text.as_bytes()].concat())
}

/// The statement whose rows follow: of MySQL behind a byte, of MariaDB by itself.
fn rows_query(text: &str) -> Vec<u8> {
    event(29, &[&[0][..], text.as_bytes()].concat())
}

fn annotation(text: &str) -> Vec<u8> {
    event(160, text.as_bytes())
}

/// The map of a table of the database `d` with one `int`. `t` is captured.
fn map(name: u8) -> Vec<u8> {
    event(19, &[name, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, name, 0, 1, 3, 0, 0])
}

/// An inserted row. `last`: it is the last one of its statement.
fn row(name: u8, id: u8, last: bool) -> Vec<u8> {
    event(30, &[name, 0, 0, 0, 0, 0, u8::from(last), 0, 2, 0, 1, 0xff, 0, id, 0, 0, 0])
}

fn xid() -> Vec<u8> {
    event(16, &[0; 8])
}

/// The events of a transaction in one.
fn payload(events: &[Vec<u8>]) -> Vec<u8> {
    event(40, &[&[0][..], &events.concat()].concat())
}

/// Each row with its statement.
fn read(asked: bool, events: &[Vec<u8>]) -> Vec<(i64, Option<String>)> {
    let settings = ConnectorSettings::mysql("s", "mysql://u@h".into(), ["d.t"]);
    let SourceSettings::MySql(mut settings) = settings.source else { panic!("a MySQL source") };
    settings.query = asked;
    let described = Described { type_name: "int".into(), ..Described::default() };
    let column = ColumnShape { name: "id".into(), type_name: "int".into(), nullable: false, described };
    let shape = Shape { columns: vec![column], key: vec![0] };
    let at = FilePosition { file: "bin.000001".into(), offset: 4 };
    let mark = MySqlCheckpoint {
        version: 1,
        server: String::new(),
        position: LogPosition::Gtids(GtidSet::default()),
        at,
        file: None,
        prepared: BTreeSet::new(),
        transaction: None,
        sequence: 0,
    };
    let source = Arc::new(SourceInfo { name: "s".into(), kind: SourceKind::MySql, database: "".into() });
    let shapes = HashMap::from([(TableName::new("d", "t"), shape)]);
    let mut assembler = Assembler::new(source, &settings, mark, shapes, &Facts::default());
    let mut out = Vec::new();
    for event in events {
        assembler.take(Bytes::copy_from_slice(event).into(), false, 1, &mut out).expect("an event");
        while assembler.is_busy() {
            let most = out.len() + 1;
            assembler.go_on(1, &mut out, most).expect("goes on");
        }
    }
    let id = |event: &ChangeEvent| match event.after.as_ref().and_then(|row| row.get("id")) {
        Some(tributary_event::Value::Int(id)) => *id,
        other => panic!("{other:?}"),
    };
    out.iter().map(|event| (id(event), event.query.as_ref().map(ToString::to_string))).collect()
}

/// What is expected: rows, each with its statement.
fn rows<const N: usize>(expected: [(i64, Option<&str>); N]) -> Vec<(i64, Option<String>)> {
    expected.into_iter().map(|(id, query)| (id, query.map(str::to_owned))).collect()
}

#[test]
fn rows_have_their_statement_up_to_its_end() {
    for named in [rows_query, annotation] {
        let log = [
            gtid(1),
            query("BEGIN"),
            named("one"),
            map(b'o'),
            map(b't'),
            row(b't', 1, false),
            row(b'o', 2, false),
            row(b't', 3, true),
            // Of a session that has set it to be off meanwhile.
            map(b't'),
            row(b't', 4, true),
            named("two"),
            map(b'o'),
            row(b'o', 5, true),
            map(b't'),
            row(b't', 6, true),
            named("three"),
            map(b't'),
            row(b't', 7, true),
            xid(),
        ];
        let expected = rows([(1, Some("one")), (3, Some("one")), (4, None), (6, None), (7, Some("three"))]);
        assert_eq!(read(true, &log), expected);
        assert_eq!(read(false, &log), rows([(1, None), (3, None), (4, None), (6, None), (7, None)]));
        let inner = [&[query("BEGIN")][..], &log[2..]].concat();
        assert_eq!(read(true, &[gtid(1), payload(&inner)]), expected);
    }
}

#[test]
fn a_statement_without_an_end_goes_with_its_transaction_and_with_what_stands_between() {
    let open = [rows_query("one"), map(b't'), row(b't', 1, false)];
    let next = [map(b't'), row(b't', 2, true), xid()];
    let begun = |number| [gtid(number), query("BEGIN")];
    let expected = rows([(1, Some("one")), (2, None)]);
    let committed = [&begun(1)[..], &open, &[xid()], &begun(2), &next].concat();
    assert_eq!(read(true, &committed), expected);
    // The server crashed in the midst of writing it.
    let cut = [&begun(1)[..], &open, &begun(2), &next].concat();
    assert_eq!(read(true, &cut), expected);
    let between = [&begun(1)[..], &open, &[query("SAVEPOINT `a`")], &next].concat();
    assert_eq!(read(true, &between), expected);
    let without_a_group = [&[rows_query("none")][..], &begun(1), &next].concat();
    assert_eq!(read(true, &without_a_group), rows([(2, None)]));
}

#[test]
fn rows_that_are_kept_until_their_transaction_ends_keep_their_statement() {
    let written = [
        rows_query("one"),
        map(b't'),
        row(b't', 1, false),
        row(b't', 2, true),
        map(b't'),
        row(b't', 3, true),
        rows_query("other"),
        map(b'o'),
        row(b'o', 4, true),
        map(b't'),
        row(b't', 5, true),
        rows_query("two"),
        map(b't'),
        row(b't', 6, true),
    ];
    let expected = rows([(1, Some("one")), (2, Some("one")), (3, None), (5, None), (6, Some("two"))]);
    let behind = [&[gtid(1), query("BEGIN"), query("SAVEPOINT `a`")][..], &written, &[xid()]].concat();
    assert_eq!(read(true, &behind), expected);
    let undone = [
        &[gtid(1), query("BEGIN"), query("SAVEPOINT `a`")][..],
        &written,
        &[query("ROLLBACK TO `a`"), map(b't'), row(b't', 7, true), xid()],
    ];
    assert_eq!(read(true, &undone.concat()), rows([(7, None)]));
    let name = "X'61',X'',1";
    let xa = |ends: &[Vec<u8>]| {
        let ended = [query(&format!("XA END {name}"))];
        [&[gtid(1), query(&format!("XA START {name}"))][..], &written, &ended, ends].concat()
    };
    let one_phase = [&[1][..], &[0; 12], b"a"].concat();
    assert_eq!(read(true, &xa(&[event(38, &one_phase)])), expected);
    let prepared = [&[0][..], &[0; 12], b"a"].concat();
    let others = [gtid(2), query("BEGIN"), rows_query("three"), map(b't'), row(b't', 8, true), xid()];
    let commit = [gtid(3), query(&format!("XA COMMIT {name}"))];
    let both = [&xa(&[event(38, &prepared)])[..], &others, &commit].concat();
    let expected = [rows([(8, Some("three"))]), expected].concat();
    assert_eq!(read(true, &both), expected);
}
