//! No text makes the dsl panic.

use proptest::prelude::*;
use tributary_dsl::{Inputs, Schema, check, parse};

const PIPELINE: &str = include_str!("cases/movies/pipeline.yaml");
const QUERY: &str = include_str!("cases/movies/movies.graphql");
const SCHEMA: &str = include_str!("cases/movies/schema.graphql");

struct Files<'a> {
    query: &'a str,
}

impl Inputs for Files<'_> {
    fn file(&self, _: &str) -> Result<String, String> {
        Ok(self.query.to_owned())
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "DATABASE_URL").then(|| "postgres://u@h/d".to_owned())
    }
}

fn run(pipeline: &str, query: &str, schema: &str) {
    let (definition, found) = parse("pipeline.yaml", pipeline, &Files { query });
    found.iter().for_each(|d| drop(d.render(true)));
    let schema = match Schema::from_sdl(schema, "schema.graphql") {
        Ok(schema) => schema,
        Err(found) => return found.iter().for_each(|d| drop(d.to_string())),
    };
    if let Some(definition) = definition {
        match check(&definition, &schema) {
            Ok((_, found)) | Err(found) => found.iter().for_each(|d| drop(d.to_string())),
        }
    }
}

/// A text with some of its characters replaced, removed, or put in.
fn damaged(text: &'static str) -> impl Strategy<Value = String> {
    let cut = (any::<prop::sample::Index>(), 0..12_usize, "[ -~\n\t{}\\[\\]:\"'&*$@#é]{0,6}");
    proptest::collection::vec(cut, 1..6).prop_map(move |cuts| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, length, put) in cuts {
            let at = at.index(chars.len().max(1)).min(chars.len());
            let end = (at + length).min(chars.len());
            chars.splice(at..end, put.chars());
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_taken(pipeline in "\\PC*", query in "\\PC*", schema in "\\PC*") {
        run(&pipeline, QUERY, SCHEMA);
        run(PIPELINE, &query, SCHEMA);
        run(PIPELINE, QUERY, &schema);
    }

    #[test]
    fn any_structure_is_taken(text in "([a-c]|[ \n:{}\\[\\],&*!|>'\"%@#$-]|\\$\\{){0,60}") {
        run(&text, &text, SCHEMA);
        run(PIPELINE, QUERY, &text);
    }

    #[test]
    fn a_damaged_pipeline_is_taken(pipeline in damaged(PIPELINE)) {
        run(&pipeline, QUERY, SCHEMA);
    }

    #[test]
    fn a_damaged_query_is_taken(query in damaged(QUERY)) {
        run(PIPELINE, &query, SCHEMA);
    }

    #[test]
    fn a_damaged_schema_is_taken(schema in damaged(SCHEMA)) {
        run(PIPELINE, QUERY, &schema);
    }
}

#[test]
fn depth_and_circles_end() {
    let deep = format!("query Q($ids: [ID!]!) {{ movies(ids: $ids) {} }}", "{ a ".repeat(100_000));
    run(PIPELINE, &deep, SCHEMA);
    run(PIPELINE, QUERY, &format!("type Query {{ a: {} }}", "[".repeat(100_000)));
    run(&"[".repeat(100_000), QUERY, SCHEMA);
    run(&"a: ".repeat(10_000), QUERY, SCHEMA);
    let circle = "query Q($ids: [ID!]!) { movies(ids: $ids) { ...A } } \
                  fragment A on Movie { talents { ...B } x: talents { ...B } } fragment B on Talent { movies { ...A } y: movies { ...A } }";
    run(PIPELINE, circle, SCHEMA);
}
