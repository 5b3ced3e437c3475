//! What a pipeline says, part by part, as hashes: what tells whether another text of it says the same, and where it does not.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::keys::streams::{self as key, sinks};
use crate::plan::StreamPlan;
use crate::yaml::{At, Node, Reader, Tree};

/// What a pipeline says, part by part, as hashes: two that are equal say the same, secrets and queries of streams included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prints {
    /// The outermost keys, but for those below, by their names.
    pub keys: BTreeMap<String, u64>,
    /// Services, by their names.
    pub services: BTreeMap<String, u64>,
    /// Tables, by their names.
    pub tables: BTreeMap<String, u64>,
    /// Streams, by their names.
    pub streams: BTreeMap<String, StreamPrint>,
}

/// What a stream says, as hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamPrint {
    /// All of it.
    pub whole: u64,
    /// Its keys, its steps and its sinks, by what messages call them: "`from`", "the step `filter-1`".
    pub parts: BTreeMap<String, u64>,
}

impl StreamPrint {
    /// What of it is otherwise in another text of the stream, each in a sentence.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (part, print) in &now.parts {
            match self.parts.get(part) {
                None => differences.push(format!("{part} is new")),
                Some(before) if before != print => differences.push(format!("{part} says something else")),
                Some(_) => {}
            }
        }
        let gone = self.parts.keys().filter(|part| !now.parts.contains_key(*part));
        differences.extend(gone.map(|part| format!("{part} is gone")));
        if differences.is_empty() && self.whole != now.whole {
            differences.push("its steps or sinks stand in another order".to_owned());
        }
        differences
    }
}

/// What a pipeline without an error says.
pub(super) fn read(r: &mut Reader, root: &Node, streams: &[StreamPlan]) -> Prints {
    let mut prints = Prints::default();
    let Tree::Mapping(entries) = &root.kind else { return prints };
    for (key, node) in entries {
        let parts = match key.name.as_str() {
            "services" => &mut prints.services,
            "tables" => &mut prints.tables,
            "streams" => {
                let Tree::Mapping(entries) = &node.kind else { continue };
                for (name, node) in entries {
                    let plan = streams.iter().find(|stream| stream.name == name.name);
                    prints.streams.extend(plan.map(|plan| (name.name.clone(), stream(r, node, plan))));
                }
                continue;
            }
            // They are a part of the streams that call them.
            "functions" => continue,
            _ => {
                prints.keys.insert(key.name.clone(), print(r, node, ""));
                continue;
            }
        };
        let Tree::Mapping(entries) = &node.kind else { continue };
        for (name, node) in entries {
            parts.insert(name.name.clone(), print(r, node, ""));
        }
    }
    prints
}

fn stream(r: &mut Reader, node: &Node, plan: &StreamPlan) -> StreamPrint {
    let whole = planned(r, node, plan);
    let mut parts = BTreeMap::new();
    let Tree::Mapping(entries) = &node.kind else { return StreamPrint { whole, parts } };
    for (key, node) in entries {
        if key.name == key::STEPS.name {
            for (node, step) in items(node).iter().zip(&plan.steps) {
                parts.insert(format!("the step `{}`", step.name), planned(r, node, step));
            }
        } else if key.name == key::TO.name {
            let (mut topics, mut deliveries) = (plan.topics.iter(), plan.deliveries.iter());
            for node in items(node) {
                let (name, print) = match has(node, sinks::TOPIC.name) {
                    true => {
                        let Some(topic) = topics.next() else { continue };
                        (format!("the topic `{}`", topic.name), planned(r, node, topic))
                    }
                    false => {
                        let Some(delivery) = deliveries.next() else { continue };
                        (format!("the sink `{}`", delivery.name), planned(r, node, delivery))
                    }
                };
                parts.insert(name, print);
            }
        } else {
            parts.insert(format!("`{}`", key.name), print(r, node, ""));
        }
    }
    if plan.keeps_events {
        parts.insert("the topic of its own".to_owned(), 0);
    }
    StreamPrint { whole, parts }
}

fn items(node: &Node) -> &[Arc<Node>] {
    match &node.kind {
        Tree::Sequence(items) => items,
        _ => &[],
    }
}

fn has(node: &Node, name: &str) -> bool {
    matches!(&node.kind, Tree::Mapping(entries) if entries.iter().any(|(key, _)| key.name == name))
}

/// The print of what is written, and of what was made of it: what files say is in the plan, and so are the functions that it calls.
fn planned(r: &mut Reader, node: &Node, plan: &impl Debug) -> u64 {
    let mut also = format!("{plan:?}");
    let called: Vec<_> = r.functions.iter().filter(|function| also.contains(function.name())).collect();
    also = format!("{also} {called:?}");
    print(r, node, &also)
}

fn print(r: &mut Reader, node: &Node, also: &str) -> u64 {
    let said = r.json(node, At { path: "", key: None, example: "" }).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    (said.to_string(), also).hash(&mut hasher);
    hasher.finish()
}
