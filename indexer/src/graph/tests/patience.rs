//! What a pipeline that runs makes of refusals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value as Json, json};
use tributary_event::ErrorClass;

use super::server::{Reply, Server, ids_of, is_probe, movies};
use super::*;
use crate::graph::{Fetched, Graph, GraphError, HttpGraph, PatientGraph};

fn patient(server: &Server) -> PatientGraph<HttpGraph> {
    PatientGraph::new(HttpGraph::new(&plan(&server.url)).unwrap())
}

fn refused(code: &str, message: &str) -> Reply {
    Reply::Json(json!({ "data": null, "errors": [{ "message": message, "extensions": { "code": code } }] }))
}

/// A graph that refuses everything, also a probe, or that answers a probe and refuses queries: nothing becomes a dead letter.
#[tokio::test]
async fn a_graph_that_refuses_everything_is_away() {
    let page = |status| move || Reply::Status(status, vec![("location", "/login")], b"<html>sorry</html>".to_vec());
    let replies: [(Box<dyn Fn() -> Reply + Send + Sync>, &str); 9] = [
        (Box::new(page(404)), "check that graph.endpoint is the GraphQL endpoint"),
        (Box::new(page(405)), "check that graph.endpoint is the GraphQL endpoint"),
        (Box::new(page(400)), "check that graph.endpoint is the GraphQL endpoint"),
        (Box::new(page(403)), "check graph.headers"),
        (Box::new(page(401)), "check graph.headers"),
        (Box::new(page(302)), "/login"),
        (Box::new(|| refused("UNAUTHENTICATED", "who are you?")), "check graph.headers"),
        (Box::new(|| refused("FORBIDDEN", "not you")), "check graph.headers"),
        (Box::new(|| refused("GRAPHQL_VALIDATION_FAILED", "Cannot query field \"title\".")), "run `tributary check`"),
    ];
    for (reply, remedy) in replies {
        let reply = Arc::new(reply);
        for probe_is_answered in [false, true] {
            let reply = reply.clone();
            let server = Server::start(move |request| match is_probe(request) && probe_is_answered {
                true => Reply::Json(json!({ "data": { "__typename": "Query" } })),
                false => reply(),
            })
            .await;
            let graph = patient(&server);
            let away = |error: GraphError| {
                assert_eq!(error.class, ErrorClass::Transient, "{error}");
                assert!(error.message.contains(remedy), "{error}");
            };
            away(graph.fetch(&super::movies(true), &ids(0..4)).await.unwrap_err());
            away(graph.fetch(&super::movies(false), &ids(0..4)).await.unwrap_err());
            away(graph.parents(&fan_out(Access::Entities, &["movies"]), &ids(0..4)).await.unwrap_err());
            away(graph.root_ids("q", "movies", None, 10).await.unwrap_err());
        }
    }
}

#[tokio::test]
async fn a_probe_is_content_with_whatever_is_graphql() {
    for (reply, up) in [
        (refused("PERSISTED_QUERY_NOT_FOUND", "no such query"), true),
        (refused("GRAPHQL_VALIDATION_FAILED", "this query is not on the list"), true),
        (Reply::Status(404, Vec::new(), Vec::new()), false),
        (Reply::Status(403, Vec::new(), Vec::new()), false),
        (Reply::Status(302, Vec::new(), Vec::new()), false),
    ] {
        let reply = std::sync::Mutex::new(Some(reply));
        let server = Server::start(move |_| reply.lock().unwrap().take().unwrap()).await;
        assert_eq!(patient(&server).probe().await.is_ok(), up);
    }
}

/// The graph refuses movie 2, if it serves anything at all.
async fn picky(serves: Arc<AtomicBool>) -> Server {
    Server::start(move |request| {
        let ids = ids_of(request);
        let refuses = |id: &String| id == "2" || !serves.load(Ordering::Acquire);
        let refused: Vec<(usize, &String)> = ids.iter().enumerate().filter(|(_, id)| refuses(id)).collect();
        let nulls: Vec<(&str, Json)> = refused.iter().map(|(_, id)| (id.as_str(), Json::Null)).collect();
        let error = |at: usize| json!({ "message": "not for you", "path": ["movies", at], "extensions": { "code": "FORBIDDEN" } });
        let errors: Vec<Json> = refused.iter().map(|(at, _)| error(*at)).collect();
        Reply::Json(json!({ "data": movies(&ids, &nulls), "errors": errors }))
    })
    .await
}

#[tokio::test]
async fn a_document_that_is_refused_while_others_are_served_fails_alone() {
    let serves = Arc::new(AtomicBool::new(true));
    let server = picky(serves.clone()).await;
    let graph = patient(&server);
    let index = super::movies(true);
    let fails_alone = |fetched: &Fetched| match fetched {
        Fetched::Failed(error) => {
            assert!(error.class == ErrorClass::Transient && error.message.contains("not for you"))
        }
        other => panic!("{other:?}"),
    };
    // Nothing was served yet, so it may be all of them.
    assert!(graph.fetch(&index, &ids(2..3)).await.is_err());
    let fetched = graph.fetch(&index, &ids(0..4)).await.unwrap();
    assert_eq!(fetched.iter().filter(|f| matches!(f, Fetched::Found(_))).count(), 3);
    fails_alone(&fetched[2]);
    // By itself: the one that was served before is asked for as well.
    fails_alone(&graph.fetch(&index, &ids(2..3)).await.unwrap()[0]);
    serves.store(false, Ordering::Release);
    for asked in [ids(2..3), ids(0..4)] {
        let error = graph.fetch(&index, &asked).await.unwrap_err();
        assert!(error.class == ErrorClass::Transient && error.message.contains("check graph.headers"), "{error}");
    }
    serves.store(true, Ordering::Release);
    assert!(graph.fetch(&index, &ids(0..2)).await.unwrap().iter().all(|f| matches!(f, Fetched::Found(_))));
}
