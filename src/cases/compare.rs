//! What is expected of a case ↔ what came of it.

use serde_json::Value as Json;

use super::engine::Came;
use super::{Expectation, Record};

/// What is otherwise than expected, each in a line.
pub(super) fn compare(expected: &Expectation, came: &Came) -> Vec<String> {
    let mut wrong = Vec::new();
    let exactly = expected.exactly;
    if let Some(events) = &expected.events {
        list("events", events, &came.events, exactly, &mut wrong);
    }
    for (topic, records) in &expected.topics {
        match came.topics.get(topic) {
            Some(found) => self::records(topic, records, found, exactly, &mut wrong),
            None => wrong.push(format!("topics.{topic}: the stream does not write this topic")),
        }
    }
    let letters = expected.dead_letters.as_deref().unwrap_or_default();
    for (place, letter) in letters.iter().enumerate() {
        let Some(found) = came.letters.get(place) else {
            wrong.push(format!("dead_letters[{place}]: there is none; expected one of {:?}", letter.cause));
            continue;
        };
        if !found.cause.contains(&letter.cause) {
            wrong.push(format!(
                "dead_letters[{place}]: expected {:?} in its cause, which is {:?}",
                letter.cause, found.cause
            ));
        }
        if letter.key.is_some() && letter.key != found.key {
            wrong.push(format!("dead_letters[{place}].key: expected {:?}, was {:?}", letter.key, found.key));
        }
    }
    // Nobody sets something aside without wanting to hear of it.
    for (place, letter) in came.letters.iter().enumerate().skip(letters.len()) {
        wrong.push(format!("dead_letters[{place}]: not expected: {}", letter.cause));
    }
    match (&expected.stands_still, &came.stands_still) {
        (None, Some(why)) => wrong.push(format!("the stream stands still: {why}")),
        (Some(words), None) => wrong.push(format!("the stream does not stand still; expected {words:?}")),
        (Some(words), Some(why)) if !why.contains(words.as_str()) => {
            wrong.push(format!("the stream stands still for another cause; expected {words:?}, was {why:?}"));
        }
        _ => {}
    }
    wrong
}

fn list(path: &str, expected: &[Json], found: &[Json], exactly: bool, wrong: &mut Vec<String>) {
    for (place, (expected, found)) in expected.iter().zip(found).enumerate() {
        value(&format!("{path}[{place}]"), expected, found, exactly, wrong);
    }
    for (place, expected) in expected.iter().enumerate().skip(found.len()) {
        wrong.push(format!("{path}[{place}]: there is none; expected {expected}"));
    }
    for (place, found) in found.iter().enumerate().skip(expected.len()) {
        wrong.push(format!("{path}[{place}]: not expected: {found}"));
    }
}

fn records(topic: &str, expected: &[Record], found: &[Record], exactly: bool, wrong: &mut Vec<String>) {
    let values = |records: &[Record]| records.iter().map(|record| record.value.clone()).collect::<Vec<_>>();
    list(&format!("topics.{topic}"), &values(expected), &values(found), exactly, wrong);
    for (place, (expected, found)) in expected.iter().zip(found).enumerate() {
        if expected.key.is_some() && expected.key != found.key {
            let (expected, found) = (&expected.key, &found.key);
            wrong.push(format!("topics.{topic}[{place}].key: expected {expected:?}, was {found:?}"));
        }
    }
}

fn value(path: &str, expected: &Json, found: &Json, exactly: bool, wrong: &mut Vec<String>) {
    match (expected, found) {
        (Json::Object(fields), Json::Object(others)) => {
            for (name, expected) in fields {
                match others.get(name) {
                    Some(found) => value(&format!("{path}.{name}"), expected, found, exactly, wrong),
                    None => wrong.push(format!("{path}.{name}: absent; expected {expected}")),
                }
            }
            for (name, found) in others.iter().filter(|(name, _)| exactly && !fields.contains_key(*name)) {
                wrong.push(format!("{path}.{name}: not expected: {found}"));
            }
        }
        (Json::Array(items), Json::Array(others)) => list(path, items, others, exactly, wrong),
        (Json::Number(one), Json::Number(other)) if one.as_f64() == other.as_f64() => {}
        (expected, found) if expected == found => {}
        (expected, found) => wrong.push(format!("{path}: expected {expected}, was {found}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(expected: Json, found: Json, exactly: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        value("event", &expected, &found, exactly, &mut wrong);
        wrong
    }

    #[test]
    fn named_fields_are_compared() {
        assert!(
            differences(json!({ "a": { "b": 1 } }), json!({ "a": { "b": 1.0, "c": 2 }, "d": 3 }), false).is_empty()
        );
        assert_eq!(
            differences(json!({ "a": [1, 2], "x": null }), json!({ "a": [1, 3, 4] }), false),
            ["event.a[1]: expected 2, was 3", "event.a[2]: not expected: 4", "event.x: absent; expected null"]
        );
        assert_eq!(differences(json!({}), json!({ "a": 1 }), true), ["event.a: not expected: 1"]);
        assert_eq!(differences(json!("1"), json!(1), false), ["event: expected \"1\", was 1"]);
    }

    #[test]
    fn what_nobody_expected_is_told() {
        let came = Came {
            letters: vec![super::super::Letter { cause: "no".into(), key: None }],
            stands_still: Some("why".into()),
            ..Came::default()
        };
        let wrong = compare(&Expectation::default(), &came);
        assert_eq!(wrong, ["dead_letters[0]: not expected: no", "the stream stands still: why"]);
    }
}
