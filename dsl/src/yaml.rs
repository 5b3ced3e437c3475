//! YAML as a tree whose every node knows its place.

mod collections;
mod key;
mod kind;
mod mapping;
mod read;
mod scalars;
mod schema;
pub(crate) mod units;
mod variables;

pub use self::units::duration;
pub(crate) use self::units::print_duration;

pub(crate) use collections::{Entries, Items, Names, OneOrMany};
pub(crate) use key::{Described, Is, Key, Keys, LeftOut, Means, Required, Rule, key, written};
pub(crate) use kind::{Documented, Inside, Kind, Printed, pattern};
pub(crate) use mapping::Map;
pub(crate) use read::{At, Reader, Text};
pub(crate) use scalars::{Any, Folder, Hidden, Limit, Line, Period, Ratio, Share, Size, Whole, Words};

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use crate::diagnostic::{Diagnostic, Spot};
use crate::suggest::closest;
use crate::text::SourceText;

/// Nodes inside of nodes, at most.
const MAX_DEPTH: usize = 32;

/// A stretch of a text: where it starts (line and column, from 1) and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub start: (usize, usize),
    pub end: (usize, usize),
    /// Which text: 0 is the pipeline's file, others are values that are written in Rust.
    pub text: usize,
}

impl Place {
    fn of(span: Span) -> Self {
        let at = |marker: Marker| (marker.line().max(1), marker.col() + 1);
        Self { start: at(span.start), end: at(span.end), text: 0 }
    }
}

/// A value, with its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub place: Place,
    pub kind: Tree,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Tree {
    Null,
    Scalar(String),
    Sequence(Vec<Arc<Node>>),
    Mapping(Vec<(MappingKey, Arc<Node>)>),
}

/// A key of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct MappingKey {
    pub name: String,
    pub place: Place,
}

/// A node that is not closed yet.
enum Open {
    Sequence(Place, usize, Vec<Arc<Node>>),
    Mapping(Place, usize, Vec<(MappingKey, Arc<Node>)>, Option<MappingKey>),
}

/// What went wrong, without the text it went wrong in.
struct Problem {
    place: Place,
    message: String,
    help: Option<String>,
}

/// Parses one document. The root is `None` where the text is no YAML; of duplicate keys the first stays in place, with what two
/// mappings have together.
pub(crate) fn parse(file: &str, text: &str) -> (Arc<SourceText>, Option<Arc<Node>>, Vec<Diagnostic>) {
    let mut tree = Growing { open: Vec::new(), anchors: HashMap::new(), root: None, problems: Vec::new() };
    let fine = tree.build(text);
    let mut shown = SourceText::masked(file, text);
    if let Some(root) = &tree.root {
        mask(root, false, &mut shown);
    }
    let shown = Arc::new(shown);
    let found = tree.problems.into_iter().map(|p| spot(&shown, p.place).error(p.message).maybe_help(p.help)).collect();
    (shown, if fine { tree.root } else { None }, found)
}

/// A place as a stretch of one line.
pub(crate) fn spot(text: &Arc<SourceText>, place: Place) -> Spot {
    let length = if place.end.0 == place.start.0 { place.end.1.saturating_sub(place.start.1) } else { usize::MAX };
    Spot::new(text, place.start.0, place.start.1, length)
}

/// What to do about a text that is no YAML, by the parser's words for it and the line.
fn remedy(info: &str, line: &str) -> Option<&'static str> {
    if info.contains("while parsing a flow") && line.contains(" ${") {
        return Some("a value that begins with `${` is written in quotes inside of `{ }` and `[ ]`");
    }
    let remedies = [
        ("tabs", "indent with spaces"),
        ("simple key", "a line up to here is no `key: value`; a space follows the colon"),
        ("expected key", "keys that belong together begin in the same column"),
        ("while parsing a flow", "what begins with `{` or `[` must end; as text it is written in quotes"),
    ];
    remedies.iter().find(|(words, _)| info.contains(words)).map(|(_, remedy)| *remedy)
}

/// Masks what is secret by where it stands.
fn mask(node: &Node, secret: bool, shown: &mut SourceText) {
    match &node.kind {
        Tree::Null => {}
        Tree::Scalar(_) if secret => shown.mask(node.place.start, node.place.end),
        Tree::Scalar(_) => {}
        Tree::Sequence(items) => items.iter().for_each(|item| mask(item, secret, shown)),
        Tree::Mapping(entries) => {
            for (key, value) in entries {
                mask(value, secret || hides(&key.name), shown);
            }
        }
    }
}

/// Whether what stands behind a key is secret. One that is misspelt has a secret all the same.
pub(crate) fn hides(key: &str) -> bool {
    !key.ends_with("_file") && closest(key, ["headers", "properties", "password", "api_key"]).is_some()
}

struct Growing {
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    root: Option<Arc<Node>>,
    problems: Vec<Problem>,
}

impl Growing {
    /// Whether the text is one YAML document.
    fn build(&mut self, text: &str) -> bool {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(e) => {
                    let at = (e.marker().line().max(1), e.marker().col() + 1);
                    let message = format!("this is no YAML: {}", e.info());
                    let line = text.lines().nth(at.0 - 1).unwrap_or_default();
                    return self.refuse(Place { start: at, end: at, text: 0 }, message, remedy(e.info(), line));
                }
            };
            let place = Place::of(span);
            let fine = match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    documents == 1
                        || self.refuse(place, "a second YAML document".into(), Some("one file, one pipeline"))
                }
                Event::Scalar(text, style, anchor, _) => {
                    let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                    let kind = if null { Tree::Null } else { Tree::Scalar(text.into_owned()) };
                    self.add(Node { place, kind }, anchor)
                }
                Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                    Some(node) => self.put(node, place),
                    None => {
                        let help = "an alias stands for a value that ended before it";
                        self.refuse(place, "the alias is inside of what it stands for".into(), Some(help))
                    }
                },
                Event::SequenceStart(anchor, _) => self.push(place, Open::Sequence(place, anchor, Vec::new())),
                Event::MappingStart(anchor, _) => self.push(place, Open::Mapping(place, anchor, Vec::new(), None)),
                Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                    Some(Open::Sequence(start, anchor, items)) => {
                        let place = Place { start: start.start, ..place };
                        self.add(Node { place, kind: Tree::Sequence(items) }, anchor)
                    }
                    Some(Open::Mapping(start, anchor, entries, _)) => {
                        let place = Place { start: start.start, ..place };
                        self.add(Node { place, kind: Tree::Mapping(entries) }, anchor)
                    }
                    None => true,
                },
                _ => true,
            };
            if !fine {
                return false;
            }
        }
        true
    }

    fn refuse(&mut self, place: Place, message: String, help: Option<&str>) -> bool {
        self.problems.push(Problem { place, message, help: help.map(str::to_owned) });
        false
    }

    fn push(&mut self, place: Place, open: Open) -> bool {
        if self.open.len() >= MAX_DEPTH {
            return self.refuse(place, format!("more than {MAX_DEPTH} values inside of one another"), None);
        }
        self.open.push(open);
        true
    }

    fn add(&mut self, node: Node, anchor: usize) -> bool {
        let place = node.place;
        let node = Arc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        self.put(node, place)
    }

    fn put(&mut self, node: Arc<Node>, place: Place) -> bool {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence(_, _, items)) => items.push(node),
            Some(Open::Mapping(_, _, entries, key)) => match key.take() {
                Some(key) => {
                    if let Some((first, value)) = entries.iter_mut().find(|(k, _)| k.name == key.name) {
                        let message = format!("the key `{}` stands here twice", key.name);
                        let help = format!("the first is on line {}", first.place.start.0);
                        *value = both(value, &node);
                        self.refuse(key.place, message, Some(&help));
                    } else {
                        entries.push((key, node));
                    }
                }
                None => match &node.kind {
                    Tree::Scalar(name) => *key = Some(MappingKey { name: name.clone(), place }),
                    Tree::Null => *key = Some(MappingKey { name: "null".into(), place }),
                    _ => {
                        let help = "text that begins with `{` or `[` is written in quotes";
                        return self.refuse(place, "a key must be plain text".into(), Some(help));
                    }
                },
            },
        }
        true
    }
}

/// Two values of one key, of which it is said that they are one too many: nothing that one of two mappings has is missing as well.
fn both(first: &Arc<Node>, second: &Node) -> Arc<Node> {
    let (Tree::Mapping(one), Tree::Mapping(other)) = (&first.kind, &second.kind) else { return first.clone() };
    let is_new = |(key, _): &&(MappingKey, Arc<Node>)| one.iter().all(|(known, _)| known.name != key.name);
    let entries = one.iter().chain(other.iter().filter(is_new)).cloned().collect();
    Arc::new(Node { place: first.place, kind: Tree::Mapping(entries) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_aliases_and_places() {
        let (_, root, found) = parse("f", "a: &x { b: 1 }\nc: *x\n");
        assert!(found.is_empty(), "{found:?}");
        let root = root.expect("a tree");
        let Tree::Mapping(entries) = &root.kind else { panic!("{root:?}") };
        assert_eq!(entries[1].0.place.start, (2, 1));
        assert!(Arc::ptr_eq(&entries[0].1, &entries[1].1));
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        for text in ["a: [1\nb: 2", "a: 1\n b: 2", "a: 1\n---\nb: 1", "? [a]\n: 1", "a: &x [*x]", &"[".repeat(1000)] {
            let (_, root, found) = parse("f", text);
            assert!(root.is_none() && found.len() == 1, "{text}: {found:?}");
        }
        let (_, root, found) = parse("f", "a: 1\na: 2\nb: 1\n");
        assert!(root.is_some());
        assert_eq!(
            found[0].to_string(),
            "error: the key `a` stands here twice\n --> f:2:1\n  |\n2 | a: 2\n  | ^ the first is on line 1"
        );
    }
}
