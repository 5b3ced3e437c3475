//! Doors for the fuzz targets: bytes as a server of PostgreSQL would send them.

use std::sync::Arc;

use bytes::Bytes;
use tributary_event::debezium::{DecimalMode, encode_value};
use tributary_event::{Lsn, SourceInfo, SourceKind, Value};

use super::stream::assembler::{Assembler, Next};
use super::stream::pgoutput::{self, Message};
use super::stream::streaming;
use super::tables::relation::{Decoder, Relayed};
use super::values::binary::Form;
use super::values::charset::Charset;
use super::values::texts::Texts;
use super::values::value::Codec;
use super::wire::frame::{self, Frame};
use crate::checkpoint::PostgresCheckpoint;
use crate::settings::{BinaryHandling, InvalidText, TimePrecision, ValueOptions};

/// Types that are built in, and the functions that send them.
const TYPES: &[(u32, &str)] = &[
    (16, "boolsend"),
    (23, "int4send"),
    (26, "oidsend"),
    (700, "float4send"),
    (701, "float8send"),
    (1700, "numeric_send"),
    (790, "cash_send"),
    (1082, "date_send"),
    (1083, "time_send"),
    (1114, "timestamp_send"),
    (1184, "timestamptz_send"),
    (1266, "timetz_send"),
    (1186, "interval_send"),
    (17, "byteasend"),
    (600, "point_send"),
    (1560, "bit_send"),
    (25, "textsend"),
    (3802, "jsonb_send"),
    (2950, "uuid_send"),
    (869, "inet_send"),
    (829, "macaddr_send"),
    (3220, "pg_lsn_send"),
];

const POLICIES: [InvalidText; 3] = [InvalidText::Stop, InvalidText::Replace, InvalidText::Base64];

/// Messages of the plugin, as they lie behind one another: each behind the two bytes of its size.
pub fn messages(data: &[u8]) {
    let Some((options, mut rest)) = data.split_first() else { return };
    let source = SourceInfo { name: "fuzz".into(), kind: SourceKind::PostgreSql, database: "d".into() };
    let mark = PostgresCheckpoint {
        version: 1,
        system: "7".into(),
        timeline: 1,
        database: "d".into(),
        slot: "slot".into(),
        lsn: Lsn(0),
        transaction: None,
        changed: None,
        sequence: 0,
    };
    let texts = Arc::new(Texts::new(POLICIES[usize::from(*options) % 3], charset(options >> 2), "EUC_JP"));
    let mut assembler = Assembler::new(Arc::new(source), mark).with_texts(texts.clone());
    let mut events = Vec::new();
    while let Some((size, more)) = rest.split_first_chunk::<2>() {
        let (message, more) = more.split_at(more.len().min(usize::from(u16::from_be_bytes(*size))));
        rest = more;
        for in_block in [false, true] {
            let _ = streaming::decode(message, in_block);
        }
        let owner = Bytes::copy_from_slice(message);
        match assembler.message(&owner, &owner, Lsn(1), 0, &mut events) {
            Ok(Next::LookUp) => learn(&mut assembler, &owner, &texts),
            Ok(Next::GoOn | Next::ForgetTypes) => {}
            Err(_) => return,
        }
        events.iter().for_each(|event| show(event.before.iter().chain(&event.after).flat_map(|row| &row.values)));
        let _ = assembler.mark(events.last());
        events.clear();
    }
}

/// Looks up the table of a relation message: its types are those that are built in.
fn learn(assembler: &mut Assembler, owner: &Bytes, texts: &Texts) {
    let (readable, _) = texts.message(owner);
    let Ok(Message::Relation(relation)) = pgoutput::decode(&readable) else { return };
    let decoder = |oid: u32, modifier: i32| Decoder {
        codec: Codec::builtin(oid, modifier, ValueOptions::default()),
        form: TYPES.iter().find(|(known, _)| *known == oid).and_then(|(_, send)| Form::of_send_function(send)),
    };
    let decoders: Vec<Decoder> = relation.columns().map(|column| decoder(column.type_oid, column.modifier)).collect();
    let types = vec!["?".to_owned(); decoders.len()];
    let name = (relation.schema.to_owned(), relation.name.to_owned());
    let table = Relayed::new(&relation, owner.clone(), &name, &["id".to_owned()], decoders, types, true);
    assembler.learn(relation.oid, table);
}

/// Bytes of a connection, and what the messages of its stream hold.
pub fn frames(data: &[u8]) {
    let Ok(whole) = frame::complete(data) else { return };
    let mut at = 0;
    while let Some((_, body)) = frame::next(&data[..whole], &mut at) {
        if let Some(Some(Frame::Data { payload, .. })) = frame::copied(body) {
            let _ = pgoutput::decode(payload);
        }
    }
    assert_eq!(at, whole);
}

/// A value, as text and as its type sends it, of every type.
pub fn value(data: &[u8]) {
    let [kind, options, raw @ ..] = data else { return };
    use TimePrecision::{Adaptive, AdaptiveTimeMicroseconds, Iso, Microseconds, Milliseconds, Nanoseconds};
    let times = [Adaptive, AdaptiveTimeMicroseconds, Iso, Microseconds, Milliseconds, Nanoseconds];
    let binary = [BinaryHandling::Base64, BinaryHandling::Base64Url, BinaryHandling::Hex];
    let values = ValueOptions {
        times: times[usize::from(options & 15) % 6],
        binary: binary[usize::from(options & 15) % 3],
        hstore_as_map: options & 16 != 0,
        intervals_as_text: options & 32 != 0,
    };
    const EXTENSIONS: [&str; 5] = ["geometry", "hstore", "vector", "sparsevec", "halfvec"];
    let at = usize::from(kind & 31);
    let (codec, form) = match TYPES.get(at) {
        Some((oid, send)) => {
            let modifier = i32::from(options >> 5) - 1;
            (Codec::builtin(*oid, modifier, values), Form::of_send_function(send).unwrap_or(Form::Output))
        }
        None => {
            let name = EXTENSIONS[(at - TYPES.len()) % EXTENSIONS.len()];
            (Codec::of_extension(name, values).unwrap_or(Codec::Text), Form::Output)
        }
    };
    let (codec, form) = match kind & 64 {
        0 => (codec, form),
        _ => (Codec::Array { element: Box::new(codec), delimiter: b',' }, Form::Array(Box::new(form))),
    };
    let owner = Bytes::copy_from_slice(raw);
    show(codec.decode(&owner, &owner).iter());
    show(form.decode(&codec, &owner, &owner).iter());
    for policy in POLICIES {
        let texts = Texts::new(policy, charset(*kind), "EUC_JP");
        let mut bad = None;
        show(texts.decode(&codec, raw, &mut bad).iter());
        show(texts.decode_binary(&form, &codec, raw, &mut bad).iter());
    }
}

/// The characters of a database, for some.
fn charset(options: u8) -> Option<Charset> {
    (options & 128 != 0).then(|| Charset::of("EUC_JP", &[(b"\xa4\xa2", "あ"), (b"\x8e\xb1", "ｱ")])).flatten()
}

/// Prints values as events have them.
fn show<'a>(values: impl IntoIterator<Item = &'a Value>) {
    let mut out = Vec::new();
    for value in values {
        for decimals in [DecimalMode::Precise, DecimalMode::String, DecimalMode::Double] {
            encode_value(&mut out, value, decimals);
        }
    }
}
