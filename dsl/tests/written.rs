//! Streams that are written in Rust: the same plan as YAML gives, the same mistakes, each with its line of Rust. And functions, which both call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tributary_dsl::plan::Plan;
use tributary_dsl::written::{
    Call, Conductor, Enrich, Files, Index, Lookup, Sql, Stream, Topic, Webhook, Written, vrl,
};
use tributary_dsl::{Diagnostic, GraphFormat, Inputs, Schema, check, parse, render_graph, render_plan};
use tributary_expression::function::{Argument, Change, Json, Outcome, read};
use tributary_expression::{Function, FunctionSet, Signature};

const HEAD: &str = r#"
pipeline: sales
sources:
  crm: { postgres: { url: "postgres://app@localhost/crm", tables: [deals.deal] } }
services:
  catalog: { graphql: "http://localhost:4000/graphql" }
  pricing: { rest: "http://localhost:4001" }
tables:
  rates: { topic: finance.rates }
"#;

#[derive(Default)]
struct Given {
    files: BTreeMap<&'static str, &'static str>,
    functions: FunctionSet,
    streams: Vec<Stream>,
}

impl Inputs for Given {
    fn file(&self, path: &str) -> Result<String, String> {
        self.files.get(path).map(|text| (*text).to_owned()).ok_or_else(|| "no such file".to_owned())
    }

    fn variable(&self, name: &str) -> Option<String> {
        ["HOOK_SECRET", "WAREHOUSE_URL"].contains(&name).then(|| "postgres://hunter2@warehouse/sales".to_owned())
    }

    fn functions(&self) -> FunctionSet {
        self.functions.clone()
    }

    fn streams(&self) -> &[Stream] {
        &self.streams
    }
}

fn given(streams: Vec<Stream>) -> Given {
    let mut functions = FunctionSet::default();
    functions.add(score()).expect("a name");
    functions.add(headline("headline")).expect("a name");
    let query = "query ($ids: [ID!]!) { movies(ids: $ids) { id title } }";
    Given { files: [("movies.graphql", query)].into(), functions, streams }
}

fn score() -> Function {
    let signature = Signature::new("score").parameter("price", f64::takes());
    let signature = signature.parameter("country", <Option<&str>>::takes()).answers(f64::answers(), true);
    signature.each(|arguments| read::<f64>("price", arguments, 0)?.made())
}

#[derive(Deserialize)]
struct Deal {
    id: i64,
}

#[derive(Serialize)]
struct Headline {
    id: i64,
}

fn headline(name: &str) -> Function {
    let signature = Signature::new(name).parameter("event", <Change<Deal>>::takes());
    let signature = signature.answers(<Json<Headline>>::answers(), true);
    signature.each(|arguments| read::<Change<Deal>>("event", arguments, 0).and_then(make_headline)?.made())
}

fn make_headline(change: Change<Deal>) -> Result<Json<Headline>, String> {
    change.after.map(|deal| Json(Headline { id: deal.id })).ok_or_else(|| "no deal".to_owned())
}

fn read_pipeline(text: &str, given: &Given) -> (Option<Plan>, Vec<Diagnostic>) {
    let (definition, found) = parse("pipeline.yaml", text, given);
    let schema = Schema::from_sdl("type Query { nothing: ID }", "none").expect("a schema");
    let plan = definition.and_then(|definition| check(&definition, &schema).ok()).map(|(plan, _)| plan);
    (plan.filter(|_| !found.iter().any(Diagnostic::is_error)), found)
}

fn plan(text: &str, given: &Given) -> Plan {
    let (plan, found) = read_pipeline(text, given);
    plan.unwrap_or_else(|| panic!("{}", told(&found)))
}

fn told(found: &[Diagnostic]) -> String {
    found.iter().map(|d| format!("{d}\n")).collect()
}

const SIGNED: &str = r#"
streams:
  signed-deals:
    from: deals.deal
    ops: [u]
    start: first
    on_error: dead_letter
    steps:
      - changed: [status]
      - filter: .after.status == "signed"
        name: only-signed
      - enrich: { service: catalog, query: movies.graphql, key: .after.movie_id, into: .movie, cache: { ttl: 30s } }
      - enrich: { service: pricing, request: POST /prices, body: '{ "ids": .keys }', each: .prices, key: .after.id, into: .price }
      - lookup: { table: rates, key: .after.currency, into: .rate, missing: drop }
      - call: { function: score, with: [.price.usd, .movie.country], into: .score }
      - split: { each: .movie.tags, into: .tag }
      - filter: score!(.score) > 1
      - transform: |
          .headline = string!(.movie.title)
          .twice = .score * 2
      - call: { function: map_10 }
      - filter: filter_11!(.)
    to:
      - topic: { name: deals.signed, key: .id }
      - webhook: { url: "https://hooks.example/deals", secret: "${HOOK_SECRET}", private: on }
        when: .id == 1
      - sql: { url: "${WAREHOUSE_URL}", table: public.signed_deal, key: id }
      - files: { folder: lake, format: parquet }
      - index: { name: signed-deals, key: id, fields: { id: long, headline: text } }
      - conductor: { url: "https://conductor.example", workflow: greet, flavor: orkes }
  louder:
    from: { stream: signed-deals }
    steps: [{ transform: .loud = true }]
    to: [{ topic: { name: deals.loud } }]
"#;

fn signed() -> Stream {
    Stream::named("signed-deals")
        .from("deals.deal")
        .ops(["u"])
        .start("first")
        .on_error("dead_letter")
        .changed(["status"])
        .filter(vrl(".after.status == \"signed\""))
        .and("name", "only-signed")
        .enrich(Enrich::graphql("catalog", "movies.graphql").key(".after.movie_id").into(".movie").cache("30s"))
        .enrich(
            Enrich::rest("pricing", "POST /prices")
                .with("body", "{ \"ids\": .keys }")
                .with("each", ".prices")
                .key(".after.id")
                .into(".price"),
        )
        .lookup(Lookup::table("rates").key(".after.currency").into(".rate").with("missing", "drop"))
        .call(Call::named("score").with(".price.usd").with(".movie.country").into(".score"))
        .split(".movie.tags", ".tag")
        .filter("score!(.score) > 1")
        .transform(".headline = string!(.movie.title)\n.twice = .score * 2\n")
        .map(make_headline)
        .filter_by(|event: Json<BTreeMap<String, i64>>| event.0.contains_key("id"))
        .to(Topic::named("deals.signed").key(".id"))
        .to(Webhook::new("https://hooks.example/deals").secret("${HOOK_SECRET}").with("private", true).when(".id == 1"))
        .to(Sql::new("${WAREHOUSE_URL}", "public.signed_deal", "id"))
        .to(Files::folder("lake").with("format", "parquet"))
        .to(Index::named("signed-deals", "id").field("id", "long").field("headline", "text"))
        .to(Conductor::new("https://conductor.example", "greet", "orkes"))
}

fn louder() -> Stream {
    let stream = Stream::named("louder").from_stream("signed-deals");
    stream.transform(".loud = true").to(Topic::named("deals.loud"))
}

/// What the closures of the stream are called, for a text that has none.
fn with_closures() -> Given {
    let mut given = given(Vec::new());
    given.functions.add(headline("map_10")).expect("a name");
    let signature = Signature::new("filter_11").parameter("event", <Json<Headlines>>::takes());
    let filter = signature.answers(bool::answers(), true).each(|_| true.made());
    given.functions.add(filter).expect("a name");
    given
}

type Headlines = BTreeMap<String, i64>;

#[test]
fn rust_and_yaml_give_the_same_plan() {
    let of_yaml = plan(&format!("{HEAD}{SIGNED}"), &with_closures());
    let of_rust = plan(HEAD, &given(vec![signed(), louder()]));
    assert_eq!(render_plan(&of_rust), render_plan(&of_yaml));
    assert_eq!(render_graph(&of_rust, GraphFormat::Mermaid), render_graph(&of_yaml, GraphFormat::Mermaid));
    assert_eq!(format!("{:#?}", of_rust.streams), format!("{:#?}", of_yaml.streams));
    let rendered = render_plan(&of_rust);
    assert!(
        rendered.contains("call-6 (sets aside") || rendered.contains(".score is score(.price.usd, .movie.country)")
    );
    assert!(render_graph(&of_rust, GraphFormat::Mermaid).contains("function score"));
}

#[test]
fn streams_of_both_kinds_stand_beside_each_other() {
    let text =
        format!("{HEAD}\nstreams:\n  audit: {{ from: deals.deal, to: [{{ topic: {{ name: deals.audit }} }}] }}\n");
    let plan = plan(&text, &given(vec![signed(), louder()]));
    let names: Vec<&str> = plan.streams.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names, ["audit", "signed-deals", "louder"]);
    let twice =
        format!("{HEAD}\nstreams:\n  louder: {{ from: deals.deal, to: [{{ topic: {{ name: deals.audit }} }}] }}\n");
    let (_, found) = read_pipeline(&twice, &given(vec![signed(), louder()]));
    let said = told(&found);
    assert!(said.contains("there are two streams `louder`"), "{said}");
    assert!(
        said.contains("dsl/tests/written.rs:") && said.contains("the other one is in pipeline.yaml, line 12"),
        "{said}"
    );
}

#[test]
fn a_mistake_has_its_line_of_rust() {
    let wrong = Stream::named("wrong")
        .from("deals.dael")
        .ops(["u"])
        .filter(".after.status")
        .transform(
            r#"
            .a = 1
            .b = upcase(.after.id)
            "#,
        )
        .step("enrich", Written::keys().with("servise", "catalog"))
        .call(Call::named("skore").with(".after.price"))
        .to(Webhook::new("hooks.example").secret("hunter2"));
    let (_, found) = read_pipeline(HEAD, &given(vec![wrong]));
    let said = told(&found);
    assert!(!said.contains("hunter2"), "{said}");
    let source = include_str!("written.rs");
    let line_of = |text: &str| 1 + source.lines().position(|line| line.contains(text)).expect("it is there");
    for (line, message) in [
        (line_of(".from(\"deals.dael\")"), "`deals.dael`"),
        (line_of(".filter(\".after.status\")"), "a filter says whether an event flows on"),
        // Lines of a program count from the call that it is handed to.
        (line_of(".b = upcase(.after.id)") - 1, "unhandled fallible assignment"),
        (line_of("\"servise\""), "unknown key `servise`"),
        (line_of("Call::named(\"skore\")"), "there is no function `skore`"),
        (line_of("\"hooks.example\""), "a webhook's URL begins with"),
        (line_of("\"hooks.example\""), "this secret stands in the file"),
    ] {
        let found = found.iter().find(|d| d.message.contains(message)).unwrap_or_else(|| panic!("{message}: {said}"));
        let shown = found.to_string();
        assert!(shown.contains(&format!("dsl/tests/written.rs:{line}:")), "{message} at line {line}: {shown}");
    }
    assert!(said.contains("did you mean `score`?"), "{said}");
}

#[test]
fn calls_are_held_to_signatures() {
    let said = |step: &str| {
        let stream = format!(
            "streams:\n  s:\n    from: deals.deal\n    ops: [u]\n    steps:\n{step}\n    to: [{{ topic: {{ name: out }} }}]\n"
        );
        let (plan, found) = read_pipeline(&format!("{HEAD}{stream}"), &given(Vec::new()));
        match plan {
            Some(plan) => render_plan(&plan),
            None => told(&found),
        }
    };
    let call = |call: &str| said(&format!("      - call: {call}"));
    let fine = call("{ function: score, with: .after.price, into: .score }");
    assert!(fine.contains("call-1: .score is score(.after.price) (stands still where it fails)"), "{fine}");
    assert!(fine.contains("score(price: integer or float, country: string or null) -> float, or a failure"), "{fine}");
    for (wrong, why) in [
        ("{ function: score, with: [], into: .score }", "`streams.s.steps.call.with` is empty"),
        ("{ function: score, with: [1, .after.country, 3], into: .score }", "`score` is given 3 of its 2 arguments"),
        (
            "{ function: score, with: '\"x\"', into: .score }",
            "`price` of `score` takes integer or float, and this is string",
        ),
        ("{ function: score, with: .after.price }", "`score` answers float, which cannot take the event's place"),
        ("{ function: score, into: .score }", "`price` of `score` takes integer or float, and this is"),
        ("{ function: skore, with: .after.price, into: .score }", "did you mean `score`?"),
        ("{ function: score, with: 'del(.after)', into: .score }", "an argument changes nothing of the event"),
        ("{ function: score, with: [.after.price, '.after.']}", "error"),
    ] {
        let said = call(wrong);
        assert!(said.contains(why), "{wrong}: {said}");
    }
    // What is answered is known to what follows.
    let typed = said(
        "      - call: { function: score, with: .after.price, into: .score }\n      - transform: .loud = upcase(.score)",
    );
    assert!(
        typed.contains("invalid argument type") && typed.contains("this expression resolves to the exact type float"),
        "{typed}"
    );
    let row = said("      - call: { function: headline }\n      - transform: .loud = .id + 1 ?? 0");
    assert!(row.contains("call-1: the event becomes headline(.)"), "{row}");
    // Of a list, the wrong one is pointed at.
    let listed = call("{ function: score, with: [.after.price, .after.price > 1], into: .score }");
    assert!(listed.contains("^^^^^^^^^^^^^^^"), "{listed}");
    let none = read_pipeline(
        &format!(
            "{HEAD}streams:\n  s: {{ from: deals.deal, steps: [{{ call: {{ function: f }} }}], to: [{{ topic: {{ name: out }} }}] }}\n"
        ),
        &Given::default(),
    );
    assert!(told(&none.1).contains("into a program of your own"), "{}", told(&none.1));
}
