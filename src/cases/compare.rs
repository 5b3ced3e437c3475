//! What is expected of a case ↔ what came of it.

use serde_json::Value as Json;

use super::engine::Came;
use super::sinks::Got;
use super::{Calls, Expectation, Record, Way, print};

/// What is otherwise than expected, each in a line.
pub(super) fn compare(expected: &Expectation, came: &Came, way: Way) -> Vec<String> {
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
    for (name, things) in &expected.sinks {
        match came.sinks.get(name) {
            Some(got) => sink(name, things, got, exactly, way, &mut wrong),
            None => wrong.push(format!("sinks.{name}: the stream has no such sink")),
        }
    }
    for (name, got) in &came.sinks {
        wrong.extend(got.disorder.iter().map(|why| format!("sinks.{name}: {why}")));
    }
    // A kill changes how often somebody is asked, and how long everything takes.
    if way == Way::Calm {
        for (name, calls) in &expected.calls {
            self::calls(name, calls, came, &mut wrong);
        }
        if let Some(within) = expected.within.filter(|within| came.after > *within) {
            let (within, after) = (print(within), print(came.after));
            wrong.push(format!("within: expected {within}, and it came to its end after {after}"));
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

/// What came to a sink. Where nothing was killed requests are compared in the order in which they came; else each is there once at least.
fn sink(name: &str, expected: &[Json], got: &Got, exactly: bool, way: Way, wrong: &mut Vec<String>) {
    let path = format!("sinks.{name}");
    if way == Way::Calm || got.requests == 0 {
        things(&path, expected, &got.things, exactly, wrong);
        return;
    }
    let mut left: Vec<&Json> = Vec::new();
    for found in &got.things {
        if !left.iter().any(|other| other["id"] == found["id"]) {
            left.push(found);
        }
    }
    for (place, expected) in expected.iter().enumerate() {
        let fits = |found: &&Json| {
            let mut wrong = Vec::new();
            thing("", expected, found, exactly, &mut wrong);
            wrong.is_empty()
        };
        match left.iter().position(fits) {
            Some(found) => drop(left.remove(found)),
            None => wrong.push(format!("{path}[{place}]: there is none; expected {expected}")),
        }
    }
    wrong.extend(left.into_iter().map(|found| format!("{path}: not expected: {found}")));
}

fn things(path: &str, expected: &[Json], found: &[Json], exactly: bool, wrong: &mut Vec<String>) {
    for (place, (expected, found)) in expected.iter().zip(found).enumerate() {
        thing(&format!("{path}[{place}]"), expected, found, exactly, wrong);
    }
    missing_and_surplus(path, expected, found, wrong);
}

/// What came as one: of what is around the event, or added to a row, only that is compared which is named.
fn thing(path: &str, expected: &Json, found: &Json, exactly: bool, wrong: &mut Vec<String>) {
    let (Json::Object(fields), Json::Object(others)) = (expected, found) else {
        return value(path, expected, found, exactly, wrong);
    };
    for (name, expected) in fields {
        let is_exact = exactly && name != "headers";
        match others.get(name) {
            Some(found) => value(&format!("{path}.{name}"), expected, found, is_exact, wrong),
            None => wrong.push(format!("{path}.{name}: absent; expected {expected}")),
        }
    }
    let is_wrapped = ["body", "input", "data"].iter().any(|name| others.contains_key(*name));
    for (name, found) in others.iter().filter(|_| exactly && !is_wrapped) {
        if !name.starts_with('_') && !fields.contains_key(name) {
            wrong.push(format!("{path}.{name}: not expected: {found}"));
        }
    }
}

fn calls(name: &str, expected: &Calls, came: &Came, wrong: &mut Vec<String>) {
    let keys = came.calls.get(name);
    let Some(count) = keys.map(Vec::len).or_else(|| Some(came.sinks.get(name)?.requests)) else {
        return wrong.push(format!("calls.{name}: there is no such service, table or sink"));
    };
    if let Some(least) = expected.at_least.filter(|least| count < *least) {
        wrong.push(format!("calls.{name}: expected {least} at least, and there were {count}"));
    }
    if let Some(most) = expected.at_most.filter(|most| count > *most) {
        wrong.push(format!("calls.{name}: expected {most} at most, and there were {count}"));
    }
    let text = |key: &Json| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
    if let Some(lists) = &expected.keys {
        let lists: Vec<Vec<String>> = lists.iter().map(|keys| keys.iter().map(text).collect()).collect();
        let found = keys.cloned().unwrap_or_default();
        if lists != found {
            wrong.push(format!("calls.{name}.keys: expected {lists:?}, was {found:?}"));
        }
    }
}

fn list(path: &str, expected: &[Json], found: &[Json], exactly: bool, wrong: &mut Vec<String>) {
    for (place, (expected, found)) in expected.iter().zip(found).enumerate() {
        value(&format!("{path}[{place}]"), expected, found, exactly, wrong);
    }
    missing_and_surplus(path, expected, found, wrong);
}

fn missing_and_surplus(path: &str, expected: &[Json], found: &[Json], wrong: &mut Vec<String>) {
    for (place, expected) in expected.iter().enumerate().skip(found.len()) {
        wrong.push(format!("{path}[{place}]: there is none; expected {expected}"));
    }
    for (place, found) in found.iter().enumerate().skip(expected.len()) {
        wrong.push(format!("{path}[{place}]: not expected: {found}"));
    }
}

fn records(topic: &str, expected: &[Record], found: &[Record], exactly: bool, wrong: &mut Vec<String>) {
    let path = format!("topics.{topic}");
    for (place, (expected, found)) in expected.iter().zip(found).enumerate() {
        if let (Some(expected), Some(found)) = (&expected.value, &found.value) {
            value(&format!("{path}[{place}]"), expected, found, exactly, wrong);
        }
        if expected.key.is_some() && expected.key != found.key {
            let (expected, found) = (&expected.key, &found.key);
            wrong.push(format!("{path}[{place}].key: expected {expected:?}, was {found:?}"));
        }
    }
    let values = |records: &[Record]| records.iter().map(|r| r.value.clone().unwrap_or_default()).collect::<Vec<_>>();
    missing_and_surplus(&path, &values(expected), &values(found), wrong);
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

    fn of_sink(expected: &[Json], things: &[Json], exactly: bool, way: Way) -> Vec<String> {
        let mut wrong = Vec::new();
        let got = Got { things: things.to_vec(), requests: things.len(), disorder: Vec::new() };
        sink("hook", expected, &got, exactly, way, &mut wrong);
        wrong
    }

    #[test]
    fn requests_may_come_twice_where_something_was_killed() {
        let told = |id: &str, n: u8| json!({ "id": id, "headers": { "a": "b" }, "body": { "n": n } });
        let twice = [told("2", 2), told("1", 1), told("2", 2)];
        let expected = [json!({ "body": { "n": 1 } }), json!({ "body": { "n": 2 } })];
        assert!(of_sink(&expected, &twice, true, Way::Crashing).is_empty());
        assert_eq!(of_sink(&expected, &twice, true, Way::Calm).len(), 3);
        assert_eq!(of_sink(&expected[..1], &twice, true, Way::Crashing).len(), 1);
        let named = [json!({ "headers": {}, "body": {} })];
        let wrong = of_sink(&named, &[told("1", 1)], true, Way::Calm);
        assert_eq!(wrong, ["sinks.hook[0].body.n: not expected: 1"]);
    }

    #[test]
    fn of_rows_what_the_sink_adds_need_not_be_named() {
        let row = json!({ "id": 1, "a": 2, "_seq": 4, "_deleted": false });
        assert!(of_sink(&[json!({ "id": 1, "a": 2 })], std::slice::from_ref(&row), true, Way::Calm).is_empty());
        assert_eq!(of_sink(&[json!({ "id": 1, "_seq": 5 })], &[row], true, Way::Calm).len(), 2);
    }

    #[test]
    fn what_nobody_expected_is_told() {
        let came = Came {
            letters: vec![super::super::Letter { cause: "no".into(), key: None }],
            stands_still: Some("why".into()),
            ..Came::default()
        };
        let wrong = compare(&Expectation::default(), &came, Way::Calm);
        assert_eq!(wrong, ["dead_letters[0]: not expected: no", "the stream stands still: why"]);
    }
}
