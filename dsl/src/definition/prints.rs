//! What a pipeline says, part by part, as hashes: what tells whether another text of it says the same, and where it does not.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tributary_event::PlanHash;

use super::Definition;
use crate::keys::streams::{self as key, sinks};
use crate::plan::{ServicePlan, StepPlan, StreamPlan};
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPrint {
    /// All of it.
    pub whole: u64,
    /// Its plan, without what is marked as secret.
    pub plan: PlanHash,
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

impl Definition {
    /// The hash of a stream's plan, with the services that it asks and the tables that it looks into: of whatever decides what becomes
    /// of an event. What is marked as secret is not in it, nor are queries of services' URLs. It may be another one of the same
    /// text in another version of this program. None: the pipeline has errors.
    pub fn plan_hash(&self, stream: &StreamPlan) -> Option<PlanHash> {
        let print = self.prints.streams.get(&stream.name)?;
        let asked = stream.steps.iter().filter_map(|step| match &step.plan {
            StepPlan::Enrich(enrich) => {
                let service = self.services.iter().find(|service| service.name == enrich.service).cloned();
                let service = service.map(|service| ServicePlan { url: open(&service.url).to_owned(), ..service });
                Some(format!("{service:?}"))
            }
            StepPlan::Lookup(lookup) => {
                let table = self.tables.iter().find(|table| table.name == lookup.table);
                Some(format!("{table:?}"))
            }
            _ => None,
        });
        Some(PlanHash::of(&format!("{} {}", print.plan, asked.collect::<Vec<_>>().join(" "))))
    }
}

/// A URL without its query. That it has neither a user nor a password is looked at where it is read.
fn open(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
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
    let (whole, hash) = (planned(r, node, plan), PlanHash::of(&shown(r, plan)));
    let mut parts = BTreeMap::new();
    let Tree::Mapping(entries) = &node.kind else { return StreamPrint { whole, plan: hash, parts } };
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
    StreamPrint { whole, plan: hash, parts }
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

/// The print of what is written, and of what was made of it.
fn planned(r: &mut Reader, node: &Node, plan: &impl Debug) -> u64 {
    let also = shown(r, plan);
    print(r, node, &also)
}

/// What was made of a text: what files say is in the plan, and so are the functions that it calls.
fn shown(r: &Reader, plan: &impl Debug) -> String {
    let plan = format!("{plan:?}");
    let called: Vec<_> = r.functions.iter().filter(|function| plan.contains(function.name())).collect();
    format!("{plan} {called:?}")
}

fn print(r: &mut Reader, node: &Node, also: &str) -> u64 {
    let said = r.json(node, At { path: "", key: None, example: "" }).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    (said.to_string(), also).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inputs, parse};

    struct Nothing;

    impl Inputs for Nothing {
        fn file(&self, _: &str) -> Result<String, String> {
            Err("there is none".to_owned())
        }

        fn variable(&self, name: &str) -> Option<String> {
            Some(name.to_lowercase())
        }
    }

    const TEXT: &str = r#"
pipeline: films
sources:
  main: { postgres: { url: "postgres://app@localhost/films", tables: [public.film] } }
services:
  prices: { rest: "https://prices.example" }
streams:
  priced:
    from: public.film
    ops: [c, u]
    steps:
      - { filter: .after.year != null, name: dated }
      - enrich: { service: prices, request: "GET /prices/{key}", key: .after.id, into: .price }
    to:
      - topic: { name: priced-movies }
      - webhook: { url: "https://hooks.example", secret: "${SECRET}" }
"#;

    fn read(text: &str) -> Definition {
        let (definition, found) = parse("pipeline.yaml", text, &Nothing);
        assert!(!found.iter().any(crate::Diagnostic::is_error), "{found:?}");
        definition.expect("a definition")
    }

    fn hash(definition: &Definition) -> Option<PlanHash> {
        definition.plan_hash(&definition.streams()[0])
    }

    #[test]
    fn what_is_otherwise_is_told_by_its_name() {
        let before = read(TEXT);
        for (from, to, expected, is_another_plan) in [
            ("streams:\n", "\n# Said otherwise.\nstreams:\n", vec![], false),
            ("ops: [c, u]", "ops: [c]", vec!["`ops` says something else"], true),
            ("    ops: [c, u]\n", "", vec!["`ops` is gone"], true),
            ("year != null", "year == null", vec!["the step `dated` says something else"], true),
            (", name: dated", "", vec!["the step `filter-1` is new", "the step `dated` is gone"], true),
            (
                "priced-movies",
                "dear-movies",
                vec!["the topic `dear-movies` is new", "the topic `priced-movies` is gone"],
                true,
            ),
            ("${SECRET}", "${OTHER}", vec!["the sink `webhook` says something else"], false),
            ("https://prices.", "https://price.", vec![], true),
            ("https://prices.example", "https://prices.example/?key=${KEY}", vec![], false),
            ("/prices/{key}", "/prices/{key}?key=${KEY}", vec!["the step `enrich-2` says something else"], true),
        ] {
            assert!(TEXT.contains(from), "{from}");
            let now = read(&TEXT.replace(from, to));
            let differences = before.prints().streams["priced"].differences(&now.prints().streams["priced"]);
            assert_eq!(differences, expected, "{from} → {to}");
            assert_eq!(hash(&now) != hash(&before), is_another_plan, "{from} → {to}");
        }
    }
}
