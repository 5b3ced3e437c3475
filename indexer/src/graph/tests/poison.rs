//! Answers that nobody can read because of one vertex: it fails alone, with what was answered.

use serde_json::{Value as Json, json};
use tributary_event::ErrorClass;

use super::server::{Reply, Server, aliased, ids_of, is_probe, movie, movies};
use super::*;
use crate::documents::document::{assemble, content_hash};
use crate::graph::{Fetched, Graph, GraphError, HttpGraph, Vertex};

const POISONED: &str = "5";

/// Makes something of the JSON that would be right.
type Spoiling = fn(String) -> Reply;

fn json_of(ids: &[String]) -> String {
    json!({ "data": movies(ids, &[]) }).to_string()
}

/// A server whose answer `poison` spoils if it is about the poisoned movie; `probe` says what it answers to a probe.
async fn poisoned(poison: impl Fn(String) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request| match ids_of(request) {
        _ if is_probe(request) => Reply::Json(json!({ "data": { "__typename": "Query" } })),
        ids if ids.iter().any(|id| id == POISONED) => poison(json_of(&ids)),
        ids => Reply::Status(200, Vec::new(), json_of(&ids).into_bytes()),
    })
    .await
}

fn ok(body: impl Into<Vec<u8>>) -> Reply {
    Reply::Status(200, Vec::new(), body.into())
}

/// The title of the poisoned movie replaced by something raw.
fn titled(json: &str, title: &str) -> String {
    json.replace("\"title 5\"", title)
}

/// Fetches ten movies: the error of the poisoned one, once all others were found.
async fn culprit(server: &Server) -> GraphError {
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let fetched = graph.fetch(&super::movies(true), &ids(0..10)).await.unwrap();
    for (id, fetched) in ids(0..10).iter().zip(&fetched).filter(|(id, _)| *id != POISONED) {
        assert_eq!(fetched, &Fetched::Found(movie(id)), "{id}");
    }
    assert!(server.requests().len() < 2 * 10);
    match &fetched[5] {
        Fetched::Failed(error) => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn whatever_cannot_be_read_fails_the_culprit_alone_with_what_was_answered() {
    const PAGE: &[u8] = b"<html>\r\n<h1>Internal\tServer Error</h1>\x1b[0m</html>";
    let answers: [(Spoiling, &[&str]); 9] = [
        (|json| ok(titled(&json, "NaN")), &["is no GraphQL answer", "\"title\":NaN"]),
        (|json| ok(json[..json.len() / 2].to_owned()), &["EOF", "{\"data\":{\"movies\":[{"]),
        (
            |_| Reply::Status(500, Vec::new(), PAGE.to_vec()),
            &["500", r"<html>\r\n<h1>Internal\tServer Error</h1>\u{1b}[0m"],
        ),
        (|_| Reply::Status(502, Vec::new(), b"bad gateway".to_vec()), &["502", "bad gateway"]),
        (|_| Reply::Status(503, Vec::new(), b"upstream connect error".to_vec()), &["503", "upstream connect error"]),
        (|_| Reply::Status(403, Vec::new(), b"blocked by the firewall".to_vec()), &["403", "blocked by the firewall"]),
        (|_| ok(""), &["no GraphQL answer"]),
        (|_| ok("{\"movies\":[]}"), &["neither data nor errors", "{\"movies\":[]}"]),
        (|_| Reply::Cut, &["closed the connection without an answer", "check that graph.endpoint"]),
    ];
    for (answer, words) in answers {
        let server = poisoned(answer).await;
        let error = culprit(&server).await;
        let class = if words[0] == "403" { ErrorClass::Fatal } else { ErrorClass::Transient };
        assert_eq!(error.class, class, "{error}");
        for word in words {
            assert!(error.message.contains(word), "{word:?} is missing in {error}");
        }
        assert!(!error.message.contains(char::is_control), "{error}");
    }
}

#[tokio::test]
async fn no_more_of_an_answer_is_kept_than_its_beginning() {
    let server = poisoned(|_| ok(format!("<html>{}</html>", "é".repeat(5_000)))).await;
    let error = culprit(&server).await;
    assert!(error.message.contains(&format!("<html>{}", "é".repeat(97))), "{error}");
    assert!(error.message.ends_with('…') && error.message.len() < 600, "{error}");
}

#[tokio::test]
async fn halves_of_surrogate_pairs_and_bytes_that_are_no_utf8_are_replaced() {
    let answers: [(Spoiling, &str); 2] = [
        (|json| ok(titled(&json, r#""cut \ud83d""#)), "cut \u{fffd}"),
        // In Latin-1.
        (
            |json| {
                ok(titled(&json, "\"Am?lie\"").bytes().map(|b| if b == b'?' { 0xe9 } else { b }).collect::<Vec<_>>())
            },
            "Am\u{fffd}lie",
        ),
    ];
    for (answer, title) in answers {
        let server = poisoned(answer).await;
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        let fetched = graph.fetch(&super::movies(true), &ids(0..10)).await.unwrap();
        let expected = json!({ "__typename": "Movie", "id": "5", "title": title });
        assert_eq!(fetched[5], Fetched::Found(expected));
        assert!(fetched.iter().all(|f| matches!(f, Fetched::Found(_))));
        assert_eq!(server.requests().len(), 1);
    }
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// On the stack of an ordinary worker thread, which is what the pipeline has.
#[tokio::test]
async fn deep_answers_become_documents_and_deeper_ones_fail_alone_for_good() {
    let server = poisoned(|json| ok(titled(&json, &nested(900)))).await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let mut fetched = graph.fetch(&super::movies(true), &ids(0..10)).await.unwrap();
    let Fetched::Found(deep) = fetched.remove(5) else { panic!("not found") };
    let opaque = SelectedField { kind: FieldKind::Leaf(LeafType::Ignore), ..leaf("title") };
    let index = index(true, vec![hidden("__typename"), leaf("id"), opaque]);
    let document = assemble(&index, &deep).unwrap();
    assert_eq!(document.content["title"].to_string(), nested(900));
    assert_eq!(document.hash, content_hash(&document.content.clone(), &document.refs));
    let written = serde_json::to_vec(&document.content).unwrap();
    assert_eq!(crate::documents::json::read::<Json>(&written).unwrap(), document.content);
    for levels in [1_001, 100_000] {
        let server = poisoned(move |json| ok(titled(&json, &nested(levels)))).await;
        let error = culprit(&server).await;
        assert_eq!(error.class, ErrorClass::Definite);
        assert!(error.message.contains("deeper than 1000 levels"), "{error}");
    }
}

/// Nothing is known of any document if the server answers nothing else either.
#[tokio::test]
async fn a_server_that_answers_no_probe_is_away() {
    let replies: [fn() -> Reply; 4] = [
        || ok("<html>maintenance</html>"),
        || Reply::Status(500, Vec::new(), b"<html>sorry</html>".to_vec()),
        || ok(nested(100_000)),
        || Reply::Cut,
    ];
    for reply in replies {
        let server = Server::start(move |_| reply()).await;
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        let error = graph.fetch(&super::movies(true), &ids(0..10)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
        assert_eq!(server.sizes(), [10]);
        assert!(graph.probe().await.is_err());
        assert_eq!(graph.root_ids(&paging(), None, 10).await.unwrap_err().class, ErrorClass::Transient);
    }
}

#[tokio::test]
async fn by_aliases_too() {
    let server = Server::start(|request| match ids_of(request) {
        ids if ids.contains(&"2".to_owned()) => ok("NaN"),
        ids if ids.is_empty() => Reply::Json(json!({ "data": { "__typename": "Query" } })),
        ids => Reply::Json(json!({ "data": aliased(&ids, movie) })),
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let fetched = graph.fetch(&super::movies(false), &ids(0..4)).await.unwrap();
    let found: Vec<bool> = fetched.iter().map(|f| matches!(f, Fetched::Found(_))).collect();
    assert_eq!(found, [true, true, false, true]);
}

#[tokio::test]
async fn parents_of_the_others_are_found() {
    let server = Server::start(|request| match ids_of(request) {
        _ if is_probe(request) => Reply::Json(json!({ "data": { "__typename": "Query" } })),
        ids if ids.iter().any(|id| id == POISONED) => Reply::Status(500, Vec::new(), b"<html>sorry</html>".to_vec()),
        ids => {
            let talent = |id: &String| json!({ "__typename": "Talent", "id": id, "p0": [movie(id)] });
            Reply::Json(json!({ "data": { "_entities": ids.iter().map(talent).collect::<Vec<_>>() } }))
        }
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let parents = graph
        .parents(&fan_out(together("", "representations", "_entities", of_talents()), &["movies"]), &ids(0..10))
        .await
        .unwrap();
    for (id, parents) in ids(0..10).into_iter().zip(parents) {
        match parents {
            Ok(parents) => assert_eq!(parents, [Vertex::new("Movie", id)]),
            Err(error) => {
                assert_eq!(id, POISONED);
                assert!(error.message.contains("<html>sorry</html>"), "{error}");
            }
        }
    }
}

/// A page cannot be divided between two roots, but it can be made smaller: all before the culprit are listed, and the place is named.
#[tokio::test]
async fn roots_are_listed_up_to_the_culprit() {
    let server = Server::start(|request| {
        if is_probe(request) {
            return Reply::Json(json!({ "data": { "__typename": "Query" } }));
        }
        let variables = &request["variables"];
        let start = variables["after"].as_str().map_or(0, |after| after.parse::<u64>().unwrap());
        let end = (start + variables["first"].as_u64().unwrap()).min(100);
        if (start..end).contains(&42) {
            return ok("{\"data\": {\"movies\": NaN}}");
        }
        let nodes: Vec<Json> = (start..end).map(|i| movie(&i.to_string())).collect();
        let info = json!({ "hasNextPage": end < 100, "endCursor": end.to_string() });
        Reply::Json(json!({ "data": { "movies": { "nodes": nodes, "pageInfo": info } } }))
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let (mut all, mut after) = (Vec::new(), None);
    let error = loop {
        match graph.root_ids(&paging(), after.as_deref(), 20).await {
            Ok(page) => {
                all.extend(page.ids);
                after = page.next;
                assert!(after.is_some());
            }
            Err(error) => break error,
        }
    };
    assert_eq!(all, ids(0..42));
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("the root after the cursor \"42\" alone"), "{error}");
    assert!(error.message.contains("\"movies\": NaN"), "{error}");
}
