//! Cases as text. JSON is YAML, so that what is said about layout is said here alone.

use serde_json::{Map, Value as Json, json};

use super::answers::Given;
use super::engine::Came;
use super::{Case, Change, Record};

/// A key of a mapping: as it is where YAML takes it for text or a number, else quoted.
pub(super) fn key(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && text.chars().all(is_word) { text.to_owned() } else { json!(text).to_string() }
}

/// A case with what came of it as what is expected.
pub(super) fn case(case: &Case, came: &Came) -> String {
    let mut text = format!("- case: {}\n  stream: {}\n", json!(case.case), key(&case.stream));
    if !case.given.is_empty() {
        text.push_str("  given:\n");
        for (name, given) in &case.given {
            text.push_str(&format!("    {}: {}\n", key(name), answers(given)));
        }
    }
    text.push_str("  events:\n");
    for (table, event) in case.events.iter().flatten() {
        text.push_str(&format!("    - {}: {}\n", key(table), change(event)));
    }
    text.push_str("  expect:\n    exactly: true\n");
    list(&mut text, "    ", "events", &came.events);
    let records = |records: &[Record]| records.iter().map(record).collect::<Vec<_>>();
    section(&mut text, "topics", came.topics.iter().map(|(name, topic)| (name, records(topic))));
    section(
        &mut text,
        "sinks",
        came.sinks.iter().map(|(name, got)| (name, got.things.iter().map(essential).collect())),
    );
    let letter = |letter: &super::Letter| json!({ "cause": letter.cause, "key": letter.key });
    list(&mut text, "    ", "dead_letters", &came.letters.iter().map(letter).collect::<Vec<_>>());
    if let Some(why) = &came.stands_still {
        text.push_str(&format!("    stands_still: {}\n", json!(why)));
    }
    text
}

fn section<'a>(text: &mut String, name: &str, lists: impl Iterator<Item = (&'a String, Vec<Json>)>) {
    let mut lists = lists.peekable();
    if lists.peek().is_some() {
        text.push_str(&format!("    {name}:\n"));
        lists.for_each(|(name, items)| list(text, "      ", name, &items));
    }
}

fn list(text: &mut String, indent: &str, name: &str, items: &[Json]) {
    if items.is_empty() {
        return text.push_str(&format!("{indent}{}: []\n", key(name)));
    }
    text.push_str(&format!("{indent}{}:\n", key(name)));
    items.iter().for_each(|item| text.push_str(&format!("{indent}  - {item}\n")));
}

/// What a sink got, without what is another at every run, and without what would only repeat who the event is.
fn essential(thing: &Json) -> Json {
    let Json::Object(fields) = thing else { return thing.clone() };
    for name in ["body", "input", "data"] {
        if let Some(content) = fields.get(name) {
            return json!({ name: content });
        }
    }
    Json::Object(fields.iter().filter(|(name, _)| *name != "_seq").map(|(n, v)| (n.clone(), v.clone())).collect())
}

fn record(record: &Record) -> Json {
    json!({ "key": record.key, "value": record.value })
}

fn answers(given: &Given) -> Json {
    let mut all = Map::new();
    let mut put = |name: &str, value: Json| {
        if value.as_object().is_none_or(|map| !map.is_empty()) && value.as_array().is_none_or(|list| !list.is_empty()) {
            all.insert(name.to_owned(), value);
        }
    };
    put("found", json!(given.found));
    put("missing", json!(given.missing));
    put("failed", json!(given.failed));
    Json::Object(all)
}

fn change(change: &Change) -> Json {
    let mut all = Map::new();
    let mut put = |name: &str, value: Json| {
        if !value.is_null() {
            all.insert(name.to_owned(), value);
        }
    };
    put("op", json!(change.op));
    put("before", change.before.clone());
    put("after", change.after.clone());
    put("key", json!(change.key));
    put("at", json!(change.at.map(super::print)));
    put("unchanged", json!(change.unchanged));
    Json::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let text = r#"
- case: "a: b"
  stream: raised
  given: { catalog: { found: { "a b": { title: "12" } }, missing: [7], failed: { x: "no: really" } } }
  events: [{ public.movie: { op: u, before: { id: 1 }, after: { id: 1, title: "null" }, at: 90m, key: { k: "1" } } }]
"#;
        let cases: Vec<Case> = serde_saphyr::from_str(text).expect("cases");
        let came = Came {
            events: vec![json!({ "title": "#1", "id": 1 })],
            stands_still: Some("it's: away".into()),
            ..Came::default()
        };
        let written = case(&cases[0], &came);
        let again: Vec<Case> = serde_saphyr::from_str(&written).unwrap_or_else(|e| panic!("{e}: {written}"));
        assert_eq!(case(&again[0], &came), written);
        let given = &again[0].given["catalog"];
        assert_eq!((&given.found["a b"]["title"], &given.missing[0]), (&json!("12"), &json!(7)));
        assert_eq!(again[0].events[0]["public.movie"].at, Some(std::time::Duration::from_secs(5_400)));
        let expect = again[0].expect.as_ref().expect("something is expected");
        assert_eq!(expect.events.as_deref(), Some(&came.events[..]));
        assert_eq!(expect.stands_still, came.stands_still);
    }

    #[test]
    fn keys_are_quoted_where_they_must_be() {
        for (text, shown) in [("12", "12"), ("public.movie", "public.movie"), ("a b", "\"a b\""), ("-", "\"-\"")] {
            assert_eq!(key(text), shown);
        }
    }
}
