//! The reference is true: what it says is current, every example is accepted, every key is read, every default is the one that
//! holds, and editors accept what the reader accepts. `UPDATE_DOCS=1 cargo test --workspace --lib reference` writes the files anew.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tributary_expression::{Function, FunctionSet, Signature, Type};

use super::page::SMALLEST;
use super::{json_schema, reference_page};
use crate::keys::PIPELINE;
use crate::yaml::{self, Described, Inside, Keys, LeftOut, Node, Rule, Tree};
use crate::{ComponentLimits, Definition, Diagnostic, Inputs, Unusable, parse};

mod odd;

use odd::ODD;

/// A folder with files; every variable has the same value.
struct Files(PathBuf);

impl Inputs for Files {
    fn file(&self, path: &str) -> Result<String, String> {
        match std::fs::read_to_string(self.0.join(path)) {
            Ok(text) => Ok(text),
            Err(_) if path.ends_with(".graphql") => Ok("query Q($ids: [ID!]!) { movies(ids: $ids) { id } }".to_owned()),
            Err(_) => Ok("secret\n".to_owned()),
        }
    }

    /// The one of the examples.
    fn functions(&self) -> FunctionSet {
        let signature = Signature::new("score").parameter("price", Type::any()).parameter("country", Type::any());
        let mut functions = FunctionSet::default();
        functions.add(signature.each(|_| Err("it is not called".to_owned()))).expect("a name");
        functions
    }

    fn component(&self, _: &str, _: ComponentLimits, signature: Signature) -> Result<Function, Unusable> {
        Ok(signature.each(|_| Err("it is not called".to_owned())))
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "STUDIO_URL" | "DATABASE_URL" => Some("postgres://app@localhost/studio".to_owned()),
            "GRAPH_URL" | "OPENSEARCH_URL" | "ELASTICSEARCH_URL" => Some("http://localhost:4000".to_owned()),
            "DB_USER" | "DB_PASSWORD" | "DATA" => None,
            "EMPTY" => Some(String::new()),
            _ => Some("some".to_owned()),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(text: &str) -> (Option<Definition>, Vec<Diagnostic>) {
    let (definition, found) = parse("pipeline.yaml", text, &Files(PathBuf::from("/nowhere")));
    (definition, found.into_iter().filter(Diagnostic::is_error).collect())
}

/// A value without quotes.
fn plain(text: &str) -> Json {
    match text {
        "null" => Json::Null,
        "true" => json!(true),
        "false" => json!(false),
        text => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
    }
}

/// YAML as an editor sees it (YAML 1.2's core schema).
fn json_of(node: &Node) -> Json {
    match &node.kind {
        Tree::Null => Json::Null,
        Tree::Scalar(text) => plain(text),
        Tree::Sequence(items) => items.iter().map(|item| json_of(item)).collect(),
        Tree::Mapping(entries) => {
            Json::Object(entries.iter().map(|(key, node)| (key.name.clone(), json_of(node))).collect())
        }
    }
}

fn yaml(text: &str) -> Json {
    let (_, root, found) = yaml::parse("example", text);
    assert!(found.is_empty(), "{text}: {found:?}");
    root.map_or(Json::Null, |root| json_of(&root))
}

fn validator() -> jsonschema::Validator {
    let schema: Json = serde_json::from_str(&json_schema()).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema")
}

/// A key, with a pipeline that has it.
struct Place {
    key: &'static dyn Described,
    /// The mapping that the key is in.
    keys: &'static Keys,
    path: Vec<String>,
}

/// Every key, and every mapping with keys of ours.
fn places() -> Vec<Place> {
    let mut found = Vec::new();
    gather(&PIPELINE, &mut Vec::new(), &mut found);
    found
}

fn gather(keys: &'static Keys, path: &mut Vec<String>, found: &mut Vec<Place>) {
    for key in keys.keys {
        path.push(key.name().to_owned());
        found.push(Place { key: *key, keys, path: path.clone() });
        let depth = path.len();
        let mut inside = key.kind().inside();
        loop {
            inside = match inside {
                Inside::Nothing => break,
                Inside::Keys(keys) => {
                    gather(keys, path, found);
                    break;
                }
                Inside::Entries(names, value) => {
                    path.push(names.example.to_owned());
                    value.inside()
                }
                Inside::Items(value) => {
                    path.push("0".to_owned());
                    value.inside()
                }
            };
        }
        path.truncate(depth - 1);
    }
}

/// Examples of the keys that a mapping must have.
fn least(inside: Inside) -> Json {
    let Inside::Keys(keys) = inside else { return json!({}) };
    let required = keys.keys.iter().filter(|key| key.left_out() == LeftOut::Refused);
    required.map(|key| (key.name().to_owned(), yaml(key.example()))).collect()
}

/// What a pipeline has at a path, made of examples where there is nothing.
fn at<'a>(pipeline: &'a mut Json, path: &[String]) -> &'a mut Json {
    let mut value = pipeline;
    let mut kind: Inside = Inside::Keys(&PIPELINE);
    for name in path {
        let (fresh, inside) = match kind {
            Inside::Keys(keys) => {
                let key = keys.find(name).expect("a key");
                if keys.is_alternative(name) && value.get(name).is_none() {
                    *value = json!({});
                }
                (yaml(key.example()), key.kind().inside())
            }
            Inside::Entries(_, kind) => (least(kind.inside()), kind.inside()),
            Inside::Items(kind) => (least(kind.inside()), kind.inside()),
            Inside::Nothing => panic!("{path:?}"),
        };
        value = match value {
            Json::Array(items) => &mut items[0],
            value => value.as_object_mut().expect("keys").entry(name.clone()).or_insert(fresh),
        };
        kind = inside;
    }
    value
}

/// A pipeline whose key has this value, with what the key needs beside it.
fn with(place: &Place, new: Json) -> Json {
    let mut pipeline = yaml(SMALLEST);
    let parent = &place.path[..place.path.len() - 1];
    let map = at(&mut pipeline, parent);
    let Json::Object(map) = map else { panic!("{parent:?} is {map}") };
    if place.keys.is_alternative(place.key.name()) {
        map.clear();
    } else if let Some([first, ..]) = place.keys.alternatives().as_deref()
        && !place.keys.names().any(|name| place.keys.is_alternative(name) && map.contains_key(name))
    {
        map.insert((*first).to_owned(), yaml(place.keys.find(first).expect("a key").example()));
    }
    for rule in place.keys.rules {
        match rule {
            Rule::Needs(key, other) if *key == place.key.name() => {
                if place.keys.is_alternative(other) {
                    map.retain(|name, _| !place.keys.is_alternative(name));
                }
                map.insert((*other).to_owned(), yaml(place.keys.find(other).expect("a key").example()));
            }
            Rule::Apart(one, other) => {
                for (key, other) in [(one, other), (other, one)] {
                    if *key == place.key.name() {
                        map.remove(*other);
                    }
                }
            }
            _ => {}
        }
    }
    map.insert(place.key.name().to_owned(), new);
    // What a step asks is described elsewhere.
    if place.path.iter().any(|name| name == "enrich") {
        let kind = if map.contains_key("request") { "rest" } else { "graphql" };
        pipeline["services"] = json!({ "catalog": { kind: "http://localhost:4000" } });
    }
    if place.path.iter().any(|name| name == "lookup") {
        pipeline["tables"] = json!({ "rates": { "from": "public.movie" } });
    }
    // Schemas are databases there, and the examples have another one.
    if place.path.iter().any(|name| name == "mysql" || name == "mariadb") {
        pipeline = yaml(&pipeline.to_string().replace("public.", "studio."));
    }
    pipeline
}

fn errors(found: &[Diagnostic]) -> String {
    found.iter().map(|d| format!("{d}\n")).collect()
}

#[test]
fn the_reference_is_current() {
    for (name, text) in [("pipeline.md", reference_page()), ("pipeline.schema.json", json_schema())] {
        let path = root().join("docs").join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, text).expect("written");
        } else {
            let written = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(written == text, "run this test with UPDATE_DOCS=1: {} is not what the code says", path.display());
        }
    }
}

#[test]
fn every_example_is_accepted() {
    let validator = validator();
    for place in places() {
        let pipeline = with(&place, yaml(place.key.example()));
        let (_, found) = read(&format!("{pipeline:#}"));
        assert!(found.is_empty(), "{:?}: {pipeline:#}\n{}", place.path, errors(&found));
        let refused: Vec<String> =
            validator.iter_errors(&pipeline).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(refused.is_empty(), "{:?}: {pipeline:#}\n{refused:#?}", place.path);
    }
}

#[test]
fn every_key_is_read() {
    let validator = validator();
    for place in places() {
        // A list in a list is no value of any key, nor is a single value where there are keys.
        for wrong in [json!([["wrong"]]), json!("wr|ong \u{1}")] {
            let pipeline = with(&place, wrong.clone());
            let free = matches!(place.key.kind().inside(), Inside::Nothing) && wrong.is_string();
            let (_, found) = read(&format!("{pipeline:#}"));
            assert!(free || !found.is_empty(), "{:?} is not read: {pipeline:#}", place.path);
            assert!(free || !validator.is_valid(&pipeline), "editors accept {:?}: {pipeline:#}", place.path);
        }
    }
}

#[test]
fn editors_accept_whatever_the_reader_accepts() {
    let (validator, places) = (validator(), places());
    // It is by far the longest test of these: each core has its share.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shares: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let (validator, places) = (&validator, &places);
        let share = |first| move || accepted_and_refused(validator, places.iter().skip(first).step_by(cores));
        let shares: Vec<_> = (0..cores).map(|first| scope.spawn(share(first))).collect();
        shares.into_iter().map(|share| share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let (accepted, refused) = shares.iter().fold((0, 0), |all, share| (all.0 + share.0, all.1 + share.1));
    assert!(accepted > 500 && refused > 500, "{accepted} {refused}");
}

/// How many odd values the reader accepts, and how many editors refuse.
fn accepted_and_refused<'a>(
    validator: &jsonschema::Validator,
    places: impl Iterator<Item = &'a Place>,
) -> (usize, usize) {
    let (mut accepted, mut refused) = (0, 0);
    for place in places {
        for value in ODD {
            // As a quoted text, and as an editor takes the plain one.
            let other = Some(plain(value)).filter(|other| !other.is_string());
            for value in other.into_iter().chain([json!(value)]) {
                let pipeline = with(place, value);
                let fine = read(&format!("{pipeline:#}")).1.is_empty();
                let wrong: Vec<String> = validator.iter_errors(&pipeline).map(|e| e.to_string()).collect();
                assert!(!fine || wrong.is_empty(), "{:?}: {pipeline:#}\n{wrong:#?}", place.path);
                accepted += usize::from(fine);
                refused += usize::from(!wrong.is_empty());
            }
        }
    }
    (accepted, refused)
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    let validator = validator();
    for place in places() {
        let mut pipeline = with(&place, yaml(place.key.example()));
        let map = at(&mut pipeline, &place.path[..place.path.len() - 1]);
        map.as_object_mut().expect("keys").insert("wxyz".into(), json!("some"));
        let (_, found) = read(&format!("{pipeline:#}"));
        assert!(
            found.iter().any(|d| d.message.starts_with("unknown key `wxyz`")),
            "{:?}: {pipeline:#}\n{}",
            place.path,
            errors(&found)
        );
        assert!(!validator.is_valid(&pipeline), "editors accept an unknown key beside {:?}", place.path);
    }
}

#[test]
fn required_keys_are_required() {
    let validator = validator();
    for place in places().iter().filter(|place| place.key.left_out() == LeftOut::Refused) {
        let mut pipeline = with(place, yaml(place.key.example()));
        let map = at(&mut pipeline, &place.path[..place.path.len() - 1]);
        map.as_object_mut().expect("keys").remove(place.key.name());
        let (_, found) = read(&format!("{pipeline:#}"));
        assert_eq!(found.len(), 1, "{:?}: one cause, one error\n{}", place.path, errors(&found));
        let message = format!("`{}` is missing", place.key.name());
        assert!(found[0].message.starts_with(&message), "{}", found[0]);
        assert!(found[0].help.is_some(), "{}", found[0]);
        assert!(!validator.is_valid(&pipeline), "editors do not ask for {:?}", place.path);
    }
}

/// What of a definition is a matter of settings: without the places.
fn settings(definition: &Definition) -> String {
    let indexes: Vec<String> = definition
        .indexes
        .iter()
        .map(|i| format!("{:?} {:?} {:?} {:?} {:?} {:?}", i.name, i.refresh, i.build, i.retry, i.brake, i.store))
        .collect();
    let hidden: Vec<u8> = definition.graph.types.values().map(|ty| ty.hidden).filter(|hidden| *hidden > 0).collect();
    format!(
        "{:?}\n{:?}\n{:?} {:?} {:?} {:?} {hidden:?}\n{indexes:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?} {:?}",
        definition.sources,
        definition.transport,
        definition.graph.timeout,
        definition.graph.concurrency,
        definition.graph.probe,
        definition.graph.lag,
        definition.services,
        definition.tables,
        definition.components,
        definition.streams,
        definition.http,
        definition.traces,
        definition.data
    )
}

#[test]
fn documented_defaults_are_those_that_hold() {
    let settings_of = |pipeline: &Json| {
        let (definition, found) = read(&format!("{pipeline:#}"));
        assert!(found.is_empty(), "{pipeline:#}\n{}", errors(&found));
        settings(&definition.expect("a definition"))
    };
    let (mut compared, mut whole) = (0, 0);
    for place in places() {
        let LeftOut::Value(value) = place.key.left_out() else { continue };
        let Some((name, parent)) = place.path.split_last() else { continue };
        let written = with(&place, json!(value));
        let mut without = written.clone();
        at(&mut without, parent).as_object_mut().expect("keys").remove(name);
        assert_eq!(settings_of(&written), settings_of(&without), "{:?}", place.path);
        // The example is another value, so that the comparison can fail.
        let example = with(&place, yaml(place.key.example()));
        assert_ne!(settings_of(&example), settings_of(&written), "{:?}: the example is the default", place.path);
        compared += 1;
        // The mapping around it may be left out as well.
        let Some((mapping, above)) = parent.split_last() else { continue };
        if ["build", "retry", "http", "retention"].contains(&mapping.as_str()) {
            let mut alone = written.clone();
            *at(&mut alone, parent) = json!({ name: value });
            let mut bare = written;
            at(&mut bare, above).as_object_mut().expect("keys").remove(mapping);
            assert_eq!(settings_of(&alone), settings_of(&bare), "{:?}", place.path);
            whole += 1;
        }
    }
    assert!(compared > 25 && whole > 8, "{compared} {whole}");
}

/// YAML in Markdown that is a pipeline, or a part of one.
fn fragments(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let whole =
        |text: &&str| PIPELINE.names().any(|name| text.lines().any(|line| line.starts_with(&format!("{name}:"))));
    blocks.filter(whole).map(str::to_owned).collect()
}

/// Puts a part of a pipeline over a whole one.
fn merge(pipeline: &mut Json, part: Json) {
    match (pipeline, part) {
        (Json::Object(pipeline), Json::Object(part)) => {
            for (key, value) in part {
                merge(pipeline.entry(key).or_insert(Json::Null), value);
            }
        }
        (pipeline, part) => *pipeline = part,
    }
}

#[test]
fn every_pipeline_of_the_repository_is_accepted_by_editors() {
    let validator = validator();
    let mut pipelines: Vec<(String, String)> = Vec::new();
    let mut add = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a pipeline");
        pipelines.push((path.display().to_string(), text));
    };
    for entry in root().join("compose/demo").read_dir().expect("the demo") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            add(path);
        }
    }
    for entry in root().join("dsl/tests/cases").read_dir().expect("the cases") {
        add(entry.expect("a case").path().join("pipeline.yaml"));
    }
    let (mut accepted, mut refused) = (0, 0);
    for (path, text) in &pipelines {
        let (_, found) = parse("pipeline.yaml", text, &Files(PathBuf::from("/nowhere")));
        let (_, tree, _) = yaml::parse("pipeline.yaml", text);
        let Some(tree) = tree else { continue };
        let json = json_of(&tree);
        let wrong: Vec<String> = validator.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path())).collect();
        if found.iter().any(Diagnostic::is_error) {
            refused += usize::from(!wrong.is_empty());
        } else {
            assert!(wrong.is_empty(), "{path}: {wrong:#?}");
            accepted += 1;
        }
    }
    assert!(accepted > 10 && refused > 3, "{accepted} {refused}");
    let mut parts = 0;
    for page in ["README.md", "connector/POSTGRESQL.md", "transport/KAFKA.md", "dsl/GRAPHS.md", "docs/pipeline.md"] {
        let text = std::fs::read_to_string(root().join(page)).expect("a page");
        for fragment in fragments(&text) {
            let mut pipeline = yaml(SMALLEST);
            merge(&mut pipeline, yaml(&fragment));
            let wrong: Vec<String> =
                validator.iter_errors(&pipeline).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(wrong.is_empty(), "{page}: {fragment}\n{wrong:#?}");
            parts += 1;
        }
    }
    assert!(parts > 3, "{parts}");
}
