//! The page: a section for each mapping, with a table of its keys.

use std::fmt::Write;

use crate::keys::PIPELINE;
use crate::yaml::{Described, Documented, Inside, Keys, LeftOut, Rule, written};

const INTRODUCTION: &str = r#"# Keys of a pipeline

Every key that `tributary` reads, and no other: this page is made of the code.

An editor with a YAML language server completes and checks a pipeline that begins with the line

```yaml
# yaml-language-server: $schema=./pipeline.schema.json
```

`tributary schema > pipeline.schema.json` writes that file; this folder has it as
[pipeline.schema.json](pipeline.schema.json). `tributary check` finds more: what does not fit the tables, the queries and the
schema of the graph.

## The smallest pipeline

"#;

/// A pipeline with nothing that can be left out.
pub(super) const SMALLEST: &str = r#"pipeline: movie-search
sources:
  studio:
    postgres: { url: "postgres://app@localhost/studio", tables: [public.movie] }
graph:
  endpoint: http://localhost:4000/graphql
  vertices:
    public.movie: [{ type: Movie, id: "{id}" }]
indexes:
  movies: { query: movies.graphql }
"#;

const VALUES: &str = r#"
## Values

| type | written as |
|---|---|
| text, file, name, URL … | a single value, in quotes where YAML needs them: text with `{`, `: ` or ` #` in it does |
| whole number | digits |
| duration | a whole number with its unit: `ms`, `s`, `m`, `h` or `d`, as in `200ms` or `7d` |
| size | a whole number of bytes with its unit: `B`, `KiB`, `MiB`, `GiB`, `TiB`, `KB`, `MB` or `GB`, as in `16MiB` |
| list of … | `[a, b]`, or lines that begin with `- ` |
| keys | `{ key: value }`, or lines with `key: value` |

In every value `${NAME}` stands for an environment variable, `${NAME:-default}` for one with a default (which also holds where
the variable is empty), and `$$` for a dollar sign. Names of keys are taken as they are. Values that are never printed, passwords in
URLs among them, do not appear in messages, plans and logs.

YAML's anchors (`&name`) and aliases (`*name`) may be used; merge keys (`<<`) are not known.
"#;

/// Every key of a pipeline, as Markdown.
pub fn reference_page() -> String {
    let mut out = INTRODUCTION.to_owned();
    write_or_nothing(&mut out, format_args!("```yaml\n{SMALLEST}```\n{VALUES}"));
    out.push_str("\n## Keys\n\n");
    table(&mut out, "", &PIPELINE);
    sections(&mut out, "", &PIPELINE);
    out
}

/// Writing into text cannot fail.
fn write_or_nothing(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// A section for each of the keys that has keys inside of it.
fn sections(out: &mut String, path: &str, keys: &'static Keys) {
    for key in keys.keys {
        let path = if path.is_empty() { key.name().to_owned() } else { format!("{path}.{}", key.name()) };
        let Some((path, inner)) = inner(&path, key.kind()) else { continue };
        write_or_nothing(out, format_args!("\n## {}\n\n{}\n", heading(&path), key.meaning()));
        write_or_nothing(out, format_args!("\n```yaml\n{}\n```\n\n", example(*key)));
        rules(out, inner);
        table(out, &path, inner);
        sections(out, &path, inner);
    }
}

/// The keys inside of a value, and where they are.
fn inner(path: &str, kind: &dyn Documented) -> Option<(String, &'static Keys)> {
    match kind.inside() {
        Inside::Nothing => None,
        Inside::Keys(keys) => Some((path.to_owned(), keys)),
        Inside::Entries(names, value) => inner(&format!("{path}.{}", names.mark), value),
        Inside::Items(value) => inner(&format!("{path}[]"), value),
    }
}

fn heading(path: &str) -> String {
    format!("`{path}`")
}

/// As GitHub makes the anchor of a heading.
fn anchor(path: &str) -> String {
    path.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn example(key: &dyn Described) -> String {
    written(key.name(), key.example())
}

fn rules(out: &mut String, keys: &Keys) {
    for rule in keys.rules {
        match rule {
            Rule::One if keys.keys.len() == 1 => {}
            Rule::One => out.push_str("Exactly one of these keys.\n\n"),
            Rule::OneOf(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                write_or_nothing(out, format_args!("Exactly one of {}.\n\n", names.join(", ")));
            }
            Rule::Some => out.push_str("At least one of these keys.\n\n"),
            Rule::Needs(..) => {}
            Rule::Apart(key, other) => {
                write_or_nothing(out, format_args!("`{key}` and `{other}` exclude each other.\n\n"));
            }
        }
    }
    let needs: Vec<String> = keys
        .rules
        .iter()
        .filter_map(|rule| match rule {
            Rule::Needs(key, other) => Some(format!("`{key}` needs `{other}`")),
            _ => None,
        })
        .collect();
    if !needs.is_empty() {
        write_or_nothing(out, format_args!("{}.\n\n", needs.join(", ")));
    }
}

fn table(out: &mut String, path: &str, keys: &Keys) {
    if keys.keys.is_empty() {
        out.push_str("It has no keys.\n");
        return;
    }
    out.push_str("| key | type | left out | meaning | example |\n|---|---|---|---|---|\n");
    for key in keys.keys {
        let left_out = match key.left_out() {
            LeftOut::Refused => "**required**".to_owned(),
            LeftOut::Value(value) => format!("`{value}`"),
            LeftOut::Means(_) if keys.is_alternative(key.name()) => String::new(),
            LeftOut::Means(what) => what.to_owned(),
        };
        let whole = if path.is_empty() { key.name().to_owned() } else { format!("{path}.{}", key.name()) };
        let (kind, example) = match inner(&whole, key.kind()) {
            Some((path, _)) => (format!("[keys](#{})", anchor(&path)), String::new()),
            None => (key.kind().word(), format!("`{}`", example(*key))),
        };
        let cells = [format!("`{}`", key.name()), kind, left_out, key.meaning().to_owned(), example];
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        write_or_nothing(out, format_args!("| {} |\n", cells.join(" | ")));
    }
}
