//! Kinds of single values: text, numbers, durations, sizes, words.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::kind::{Documented, Kind, Printed, VARIABLE};
use super::read::{At, Reader, Text};
use super::{Node, units};
use crate::plan::Secret;

/// Text of any form.
pub(crate) struct Line(pub &'static str);

impl Documented for Line {
    fn word(&self) -> String {
        self.0.to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": ["string", "number", "boolean"], "minLength": 1 })
    }
}

impl Kind for Line {
    type Value = Text;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Text> {
        r.text(node, at)
    }
}

/// A value of any shape.
pub(crate) struct Any;

impl Documented for Any {
    fn word(&self) -> String {
        "any value".to_owned()
    }

    fn schema(&self) -> Json {
        json!(true)
    }
}

impl Kind for Any {
    type Value = Json;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Json> {
        r.json(node, at)
    }
}

/// The path of a folder.
pub(crate) struct Folder;

impl Documented for Folder {
    fn word(&self) -> String {
        "folder".to_owned()
    }

    fn schema(&self) -> Json {
        Line("").schema()
    }
}

impl Kind for Folder {
    type Value = Cow<'static, str>;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        r.text(node, at).map(|text| Cow::Owned(text.value))
    }
}

impl Printed for Folder {
    fn print(&self, value: &Self::Value) -> String {
        value.clone().into_owned()
    }
}

/// Text that is never printed.
pub(crate) struct Hidden;

impl Documented for Hidden {
    fn word(&self) -> String {
        "text, never printed".to_owned()
    }

    fn schema(&self) -> Json {
        Line("").schema()
    }
}

impl Kind for Hidden {
    type Value = Secret;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Secret> {
        r.text(node, at).map(|text| Secret::new(text.value))
    }
}

/// A whole number within bounds.
pub(crate) struct Whole<N> {
    pub least: N,
    pub most: N,
}

impl<N: Display + Sync> Documented for Whole<N> {
    fn word(&self) -> String {
        format!("whole number, {} to {}", self.least, self.most)
    }

    fn schema(&self) -> Json {
        let number = |n: &N| n.to_string().parse::<u64>().unwrap_or(u64::MAX);
        let (least, most) = (number(&self.least), number(&self.most));
        json!({
            "type": ["integer", "string"],
            "minimum": least,
            "maximum": most,
            "pattern": format!(r"^\+?[0-9]+$|{VARIABLE}")
        })
    }
}

impl<N: FromStr + PartialOrd + Display + Sync> Kind for Whole<N> {
    type Value = N;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<N> {
        let text = r.text(node, at)?;
        match text.value.parse::<N>() {
            Ok(number) if self.least <= number && number <= self.most => return Some(number),
            _ if text.value.parse::<i128>().is_ok() => {
                let message = format!("`{}` must be from {} to {}, not {}", at.path, self.least, self.most, text.shown);
                r.error(node.place, message, None);
            }
            _ => {
                let message = format!("`{}` must be a whole number, not `{}`", at.path, text.shown);
                r.error(node.place, message, Some(format!("from {} to {}", self.least, self.most)));
            }
        }
        None
    }
}

impl<N: FromStr + PartialOrd + Display + Sync> Printed for Whole<N> {
    fn print(&self, value: &N) -> String {
        value.to_string()
    }
}

/// A part of a whole, in percent.
pub(crate) struct Share;

impl Documented for Share {
    fn word(&self) -> String {
        "share, `0%` to `100%`".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": format!("^[0-9]+%$|{VARIABLE}") })
    }
}

impl Kind for Share {
    type Value = u8;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<u8> {
        let text = r.text(node, at)?;
        let percent = text.value.strip_suffix('%').and_then(|number| number.parse::<u8>().ok());
        let found = percent.filter(|percent| *percent <= 100);
        if found.is_none() {
            let message = format!("`{}` must be a share, not `{}`", at.path, text.shown);
            r.error(node.place, message, Some("from `0%` to `100%`".into()));
        }
        found
    }
}

impl Printed for Share {
    fn print(&self, value: &u8) -> String {
        format!("{value}%")
    }
}

/// A part of a whole, as a number from 0 to 1.
pub(crate) struct Ratio;

impl Documented for Ratio {
    fn word(&self) -> String {
        "number, 0 to 1".to_owned()
    }

    fn schema(&self) -> Json {
        let pattern = format!(r"^[0-9]*\.?[0-9]+$|{VARIABLE}");
        json!({ "type": ["number", "string"], "minimum": 0, "maximum": 1, "pattern": pattern })
    }
}

impl Kind for Ratio {
    type Value = f64;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<f64> {
        let text = r.text(node, at)?;
        let found = text.value.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        if found.is_none() {
            let message = format!("`{}` must be a number from 0 to 1, not `{}`", at.path, text.shown);
            r.error(node.place, message, Some("`0.01` is one of a hundred".into()));
        }
        found
    }
}

impl Printed for Ratio {
    fn print(&self, value: &f64) -> String {
        value.to_string()
    }
}

/// A duration.
pub(crate) struct Period {
    pub least: Duration,
}

impl Documented for Period {
    fn word(&self) -> String {
        match self.least {
            Duration::ZERO => "duration".to_owned(),
            least => format!("duration, at least {}", units::print_duration(least)),
        }
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": format!("{}|{VARIABLE}", units::duration_pattern()) })
    }
}

impl Kind for Period {
    type Value = Duration;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Duration> {
        let text = r.text(node, at)?;
        match units::duration(&text.value) {
            Ok(duration) if duration < self.least => {
                let least = units::print_duration(self.least);
                r.error(node.place, format!("`{}` must be at least {least}, not {}", at.path, text.shown), None);
                None
            }
            Ok(duration) => Some(duration),
            Err(help) => {
                r.error(node.place, format!("`{}` must be a duration, not `{}`", at.path, text.shown), Some(help));
                None
            }
        }
    }
}

impl Printed for Period {
    fn print(&self, value: &Duration) -> String {
        units::print_duration(*value)
    }
}

/// A number of bytes within bounds.
pub(crate) struct Size {
    pub least: u64,
    pub most: u64,
}

impl Documented for Size {
    fn word(&self) -> String {
        match (self.least, self.most) {
            (0, u64::MAX) => "size".to_owned(),
            (least, most) => format!("size, {} to {}", units::print_bytes(least), units::print_bytes(most)),
        }
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": format!("{}|{VARIABLE}", units::bytes_pattern()) })
    }
}

impl Kind for Size {
    type Value = u64;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<u64> {
        let text = r.text(node, at)?;
        match units::bytes(&text.value) {
            Ok(bytes) if bytes < self.least || bytes > self.most => {
                let (least, most) = (units::print_bytes(self.least), units::print_bytes(self.most));
                let message = format!("`{}` must be from {least} to {most}, not {}", at.path, text.shown);
                r.error(node.place, message, None);
                None
            }
            Ok(bytes) => Some(bytes),
            Err(help) => {
                let message = format!("`{}` must be a size in bytes, not `{}`", at.path, text.shown);
                r.error(node.place, message, Some(help));
                None
            }
        }
    }
}

impl Printed for Size {
    fn print(&self, value: &u64) -> String {
        units::print_bytes(*value)
    }
}

/// The word for a value without limit.
const UNLIMITED: &str = "unlimited";

/// A value, or none at all.
pub(crate) struct Limit<K>(pub K);

impl<K: Documented> Documented for Limit<K> {
    fn word(&self) -> String {
        format!("{}; or `{UNLIMITED}`", self.0.word())
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [{ "const": UNLIMITED }, self.0.schema()] })
    }
}

impl<K: Kind> Kind for Limit<K> {
    type Value = Option<K::Value>;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        if r.is_word(node, UNLIMITED) {
            return Some(None);
        }
        let before = r.found.len();
        let value = self.0.read(r, node, at);
        for diagnostic in r.found.iter_mut().skip(before) {
            diagnostic.help = diagnostic.help.take().map(|help| format!("{help}, or `{UNLIMITED}`"));
        }
        value.map(Some)
    }
}

impl<K: Printed> Printed for Limit<K> {
    fn print(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| UNLIMITED.to_owned(), |value| self.0.print(value))
    }
}

/// One of a few words.
pub(crate) struct Words<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Sync> Documented for Words<T> {
    fn word(&self) -> String {
        self.0.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    }

    fn schema(&self) -> Json {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": VARIABLE }] })
    }
}

impl<T: Clone + Sync> Kind for Words<T> {
    type Value = T;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<T> {
        let text = r.text(node, at)?;
        let found = self.0.iter().find(|(word, _)| *word == text.value).map(|(_, value)| value.clone());
        if found.is_none() {
            let names = self.0.iter().map(|(word, _)| *word);
            let help = match self.0 {
                [(only, _)] => Some(format!("write `{only}`")),
                _ => crate::suggest::suggestion(&text.value, names),
            };
            r.error(node.place, format!("`{}` cannot be `{}`", at.path, text.shown), help);
        }
        found
    }
}

impl<T: Clone + PartialEq + Sync> Printed for Words<T> {
    fn print(&self, value: &T) -> String {
        self.0.iter().find(|(_, v)| v == value).map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}
