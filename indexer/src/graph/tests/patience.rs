//! What a pipeline that runs makes of refusals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value as Json, json};
use tributary_event::ErrorClass;

use super::server::{Reply, Server, ids_of, is_probe, movies};
use super::*;
use crate::graph::{Fetched, Graph, GraphError, HttpGraph, PatientGraph, Refusals, Vertex};

type Replying = Box<dyn Fn() -> Reply + Send + Sync>;

fn patient(server: &Server) -> PatientGraph<HttpGraph> {
    PatientGraph::new(HttpGraph::new(&plan(&server.url)).unwrap(), Refusals::Wait)
}

fn refused(code: &str, message: &str) -> Reply {
    Reply::Json(json!({ "data": null, "errors": [{ "message": message, "extensions": { "code": code } }] }))
}

/// A graph that refuses everything, also a probe, or that answers a probe and refuses queries: nothing becomes a dead letter.
#[tokio::test]
async fn a_graph_that_refuses_everything_is_away() {
    let page = |status| move || Reply::Status(status, vec![("location", "/login")], b"<html>sorry</html>".to_vec());
    let replies: [(Replying, &str); 9] = [
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
            away(
                graph
                    .parents(
                        &fan_out(together("", "representations", "_entities", of_talents()), &["movies"]),
                        &ids(0..4),
                    )
                    .await
                    .unwrap_err(),
            );
            away(graph.root_ids(&paging(), None, 10).await.unwrap_err());
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

/// A graph that fails for movie 2, if it serves anything at all, and for everything if it does not.
async fn picky(code: &'static str, serves: Arc<AtomicBool>) -> Server {
    Server::start(move |request| {
        let ids = ids_of(request);
        let root = if request["variables"]["representations"].is_array() { "_entities" } else { "movies" };
        let fails = |id: &String| id == "2" || !serves.load(Ordering::Acquire);
        let failed: Vec<(usize, &String)> = ids.iter().enumerate().filter(|(_, id)| fails(id)).collect();
        let nulls: Vec<(&str, Json)> = failed.iter().map(|(_, id)| (id.as_str(), Json::Null)).collect();
        let error = |at: usize| json!({ "message": "not now", "path": [root, at], "extensions": { "code": code } });
        let errors: Vec<Json> = failed.iter().map(|(at, _)| error(*at)).collect();
        Reply::Json(json!({ "data": { root: movies(&ids, &nulls)["movies"] }, "errors": errors }))
    })
    .await
}

#[tokio::test]
async fn a_document_fails_alone_only_while_others_are_served() {
    for code in ["FORBIDDEN", "INTERNAL_SERVER_ERROR"] {
        let serves = Arc::new(AtomicBool::new(true));
        let server = picky(code, serves.clone()).await;
        let graph = patient(&server);
        let index = super::movies(true);
        let fails_alone = |fetched: &Fetched| match fetched {
            Fetched::Failed(error) => {
                assert!(error.class == ErrorClass::Transient && error.message.contains("not now"))
            }
            other => panic!("{other:?}"),
        };
        // Nobody was served yet, so it may be all of them.
        assert!(graph.fetch(&index, &ids(2..3)).await.is_err());
        let fetched = graph.fetch(&index, &ids(0..4)).await.unwrap();
        assert_eq!(fetched.iter().filter(|f| matches!(f, Fetched::Found(_))).count(), 3);
        fails_alone(&fetched[2]);
        // By itself: one that was served before is asked for as well.
        fails_alone(&graph.fetch(&index, &ids(2..3)).await.unwrap()[0]);
        serves.store(false, Ordering::Release);
        for asked in [ids(2..3), ids(0..4)] {
            let error = graph.fetch(&index, &asked).await.unwrap_err();
            assert!(error.class == ErrorClass::Transient && error.message.contains("not now"), "{error}");
        }
        serves.store(true, Ordering::Release);
        assert!(graph.fetch(&index, &ids(0..2)).await.unwrap().iter().all(|f| matches!(f, Fetched::Found(_))));
    }
}

/// A vertex that changes again and again must not hold others up, also if nobody else was ever served.
#[tokio::test]
async fn a_vertex_fails_alone_unless_others_fail_too() {
    for code in ["FORBIDDEN", "INTERNAL_SERVER_ERROR"] {
        let serves = Arc::new(AtomicBool::new(true));
        let server = picky(code, serves.clone()).await;
        let graph = patient(&server);
        let fan_out = fan_out(together("", "representations", "_entities", of_talents()), &["movies"]);
        assert!(graph.parents(&fan_out, &ids(2..3)).await.is_ok());
        assert_eq!(graph.parents(&fan_out, &ids(3..4)).await.unwrap(), [Ok(Vec::<Vertex>::new())]);
        assert!(graph.parents(&fan_out, &ids(2..3)).await.unwrap()[0].is_err());
        serves.store(false, Ordering::Release);
        assert!(graph.parents(&fan_out, &ids(2..3)).await.is_err());
        // Served last, and now it fails: it does not bear witness of itself.
        assert!(graph.parents(&fan_out, &ids(3..4)).await.is_ok());
    }
}

/// A graph that has the even ids only, and nothing at all while it is wrong.
async fn forgetful(wrong: Arc<AtomicBool>) -> Server {
    Server::start(move |request| {
        let ids = ids_of(request);
        let root = if request["variables"]["representations"].is_array() { "_entities" } else { "movies" };
        let parent = |id: &str| json!({ "__typename": "Talent", "id": id, "p0": [super::server::movie("1")] });
        let even = |id: &String| id.parse::<u32>().unwrap() % 2 == 0 && !wrong.load(Ordering::Acquire);
        let vertex = |id: &String| if root == "movies" { super::server::movie(id) } else { parent(id) };
        let answer = |id: &String| if even(id) { vertex(id) } else { Json::Null };
        Reply::Json(json!({ "data": { root: ids.iter().map(answer).collect::<Vec<_>>() } }))
    })
    .await
}

/// That a graph has nothing of what it served before is not believed; that it does not have what is asked for is.
#[tokio::test]
async fn a_graph_that_denies_everything_is_away() {
    let wrong = Arc::new(AtomicBool::new(false));
    let server = forgetful(wrong.clone()).await;
    let graph = patient(&server);
    let (index, fan_out) =
        (super::movies(true), fan_out(together("", "representations", "_entities", of_talents()), &["movies"]));
    assert_eq!(graph.fetch(&index, &ids(1..2)).await.unwrap(), [Fetched::Missing], "nobody bears witness yet");
    graph.remember(&index, &ids(2..3));
    assert_eq!(graph.fetch(&index, &ids(1..2)).await.unwrap(), [Fetched::Missing], "2 is there");
    assert!(graph.fetch(&index, &ids(0..20)).await.is_ok());
    assert!(graph.parents(&fan_out, &ids(0..20)).await.unwrap()[4].is_ok());
    wrong.store(true, Ordering::Release);
    for asked in [ids(1..2), ids(20..40), ids(1..2)] {
        for error in
            [graph.fetch(&index, &asked).await.unwrap_err(), graph.parents(&fan_out, &asked).await.unwrap_err()]
        {
            assert!(error.class == ErrorClass::Transient && error.message.contains("says that it has no"), "{error}");
        }
    }
    wrong.store(false, Ordering::Release);
    let fetched = graph.fetch(&index, &ids(20..22)).await.unwrap();
    assert!(matches!(fetched.as_slice(), [Fetched::Found(_), Fetched::Missing]));
    assert_eq!(graph.fetch(&index, &ids(1..2)).await.unwrap(), [Fetched::Missing]);
    assert_eq!(graph.parents(&fan_out, &ids(1..2)).await.unwrap(), [Ok(Vec::new())]);
}

/// What the log says was deleted is no sign of an outage, nor what became of the few that were served last.
#[tokio::test]
async fn a_graph_is_not_blamed_for_what_was_deleted() {
    let wrong = Arc::new(AtomicBool::new(false));
    let server = forgetful(wrong.clone()).await;
    let graph = patient(&server);
    let (index, fan_out) =
        (super::movies(true), fan_out(together("", "representations", "_entities", of_talents()), &["movies"]));
    let evens: Vec<String> = (0..10).map(|n| (2 * n).to_string()).collect();
    graph.fetch(&index, &evens).await.unwrap();
    graph.parents(&fan_out, &evens).await.unwrap();
    wrong.store(true, Ordering::Release);
    let all = |type_name: &str| evens.iter().map(|id| Vertex::new(type_name, id)).collect::<BTreeSet<_>>();
    for (type_name, other) in [(&fan_out.type_name, "Other"), (&index.root_type, "Another")] {
        graph.deleted(&all(other), &BTreeSet::from([other.to_owned()]));
        let roots = *type_name == index.root_type;
        let denies = async || match roots {
            true => graph.fetch(&index, &ids(1..2)).await.map(|f| f == [Fetched::Missing]),
            false => graph.parents(&fan_out, &ids(1..2)).await.map(|p| p == [Ok(Vec::new())]),
        };
        assert!(denies().await.is_err(), "of {type_name} nothing was deleted");
        graph.deleted(&all(type_name), &BTreeSet::new());
        assert_eq!(denies().await, Ok(true), "all that it served of {type_name} are deleted");
    }
    // Four that are gone do not hide the others that are there.
    wrong.store(false, Ordering::Release);
    graph.fetch(&index, &evens).await.unwrap();
    graph.remember(&index, &["1", "3", "5", "7", "9"].map(str::to_owned));
    assert!(graph.fetch(&index, &ids(11..12)).await.is_err(), "the last four that were served are not there");
    assert_eq!(graph.fetch(&index, &ids(11..12)).await, Ok(vec![Fetched::Missing]));
}

/// A type's table is emptied while another process reads of it: the graph serves documents as before, and is believed.
#[tokio::test]
async fn a_type_that_becomes_empty_is_believed_of_a_graph_that_serves_documents() {
    let emptied = Arc::new(AtomicBool::new(false));
    let server = {
        let emptied = emptied.clone();
        Server::start(move |request| {
            let ids = ids_of(request);
            if !request["variables"]["representations"].is_array() {
                return Reply::Json(json!({ "data": movies(&ids, &[]) }));
            }
            let parent = |id: &String| match emptied.load(Ordering::Acquire) {
                true => Json::Null,
                false => json!({ "__typename": "Talent", "id": id, "p0": [super::server::movie("1")] }),
            };
            Reply::Json(json!({ "data": { "_entities": ids.iter().map(parent).collect::<Vec<_>>() } }))
        })
        .await
    };
    let fan_out = fan_out(together("", "representations", "_entities", of_talents()), &["movies"]);
    for knows_documents in [false, true] {
        emptied.store(false, Ordering::Release);
        let graph = patient(&server);
        if knows_documents {
            graph.remember(&super::movies(true), &ids(2..3));
        }
        assert!(graph.parents(&fan_out, &ids(0..10)).await.unwrap().iter().all(|p| p.as_ref().unwrap().len() == 1));
        emptied.store(true, Ordering::Release);
        let parents = graph.parents(&fan_out, &ids(20..21)).await;
        assert_eq!(parents.ok(), knows_documents.then(|| vec![Ok(Vec::new())]));
    }
}

/// Where everything was deleted, those that are asked for bear no witness of others.
#[tokio::test]
async fn an_index_that_becomes_empty_is_believed() {
    let wrong = Arc::new(AtomicBool::new(false));
    let server = forgetful(wrong.clone()).await;
    let graph = patient(&server);
    let index = super::movies(true);
    assert!(graph.fetch(&index, &ids(0..3)).await.is_ok());
    wrong.store(true, Ordering::Release);
    assert!(graph.fetch(&index, &ids(0..1)).await.is_err(), "2 was served, and is not asked for");
    assert_eq!(graph.fetch(&index, &ids(2..3)).await.unwrap(), [Fetched::Missing]);
    assert_eq!(graph.fetch(&index, &ids(0..1)).await.unwrap(), [Fetched::Missing]);
}

/// Something behind the graph is away that several documents need.
#[tokio::test]
async fn documents_that_share_a_cause_wait_and_the_others_go_on() {
    let server = Server::start(move |request| {
        let ids = ids_of(request);
        let root = if request["variables"]["representations"].is_array() { "_entities" } else { "movies" };
        let fails = |id: &String| id.parse::<u32>().unwrap() % 2 == 1;
        let failed: Vec<(usize, &String)> = ids.iter().enumerate().filter(|(_, id)| fails(id)).collect();
        let nulls: Vec<(&str, Json)> = failed.iter().map(|(_, id)| (id.as_str(), Json::Null)).collect();
        let errors: Vec<Json> = failed
            .iter()
            .map(|(at, id)| json!({ "message": format!("no talents of {id}"), "path": [root, at] }))
            .collect();
        Reply::Json(json!({ "data": { root: movies(&ids, &nulls)["movies"] }, "errors": errors }))
    })
    .await;
    let graph = patient(&server);
    let index = super::movies(true);
    let count = |fetched: &[Fetched], is: fn(&Fetched) -> bool| fetched.iter().filter(|f| is(f)).count();
    let few = graph.fetch(&index, &ids(0..8)).await.unwrap();
    assert_eq!(count(&few, |f| matches!(f, Fetched::Failed(_))), 4, "so few may have failed for themselves");
    let many = graph.fetch(&index, &ids(0..20)).await.unwrap();
    assert_eq!(count(&many, |f| matches!(f, Fetched::Found(_))), 10);
    assert!(count(&many, |f| matches!(f, Fetched::Waits(_))) >= 6, "{many:?}");
    assert!(matches!(graph.fetch(&index, &ids(1..2)).await.unwrap()[0], Fetched::Waits(_)), "also alone");
    let fan_out = fan_out(together("", "representations", "_entities", of_talents()), &["movies"]);
    assert_eq!(graph.parents(&fan_out, &ids(0..20)).await.unwrap_err().class, ErrorClass::Transient);
    assert!(graph.parents(&fan_out, &ids(0..1)).await.is_ok());
}

/// A single document fails, in a pipeline where little happens, because something is away that it shows: so does another one that was
/// served before and that nobody touched.
#[tokio::test]
async fn a_single_document_waits_for_what_others_need_as_well() {
    let away = Arc::new(AtomicBool::new(false));
    let poison = Arc::new(AtomicBool::new(false));
    let server = {
        let (away, poison) = (away.clone(), poison.clone());
        Server::start(move |request| {
            let ids = ids_of(request);
            let root = if request["variables"]["representations"].is_array() { "_entities" } else { "movies" };
            let odd = |id: &String| id.parse::<u32>().unwrap() % 2 == 1;
            let fails =
                |id: &String| away.load(Ordering::Acquire) && odd(id) || poison.load(Ordering::Acquire) && id == "3";
            let failed: Vec<(usize, &String)> = ids.iter().enumerate().filter(|(_, id)| fails(id)).collect();
            let nulls: Vec<(&str, Json)> = failed.iter().map(|(_, id)| (id.as_str(), Json::Null)).collect();
            let error =
                |(at, id): &(usize, &String)| json!({ "message": format!("no talents of {id}"), "path": [root, at] });
            let errors: Vec<Json> = failed.iter().map(error).collect();
            Reply::Json(json!({ "data": { root: movies(&ids, &nulls)["movies"] }, "errors": errors }))
        })
        .await
    };
    let graph = patient(&server);
    let index = super::movies(true);
    let fan_out = fan_out(together("", "representations", "_entities", of_talents()), &["movies"]);
    assert!(graph.fetch(&index, &ids(0..12)).await.is_ok() && graph.parents(&fan_out, &ids(0..12)).await.is_ok());
    // One that fails for itself, asked for with another one and alone.
    poison.store(true, Ordering::Release);
    for asked in [ids(2..4), ids(3..4)] {
        assert!(graph.fetch(&index, &asked).await.unwrap().iter().any(|f| matches!(f, Fetched::Failed(_))));
        assert!(graph.parents(&fan_out, &asked).await.unwrap().iter().any(Result::is_err));
    }
    poison.store(false, Ordering::Release);
    // A graph of its own, which never heard of the cause.
    let graph = patient(&server);
    assert!(graph.fetch(&index, &ids(0..12)).await.is_ok() && graph.parents(&fan_out, &ids(0..12)).await.is_ok());
    away.store(true, Ordering::Release);
    for asked in [ids(2..4), ids(3..4), ids(2..4)] {
        match graph.fetch(&index, &asked).await {
            Ok(fetched) => assert!(matches!(fetched.last(), Some(Fetched::Waits(_))), "{fetched:?}"),
            Err(error) => assert_eq!(error.class, ErrorClass::Transient),
        }
        assert_eq!(graph.parents(&fan_out, &asked).await.unwrap_err().class, ErrorClass::Transient);
    }
    away.store(false, Ordering::Release);
    assert!(matches!(graph.fetch(&index, &ids(3..4)).await.unwrap()[0], Fetched::Found(_)));
}

#[tokio::test]
async fn refusals_end_a_pipeline_that_is_told_so_and_outages_do_not() {
    let answers = [
        (refused("FORBIDDEN", "not you"), ErrorClass::Fatal),
        (Reply::Status(404, Vec::new(), Vec::new()), ErrorClass::Fatal),
        (Reply::Status(503, Vec::new(), Vec::new()), ErrorClass::Transient),
    ];
    for (reply, class) in answers {
        let reply = std::sync::Mutex::new(Some(reply));
        let server = Server::start(move |_| reply.lock().unwrap().take().unwrap()).await;
        let graph = PatientGraph::new(HttpGraph::new(&plan(&server.url)).unwrap(), Refusals::End);
        assert_eq!(graph.fetch(&super::movies(true), &ids(0..4)).await.unwrap_err().class, class);
    }
}
