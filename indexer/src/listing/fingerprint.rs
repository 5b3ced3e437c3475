//! What the documents of an index are made by: its query, its shape, the ways by which changes reach it, and where it is kept. A
//! document that was built, or a change that was resolved, under another one may be wrong under this one.
//!
//! Settings that change only when and how fast documents are built are not in it, nor where a rule is written, nor secrets. Nor is
//! the graph's address: processes may reach the same graph by different ones.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

use serde::{Deserialize, Serialize};
use tributary_dsl::plan::{IndexPlan, Plan, RootIds, SourcePlan, StorePlan};
use tributary_event::TableName;
use xxhash_rust::xxh3::xxh3_64;

/// Raise it when documents are made in another way of the same plan.
const EDITION: u32 = 1;

/// A hash of each part of what an index depends on, by the part's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// That of an index of a plan.
    pub fn of(plan: &Plan, index: &IndexPlan) -> Self {
        let parts = [
            ("its query", query(index)),
            ("the shape of its documents", debug(&(EDITION, &index.root_type, &index.selection))),
            ("where its ids are listed", roots(&index.root_ids)),
            ("how changes reach its documents", ways(plan, index)),
            ("the rules for the tables that it shows", rules(plan, index)),
            ("its store", store(&index.store)),
        ];
        Self(parts.map(|(name, text)| (name.to_owned(), format!("{:016x}", xxh3_64(text.as_bytes())))).into())
    }

    /// One text for the whole.
    pub fn digest(&self) -> String {
        format!("{:016x}", xxh3_64(debug(&self.0).as_bytes()))
    }

    /// What is different, for people.
    pub fn difference(&self, before: &Self) -> String {
        let changed = self.0.iter().filter(|(name, hash)| before.0.get(*name) != Some(hash));
        let names: Vec<&str> = changed.map(|(name, _)| name.as_str()).collect();
        match names.as_slice() {
            [] => "its plan is another".to_owned(),
            [one] => format!("{one} changed"),
            [first @ .., last] => format!("{} and {last} changed", first.join(", ")),
        }
    }
}

/// The tables of a source whose rows are vertices that an index shows.
pub fn shown_tables<'p>(
    plan: &'p Plan,
    source: &'p SourcePlan,
    index: &'p IndexPlan,
) -> impl Iterator<Item = &'p TableName> {
    let types = index.vertex_types();
    source.tables().iter().filter(move |table| {
        let rules = plan.graph.vertices.get(*table);
        rules.is_some_and(|rules| rules.iter().any(|rule| types.contains(rule.type_name.as_str())))
    })
}

fn query(index: &IndexPlan) -> String {
    let fetch = &index.fetch;
    let sent = (&fetch.operation, &fetch.way, &fetch.key, fetch.sent_as, &fetch.constants);
    format!("{}\n{}", fetch.text(), debug(&sent))
}

fn roots(roots: &RootIds) -> String {
    match roots {
        RootIds::Table { source, table } => format!("{source} {table}"),
        RootIds::Paging(paging) => paging.query.clone(),
    }
}

fn ways(plan: &Plan, index: &IndexPlan) -> String {
    let mut text = debug(&index.edges);
    for type_name in index.vertex_types() {
        if let Some(fan_out) = plan.graph.fan_outs.get(type_name) {
            let _ = write!(text, "\n{type_name} {} {:?}", fan_out.question.text(), fan_out.inverses);
        }
    }
    text
}

fn rules(plan: &Plan, index: &IndexPlan) -> String {
    let mut text = String::new();
    for source in &plan.sources {
        let mut tables: Vec<&TableName> = shown_tables(plan, source, index).collect();
        tables.sort();
        for table in tables {
            let _ = write!(text, "\n{} {table} {:?}", source.name, source.settings.decimals());
            for rule in plan.graph.vertices.get(table).into_iter().flatten() {
                let _ = write!(text, " {} {}", rule.type_name, rule.id);
            }
        }
    }
    text
}

fn store(store: &StorePlan) -> String {
    match store {
        StorePlan::Embedded => "embedded".to_owned(),
        StorePlan::Elasticsearch(server) => format!("elasticsearch {}", server.url),
        StorePlan::OpenSearch(server) => format!("opensearch {}", server.url),
    }
}

fn debug(value: &impl Debug) -> String {
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use tributary_dsl::{Inputs, Schema, check, parse};

    use super::*;

    const PIPELINE: &str = r#"
pipeline: p
sources: { studio: { postgres: { url: "postgres://app@db/studio", tables: [public.film, public.person] } } }
graph:
  endpoint: http://localhost:4000/graphql
  vertices:
    public.film: [{ type: Film, id: "{id}" }]
    public.person: [{ type: Person, id: "{id}" }]
  edges: { Film.director: { stored_in: parent } }
indexes:
  films: { query: films.graphql, refresh: 100ms }
"#;
    const QUERY: &str = "query Films($ids: [ID!]!) { films(ids: $ids) { id title director { id name } } }";
    const SCHEMA: &str = "type Query { films(ids: [ID!]!): [Film]! people(ids: [ID!]!): [Person]! }
        type Film { id: ID! title: String subtitle: String director: Person }
        type Person { id: ID! name: String films: [Film!]! }";

    struct Files(String);

    impl Inputs for Files {
        fn file(&self, _: &str) -> Result<String, String> {
            Ok(self.0.clone())
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn of(pipeline: &str, query: &str) -> Fingerprint {
        let (definition, found) = parse("pipeline.yaml", pipeline, &Files(query.to_owned()));
        let definition = definition.unwrap_or_else(|| panic!("{found:?}"));
        let schema = Schema::from_sdl(SCHEMA, "schema.graphql").expect("a schema");
        let (plan, _) = check(&definition, &schema).unwrap_or_else(|wrong| panic!("{found:?} {wrong:?}"));
        Fingerprint::of(&plan, &plan.indexes[0])
    }

    #[test]
    fn what_changes_no_document_changes_nothing() {
        let first = of(PIPELINE, QUERY);
        let lines = format!("# A line, so that every place is another.\n{PIPELINE}");
        let settings = PIPELINE
            .replace("refresh: 100ms", "refresh: 2s, build: { deadline: 3s, batch: 7 }, retry: { attempts: 9 }");
        let elsewhere = PIPELINE.replace("localhost:4000", "graph:80").replace("app@db", "other:secret@db2");
        for same in [lines, settings, elsewhere] {
            assert_eq!(of(&same, QUERY), first, "{same}");
        }
        assert_eq!(of(PIPELINE, QUERY).digest(), first.digest());
    }

    #[test]
    fn what_changes_documents_is_named() {
        let first = of(PIPELINE, QUERY);
        let told = |pipeline: &str, query: &str| of(pipeline, query).difference(&first);
        assert_eq!(
            told(PIPELINE, &QUERY.replace("title", "title: subtitle")),
            "its query and the shape of its documents changed"
        );
        assert_eq!(told(PIPELINE, &QUERY.replace("name }", "name @ignore }")), "the shape of its documents changed");
        let rule = PIPELINE.replace("Person, id: \"{id}\"", "Person, id: \"p{id}\"");
        assert_eq!(told(&rule, QUERY), "the rules for the tables that it shows changed");
        let hint = PIPELINE.replace("stored_in: parent", "inverse: films");
        assert_eq!(told(&hint, QUERY), "how changes reach its documents changed");
        let store = PIPELINE.replace("refresh: 100ms", "store: { opensearch: { url: \"http://search:9200\" } }");
        assert_eq!(told(&store, QUERY), "its store changed");
    }
}
