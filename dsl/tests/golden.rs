//! Golden cases: `tests/cases/<name>/` holds a pipeline, its queries and a schema; `expected.txt` what comes of them, diagnostics
//! first, then the plan. `UPDATE_GOLDEN=1` writes what came as what is expected; read the difference before you commit it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tributary_dsl::{Diagnostic, GraphFormat, Inputs, Schema, check, parse, render_graph, render_plan};
use tributary_event::{ColumnType, JsonType, TableName};

struct Case(PathBuf);

impl Inputs for Case {
    fn file(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(self.0.join(path)).map_err(|_| "no such file".to_owned())
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "DATABASE_URL" => Some("postgres://app:hunter2@db.example/studio".to_owned()),
            "TOKEN" => Some("hunter2".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    /// Of `columns.txt`: a line for each, such as `public.movie title text null left-out`.
    fn columns(&self, table: &TableName) -> Option<Vec<ColumnType>> {
        let text = self.file("columns.txt").ok()?;
        let column = |line: &str| {
            let mut words = line.split_whitespace();
            let of = words.next().filter(|of| *of == table.to_string())?;
            let (name, json) = (words.next().expect(of), words.next().expect(of));
            let json = match json {
                "integer" => JsonType::Integer,
                "number" => JsonType::Number,
                "text" => JsonType::Text,
                other => panic!("what is {other}?"),
            };
            let also: Vec<&str> = words.collect();
            let (is_nullable, may_be_left_out) = (also.contains(&"null"), also.contains(&"left-out"));
            let is_key = also.contains(&"key");
            Some(ColumnType { name: name.into(), json, is_nullable, may_be_left_out, is_key })
        };
        Some(text.lines().filter_map(column).collect())
    }

    /// Of `<service>.graphql`.
    fn schema(&self, service: &str) -> Option<Arc<Schema>> {
        let file = format!("{service}.graphql");
        Some(Arc::new(Schema::from_sdl(&self.file(&file).ok()?, &file).expect("a schema")))
    }
}

fn outcome(case: &Case) -> (String, Vec<(&'static str, String)>) {
    let text = case.file("pipeline.yaml").expect("a pipeline");
    let (definition, found) = parse("pipeline.yaml", &text, case);
    let mut out = String::new();
    let mut say = |found: &[Diagnostic]| found.iter().for_each(|d| writeln!(out, "{d}\n").expect("a line"));
    say(&found);
    let mut pictures = Vec::new();
    if let Some(definition) = definition {
        let file = definition.schema_file().unwrap_or("schema.graphql");
        // Streams alone need none.
        let nothing = definition.indexes().next().is_none().then(|| "type Query { nothing: ID }".to_owned());
        let Some(schema) = case.file(file).ok().or(nothing) else {
            assert!(found.iter().any(Diagnostic::is_error), "there is no schema, and nothing is said of that");
            return (out, pictures);
        };
        match Schema::from_sdl(&schema, file) {
            Err(found) => say(&found),
            Ok(schema) => match check(&definition, &schema) {
                Err(found) => say(&found),
                Ok((plan, warnings)) => {
                    say(&warnings);
                    assert!(!found.iter().chain(&warnings).any(Diagnostic::is_error));
                    out.push_str(&render_plan(&plan));
                    let fan_outs = plan.graph.fan_outs.values().map(|f| &f.question);
                    for question in fan_outs.chain(plan.indexes.iter().map(|i| &i.fetch)) {
                        let query = question.text();
                        async_graphql_parser::parse_query(&query).unwrap_or_else(|e| panic!("{query}\n{e}"));
                    }
                    pictures.push(("expected.mmd", render_graph(&plan, GraphFormat::Mermaid)));
                    pictures.push(("expected.dot", render_graph(&plan, GraphFormat::Dot)));
                }
            },
        }
    }
    (out, pictures)
}

fn compare(file: &Path, actual: &str) -> Option<String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, actual).expect("the expectation is written");
        return None;
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    (expected != actual).then(|| format!("{}\n--- expected\n{expected}\n--- actual\n{actual}", file.display()))
}

#[test]
fn pipelines_give_what_is_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> =
        folder.read_dir().expect("the cases").map(|entry| entry.expect("a case").path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for path in cases {
        let case = Case(path.clone());
        let (text, pictures) = outcome(&case);
        assert!(!text.contains("hunter2"), "{}: a secret is printed:\n{text}", path.display());
        wrong.extend(compare(&path.join("expected.txt"), &text));
        for (name, picture) in pictures {
            if path.join(name).exists() {
                wrong.extend(compare(&path.join(name), &picture));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
