use std::sync::Arc;

use bytestring::ByteString;
use serde_json::{Value as Json, json};

use super::*;
use crate::change::{ChangeEvent, LogicalMessage, Op, Origin, SourceInfo, SourceKind, TransactionInfo};
use crate::position::{LogGroup, Lsn, Position};
use crate::row::{Column, Row, TableSchema, Value};
use crate::scope::{Bound, KeyRange, Scope};

fn event(op: Op, before: Option<Vec<Value>>, after: Option<Vec<Value>>) -> ChangeEvent {
    let column = |name: &str| Column { name: name.into(), type_name: "text".into() };
    let table =
        Arc::new(TableSchema::new("public", "movie", vec![column("id"), column("title"), column("body")], vec![0]));
    let row = |values: Option<Vec<Value>>| values.map(|values| Row { table: table.clone(), values });
    ChangeEvent {
        source: Arc::new(SourceInfo { name: "studio".into(), kind: SourceKind::PostgreSql, database: "films".into() }),
        op,
        scope: Scope::Row,
        before: row(before),
        after: row(after),
        message: None,
        position: Position::Postgres { lsn: Lsn(100), commit: Lsn(200) },
        transaction: Some(TransactionInfo { id: 7, total_order: 1, table_order: 1 }),
        origin: None,
        query: None,
        commit_us: 1_700_000_000_123_456,
        capture_us: 1_700_000_000_223_456,
        sequence: u64::MAX >> 1,
        table,
    }
}

fn encoded(event: &ChangeEvent) -> (Json, Json, Vec<u8>, Vec<u8>) {
    let mut encoder = Encoder::new(&event.source, DecimalMode::Precise);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    encode_event_key(&mut key, event, encoder.decimals());
    encoder.value(event, &mut value);
    let parse = |bytes: &[u8]| serde_json::from_slice(bytes).expect("valid JSON");
    (parse(&key), parse(&value), key, value)
}

#[test]
fn an_update_has_the_members_that_debezium_consumers_expect() {
    let event = event(Op::Update, None, Some(vec![Value::Int(5), Value::text("A \"B\"\n\u{1}é"), Value::Unchanged]));
    let (key, value, ..) = encoded(&event);
    assert_eq!(key, json!({"id": 5}));
    assert_eq!(value["after"], json!({"id": 5, "title": "A \"B\"\n\u{1}é"}));
    assert_eq!(value["before"], Json::Null);
    assert_eq!(value["unchanged"], json!(["body"]));
    assert_eq!(value["op"], "u");
    assert_eq!(value["ts_us"], 1_700_000_000_223_456_i64);
    let source = &value["source"];
    assert_eq!(source["ts_ms"], 1_700_000_000_123_i64);
    assert_eq!(source["sequence"], "[\"200\",\"100\"]");
    assert_eq!((&source["connector"], &source["db"]), (&json!("postgresql"), &json!("films")));
    assert_eq!(value["transaction"], json!({"id": "7:200", "total_order": 1, "data_collection_order": 1}));
    assert_eq!(value["sequence"].as_u64(), Some(u64::MAX >> 1));
}

#[test]
fn every_event_survives_the_wire() {
    let rows = [
        (Op::Create, None, Some(vec![Value::Int(i64::MAX), Value::Null, Value::Bool(true)])),
        (Op::Delete, Some(vec![Value::Int(1), Value::Null, Value::Null]), None),
        (Op::Update, None, Some(vec![Value::text("k"), Value::Float64(0.1), Value::Unchanged])),
        (Op::Truncate, None, None),
    ];
    let mut decoder = Decoder::new();
    for (op, before, after) in rows {
        let mut event = event(op, before, after);
        event.origin = (op == Op::Update).then(|| Arc::new(Origin { name: "north".into(), commit: Lsn(9) }));
        let (_, value, key_bytes, value_bytes) = encoded_or_empty(&event);
        let key = (!key_bytes.is_empty()).then_some(&key_bytes[..]);
        let decoded = decoder.decode(key, Some(&value_bytes)).expect("decodes").expect("an event");
        assert_eq!((decoded.op, decoded.sequence, &decoded.position), (event.op, event.sequence, &event.position));
        assert_eq!(decoded.origin, event.origin);
        let mut again = Vec::new();
        Encoder::new(&decoded.source, DecimalMode::Precise).value(&decoded, &mut again);
        assert_eq!(serde_json::from_slice::<Json>(&again).expect("valid"), value);
    }
}

fn encoded_or_empty(event: &ChangeEvent) -> (Json, Json, Vec<u8>, Vec<u8>) {
    let mut encoder = Encoder::new(&event.source, DecimalMode::Precise);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    encode_event_key(&mut key, event, encoder.decimals());
    encoder.value(event, &mut value);
    (Json::Null, serde_json::from_slice(&value).expect("valid JSON"), key, value)
}

#[test]
fn what_events_share_is_written_anew_when_it_changes() {
    let first = event(Op::Create, None, Some(vec![Value::Int(1), Value::Null, Value::Null]));
    let mut others = vec![first.clone(); 9];
    others[1].position = Position::Postgres { lsn: Lsn(101), commit: Lsn(200) };
    others[2].transaction = Some(TransactionInfo { id: 7, total_order: 2, table_order: 2 });
    others[3].position = Position::Postgres { lsn: Lsn(100), commit: Lsn(300) };
    others[4].transaction = None;
    others[5].op = Op::Read;
    (others[6].commit_us, others[6].capture_us) = (1, 2);
    others[7] = event(Op::Delete, Some(vec![Value::Int(1), Value::Null, Value::Null]), None);
    others[8].origin = Some(Arc::new(Origin { name: "north".into(), commit: Lsn(9) }));
    let mut one = Encoder::new(&first.source, DecimalMode::Precise);
    for changed in &others {
        for event in [&first, changed, changed] {
            let mut value = Vec::new();
            one.value(event, &mut value);
            assert_eq!(String::from_utf8_lossy(&value), String::from_utf8_lossy(&encoded_or_empty(event).3));
        }
    }
}

#[test]
fn a_logical_message_has_its_prefix_as_key_and_no_row() {
    let mut event = event(Op::Message, None, None);
    event.table = Arc::new(TableSchema::new("", "message", Vec::new(), Vec::new()));
    event.message = Some(LogicalMessage { prefix: "out\"box".into(), content: vec![0, 255, 7].into() });
    let (key, value, key_bytes, value_bytes) = encoded(&event);
    assert_eq!(key, json!({"prefix": "out\"box"}));
    assert_eq!((&value["op"], &value["message"]["content"]), (&json!("m"), &json!("AP8H")));
    assert_eq!((&value["source"]["schema"], &value["source"]["table"]), (&json!(""), &json!("")));
    assert!(value.get("before").is_none() && value.get("after").is_none());
    let decoded = Decoder::new().decode(Some(&key_bytes), Some(&value_bytes)).expect("decodes").expect("an event");
    assert_eq!((decoded.op, decoded.message), (Op::Message, event.message));
    assert_eq!(topic("studio", &event.table.schema, &event.table.name), "studio.message");
}

#[test]
fn decimals_and_bytes_follow_the_mode() {
    let encode = |value: &Value, mode| {
        let mut out = Vec::new();
        encode_value(&mut out, value, mode);
        serde_json::from_slice::<Json>(&out).expect("valid JSON")
    };
    let fixed = Value::Decimal { text: "12.50".into(), scale: Some(2) };
    let free = Value::Decimal { text: "12.5".into(), scale: None };
    let nan = Value::Decimal { text: "NaN".into(), scale: None };
    assert_eq!(encode(&fixed, DecimalMode::Precise), json!("BOI="));
    assert_eq!(encode(&free, DecimalMode::Precise), json!({"scale": 1, "value": "fQ=="}));
    assert_eq!(encode(&fixed, DecimalMode::String), json!("12.50"));
    assert_eq!(encode(&fixed, DecimalMode::Double), json!(12.50));
    assert_eq!(encode(&nan, DecimalMode::Double), json!("NaN"));
    assert_eq!(encode(&Value::Bytes(vec![0, 255].into()), DecimalMode::Precise), json!("AP8="));
    assert_eq!(encode(&Value::Float64(f64::NEG_INFINITY), DecimalMode::Precise), json!("-Infinity"));
    assert_eq!(encode(&Value::Float32(0.1), DecimalMode::Precise).to_string(), "0.1");
}

#[test]
fn nonsense_is_an_error_and_a_tombstone_is_not() {
    let mut decoder = Decoder::new();
    assert!(decoder.decode(Some(b"{\"id\":1}"), None).expect("fine").is_none());
    assert!(matches!(decoder.decode(None, Some(b"{}")), Err(DecodeError::Envelope(_))));
    assert!(matches!(decoder.decode(None, Some(br#"{"source":{},"op":"x"}"#)), Err(DecodeError::Op(_))));
    assert!(matches!(decoder.decode(Some(b"1"), Some(br#"{"source":{},"op":"c"}"#)), Err(DecodeError::Key(_))));
}

proptest::proptest! {
    #[test]
    fn strings_are_escaped_as_json_asks(plain in "[ -~\u{80}-\u{ffff}]{0,20}", any: String, more in "[\"\\\\\n\u{0}-\u{20}a]{0,12}") {
        for text in [plain.clone(), any.clone(), more.clone(), format!("{plain}{more}{any}")] {
            let mut out = Vec::new();
            json_string(&mut out, text.as_bytes());
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(text));
        }
    }
}

#[test]
fn an_event_of_a_binary_log_has_the_members_of_its_connector_and_survives_the_wire() {
    let group = LogGroup {
        gtid: Some("3e11fa47-71ca-11e1-9e33-c80aa9429562:23".into()),
        file: "bin.000007".into(),
        server_id: 9,
        thread: Some(4),
        offset: 100,
    };
    let mut event = event(Op::Create, None, Some(vec![Value::UInt(u64::MAX), Value::Null, Value::Null]));
    event.source = Arc::new(SourceInfo { name: "studio".into(), kind: SourceKind::MySql, database: "".into() });
    event.position = Position::MySql { group: Arc::new(group), offset: 5_000_000_000, row: 3 };
    event.transaction = Some(TransactionInfo { id: 23, total_order: 1, table_order: 1 });
    let (key, value, key_bytes, value_bytes) = encoded(&event);
    assert_eq!(key, json!({"id": u64::MAX}));
    let source = &value["source"];
    assert_eq!(
        (&source["connector"], &source["db"], &source["table"]),
        (&json!("mysql"), &json!("public"), &json!("movie"))
    );
    assert_eq!(
        (&source["file"], &source["pos"], &source["row"]),
        (&json!("bin.000007"), &json!(5_000_000_000_u64), &json!(3))
    );
    assert_eq!((&source["server_id"], &source["thread"], &source["query"]), (&json!(9), &json!(4), &Json::Null));
    assert_eq!(value["transaction"]["id"], source["gtid"]);
    let decoded = Decoder::new().decode(Some(&key_bytes), Some(&value_bytes)).expect("decodes").expect("an event");
    let mut again = Vec::new();
    Encoder::new(&decoded.source, DecimalMode::Precise).value(&decoded, &mut again);
    assert_eq!(serde_json::from_slice::<Json>(&again).expect("valid"), value);
    assert_eq!(decoded.transaction, event.transaction);
}

#[test]
fn the_statement_of_a_change_travels_and_is_that_of_no_other() {
    let group = Arc::new(LogGroup { file: "bin.000007".into(), offset: 100, ..LogGroup::default() });
    let of = |query: Option<&ByteString>| {
        let mut event = event(Op::Create, None, Some(vec![Value::Int(1), Value::Null, Value::Null]));
        event.source = Arc::new(SourceInfo { name: "s".into(), kind: SourceKind::MariaDb, database: "".into() });
        event.position = Position::MySql { group: group.clone(), offset: 200, row: 0 };
        event.query = query.cloned();
        event
    };
    let texts: [ByteString; 3] = ["insert into t values ('\"é\n')".into(), "insert 2".into(), "insert 3".into()];
    let table = of(None).table;
    let mut encoder = Encoder::new(&of(None).source, DecimalMode::Precise);
    for query in [None, Some(&texts[0]), Some(&texts[0]), Some(&texts[1]), Some(&texts[2]), None] {
        let mut event = of(query);
        event.table = table.clone();
        let mut bytes = Vec::new();
        encoder.value(&event, &mut bytes);
        let value: Json = serde_json::from_slice(&bytes).expect("valid JSON");
        assert_eq!(value["source"]["query"].as_str(), query.map(|query| &**query));
        let decoded = Decoder::new().decode(Some(b"{\"id\":1}"), Some(&bytes)).expect("decodes").expect("an event");
        assert_eq!(decoded.query.as_ref(), query);
    }
}

#[test]
fn what_changed_to_a_value_that_was_not_sent_is_named_apart() {
    let event = event(Op::Update, None, Some(vec![Value::Int(5), Value::Unchanged, Value::Partial]));
    let (_, value, key, bytes) = encoded(&event);
    assert_eq!(value["after"], json!({"id": 5}));
    assert_eq!((&value["unchanged"], &value["partial"]), (&json!(["title"]), &json!(["body"])));
    let decoded = Decoder::new().decode(Some(&key), Some(&bytes)).expect("decodes").expect("an event");
    let after = decoded.after.as_ref().expect("a row");
    assert_eq!((after.get("title"), after.get("body")), (Some(&Value::Unchanged), Some(&Value::Partial)));
    let again = encoded(&decoded).1;
    assert_eq!(again, value);
}

#[test]
fn a_delete_of_more_than_a_row_says_which_and_names_what_it_knows_of_the_key() {
    let column = |name: &str| Column { name: name.into(), type_name: "int".into() };
    let table = Arc::new(TableSchema::new("films", "seat", ["hall", "row", "place"].map(column).to_vec(), vec![0, 1]));
    let of_hall = Row { table: table.clone(), values: vec![Value::Int(3), Value::Unchanged, Value::Unchanged] };
    let bound = |row: i64, inclusive| Some(Bound { key: vec![("row".into(), Value::Int(row))], inclusive });
    let range = |from, to| Scope::Range(Box::new(KeyRange { from, to }));
    let ends = |from: Json, to: Json| json!({"from": from, "to": to});
    let first = json!({"key": {"row": 4}, "inclusive": true});
    let last = json!({"key": {"row": 9}, "inclusive": false});
    for (scope, word, json) in [
        (Scope::Row, json!(null), json!(null)),
        (Scope::Partition, json!("partition"), json!(null)),
        (range(bound(4, true), bound(9, false)), json!("range"), ends(first.clone(), last.clone())),
        (range(None, bound(9, false)), json!("range"), ends(json!(null), last)),
        (range(bound(4, true), None), json!("range"), ends(first, json!(null))),
    ] {
        let mut event = event(Op::Delete, None, None);
        (event.table, event.before, event.scope) = (table.clone(), Some(of_hall.clone()), scope.clone());
        let (key, value, key_bytes, bytes) = encoded(&event);
        assert_eq!((&key, &value["before"]), (&json!({"hall": 3}), &json!({"hall": 3})));
        assert_eq!((&value["scope"], &value["range"]), (&word, &json));
        let decoded = Decoder::new().decode(Some(&key_bytes), Some(&bytes)).expect("decodes").expect("an event");
        assert_eq!(decoded.scope, scope);
    }
}

#[test]
fn a_scope_that_is_not_known_is_refused() {
    let refused = |scope: &str| {
        let value = format!(r#"{{"before":{{"id":1}},"after":null,"source":{{}},"op":"d",{scope}}}"#);
        let error = Decoder::new().decode(Some(br#"{"id":1}"#), Some(value.as_bytes())).map(|_| ());
        error.map_err(|error| error.to_string())
    };
    assert_eq!(refused(r#""scope":"row""#), Ok(()));
    assert!(refused(r#""scope":"table""#).is_err_and(|why| why.contains("table")));
    assert!(refused(r#""scope":"range""#).is_err_and(|why| why.contains("range")));
}
