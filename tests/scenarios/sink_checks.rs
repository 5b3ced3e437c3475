//! `check` asks what sinks lead to whether that can take what it will be given, before anything runs.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value as Json, json};

use crate::world::{Own, Pair, World};

const STREAMS: &str = r#"
streams:
  told:
    from: public.movie
    to:
      - conductor: { url: "SERVER/api", workflow: greenlight, version: 2, flavor: oss, input: '{ "movie": .after.id }', private: on }
      - sql: { url: "${STUDIO_URL}", table: public.copied, key: id, create: off }
"#;

/// The definition that a server of Conductor has, if it has one.
type Registered = Arc<Mutex<Option<Json>>>;

async fn definition(
    State(registered): State<Registered>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> (StatusCode, axum::Json<Json>) {
    let registered = registered.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match registered
        .filter(|known| known["name"] == name && query == [("version".to_owned(), known["version"].to_string())])
    {
        Some(known) => (StatusCode::OK, axum::Json(known)),
        None => (StatusCode::NOT_FOUND, axum::Json(json!({ "message": format!("No such workflow: {name}") }))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sinks_lead_to_is_asked_before_anything_runs() {
    let registered = Registered::default();
    let app = Router::new().route("/api/metadata/workflow/{name}", get(definition)).with_state(registered.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
    let world = World::new("sink_checks", Pair::Embedded, Own::default()).await;
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let streams = STREAMS.replace("SERVER", &server);
    std::fs::write(world.pipeline(), format!("{text}{streams}")).expect("the pipeline");
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();

    // All at once, with their places.
    let (code, said, error) = world.run(&["check", &pipeline]).await;
    assert_eq!(code, 3, "{said}{error}");
    for words in [
        "stream told, sink conductor: ",
        "the workflow \"greenlight\" of version 2 is not registered there",
        "stream told, sink sql: ",
        "the table public.copied does not exist; set `create: on`, or run: create table",
        "pipeline.yaml:",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }

    let known = json!({ "name": "greenlight", "version": 2, "inputParameters": ["movie", "budget"], "tasks": [] });
    *registered.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    let own = "_seq bigint, _deleted boolean not null default false";
    world.execute(&format!("CREATE TABLE copied (id bigint, title text, {own})")).await;
    let (code, said, error) = world.run(&["check", &pipeline]).await;
    assert_eq!(code, 3, "{said}{error}");
    assert!(error.contains("has no unique index of its key alone (\"id\"); run: alter table"), "{error}");
    assert!(error.contains("input parameters that the sink's `input` will never have (budget)"), "{error}");

    world.execute("ALTER TABLE copied ADD UNIQUE (id)").await;
    let (code, said, error) = world.run(&["check", &pipeline]).await;
    assert_eq!(code, 0, "{said}{error}");
    let lacks =
        error.split_once("the table public.copied lacks columns that its rows can have (").map(|(_, lacks)| lacks);
    let lacks = lacks.and_then(|lacks| lacks.split_once(')')).map(|(lacks, _)| lacks).unwrap_or_default();
    let lacks: Vec<&str> = lacks.split(", ").collect();
    assert!(lacks.contains(&"imdb_votes") && !lacks.contains(&"title"), "{error}");
    world.edit_pipeline("create: off", "create: off, row: '{ \"id\": .after.id, \"title\": .after.title }'");
    let (code, said, error) = world.run(&["check", &pipeline]).await;
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.contains("1 stream") && error.contains("(budget)"), "{said}{error}");

    // A server that is away may be back when it is needed.
    serving.abort();
    let _ = serving.await;
    let (code, said, error) = world.run(&["check", &pipeline]).await;
    assert_eq!(code, 0, "{said}{error}");
    assert!(error.contains("sink conductor: it could not be looked at"), "{error}");
    assert!(said.contains("rows and graph agree on ids"), "{said}{error}");
    // Nothing was made.
    assert!(!world.folder.path().join("data/log").exists(), "a log was made");
}
