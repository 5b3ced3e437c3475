//! Doors for the fuzz targets: bytes as a server of MySQL or MariaDB would send them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tributary_event::debezium::{DecimalMode, encode_value};
use tributary_event::{SourceInfo, SourceKind, Value};

use super::binlog::{
    Change, GroupStart, HEADER, Header, Image, Payload, RowsEvent, Statement, TableMap, expanded, format_description,
    heartbeat, rotation, uncompressed,
};
use super::checkpoint::MySqlCheckpoint;
use super::position::{DomainGtid, Domains, FilePosition, Gtid, GtidSet, LogPosition};
use super::prepare::{Facts, without_owners};
use super::stream::assembler::{Assembler, Next};
use super::tables::charsets::Collations;
use super::values::charset::Charset;
use super::values::{Codec, Kind, json};
pub use super::wire::fuzzing::packets;
use crate::settings::{BinaryHandling, ConnectorSettings, InvalidText, SourceSettings, TimePrecision, ValueOptions};

/// Events of one connection, as they lie behind one another: each behind the two bytes of its size.
pub fn events(data: &[u8]) {
    let Some((kind, mut rest)) = data.split_first() else { return };
    let at = FilePosition { file: "bin.000001".into(), offset: 4 };
    let position = match kind & 3 {
        0 => LogPosition::Gtids(GtidSet::default()),
        1 => LogPosition::Domains(Domains::default()),
        _ => LogPosition::File(at.clone()),
    };
    let mark = MySqlCheckpoint {
        version: 1,
        server: String::new(),
        position,
        at,
        file: None,
        prepared: BTreeSet::new(),
        transaction: None,
        sequence: 0,
    };
    let settings = ConnectorSettings::mysql("fuzz", "mysql://u@h".into(), ["d.t", "d.u"]);
    let SourceSettings::MySql(mut settings) = settings.source else { return };
    settings.query = kind & 8 != 0;
    let source = SourceInfo { name: "fuzz".into(), kind: SourceKind::MySql, database: "".into() };
    let collations =
        Some(Collations::of(&[(8, "latin1"), (45, "utf8mb4"), (63, "binary"), (11, "ascii"), (33, "sjis")]));
    let facts = Facts { has_checksum: kind & 4 != 0, collations, ..Facts::default() };
    let mut assembler = Assembler::new(Arc::new(source), &settings, mark, [].into(), &facts);
    let mut out = Vec::new();
    while let Some((size, more)) = rest.split_first_chunk::<2>() {
        let (event, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes(*size))));
        rest = more;
        let mut event = event.to_vec();
        // So that not every mutation of the length is an event that is refused.
        let whole = event.len() as u32;
        if let Some(size) = event.get_mut(9..13) {
            size.copy_from_slice(&whole.to_le_bytes());
        }
        let mut next = assembler.take(Bytes::from(event).into(), false, 0, &mut out);
        loop {
            match next {
                Ok(Next::Define(definition)) => assembler.define(&definition.tables, Vec::new()),
                Ok(Next::GoOn) => {}
                Err(_) => return,
            }
            out.iter().for_each(|event| show(event.before.iter().chain(&event.after).flat_map(|row| &row.values)));
            let _ = assembler.mark(out.last());
            out.clear();
            if !assembler.is_busy() {
                break;
            }
            next = assembler.go_on(0, &mut out, 16);
        }
    }
}

/// The bytes of one event: its header, and its body as each kind of event.
pub fn event(data: &[u8]) {
    let Ok(header) = Header::read(data) else { return };
    let _ = (header.kind(), header.body(data, true));
    let body = data.get(HEADER..).unwrap_or_default();
    let _ = (rotation(body), heartbeat(body), format_description(body));
    let starts = [
        GroupStart::mysql(body, false),
        GroupStart::mysql(body, true),
        GroupStart::tagged(body),
        GroupStart::mariadb(header.server_id, body),
    ];
    for start in starts.into_iter().flatten() {
        let GroupStart::MySql { gtid: Some(gtid), .. } = start else { continue };
        let mut set = GtidSet::default();
        set.insert(&gtid);
        assert!(set.contains(&gtid) && set.to_string().parse() == Ok(set.clone()));
    }
    let statements =
        [Statement::read(body, false), Statement::read(body, true), Statement::read_load(body)].into_iter().flatten();
    for statement in statements {
        let _ = (statement.kind(), statement.starts_transaction());
        let _ = (statement.may_concern("d", "t"), statement.may_write_to("d", "t"));
    }
}

/// Compressed content: a transaction of MySQL, or an event of MariaDB.
pub fn payload(data: &[u8]) {
    let _ = uncompressed(data);
    let Ok(mut payload) = Payload::open(&Bytes::copy_from_slice(data)) else { return };
    while let Ok(Some(event)) = payload.next() {
        let _ = Header::read(&event);
    }
}

/// A table map behind its size in one byte, and the body of an event with rows.
pub fn rows(data: &[u8]) {
    let [flags, size, rest @ ..] = data else { return };
    let (map, rows) = rest.split_at(rest.len().min(usize::from(*size)));
    let Ok(table) = TableMap::read(map) else { return };
    let change = [Change::Insert, Change::Update, Change::Delete][usize::from(flags & 3).min(2)];
    let (version, partial) = (if flags & 4 == 0 { 2 } else { 1 }, flags & 8 != 0);
    let _ = expanded(rows, change, version);
    let Ok(mut event) = RowsEvent::read(rows, change, version, partial) else { return };
    let (mut before, mut after, mut left) = (Vec::new(), Vec::new(), event.left());
    while let Ok(true) = event.next(&table, &mut before, &mut after) {
        assert!(
            event.left() < left || event.left() == 0 && after.iter().all(|image| *image == Image::Absent),
            "a row takes bytes"
        );
        left = event.left();
    }
}

/// A document behind its size in two bytes, and differences that are applied to it.
pub fn document(data: &[u8]) {
    let Some((size, rest)) = data.split_first_chunk::<2>() else { return };
    let (document, differences) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*size))));
    let Ok(mut document) = json::read(document) else { return };
    let _ = json::print(&document);
    if document.apply(differences).is_ok() {
        let _ = json::print(&document);
    }
}

/// The bytes of a value, as one of every kind of column.
pub fn value(data: &[u8]) {
    let [kind, options, raw @ ..] = data else { return };
    let (a, b) = (options & 15, options >> 4);
    let labels: Arc<[bytestring::ByteString]> = ["a", "b", "ü"].map(Into::into).into();
    let charset = || Charset::named(CHARSETS[usize::from(*options) % CHARSETS.len()]).unwrap_or(Charset::Utf8);
    let kind = match kind % 26 {
        0 => Kind::Int { bytes: [1, 2, 3, 4, 8][usize::from(a) % 5], unsigned: b & 1 == 1 },
        1 => Kind::Year,
        2 => Kind::Float,
        3 => Kind::Double,
        4 => Kind::Decimal { precision: *options, scale: raw.first().copied().unwrap_or(0) % 40 },
        5 => Kind::Bit { bits: u16::from(a) * 5 },
        6 => Kind::Date,
        7 => Kind::Time { digits: a % 7 },
        8 => Kind::OldTime,
        9 => Kind::Datetime { digits: a % 7 },
        10 => Kind::OldDatetime,
        11 => Kind::Timestamp { digits: a % 7 },
        12 => Kind::OldTimestamp,
        13 => Kind::Binary { padded: (b & 1 == 1).then_some(u16::from(a) * 40) },
        14 => Kind::Enum(labels),
        15 => Kind::Set(labels),
        16 => Kind::Json,
        17 => Kind::Geometry { is_point: a & 1 == 1 },
        18 => Kind::Vector,
        19 => Kind::Uuid,
        20 => Kind::Inet4,
        21 => Kind::Inet6,
        _ => Kind::Text(charset()),
    };
    use TimePrecision::{Adaptive, AdaptiveTimeMicroseconds, Iso, Microseconds, Milliseconds, Nanoseconds};
    let times = [Adaptive, AdaptiveTimeMicroseconds, Iso, Microseconds, Milliseconds, Nanoseconds][usize::from(b) % 6];
    let binary = [BinaryHandling::Base64, BinaryHandling::Base64Url, BinaryHandling::Hex][usize::from(b) % 3];
    let values = ValueOptions { times, binary, ..ValueOptions::default() };
    for invalid in [InvalidText::Stop, InvalidText::Replace, InvalidText::Base64] {
        let owner = Bytes::copy_from_slice(raw);
        if let Ok(value) = Codec::new(kind.clone(), values, invalid).decode(&owner, &owner) {
            show([&value]);
        }
    }
}

const CHARSETS: &[&str] = &[
    "utf8mb4", "ascii", "latin1", "latin2", "greek", "hebrew", "cp866", "koi8u", "tis620", "sjis", "cp932", "ujis",
    "eucjpms", "euckr", "gb2312", "gbk", "gb18030", "big5", "geostd8", "hp8", "swe7", "ucs2", "utf16le", "utf32",
];

/// Positions as servers print them.
pub fn positions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (one, other) = text.split_once('|').unwrap_or((text, ""));
    if let Ok(set) = without_owners(one).parse::<GtidSet>() {
        assert_eq!(set.to_string().parse().as_ref(), Ok(&set));
        let _ = set.encode();
        if let Ok(other) = other.parse::<GtidSet>() {
            let mut union = set.clone();
            union.extend(&other);
            assert!(set.is_subset(&union) && other.is_subset(&union) && union.without(&set).is_subset(&other));
        }
    }
    if let Ok(domains) = one.parse::<Domains>() {
        assert_eq!(domains.to_string().parse().as_ref(), Ok(&domains));
    }
    let _ = (one.parse::<Gtid>(), one.parse::<DomainGtid>());
    let file = |text: &str| FilePosition { file: text.into(), offset: text.len() as u64 };
    let _ = file(one).reaches(&file(other));
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
