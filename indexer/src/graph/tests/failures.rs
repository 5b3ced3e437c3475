//! Failures of a whole call, and the connection itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tributary_dsl::plan::Secret;
use tributary_event::ErrorClass;

use super::server::{Reply, Server, gzip, ids_of, movies};
use super::*;
use crate::graph::{Fetched, Graph, GraphError, HttpGraph};

async fn failure(reply: impl Fn() -> Reply + Send + Sync + 'static) -> GraphError {
    let server = Server::start(move |_| reply()).await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let error = graph.fetch(&super::movies(true), &ids(0..3)).await.unwrap_err();
    assert_eq!(server.requests().len(), 1, "{error}");
    assert!(error.message.contains(&server.url), "{error}");
    error
}

fn status(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Reply {
    Reply::Status(status, headers.to_vec(), body.into())
}

#[tokio::test]
async fn statuses_are_classified() {
    for (code, class, words) in [
        (401, ErrorClass::Fatal, "<html>sorry</html>"),
        (401, ErrorClass::Fatal, "check graph.headers"),
        (403, ErrorClass::Fatal, "check graph.headers"),
        (404, ErrorClass::Fatal, "check that graph.endpoint"),
        (400, ErrorClass::Fatal, "check that graph.endpoint"),
        (429, ErrorClass::Transient, "Retry-After: 7"),
        (500, ErrorClass::Transient, "500"),
        (502, ErrorClass::Transient, "502"),
        (503, ErrorClass::Transient, "503"),
    ] {
        let error = failure(move || status(code, &[("retry-after", "7")], "<html>sorry</html>")).await;
        assert_eq!(error.class, class, "{error}");
        assert!(error.message.contains(words), "{error}");
    }
    let error = failure(|| status(302, &[("location", "http://elsewhere/graphql")], "")).await;
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("http://elsewhere/graphql"), "{error}");
    let body = r#"{"errors":[{"message":"token expired"}]}"#;
    let error = failure(move || status(401, &[], body)).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("token expired"), "{error}");
    let error = failure(move || status(500, &[], body)).await;
    assert!(error.class == ErrorClass::Transient && error.message.contains("token expired"), "{error}");
}

#[tokio::test]
async fn a_query_that_no_longer_fits_the_schema_is_fatal() {
    for (http, code, message) in [
        (200, None, "Unknown field \"titel\" on type \"Movie\". Did you mean \"title\"?"),
        (400, Some("GRAPHQL_VALIDATION_FAILED"), "Cannot query field \"complexity\" on type \"Movie\"."),
        (400, Some("GRAPHQL_VALIDATION_FAILED"), "something else"),
        (400, Some("GRAPHQL_PARSE_FAILED"), "Syntax Error: Expected Name"),
        (200, Some("undefinedField"), "Field 'x' doesn't exist on type 'Movie'"),
        (500, None, "Unknown argument \"ids\" on field \"movies\""),
    ] {
        let body = json!({ "errors": [{ "message": message, "extensions": { "code": code } }] }).to_string();
        let error = failure(move || status(http, &[], &body)).await;
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        assert!(error.message.contains("the server rejects the query"), "{error}");
        assert!(error.message.contains("tributary check"), "{error}");
    }
}

#[tokio::test]
async fn refused_credentials_are_fatal_and_throttling_passes() {
    let reply = |code: &'static str| {
        move || Reply::Json(json!({ "errors": [{ "message": "no", "extensions": { "code": code } }] }))
    };
    assert_eq!(failure(reply("UNAUTHENTICATED")).await.class, ErrorClass::Fatal);
    assert_eq!(failure(reply("FORBIDDEN")).await.class, ErrorClass::Fatal);
    assert_eq!(failure(reply("RATE_LIMITED")).await.class, ErrorClass::Transient);
}

#[tokio::test]
async fn what_is_no_graphql_answer_may_pass() {
    for body in ["{\"data\": {\"mov", "<html>maintenance</html>", "", "[]", "{}", "{\"data\":{}}", "{\"data\":null}"] {
        let error = failure(move || status(200, &[], body)).await;
        assert_eq!(error.class, ErrorClass::Transient, "{body}: {error}");
    }
    let error = failure(|| status(200, &[], "<html>maintenance</html>")).await;
    assert!(error.message.contains("maintenance"), "{error}");
    let error = failure(|| status(200, &[], "{\"data\":{\"movies\":7}}")).await;
    assert_eq!(error.class, ErrorClass::Fatal);
}

#[tokio::test]
async fn bad_ids_behind_a_server_error_are_found() {
    let server = Server::start(|request| match ids_of(request) {
        ids if ids.contains(&"2".to_owned()) => {
            status(500, &[], r#"{"data":null,"errors":[{"message":"boom","path":["movies",0]}]}"#)
        }
        ids => Reply::Json(json!({ "data": movies(&ids, &[]) })),
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let fetched = graph.fetch(&super::movies(true), &ids(0..4)).await.unwrap();
    let failed: Vec<bool> = fetched.iter().map(|f| matches!(f, Fetched::Failed(_))).collect();
    assert_eq!(failed, [false, false, true, false]);
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:hidden@{}/graphql?token=hidden", listener.local_addr().unwrap());
    drop(listener);
    let graph = HttpGraph::new(&plan(&url)).unwrap();
    let error = graph.fetch(&super::movies(true), &ids(0..3)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("cannot connect"), "{error}");
    assert!(!error.message.contains("hidden"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_within_an_answer_may_pass() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/graphql", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(3).any(|w| w == b"\"2\"") {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"data\":").await.unwrap();
    });
    let graph = HttpGraph::new(&plan(&url)).unwrap();
    let error = graph.fetch(&super::movies(true), &ids(0..3)).await.unwrap_err();
    server.await.unwrap();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("the connection broke within an answer"), "{error}");
}

#[tokio::test]
async fn compressed_answers_are_read_and_headers_are_sent() {
    let server = Server::start(|request| {
        let body = json!({ "data": movies(&ids_of(request), &[]) }).to_string();
        Reply::Status(200, vec![("content-encoding", "gzip")], gzip(body.as_bytes()))
    })
    .await;
    let mut plan = plan(&server.url);
    plan.headers.insert("x-api-key".into(), Secret::new("hidden"));
    let graph = HttpGraph::new(&plan).unwrap();
    let fetched = graph.fetch(&super::movies(true), &ids(0..3)).await.unwrap();
    assert!(fetched.iter().all(|f| matches!(f, Fetched::Found(_))));
    assert_eq!(server.header("x-api-key").as_deref(), Some("hidden"));
    assert!(server.header("accept-encoding").unwrap().contains("gzip"));
    assert!(server.header("accept").unwrap().contains("application/graphql-response+json"));
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    // Every answer waits until as many requests are there as may be.
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, peak) = (now.clone(), most.clone());
    let router = axum::Router::new().route(
        "/graphql",
        axum::routing::post(move |body: axum::Json<Json>| {
            let (now, most) = (counted.clone(), peak.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                while most.load(Ordering::Acquire) < 3 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::AcqRel);
                axum::Json(json!({ "data": super::server::aliased(&ids_of(&body), super::server::movie) }))
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/graphql", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let graph = HttpGraph::new(&GraphPlan { concurrency: 3, ..plan(&url) }).unwrap();
    let (index, asked) = (super::movies(false), ids(0..40));
    let all = futures::future::join_all(asked.chunks(1).map(|id| graph.fetch(&index, id))).await;
    server.abort();
    assert_eq!(all.into_iter().map(|fetched| fetched.unwrap().len()).sum::<usize>(), 40);
    assert_eq!(most.load(Ordering::Acquire), 3);
}

#[tokio::test]
async fn a_call_that_was_given_up_asks_for_less_next_time() {
    let arrived = Arc::new(Mutex::new(Some(tokio::sync::oneshot::channel::<()>())));
    let (sender, receiver) = arrived.lock().unwrap().take().unwrap();
    let sender = Mutex::new(Some(sender));
    let server = Server::start(move |request| match ids_of(request) {
        ids if ids.len() > 4 => {
            sender.lock().unwrap().take().map(|s| s.send(()));
            Reply::Silence
        }
        ids => Reply::Json(json!({ "data": movies(&ids, &[]) })),
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let index = super::movies(true);
    let asked = ids(0..8);
    tokio::select! {
        _ = graph.fetch(&index, &asked) => panic!("the server is silent"),
        arrived = receiver => arrived.unwrap(),
    }
    assert_eq!(graph.fetch(&index, &asked).await.unwrap().len(), 8);
    assert_eq!(server.sizes(), [8, 4, 4]);
}

#[test]
fn unusable_settings_are_fatal_and_show_no_secret() {
    let refuse = |plan: GraphPlan| {
        let error = HttpGraph::new(&plan).err().unwrap();
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(!error.message.contains("hidden"), "{error}");
        error.message
    };
    assert!(refuse(plan("localhost")).contains("graph.endpoint"));
    assert!(refuse(plan("ftp://user:hidden@host/graphql")).contains("ftp://host/graphql"));
    let mut bad = plan("http://localhost/graphql");
    bad.headers.insert("x-key".into(), Secret::new("hidden\n"));
    assert!(refuse(bad).contains("x-key"));
    let mut bad = plan("http://localhost/graphql");
    bad.headers.insert("x key".into(), Secret::new("hidden"));
    assert!(refuse(bad).contains("x key"));
}
