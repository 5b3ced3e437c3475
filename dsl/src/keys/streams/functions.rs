//! Keys of `functions.<function>`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tributary_expression::Type;

use crate::yaml::{
    At, Documented, Entries, Is, Key, Keys, Kind, Line, Means, Names, Node, Period, Reader, Required, Size, key,
    pattern,
};

pub(crate) static NAMES: Names = Names { mark: "<function>", pattern: Some("^[a-z_][a-z0-9_]*$"), example: "rank" };

pub(crate) static FUNCTION: Keys = Keys { keys: &[&WASM, &TAKES, &ANSWERS, &DEADLINE, &MEMORY], rules: &[] };

pub(crate) static WASM: Key<Line, Required> = key(
    "wasm",
    Line("file"),
    Required,
    "rank.wasm",
    "The component: a file beside the pipeline's, built for the world of \
     [function.wit](../wasm/wit/function.wit).",
);

pub(crate) static TAKES: Key<Entries, Means> = key(
    "takes",
    Entries { names: &Names { mark: "<parameter>", pattern: None, example: "price" }, value: &ValueType, some: false },
    Means("nothing"),
    "{ price: number, country: string? }",
    "Its parameters, in their order, and what each takes.",
);

pub(crate) static ANSWERS: Key<ValueType, Means> = key(
    "answers",
    ValueType,
    Means("any value"),
    "number",
    "What it answers. An answer of another kind counts as a failure.",
);

pub(crate) static DEADLINE: Key<Period, Is<Duration>> = key(
    "deadline",
    Period { least: Duration::from_millis(1) },
    Is(Duration::from_secs(1)),
    "100ms",
    "So long a call may take, which may be of many events. One that takes longer is ended, and its events are halved.",
);

pub(crate) static MEMORY: Key<Size, Is<u64>> =
    key("memory", Size { least: 64 << 10, most: 4 << 30 }, Is(64 << 20), "128MiB", "So much memory a call may take.");

/// The type of a value, as it is written.
pub(crate) struct ValueType;

/// How types are written.
const WORDS: [&str; 7] = ["any", "string", "integer", "number", "boolean", "object", "array"];

/// The type of a word.
fn of_word(word: &str) -> Option<Type> {
    Some(match word {
        "any" => Type::any(),
        "string" => Type::text(),
        "integer" => Type::whole(),
        "number" => Type::number(),
        "boolean" => Type::truth(),
        "object" => Type::object(),
        "array" => Type::list(Type::any()),
        _ => return None,
    })
}

impl Documented for ValueType {
    fn word(&self) -> String {
        format!("{}, with `?` if it may be null", WORDS.map(|word| format!("`{word}`")).join(", "))
    }

    fn schema(&self) -> Json {
        pattern(&format!("^({})\\??$", WORDS.join("|")))
    }
}

impl Kind for ValueType {
    type Value = Type;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Type> {
        let text = r.text(node, at)?;
        let found = match text.value.strip_suffix('?') {
            Some(word) => of_word(word).map(Type::or_null),
            None => of_word(&text.value),
        };
        if found.is_none() {
            let help =
                format!("write one of {}; a `?` behind it: or null", WORDS.map(|word| format!("`{word}`")).join(", "));
            r.found.push(text.spot.error(format!("`{}` is no type", text.shown)).help(help));
        }
        found
    }
}
