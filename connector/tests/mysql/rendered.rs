//! The log and a `SELECT` say the same: edge values of every type are written once, and what events have of them is compared with what
//! the server itself makes of the row.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use tributary_connector::InvalidText;
use tributary_event::debezium::DecimalMode;

use crate::server::{Database, databases, mysql_mut};
use crate::support::{Recorder, Running};

/// What an event's value is compared by, with the SQL that says the same of a column.
#[derive(Clone, Copy)]
enum Form {
    /// The same text.
    Text,
    /// The number, `TRUE` being 1.
    Integer,
    Float,
    Double,
    /// Of more than one bit: the bytes, the lowest first.
    Bits(usize),
    Bytes,
    Date,
    Time,
    /// Milliseconds, or with more than three digits microseconds.
    Datetime(u8),
    Timestamp,
    Point,
    Geometry,
    /// The numbers; and the function that prints them.
    Vector(&'static str),
}

/// A type, its values as SQL writes them, and how they are compared.
type Column = (&'static str, &'static [&'static str], Form);

const NUMBERS: &[Column] = &[
    ("tinyint", &["-128", "127", "0", "-1"], Form::Integer),
    ("tinyint unsigned", &["255", "0", "128"], Form::Integer),
    ("boolean", &["true", "false"], Form::Integer),
    ("smallint", &["-32768", "32767", "-1"], Form::Integer),
    ("smallint unsigned", &["65535", "32768"], Form::Integer),
    ("mediumint", &["-8388608", "8388607", "-1"], Form::Integer),
    ("mediumint unsigned", &["16777215", "8388608"], Form::Integer),
    ("int", &["-2147483648", "2147483647", "-1"], Form::Integer),
    ("int(7) unsigned zerofill", &["4294967295", "2147483648"], Form::Integer),
    ("bigint", &["-9223372036854775808", "9223372036854775807", "-1"], Form::Integer),
    ("bigint unsigned", &["18446744073709551615", "9223372036854775808", "0"], Form::Integer),
    ("year", &["2155", "1901", "0", "2000"], Form::Integer),
    ("float", &["0.1", "-3.4e38", "1.17549435e-38", "16777217", "0"], Form::Float),
    ("float(7,3)", &["-1234.5678", "0.0005"], Form::Float),
    ("double", &["1.7976931348623157e308", "2.5e-308", "-0.1", "9007199254740993"], Form::Double),
    ("double(10,2)", &["-12345678.999"], Form::Double),
    ("decimal(10,2)", &["-99999999.99", "0", "0.01", "-0.01", "12.5"], Form::Text),
    ("decimal(5,0)", &["-99999", "1", "0"], Form::Text),
    ("decimal(9,9)", &["0.123456789", "-0.000000001"], Form::Text),
    ("decimal(18,9)", &["-123456789.987654321", "100000000.000000001"], Form::Text),
    ("decimal(65,30)", &["-99999999999999999999999999999999999.999999999999999999999999999999", "0.1"], Form::Text),
    ("decimal(65,0) unsigned", &["99999999999999999999999999999999999999999999999999999999999999999"], Form::Text),
    ("bit(1)", &["b'1'", "b'0'"], Form::Integer),
    ("bit(9)", &["b'100000001'", "b'0'"], Form::Bits(9)),
    ("bit(64)", &["0xfedcba9876543210", "1"], Form::Bits(64)),
];

const TIMES: &[Column] = &[
    (
        "date",
        &["'9999-12-31'", "'0001-01-01'", "'1969-12-31'", "'0000-00-00'", "'2020-02-00'", "'2020-00-10'"],
        Form::Date,
    ),
    ("date", &["'1582-10-04'", "'1582-10-15'", "'2000-02-29'", "'1900-03-01'", "'2021-02-31'"], Form::Date),
    ("time", &["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'"], Form::Time),
    ("time(1)", &["'-00:00:00.1'", "'23:59:59.9'", "'-838:59:58.9'"], Form::Time),
    ("time(2)", &["'-00:00:01.50'", "'-00:00:00.99'", "'00:00:00.01'"], Form::Time),
    ("time(3)", &["'-12:34:56.789'", "'-00:00:00.001'"], Form::Time),
    ("time(4)", &["'-12:34:56.7891'", "'-00:00:00.0001'", "'100:00:00.5'"], Form::Time),
    ("time(5)", &["'-12:34:56.78912'"], Form::Time),
    ("time(6)", &["'-00:00:00.000001'", "'838:59:58.999999'", "'-838:59:58.999999'"], Form::Time),
    (
        "datetime",
        &["'9999-12-31 23:59:59'", "'1000-01-01 00:00:00'", "'0000-00-00 00:00:00'", "'2020-02-00 12:00:00'"],
        Form::Datetime(0),
    ),
    ("datetime(1)", &["'1969-12-31 23:59:59.9'", "'0001-01-01 00:00:00.1'"], Form::Datetime(1)),
    ("datetime(2)", &["'1969-12-31 23:59:59.99'"], Form::Datetime(2)),
    ("datetime(3)", &["'1969-12-31 23:59:59.999'", "'2020-01-02 03:04:05.001'"], Form::Datetime(3)),
    ("datetime(4)", &["'1969-12-31 23:59:59.9999'"], Form::Datetime(4)),
    ("datetime(5)", &["'2020-01-02 03:04:05.00001'"], Form::Datetime(5)),
    (
        "datetime(6)",
        &["'1000-01-01 00:00:00.000001'", "'9999-12-31 23:59:59.999999'", "'2020-00-00 01:02:03.000004'"],
        Form::Datetime(6),
    ),
    ("timestamp null", &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'0000-00-00 00:00:00'"], Form::Timestamp),
    ("timestamp(1) null", &["'2020-01-02 03:04:05.9'"], Form::Timestamp),
    ("timestamp(3) null", &["'1970-01-01 00:00:01.5'", "'2020-01-02 03:04:05'"], Form::Timestamp),
    ("timestamp(6) null", &["'2038-01-19 03:14:07.999999'", "'2000-02-29 00:00:00.000001'"], Form::Timestamp),
];

const TEXTS: &[Column] = &[
    ("char(4)", &["'ab'", "''", "'ab  '", "'ü🎬'", "' a'"], Form::Text),
    ("char(255)", &["repeat('ü', 255)", "'x'"], Form::Text),
    ("char(0)", &["''"], Form::Text),
    ("varchar(5)", &["'abc'", "'ab  '", "''", "'\\0\\t\\n\\\\'"], Form::Text),
    ("varchar(300)", &["repeat('ü', 300)", "repeat('🎬', 64)"], Form::Text),
    ("tinytext", &["''", "repeat('x', 255)"], Form::Text),
    ("text", &["'a \"b\" \\\\ ü 🎬'", "repeat('x', 65535)"], Form::Text),
    ("mediumtext", &["repeat('ü', 40000)"], Form::Text),
    ("longtext", &["repeat('x', 70000)", "''"], Form::Text),
    ("char(9) character set ascii", &["'a~'"], Form::Text),
    ("binary(4)", &["x'ab00'", "''", "x'00000001'", "x'20202020'", "x'ffffffff'"], Form::Bytes),
    ("binary(16)", &["x'00000000000000000000000000000001'", "x'01000000000000000000000000000000'"], Form::Bytes),
    ("binary(255)", &["x'01'"], Form::Bytes),
    ("varbinary(4)", &["x'ab00'", "''", "x'0000'"], Form::Bytes),
    ("varbinary(300)", &["repeat(x'ff', 300)"], Form::Bytes),
    ("tinyblob", &["x'00'"], Form::Bytes),
    ("blob", &["x'deadbeef'", "repeat(x'00', 65535)"], Form::Bytes),
    ("longblob", &["repeat(x'80', 70000)"], Form::Bytes),
    ("enum('a','it''s','ü','x,y','')", &["'it''s'", "'ü'", "'x,y'", "5", "'none of them'"], Form::Text),
    ("enum('é','€') character set latin1", &["'é'", "'€'"], Form::Text),
    ("enum('中') character set gbk", &["'中'"], Form::Text),
    ("set('a','b','c')", &["'c,a'", "''", "'a,b,c'"], Form::Text),
    ("set('é','ü') character set latin1", &["'ü,é'"], Form::Text),
    ("point", &["st_geomfromtext('POINT(1 -2.5)')", "st_geomfromtext('POINT(1 2)', 3857)"], Form::Point),
    (
        "geometry",
        &[
            "st_geomfromtext('POINT(1 2)')",
            "st_geomfromtext('POLYGON((0 0,1 0,1 1,0 0))', 3857)",
            "st_geomfromtext('GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))')",
        ],
        Form::Geometry,
    ),
    ("linestring", &["st_geomfromtext('LINESTRING(0 0,1 1,2 -2)')"], Form::Geometry),
    ("multipoint", &["st_geomfromtext('MULTIPOINT(0 0,1 1)')"], Form::Geometry),
    ("polygon", &["st_geomfromtext('POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))')"], Form::Geometry),
];

const OF_MYSQL: &[Column] = &[
    (
        "json",
        &[
            r#"'{"b": [1, -2, 1.5, 1e100, true, null, "ü\\"\\\\x\\u0001"], "a": {}, "": []}'"#,
            "'18446744073709551615'",
            "'-9223372036854775808'",
            "'1.0'",
            "'0.1e-7'",
            "'123456789012345678901234567890'",
            "'\"🎬\"'",
            "'null'",
            "json_array(cast(1.50 as decimal(10,2)), cast('2020-01-02' as date), cast('-03:04:05.5' as time(6)))",
            "json_array(cast('2020-01-02 03:04:05.000006' as datetime(6)), timestamp'2020-01-02 03:04:05', x'00ff80', b'101')",
            "json_object('year', year('2020-01-01'), 'point', st_geomfromtext('POINT(1 2)'), 'u', 18446744073709551615)",
            "json_array(1.7976931348623157e308, -0e0, 1e15, 123456789012345680e0, 5e-324, 100000e0, 1e16, 1e14, 0.0001e0, 1.5e-15, 1.5e-16, 1234567890123456.75e0)",
            "json_array(cast(-0.5 as decimal(65,30)), cast(99999999999999999999 as decimal(30,0)))",
            "json_object('a', repeat('x', 70000), 'b', json_array(32767, 32768, 65536, 2147483648, -32769))",
        ],
        Form::Text,
    ),
    ("vector(3)", &["string_to_vector('[1,-2.5,3e38]')"], Form::Vector("vector_to_string")),
    ("geometry", &["st_geomfromtext('POINT(1 2)', 4326)"], Form::Geometry),
];

const OF_MARIADB: &[Column] = &[
    ("json", &[r#"'{"b":  1, "a": [1.0, "\\u00fc"]}'"#, "'1e5'"], Form::Text),
    (
        "uuid",
        &[
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'00000000-0000-0000-0000-000000000001'",
            "'123e4567-e89b-12d3-a456-426614174000'",
            "'ffffffff-ffff-7fff-bfff-ffffffffff00'",
        ],
        Form::Text,
    ),
    (
        "inet6",
        &[
            "'2001:db8::ff00:42:8329'",
            "'::'",
            "'::ffff:1.2.3.4'",
            "'1::'",
            "'::1.2.3.4'",
            "'1:0:0:2::3'",
            "'1:0:2:3:4:5:6:7'",
            "'::1'",
            "'::102'",
            "'0:0:0:0:0:0:1:0'",
            "'::ffff:0:0'",
            "'1:0:0:2:0:0:0:3'",
            "'0:1:2:3:4:5:6:7'",
            "'1:2:3:4:5:6:7:0'",
            "'0:1:0:1:0:1:0:1'",
            "'1:0:0:2:3:0:0:4'",
            "'::ffff:1'",
            "'1:2:3:4:5:6:7:8'",
            "'::7:8:0:0'",
        ],
        Form::Text,
    ),
    ("inet4", &["'192.168.0.1'", "'0.0.0.0'", "'255.255.255.0'"], Form::Text),
    ("vector(2)", &["vec_fromtext('[1,-2.5]')"], Form::Vector("vec_totext")),
];

/// Columns that keys are made of: what a row is found by again must be the same from both.
const KEYS: &[Column] = &[
    ("bigint unsigned", &["18446744073709551615"], Form::Integer),
    ("year", &["0", "2000"], Form::Integer),
    ("decimal(20,3)", &["-0.010"], Form::Text),
    ("double", &["0.1"], Form::Double),
    ("bit(9)", &["b'100000001'"], Form::Bits(9)),
    ("date", &["'0001-01-01'", "'0000-00-00'"], Form::Date),
    ("time(2)", &["'-00:00:01.50'"], Form::Time),
    ("datetime(6)", &["'1969-12-31 23:59:59.999999'"], Form::Datetime(6)),
    ("timestamp(3)", &["'2020-01-02 03:04:05.1'"], Form::Timestamp),
    ("char(4)", &["'ab '", "''"], Form::Text),
    ("varchar(9) character set latin1", &["'ü€ '"], Form::Text),
    ("binary(4)", &["x'ab00'", "x'00'"], Form::Bytes),
    ("varbinary(4)", &["x'ab00'"], Form::Bytes),
    ("enum('b','a')", &["'a'"], Form::Text),
    ("set('b','a')", &["'a,b'", "''"], Form::Text),
];

impl Form {
    /// The SQL that says it of a column.
    fn said(self, column: &str, is_mariadb: bool) -> String {
        let none = format!("month({column}) = 0 or day({column}) = 0");
        let text = format!("cast({column} as char)");
        let options = if is_mariadb { "" } else { ", 'axis-order=long-lat'" };
        let wkb = format!("concat_ws(' ', st_srid({column}), hex(st_aswkb({column}{options})))");
        let wkb = format!("if({column} is null, null, {wkb})");
        match self {
            Self::Text => format!("convert({column} using utf8mb4)"),
            Self::Integer | Self::Bits(_) => format!("{column} + 0"),
            Self::Float | Self::Double => format!("cast({column} as double)"),
            Self::Bytes => format!("hex({column})"),
            Self::Date => format!("if({none}, {text}, to_days({column}) - 719528)"),
            Self::Time => text,
            Self::Datetime(digits) => {
                let unit = if digits > 3 { 1 } else { 1_000 };
                format!("if({none}, {text}, timestampdiff(microsecond, '1970-01-01', {column}) div {unit})")
            }
            Self::Timestamp => format!("if({none}, {text}, concat(replace({text}, ' ', 'T'), 'Z'))"),
            Self::Point => format!("concat({wkb}, ' ', st_x({column}), ' ', st_y({column}))"),
            Self::Geometry => wkb,
            Self::Vector(print) => format!("{print}({column})"),
        }
    }

    /// What an event has, and what the server says, in the same words.
    fn both(self, event: &Json, said: &str) -> (String, String) {
        let plain = |json: &Json| json.as_str().map_or_else(|| json.to_string(), str::to_owned);
        let number = |text: &str| text.parse::<f64>().expect(text);
        let hex = |json: &Json| match json.as_str().map(|text| STANDARD.decode(text)) {
            Some(Ok(bytes)) => bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>(),
            _ => json.to_string(),
        };
        match self {
            Self::Integer => {
                (plain(&event.as_bool().map_or(event.clone(), |bit| json!(u8::from(bit)))), said.to_owned())
            }
            Self::Float => {
                (format!("{:?}", event.as_f64().map(|n| n as f32)), format!("{:?}", Some(number(said) as f32)))
            }
            Self::Double => (format!("{:?}", event.as_f64()), format!("{:?}", Some(number(said)))),
            Self::Bits(bits) => {
                let bytes = said.parse::<u64>().expect(said).to_le_bytes();
                (hex(event), bytes[..bits.div_ceil(8)].iter().map(|byte| format!("{byte:02X}")).collect())
            }
            Self::Bytes => (hex(event), said.to_owned()),
            Self::Time => (plain(event), microseconds(said).to_string()),
            Self::Text | Self::Date | Self::Datetime(_) | Self::Timestamp => (plain(event), said.to_owned()),
            Self::Point | Self::Geometry => {
                let srid = event["srid"].as_u64().unwrap_or(0);
                let mut words = format!("{srid} {}", hex(&event["wkb"]));
                if matches!(self, Self::Point) {
                    words += &format!(" {} {}", event["x"], event["y"]).replace(".0", "");
                }
                (words, said.to_owned())
            }
            Self::Vector(_) => {
                let list: Vec<f32> = serde_json::from_str(said).expect(said);
                let event: Vec<f32> = serde_json::from_value(event.clone()).unwrap_or_default();
                (format!("{event:?}"), format!("{list:?}"))
            }
        }
    }
}

/// Those of a time as the server prints it.
fn microseconds(text: &str) -> i64 {
    let (sign, clock) = text.strip_prefix('-').map_or((1, text), |clock| (-1, clock));
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let seconds = clock.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().expect("a number"));
    sign * (seconds * 1_000_000 + format!("{fraction:0<6}").parse::<i64>().expect("a number"))
}

/// Differences between the log and the server's own words.
async fn differences(db: &mut Database, columns: &[Column], table: &str) -> Vec<String> {
    let defined: Vec<String> = columns.iter().enumerate().map(|(at, (kind, ..))| format!("c{at} {kind}")).collect();
    db.run(&format!("create table {table} (id int primary key, {})", defined.join(", "))).await;
    let recorder = Recorder::new();
    let mut settings = db.settings(&[table]);
    settings.decimals = DecimalMode::String;
    let running = Running::streaming(&settings, &recorder).await;
    let rows = columns.iter().map(|(_, values, _)| values.len()).max().expect("columns");
    for id in 0..=rows {
        // The first row has none at all.
        let value = |values: &[&'static str]| if id == 0 { "null" } else { values[(id - 1) % values.len()] };
        let values: Vec<&str> = columns.iter().map(|(_, values, _)| value(values)).collect();
        db.run(&format!("insert into {table} values ({id}, {})", values.join(", "))).await;
    }
    let records = recorder.wait(rows + 1).await;
    running.stop().await;
    let mut wrong = Vec::new();
    for (at, (kind, values, form)) in columns.iter().enumerate() {
        let said = form.said(&format!("c{at}"), db.is_mariadb);
        let said: Vec<Option<String>> =
            db.rows(&format!("select convert({said} using utf8mb4) from {table} order by id")).await;
        assert_eq!(said.len(), rows + 1);
        for (id, said) in said.iter().enumerate() {
            let event = records[id].get(&format!("/after/c{at}"));
            let (event, said) = match said {
                Some(said) => form.both(&event, said),
                None => (event.to_string(), "null".to_owned()),
            };
            if event != said {
                let literal = if id == 0 { "null" } else { values[(id - 1) % values.len()] };
                wrong.push(format!("{kind} {literal}: the log has {event}, a query {said}"));
            }
        }
    }
    db.run(&format!("drop table {table}")).await;
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_a_query_have_the_same_values_of_every_type() {
    for mut db in databases("rendered").await {
        let mut wrong = differences(&mut db, NUMBERS, "numbers").await;
        wrong.extend(differences(&mut db, TIMES, "times").await);
        wrong.extend(differences(&mut db, TEXTS, "texts").await);
        let mut own = Vec::new();
        for column in if db.is_mariadb { OF_MARIADB } else { OF_MYSQL } {
            if db.knows(column.0).await {
                own.push(*column);
            }
        }
        wrong.extend(differences(&mut db, &own, "own").await);
        assert!(wrong.is_empty(), "(MariaDB: {})\n{}", db.is_mariadb, wrong.join("\n"));
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_a_query_have_the_same_keys() {
    for mut db in databases("keys").await {
        let tables: Vec<String> = (0..KEYS.len()).map(|at| format!("k{at}")).collect();
        for (table, (kind, ..)) in tables.iter().zip(KEYS) {
            db.run(&format!("create table {table} (c {kind} primary key, x int)")).await;
        }
        let recorder = Recorder::new();
        let mut settings = db.settings(&tables.iter().map(String::as_str).collect::<Vec<_>>());
        settings.decimals = DecimalMode::String;
        let running = Running::streaming(&settings, &recorder).await;
        let (mut count, mut wrong) = (0, Vec::new());
        for (table, (kind, values, form)) in tables.iter().zip(KEYS) {
            for value in *values {
                db.run(&format!("insert into {table} values ({value}, 1)")).await;
                let said = form.said("c", db.is_mariadb);
                let query = format!("select convert({said} using utf8mb4) from {table}");
                let said: String = db.rows::<String>(&query).await.remove(0);
                db.run(&format!("delete from {table}")).await;
                // The insert, the delete, and its tombstone.
                count += 3;
                let records = recorder.wait(count).await;
                for record in &records[count - 3..] {
                    let key = record.key.as_ref().expect("a key")["c"].clone();
                    let (key, said) = form.both(&key, &said);
                    if key != said {
                        wrong.push(format!("{kind} {value}: the key of {} is {key}, a query says {said}", record.op()));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "(MariaDB: {})\n{}", db.is_mariadb, wrong.join("\n"));
        running.stop().await;
        db.remove().await;
    }
}

/// Character sets, and which of their characters are tried: of one byte, of two, with another byte before the two, or all of Unicode's first plane.
const CHARSETS: &[(&str, Tried)] = &[
    ("latin1", Tried::One),
    ("latin2", Tried::One),
    ("latin5", Tried::One),
    ("latin7", Tried::One),
    ("greek", Tried::One),
    ("hebrew", Tried::One),
    ("cp1250", Tried::One),
    ("cp1251", Tried::One),
    ("cp1256", Tried::One),
    ("cp1257", Tried::One),
    ("cp866", Tried::One),
    ("koi8r", Tried::One),
    ("koi8u", Tried::One),
    ("macroman", Tried::One),
    ("tis620", Tried::One),
    ("sjis", Tried::Two("")),
    ("cp932", Tried::Two("")),
    ("ujis", Tried::Two("")),
    ("ujis", Tried::Two("8F")),
    ("eucjpms", Tried::Two("")),
    ("eucjpms", Tried::Two("8F")),
    ("euckr", Tried::Two("")),
    ("gb2312", Tried::Two("")),
    ("gbk", Tried::Two("")),
    ("big5", Tried::Two("")),
    ("gb18030", Tried::Plane),
    ("ucs2", Tried::Plane),
    ("utf16", Tried::Plane),
    ("utf16le", Tried::Plane),
    ("utf32", Tried::Plane),
    ("utf8mb3", Tried::Plane),
    ("utf8mb4", Tried::Plane),
];

/// Character sets of one byte of which every byte is tried, also those that are no character.
const CODEPAGES: [&str; 9] = ["armscii8", "cp850", "cp852", "dec8", "geostd8", "hp8", "keybcs2", "macce", "swe7"];

#[derive(Clone, Copy)]
enum Tried {
    One,
    Two(&'static str),
    Plane,
}

/// Characters of which the log has another text than a query, at most a few.
async fn other_characters(db: &mut Database, charset: &str, tried: Tried) -> Vec<String> {
    let of_number = match tried {
        Tried::One => format!("convert(unhex(lpad(hex(n), 2, '0')) using {charset})"),
        Tried::Two(before) => format!("convert(unhex(concat('{before}', lpad(hex(n), 4, '0'))) using {charset})"),
        Tried::Plane => format!("convert(convert(unhex(lpad(hex(n), 8, '0')) using utf32) using {charset})"),
    };
    // Private characters that the web's table has given others since.
    let but = if charset == "gb18030" { "and n not between 0xe000 and 0xf8ff" } else { "" };
    let last = if matches!(tried, Tried::One) { 255 } else { 65_535 };
    db.run("drop table if exists t").await;
    db.run(&format!("create table t (id int primary key, x longtext character set {charset})")).await;
    let recorder = Recorder::new();
    let mut settings = db.settings(&["t"]);
    mysql_mut(&mut settings).invalid_text = InvalidText::Replace;
    let running = Running::streaming(&settings, &recorder).await;
    // A row for all with the same first byte, of those that the server takes for one character and can print.
    db.run(&format!(
        "insert into t select n div 256, group_concat(x order by n separator '') from (select n, {of_number} as x from numbers \
         where n between 1 and {last} and n not between 0xd800 and 0xdfff {but}) as all_of_them \
         where x is not null and char_length(x) = 1 and char_length(convert(x using utf8mb4)) = 1 \
         and (convert(x using utf8mb4) not in ('?', '\u{fffd}') or n = 63) group by n div 256"
    ))
    .await;
    let said: Vec<(u32, String)> = db.rows("select id, convert(x using utf8mb4) from t order by id").await;
    assert!(!said.is_empty(), "{charset} has no characters");
    let records = recorder.wait(said.len()).await;
    running.stop().await;
    let mut wrong = Vec::new();
    for record in &records {
        let id = record.get("/after/id").as_u64().expect("a number");
        let (_, said) = said.iter().find(|(of, _)| u64::from(*of) == id).expect("the row");
        let event = record.get("/after/x").as_str().expect("text").to_owned();
        if event == *said {
            continue;
        }
        let pairs: Vec<(char, char)> = event.chars().zip(said.chars()).filter(|(a, b)| a != b).collect();
        let counts = (event.chars().count(), said.chars().count());
        let some = &pairs[..pairs.len().min(if counts.0 == counts.1 { 6 } else { 1 })];
        wrong.push(format!("{charset} {id:02X}: {} of {counts:?} differ, such as {some:?}", pairs.len()));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_a_query_have_the_same_text_of_every_character() {
    for mut db in databases("characters").await {
        db.run("set group_concat_max_len = 10000000").await;
        db.run("create table digits (d int primary key)").await;
        let digits: Vec<String> = (0..256).map(|digit| format!("({digit})")).collect();
        db.run(&format!("insert into digits values {}", digits.join(","))).await;
        db.run("create table numbers (n int primary key)").await;
        db.run("insert into numbers select a.d * 256 + b.d from digits a, digits b").await;
        let mut wrong = Vec::new();
        let known: Vec<String> = db.rows("select character_set_name from information_schema.character_sets").await;
        let is_tried = |name: &str| {
            CHARSETS.iter().any(|(charset, _)| *charset == name)
                || CODEPAGES.contains(&name)
                // Those of the test below, those that are no texts, and what older servers call utf8mb3.
                || ["ascii", "binary", "utf8"].contains(&name)
        };
        let untried: Vec<&String> = known.iter().filter(|name| !is_tried(name)).collect();
        assert!(untried.is_empty(), "(MariaDB: {}) {untried:?}", db.is_mariadb);
        for (charset, tried) in CHARSETS.iter().filter(|(charset, _)| known.iter().any(|known| known == charset)) {
            wrong.extend(other_characters(&mut db, charset, *tried).await);
        }
        assert!(wrong.is_empty(), "(MariaDB: {})\n{}", db.is_mariadb, wrong.join("\n"));
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_a_query_have_the_same_text_of_every_byte() {
    for mut db in databases("codepages").await {
        let columns = CODEPAGES.map(|charset| format!("{charset} varchar(80) character set {charset}"));
        db.run(&format!("create table t (id int primary key, {})", columns.join(", "))).await;
        let recorder = Recorder::new();
        let mut settings = db.settings(&["t"]);
        mysql_mut(&mut settings).invalid_text = InvalidText::Replace;
        let running = Running::streaming(&settings, &recorder).await;
        for row in 0..4 {
            let bytes: String = (row * 64..row * 64 + 64).map(|byte| format!("{byte:02x}")).collect();
            db.run(&format!(
                "insert into t values ({row}, {})",
                CODEPAGES.map(|_| format!("_binary x'{bytes}'")).join(", ")
            ))
            .await;
        }
        let records = recorder.wait(4).await;
        running.stop().await;
        for charset in CODEPAGES {
            let said: Vec<String> =
                db.rows(&format!("select convert({charset} using utf8mb4) from t order by id")).await;
            let said = said.concat();
            let events = records
                .iter()
                .map(|record| record.get(&format!("/after/{charset}")).as_str().expect("text").to_owned());
            let events: String = events.collect();
            assert_eq!(events.replace('\u{fffd}', "?"), said, "{charset} (MariaDB: {})", db.is_mariadb);
            // One is the character itself.
            assert_eq!(events.matches('\u{fffd}').count(), said.matches('?').count() - 1, "{charset}");
        }
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_ascii_columns_that_are_no_text_are_those_that_a_query_has_none_for() {
    for mut db in databases("ascii").await {
        db.run("create table t (id int primary key, x varchar(80) character set ascii)").await;
        let recorder = Recorder::new();
        let mut settings = db.settings(&["t"]);
        mysql_mut(&mut settings).invalid_text = InvalidText::Replace;
        let running = Running::streaming(&settings, &recorder).await;
        // All bytes, and some that would be characters of UTF-8. MySQL stores what comes before the first above 0x7f.
        for row in 0..4 {
            let bytes: String = (row * 64..row * 64 + 64).map(|byte| format!("{byte:02x}")).collect();
            db.run(&format!("insert into t values ({row}, _binary x'{bytes}')")).await;
        }
        db.run("insert into t values (4, _binary x'61c3a962'), (5, _binary x'f09f9880')").await;
        let said: Vec<String> = db.rows("select convert(x using utf8mb4) from t order by id").await;
        let records = recorder.wait(6).await;
        running.stop().await;
        for (record, said) in records.iter().zip(&said) {
            let event = record.get("/after/x").as_str().expect("text").to_owned();
            assert_eq!(event.replace('\u{fffd}', "?"), *said);
            assert_eq!(event.contains('\u{fffd}'), said.contains('?') && !event.contains('?'), "{event:?}");
        }
        if db.is_mariadb {
            assert_eq!(records[4].get("/after/x"), "a\u{fffd}\u{fffd}b");
            // Unless one says what becomes of them, the source stops, and says what to do.
            mysql_mut(&mut settings).invalid_text = InvalidText::Stop;
            let running = Running::streaming(&settings, &recorder).await;
            db.run("insert into t values (6, _binary x'61e962')").await;
            let error = running.error().await.to_string();
            assert!(error.contains("invalid_text"), "{error}");
        }
        db.remove().await;
    }
}
