//! Odd values of every kind, and documents made of them: a fixed list, and random ones.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Map, Value as Json, json};
use tributary_dsl::plan::{LeafType, SelectedField};

use super::plans::{leaf, object, text};

/// Fields of every kind.
pub fn fields() -> Vec<SelectedField> {
    let inner = || {
        vec![
            leaf("name", LeafType::Keyword),
            leaf("day", LeafType::Date),
            leaf("number", LeafType::Long),
            leaf("any", LeafType::Object),
        ]
    };
    let mut one = inner();
    one.push(object("two", true, vec![leaf("name", LeafType::Keyword), leaf("share", LeafType::Double)]));
    let mut many = inner();
    many.push(object("more", false, vec![leaf("name", LeafType::Keyword), leaf("good", LeafType::Boolean)]));
    vec![
        leaf("id", LeafType::Keyword),
        leaf("name", LeafType::Keyword),
        leaf("english", text("english")),
        leaf("standard", text("standard")),
        leaf("simple", text("simple")),
        leaf("whitespace", text("whitespace")),
        leaf("word", text("keyword")),
        leaf("number", LeafType::Long),
        leaf("share", LeafType::Double),
        leaf("good", LeafType::Boolean),
        leaf("day", LeafType::Date),
        leaf("any", LeafType::Object),
        leaf("hidden", LeafType::Ignore),
        object("one", false, one),
        object("many", true, many),
    ]
}

/// Dates as texts.
const DATES: &str = "0000 0001 -0001 1582-10-10 1677-09-21 1677-09-20T23:59:59.999Z 2262-04-11T23:47:16.854Z 2262-04-12 \
    9999-12-31 9999-12-31T23:59:59.999Z 9999 10000 10000-01-01 +10000-01-01 292278994-08-17 +292278994-08-17 2021-06-31 \
    2021-02-29 2020-02-29 1900-02-29 2021-01-01T24:00:00 2021-01-01T23:59:60Z 2021-01-01T12:00:00+14:00 \
    2021-01-01T12:00:00+18:00 2021-01-01T12:00:00+18:01 2021-01-01T12:00:00-18:00 2021-01-01T12:00:00+1400 \
    2021-01-01T12:00:00+14 2021-01-01T12:00:00z 2021-01-01t12:00:00Z 2021-01-01T12 2021-01-01T12Z 2021-01-01T12:30 \
    2021-01-01T12:30:15.Z 2021-01-01T12:30:15.1Z 2021-01-01T12:30:15.12 2021-01-01T12:30:15.123Z 2021-01-01T12:30:15.1234Z \
    2021-01-01T12:30:15.999999999Z 2021-01-01T12:30:15.1234567890Z 2021-01-01T12:30:15.123456789012Z \
    2021-01-01T12:30:15,123Z 2021 2021-01 2021-1-1 2021Z 2021-01-01Z 2021T12:00 2021-01T12:00 2021-01-01T 2021-01-01T12: \
    2021-W01-1 2021-001 20210101 20210101T120000Z infinity -infinity now now-1d 1e3 0 -1 12 123 1234 12345 -1234 -12345 \
    -1234567890 -12345678901 1609459200000 -1609459200000 1609459200000.5 1609459200000.1234567 -1.5 -0 +5 00012345 -0000 \
    9223372036854775807 9223372036854775808 -9223372036854775808 31556889864403199 31556889864403200 \
    2021-01-01T12:00:00+00:00:30 2021-01-01T12:00:00+000030 2021-01-01T12:00:00Europe/Paris 2021-01-01T12:00:00UTC 2021-00-01 \
    2021-13-01 2021-01-32 2021-01-01T25:00 2021-01-01T12:60 -9999-01-01 -10000-01-01 ١٩٧٠-01-01 2021-01-01T12.5 \
    2021-01-01T12:00:00.123+02 2021-01-01TZ yesterday true";

/// Numbers as texts.
const NUMBERS: &str = "9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809 \
    18446744073709551615 9223372036854775807.9 1.5 -1.9 1e3 1E3 1e18 1e19 1e400 -1e400 1e-400 +5 -0 0x10 0x1p3 1_000 1,5 NaN \
    Infinity -Infinity inf 5L 5d 1f 1. .5 -.5 . 007 922337203685477580700e-2 0e999999999 1e999999999 1e-999999999 ٣ true \
    9007199254740993 9007199254740993.0 1.0000000000000000000000000000000000000000001 1.7976931348623158e308 2e308 4.9e-324 \
    2e-324 0.1 123456789012345678901234567890.123 12 12.0 1e 1e+5 -7";

/// Odd texts; the longest has a megabyte.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "  x  ",
        "\0",
        "a\0b",
        "\u{fffd}",
        "\u{301}",
        "e\u{301}",
        "é",
        "😀",
        "👩‍👩‍👧",
        "שלום",
        "\u{202e}abc",
        "a\nb",
        "\u{1}",
        "a\"b",
        "a\\b",
        "AND",
        "*",
        "a*",
        "?",
        "x:y",
        "(",
        "[a TO b]",
        "/x/",
        "null",
        "true",
        "1",
        "1.0",
        "ẞ",
        "İ",
        "ﬁ",
        "\u{10ffff}",
        "\u{feff}",
        "\u{2028}",
        "日本語",
        "a=b",
        "2021-01-01T00:00:00Z",
    ]
    .map(str::to_owned)
    .to_vec();
    for length in [255, 256, 8191, 8192, 10_922, 10_923, 32_765, 32_766, 32_767, 70_000, 1 << 20] {
        texts.push("x".repeat(length));
    }
    for length in [2048, 4095, 4096, 8191, 8192, 16_383] {
        texts.extend(["é".repeat(length), "€".repeat(length), "😀".repeat(length)]);
    }
    texts.push("word ".repeat(50_000));
    texts
}

/// Names of members of a JSON field.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a",
        "b",
        "",
        ".",
        "..",
        ".a",
        "a.",
        "a.b",
        "a..b",
        "a.b.c",
        " ",
        "a b",
        "_id",
        "_source",
        "_value",
        "_valueAndPath",
        "a=b",
        "=",
        "a\0b",
        "a\u{1}b",
        "ключ",
        "😀",
        "a*",
        "a\"b",
        "a\\b",
        "a:b",
        "a\nb",
        "A",
        "@type",
        "$ref",
        "-",
        "0",
        "__proto__",
        "type",
        "properties",
    ]
    .map(str::to_owned)
    .to_vec();
    for length in [500, 8191, 32_700, 32_766, 40_000, 60_000] {
        names.push("k".repeat(length));
    }
    names
}

fn deep(levels: usize, list: bool) -> Json {
    (0..levels).fold(json!("v"), |value, _| if list { json!([value]) } else { json!({ "a": value }) })
}

/// Fields outside of objects, but for the id.
const NAMES: [&str; 12] =
    ["name", "english", "standard", "simple", "whitespace", "word", "number", "share", "good", "day", "any", "hidden"];

static VALUES: LazyLock<BTreeMap<&str, Vec<Json>>> =
    LazyLock::new(|| NAMES.into_iter().map(|name| (name, values_of(name))).collect());

/// Odd values of a field of this name.
fn values(field: &str) -> &'static [Json] {
    &VALUES[field]
}

fn values_of(field: &str) -> Vec<Json> {
    let words = |words: &str| words.split_whitespace().map(|word| json!(word)).collect::<Vec<_>>();
    let numbers = json!([
        0,
        1,
        -1,
        1979,
        9999,
        -9999,
        -12345,
        -86_400_000,
        i64::MAX,
        i64::MIN,
        u64::MAX,
        9_223_372_036_854_775_808_u64,
        1.5,
        -1.5,
        -0.0,
        0.1,
        1e15,
        1e16,
        1e18,
        9.3e18,
        1e19,
        1e300,
        5e-324,
        1.797_693_134_862_315_7e308,
        9_007_199_254_740_993_i64,
        1_609_459_200_000_i64,
        1_609_459_200_000.7,
        -1_609_459_200_000.7,
        31_556_889_864_403_199_i64,
        0.5,
        -0.5,
        1.999_999_9,
    ]);
    let numbers = numbers.as_array().unwrap().clone();
    let texts: Vec<Json> = texts().into_iter().map(Json::String).collect();
    match field {
        "day" => {
            [words(DATES), numbers, vec![json!(""), json!(" "), json!(" 2021-01-01"), json!("2021-01-01 12:00:00")]]
                .concat()
        }
        "number" | "share" => {
            [words(NUMBERS), numbers, vec![json!(""), json!(" "), json!(" 5"), json!("5 "), json!(true)]].concat()
        }
        "good" => json!([true, false, "true", "false", "", "True", "yes", "1", 1, 0, 1.0]).as_array().unwrap().clone(),
        "any" | "hidden" => {
            let of = |name: String, value: Json| Json::Object(Map::from_iter([(name, value)]));
            let mut values: Vec<Json> = names().into_iter().map(|name| of(name, json!("v"))).collect();
            values.extend(texts.into_iter().chain(numbers).map(|value| json!({ "a": value })));
            values.extend([1, 2, 19, 20, 21, 22, 60, 100, 117, 118, 119, 900].map(|levels| deep(levels, false)));
            values.extend([20, 30, 100, 117, 118, 900].map(|levels| json!({ "a": deep(levels, true) })));
            values.extend([
                json!({}),
                json!({ "a": {}, "b": [], "c": null }),
                json!({ "a": [null, "v", [["w"], []], { "b": ["x", { "c": 1 }] }] }),
                json!({ "a.b": "v", "a": { "b": "w" } }),
                json!({ "a": "v", "a.b": "w" }),
                json!([{ "a": "v" }, [{ "a": "w" }], null]),
                json!([{ "a": "v" }, "w"]),
                json!("v"),
                json!(1),
                json!(true),
                json!(["v"]),
                json!({ "€".repeat(8191): "€".repeat(8191) }),
                Json::Object((0..3_000).map(|n| (format!("key {n}"), json!("v"))).collect()),
                json!({ "a": (0..20_000).map(|n| json!(n)).collect::<Vec<_>>() }),
            ]);
            values
        }
        _ => [texts, numbers, vec![json!(true)]].concat(),
    }
}

/// The fixed documents: every odd value alone, as a list and within an object, and odd shapes.
pub fn fixed() -> Vec<Json> {
    let mut documents = Vec::new();
    for name in NAMES {
        documents.extend(values(name).iter().map(|value| json!({ name: value })));
        documents.extend([json!({ name: null }), json!({ name: [] }), json!({ name: [null, [[], [null]]] })]);
        documents.push(json!({ name: { "unplanned": 1 } }));
    }
    for name in ["day", "number", "any"] {
        documents.push(
            json!({ name: values(name).iter().filter(|value| value.to_string().len() < 100).collect::<Vec<_>>() }),
        );
        for value in values(name).iter().filter(|value| value.to_string().len() < 1000) {
            documents.push(json!({ "one": { name: value, "two": [{ "name": "x", "share": "1.50" }] } }));
            documents.push(json!({ "many": [{ "name": "x" }, null, [{ name: value, "more": { "good": true } }]] }));
        }
    }
    let objects = |n: usize| Json::Array((0..n).map(|n| json!({ "name": format!("many {n}") })).collect());
    documents.extend([
        json!({}),
        json!([]),
        json!("x"),
        json!({ "unplanned": 1 }),
        json!({ "_kept": "{}" }),
        json!({ "one": 1 }),
        json!({ "one": [[{ "name": "x" }], { "two": null }] }),
        json!({ "one": { "unplanned": 1 } }),
        json!({ "many": "x" }),
        json!({ "many": [[{ "name": "x" }], [[{ "number": "x" }]]] }),
        json!({ "many": objects(3_000) }),
        json!({ "many": objects(10_050) }),
        json!({ "name": (0..50_000).map(|n| json!(format!("many {n}"))).collect::<Vec<_>>() }),
    ]);
    documents
}

fn random_text(random: &mut StdRng) -> String {
    const PARTS: [&str; 24] = [
        "a", "B", "é", "\u{301}", "😀", " ", ".", "..", "=", "\0", "\u{1}", "\n", "\"", "\\", ":", "*", "-", "+", "0",
        "9", "ש", "\u{fffd}", "_", "ß",
    ];
    (0..random.random_range(0..8)).map(|_| *PARTS.choose(random).unwrap()).collect()
}

fn random_date(random: &mut StdRng) -> Json {
    let mut two = |most: u32| format!("{:02}", random.random_range(0..=most));
    let parts = [two(99), two(99), two(13), two(32), two(25), two(61), two(61)];
    let mark = |random: &mut StdRng, usual: &'static str| {
        if random.random_bool(0.95) { usual } else { ["", " ", "-", ":", "t", ","].choose(random).unwrap() }
    };
    let mut text =
        if random.random_bool(0.1) { ["-", "+", "0"].choose(random).unwrap().to_string() } else { String::new() };
    text += &(parts[0].clone() + &parts[1]);
    let full = random.random_range(0..7);
    for (place, usual) in ["-", "-", "T", ":", ":"].into_iter().enumerate().take(full) {
        text += mark(random, usual);
        text += &parts[2 + place];
    }
    if full >= 5 && random.random_bool(0.5) {
        text += ".";
        (0..random.random_range(0..11)).for_each(|_| text.push(char::from(random.random_range(b'0'..=b'9'))));
    }
    if random.random_bool(0.5) {
        text += ["", "Z", "+01:00", "-0130", "+14", "+18:30", "z", "+1"].choose(random).unwrap();
    }
    json!(text)
}

fn random_number(random: &mut StdRng) -> Json {
    let digits = random.random_range(1..22);
    let number: String = (0..digits).map(|_| char::from(random.random_range(b'0'..=b'9'))).collect();
    let sign = ["", "", "-", "+"].choose(random).unwrap();
    let tail = ["", "", ".", ".5", ".50", "e2", "E-3", "e+19", "d", " "].choose(random).unwrap();
    match random.random_range(0..4) {
        0 => json!(random.random::<i64>() >> random.random_range(0..63)),
        1 => json!(f64::from_bits(random.random())),
        _ => json!(format!("{sign}{number}{tail}")),
    }
}

fn random_tree(random: &mut StdRng, depth: usize) -> Json {
    match random.random_range(0..if depth > 4 { 4 } else { 7 }) {
        0 => random_number(random),
        1 => json!(random_text(random)),
        2 => Json::Null,
        3 => json!(random.random_bool(0.5)),
        4 => (0..random.random_range(0..4)).map(|_| random_tree(random, depth + 1)).collect(),
        _ => {
            static USUAL: LazyLock<Vec<String>> = LazyLock::new(names);
            let name = |random: &mut StdRng| match random.random_bool(0.6) {
                true => USUAL.choose(random).unwrap().clone(),
                false => random_text(random),
            };
            Json::Object((0..3).map(|_| (name(random), random_tree(random, depth + 1))).collect())
        }
    }
}

fn random_value(field: &str, random: &mut StdRng) -> Json {
    if random.random_bool(0.1) {
        return (0..random.random_range(0..4)).map(|_| random_value(field, random)).collect();
    }
    if random.random_bool(0.2) {
        return values(field).choose(random).unwrap().clone();
    }
    match field {
        "day" if random.random_bool(0.7) => random_date(random),
        "day" | "number" | "share" => random_number(random),
        "good" => json!(["true", "false", "TRUE", " "].choose(random).unwrap()),
        "any" | "hidden" => random_tree(random, 0),
        _ => json!(random_text(random)),
    }
}

fn random_object(fields: &[&str], random: &mut StdRng) -> Map<String, Json> {
    let chosen: Vec<&str> = fields.iter().copied().filter(|_| random.random_bool(0.4)).collect();
    chosen.into_iter().map(|name| (name.to_owned(), random_value(name, random))).collect()
}

/// A random document.
pub fn random(random: &mut StdRng) -> Json {
    const INNER: [&str; 4] = ["name", "day", "number", "any"];
    let mut document = random_object(&NAMES, random);
    if random.random_bool(0.3) {
        document.insert("one".to_owned(), Json::Object(random_object(&INNER, random)));
    }
    if random.random_bool(0.3) {
        let many = (0..random.random_range(0..3)).map(|_| Json::Object(random_object(&INNER, random))).collect();
        document.insert("many".to_owned(), many);
    }
    Json::Object(document)
}
