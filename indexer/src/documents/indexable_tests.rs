//! Tests of what is indexed.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn leaf(name: &str, leaf: LeafType) -> (String, Field) {
    (name.to_owned(), Field::Leaf(leaf))
}

fn fields() -> Fields {
    let text = |analyzer: &str| LeafType::Text { analyzer: analyzer.to_owned() };
    let inner = Fields::from([leaf("day", LeafType::Date), leaf("name", LeafType::Keyword)]);
    Fields::from([
        leaf("name", LeafType::Keyword),
        leaf("words", text("standard")),
        leaf("word", text("keyword")),
        leaf("cut", text("pattern")),
        leaf("number", LeafType::Long),
        leaf("share", LeafType::Double),
        leaf("good", LeafType::Boolean),
        leaf("day", LeafType::Date),
        leaf("any", LeafType::Object),
        leaf("hidden", LeafType::Ignore),
        ("one".to_owned(), Field::Object { nested: false, fields: inner.clone() }),
        ("many".to_owned(), Field::Object { nested: true, fields: inner }),
    ])
}

fn of(content: &Json) -> Indexable<'_> {
    indexable(&fields(), content).unwrap()
}

/// Asserts what is indexed instead of a member, and which fields are named.
fn changed(content: Json, name: &str, indexed: Json, unindexed: &[&str]) {
    let indexable = of(&content);
    assert_eq!(indexable.content[name], indexed, "{content}");
    assert_eq!(indexable.kept, Map::from_iter([(name.to_owned(), content[name].clone())]), "{content}");
    assert_eq!(indexable.unindexed, unindexed, "{content}");
}

#[test]
fn an_ordinary_document_is_indexed_as_it_is() {
    let content = json!({
        "name": ["a", "", 5, true, null, [["b"]]], "words": "x".repeat(1 << 20), "number": "12", "share": "1.50", "good": true,
        "day": ["9999-12-31", 1979, null], "any": [{ "a.b": { "c": [1, "x", null, [true]] } }, null],
        "hidden": { "": { "=": "x".repeat(1 << 20) } },
        "one": [{ "day": null }, [{ "name": "x" }]], "many": [null, { "day": "0000" }],
    });
    let indexable = of(&content);
    assert!(matches!(indexable.content, Cow::Borrowed(_)));
    assert_eq!((indexable.kept.len(), indexable.unindexed.len()), (0, 0));
}

#[test]
fn a_value_that_is_not_indexed_leaves_the_rest_of_its_document_indexed() {
    changed(json!({ "day": "infinity", "name": "a" }), "day", json!(null), &["day"]);
    changed(json!({ "day": ["1979", "yesterday", [2021.0e30]] }), "day", json!(["1979", null, [null]]), &["day"]);
    changed(json!({ "day": [-86_400_000, 1] }), "day", json!(["-86400000.0", 1]), &[]);
    changed(json!({ "number": ["x", 1.5, u64::MAX] }), "number", json!([null, 1.5, null]), &["number"]);
    changed(json!({ "share": "NaN" }), "share", json!(null), &["share"]);
    changed(json!({ "good": "yes" }), "good", json!(null), &["good"]);
    changed(json!({ "any": [1, { "a": 1 }] }), "any", json!([null, { "a": 1 }]), &["any"]);
    changed(
        json!({ "many": [{ "day": "x", "name": "a" }, { "day": "2021", "name": "b" }] }),
        "many",
        json!([{ "day": null, "name": "a" }, { "day": "2021", "name": "b" }]),
        &["many.day"],
    );
    changed(json!({ "one": { "day": "x" } }), "one", json!({ "day": null }), &["one.day"]);
    let long = "ä".repeat(IGNORE_ABOVE + 1);
    changed(json!({ "word": long }), "word", json!(null), &["word"]);
    changed(json!({ "cut": format!("a {long}") }), "cut", json!(null), &["cut"]);
    assert!(of(&json!({ "cut": "a ".repeat(IGNORE_ABOVE) })).unindexed.is_empty());
    changed(json!({ "hidden": { "x".repeat(50_001): 1 } }), "hidden", json!(null), &[]);
}

#[test]
fn a_long_keyword_stays_in_its_place_and_is_named() {
    let content = json!({ "name": "x".repeat(IGNORE_ABOVE + 1) });
    let indexable = of(&content);
    assert_eq!((&*indexable.content, indexable.kept.len()), (&content, 0));
    assert_eq!(indexable.unindexed, ["name"]);
    assert!(of(&json!({ "name": "ä".repeat(IGNORE_ABOVE) })).unindexed.is_empty());
    assert!(!of(&json!({ "name": "😀".repeat(IGNORE_ABOVE / 2 + 1) })).unindexed.is_empty());
}

#[test]
fn nested_objects_beyond_the_servers_limit_are_kept() {
    let objects = |n: usize| Json::Array((0..n).map(|i| json!({ "name": i })).collect());
    let content = json!({ "many": objects(MAX_NESTED) });
    assert!(of(&content).unindexed.is_empty());
    let content = json!({ "many": objects(MAX_NESTED + 2) });
    let indexable = of(&content);
    assert_eq!(indexable.unindexed, ["many"]);
    assert_eq!(indexable.content["many"].as_array().unwrap().iter().filter(|o| o.is_null()).count(), 2);
}

#[test]
fn what_no_store_takes_is_refused_with_its_place() {
    let deep = (0..MAX_DEPTH).fold(json!(1), |value, _| json!([value]));
    for (content, reason) in [
        (json!([]), "its content is no object"),
        (json!({ "other": 1 }), "field `other` is not in the plan"),
        (json!({ "one": { "other": 1 } }), "field `one.other` is not in the plan"),
        (json!({ "one": "x" }), "field `one` is an object in the plan, and the document has \"x\""),
        (json!({ "many": [1] }), "field `many` is an object in the plan, and the document has 1"),
        (json!({ "day": {} }), "field `day` is a date in the plan, and the document has {}"),
        (json!({ "name": [{ "a": 1 }] }), "field `name` is exact text in the plan, and the document has {\"a\":1}"),
        (json!({ "hidden": deep }), "its objects and lists are nested deeper than 990 levels"),
        (json!({ "hidden": "\n".repeat(MAX_BYTES / 2) }), "and the stores take"),
    ] {
        let error = indexable(&fields(), &content).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    let deep = (0..MAX_DEPTH - 1).fold(json!(1), |value, _| json!([value]));
    assert!(indexable(&fields(), &json!({ "hidden": deep })).is_ok());
}

#[test]
fn members_of_a_json_field_are_indexed_where_every_store_finds_them() {
    let nested = |levels: usize| (0..levels).fold(json!("v"), |value, _| json!({ "a": value }));
    let long = "x".repeat(IGNORE_ABOVE + 1);
    for (value, indexed) in [
        (
            json!({ "a": 1, "": 1, ".": 1, "..": 1, ".a": 1, "a.": 1, "a..b": 1, "a=b": 1, "a\0b": 1 }),
            json!({ "a": 1 }),
        ),
        (json!({ "a": [long, "v", [long], { "b": long }] }), json!({ "a": ["v", [], {}] })),
        (json!({ "a": { "b": long, "c": 1 } }), json!({ "a": { "c": 1 } })),
        (json!({ "x".repeat(32_740): 1, "y".repeat(32_700): 1 }), json!({ "y".repeat(32_700): 1 })),
        (json!({ "x".repeat(60_000): null, "y".repeat(32_800): [], "z": null }), json!({ "z": null })),
        (json!({ "€".repeat(8000): "€".repeat(8000) }), json!({})),
    ] {
        changed(json!({ "any": value }), "any", indexed, &["any"]);
    }
    for value in [nested(20), json!({ "_id": "a=b\0", " ": "", "ключ": 1.5 }), json!({ "a b": [[[]], {}] })] {
        assert!(of(&json!({ "any": value })).unindexed.is_empty(), "{value}");
    }
    let content = json!({ "any": nested(21) });
    let twenty = (0..19).fold(json!({}), |value, _| json!({ "a": value }));
    assert_eq!(of(&content).content["any"], twenty);
}

#[test]
fn dates_are_read_as_the_servers_read_them() {
    for (text, millis) in [
        ("0000", -62_167_219_200_000),
        ("0001", -62_135_596_800_000),
        ("-0001", -62_198_755_200_000),
        ("1582-10-10", -12_219_724_800_000),
        ("1677-09-21", -9_223_372_800_000),
        ("2262-04-12", 9_223_372_800_000),
        ("9999-12-31", 253_402_214_400_000),
        ("-9999-01-01", -377_705_116_800_000),
        ("2020-02-29", 1_582_934_400_000),
        ("10000", 10_000),
        ("2021", 1_609_459_200_000),
        ("2021-01", 1_609_459_200_000),
        ("2021-01-01T", 1_609_459_200_000),
        ("2021-01-01T12", 1_609_502_400_000),
        ("2021-01-01T12Z", 1_609_502_400_000),
        ("2021-01-01T12+02:00", 1_609_495_200_000),
        ("2021-01-01T12:30", 1_609_504_200_000),
        ("2021-01-01T12:30:15.1Z", 1_609_504_215_100),
        ("2021-01-01T12:30:15,123Z", 1_609_504_215_123),
        ("2021-01-01T12:30:15.999999999Z", 1_609_504_215_999),
        ("2021-01-01T12:00:00+14:00", 1_609_452_000_000),
        ("2021-01-01T12:00:00-18:00", 1_609_567_200_000),
        ("2021-01-01T12:00:00+1400", 1_609_452_000_000),
        ("2021-01-01T12:00:00+00:00:30", 1_609_502_370_000),
        ("0", 0),
        ("123", 123),
        ("1234", -23_225_875_200_000),
        ("-1234", -101_108_476_800_000),
        ("20210101", 20_210_101),
        ("-1609459200000", -1_609_459_200_000),
        ("1609459200000.123456", 1_609_459_200_000),
        ("-1.5", -2),
        ("-1.0", -1),
        ("-1234.5", -1235),
        ("-12345678901", -12_345_678_901),
    ] {
        assert_eq!(dates::span(text).map(|span| span.0), Some(millis), "{text}");
    }
    let none = "10000-01-01 +10000-01-01 292278994-08-17 2021-06-31 2021-02-29 1900-02-29 2021-01-01T24:00:00 \
        2021-01-01T23:59:60Z 2021-01-01T12:00:00+18:01 2021-01-01T12:00:00z 2021-01-01t12:00:00Z 2021-01-01T12:30:15.Z \
        2021-01-01T12:30:15.1234567890Z 2021-1-1 2021Z 2021-01-01Z 2021T12:00 2021-01T12:00 2021-01-01T12: 2021-W01-1 \
        2021-01-01T12:00:00Europe/Paris 2021-01-01T12.5 -0000 -0000-01-01 -1234567890 2021-01-01TZ 2021-01-01T12:00:00+000030 infinity now 1e3 -12345 +12345 1609459200000.1234567 \
        9223372036854775807 9223372036854775808 -9223372036854775807.5 ١٩٧٠-01-01 . - 1. .5 2021-00-01 2021-13-01 2021-01-00 2021-01-01T12:00+1:00";
    for text in none.split_whitespace().chain(["", " ", " 2021-01-01", "2021-01-01 12:00:00", "2021-01-01\0"]) {
        assert_eq!(dates::span(text), None, "{text}");
    }
    assert_eq!(dates::millis(&json!(1979)), dates::millis(&json!("1979")), "a number is read as its text");
    assert_eq!(dates::millis(&json!(-0.5)), Some(-1));
    assert_eq!(dates::millis(&json!(-86_400_000)), Some(-86_400_000), "a number is no year before Christ");
    assert_eq!(dates::millis(&json!(1e300)), None);
    assert_eq!(dates::span("1979-05-25"), Some((296_438_400_000, 296_524_799_999)), "a day");
}

#[test]
fn numbers_are_read_as_the_servers_read_them() {
    for (value, whole, fractional) in [
        (json!(i64::MAX), Some(i64::MAX), Some(i64::MAX as f64)),
        (json!(u64::MAX), None, Some(u64::MAX as f64)),
        (json!(9_007_199_254_740_993_i64), Some(9_007_199_254_740_993), Some(9_007_199_254_740_992.0)),
        (json!(-1.9), Some(-1), Some(-1.9)),
        (json!(9.3e18), None, Some(9.3e18)),
        (json!("9223372036854775807.9"), Some(i64::MAX), Some(i64::MAX as f64)),
        (json!("-9223372036854775808.9"), Some(i64::MIN), Some(i64::MIN as f64)),
        (json!("922337203685477580700e-2"), Some(i64::MAX), Some(i64::MAX as f64)),
        (json!("9223372036854775808"), None, Some(i64::MAX as f64)),
        (json!("1E3"), Some(1000), Some(1000.0)),
        (json!("5e-1"), Some(0), Some(0.5)),
        (json!("+.5"), Some(0), Some(0.5)),
        (json!("-1."), Some(-1), Some(-1.0)),
        (json!("007"), Some(7), Some(7.0)),
        (json!("1e-400"), None, Some(0.0)),
        (json!("1e400"), None, None),
        (json!(true), None, None),
    ] {
        assert_eq!((numbers::whole(&value), numbers::fractional(&value)), (whole, fractional), "{value}");
    }
    for text in [
        "", " ", ".", "5 ", " 5", "NaN", "inf", "Infinity", "0x10", "0x1p3", "1d", "1_0", "1,5", "1e", "e1", "٣",
        "1e99999",
    ] {
        assert_eq!((numbers::whole(&json!(text)), numbers::fractional(&json!(text))), (None, None), "{text:?}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_at_any_text(text in "\\PC{0,12}|[-+0-9TZ:.,eE]{0,30}") {
        let _ = (dates::span(&text), numbers::whole(&json!(text)), numbers::fractional(&json!(text)));
    }

    #[test]
    fn a_moment_is_read_back(millis in -377_705_116_800_000_i64..=253_402_300_799_999) {
        let moment = tantivy::time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap();
        let (year, sign) = (moment.year().abs(), if moment.year() < 0 { "-" } else { "" });
        let (month, day) = (u8::from(moment.month()), moment.day());
        let (hour, minute, second, milli) = moment.to_hms_milli();
        let text = format!("{sign}{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
        prop_assert_eq!(dates::span(&text), Some((millis, millis)), "{}", text);
        if !(-9_999..10_000).contains(&millis) {
            prop_assert_eq!(dates::millis(&json!(millis)), Some(millis));
        }
    }
}
