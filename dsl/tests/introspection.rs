//! A schema as a server answers it says the same as one in a file.

use serde_json::{Value, json};
use tributary_dsl::{INTROSPECTION_QUERY, Inputs, Schema, check, parse, render_plan};

struct Query;

impl Inputs for Query {
    fn file(&self, _: &str) -> Result<String, String> {
        Ok("query Q($ids: [ID!]!) { cats(ids: $ids) { ... on Animal { id } lives mood born owner { name } } }"
            .to_owned())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

const PIPELINE: &str = r#"
pipeline: p
sources: { zoo: { postgres: { url: "postgres://h/d", tables: [public.cat, public.owner] } } }
graph:
  endpoint: http://localhost
  vertices:
    public.cat: [{ type: Cat, id: "{id}" }]
    public.owner: [{ type: Owner, id: "{id}" }]
indexes: { cats: { query: q.graphql } }
"#;

const SDL: &str = "
type Query { cats(ids: [ID!]!): [Cat]! owners(ids: [ID!]!, max: Int! = 5): [Owner]! }
interface Animal { id: ID! }
type Cat implements Animal { id: ID! lives: Int mood: Mood born: Date owner: Owner }
type Owner { id: ID! name: String! cats: [Cat!]! }
enum Mood { GOOD BAD }
scalar Date
";

fn named(kind: &str, name: &str) -> Value {
    json!({ "kind": kind, "name": name, "ofType": null })
}

fn wrapped(kind: &str, inner: Value) -> Value {
    json!({ "kind": kind, "name": null, "ofType": inner })
}

fn field(name: &str, ty: Value, args: Value) -> Value {
    json!({ "name": name, "args": args, "type": ty })
}

fn object(name: &str, fields: Value, interfaces: Value) -> Value {
    json!({ "kind": "OBJECT", "name": name, "fields": fields, "inputFields": null, "interfaces": interfaces,
            "possibleTypes": null, "enumValues": null })
}

fn answer() -> Value {
    let id = || wrapped("NON_NULL", named("SCALAR", "ID"));
    let list = |inner| wrapped("NON_NULL", wrapped("LIST", inner));
    let ids = || json!({ "name": "ids", "type": list(id()), "defaultValue": null });
    let max = json!({ "name": "max", "type": wrapped("NON_NULL", named("SCALAR", "Int")), "defaultValue": "5" });
    let scalar = |name| json!({ "kind": "SCALAR", "name": name, "fields": null });
    let string = wrapped("NON_NULL", named("SCALAR", "String"));
    json!({ "data": { "__schema": {
        "queryType": { "name": "Query" },
        "directives": [{ "name": "include", "locations": ["FIELD"], "args": [] }],
        "types": [
            object("Query", json!([
                field("cats", list(named("OBJECT", "Cat")), json!([ids()])),
                field("owners", list(named("OBJECT", "Owner")), json!([ids(), max])),
            ]), json!([])),
            object("Cat", json!([
                field("id", id(), json!([])),
                field("lives", named("SCALAR", "Int"), json!([])),
                field("mood", named("ENUM", "Mood"), json!([])),
                field("born", named("SCALAR", "Date"), json!([])),
                field("owner", named("OBJECT", "Owner"), json!([])),
            ]), json!([{ "name": "Animal" }])),
            object("Owner", json!([
                field("id", id(), json!([])),
                field("name", string, json!([])),
                field("cats", list(wrapped("NON_NULL", named("OBJECT", "Cat"))), json!([])),
            ]), json!([])),
            json!({ "kind": "INTERFACE", "name": "Animal", "fields": [field("id", id(), json!([]))],
                    "possibleTypes": [{ "name": "Cat" }] }),
            json!({ "kind": "ENUM", "name": "Mood", "enumValues": [{ "name": "GOOD" }, { "name": "BAD" }] }),
            scalar("ID"), scalar("Int"), scalar("String"), scalar("Date"),
        ],
    } } })
}

fn rendered(schema: &Schema) -> String {
    let (definition, found) = parse("pipeline.yaml", PIPELINE, &Query);
    assert!(found.is_empty(), "{found:?}");
    match check(&definition.expect("a definition"), schema) {
        Ok((plan, _)) => render_plan(&plan),
        Err(found) => panic!("{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

#[test]
fn introspection_and_file_agree() {
    let server = Schema::from_introspection(&answer()).expect("a schema");
    let inner = Schema::from_introspection(&answer()["data"]).expect("a schema without `data` around it");
    let file = Schema::from_sdl(SDL, "schema.graphql").expect("a schema");
    assert_eq!(rendered(&server), rendered(&file));
    assert_eq!(rendered(&inner), rendered(&file));
}

#[test]
fn other_answers_are_refused() {
    for (answer, part) in [
        (json!({ "errors": [] }), "no `__schema`"),
        (json!({ "data": null }), "no `__schema`"),
        (json!({ "__schema": { "types": [] } }), "queryType"),
        (json!({ "__schema": { "queryType": { "name": "Query" }, "types": [] } }), "`Query`"),
    ] {
        let error = Schema::from_introspection(&answer).expect_err("no schema").to_string();
        assert!(error.contains(part), "{error}");
    }
    async_graphql_parser::parse_query(INTROSPECTION_QUERY).expect("the query is GraphQL");
}
