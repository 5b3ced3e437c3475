//! Fetching: whose outcome is which.

use serde_json::{Value as Json, json};
use tributary_event::ErrorClass;

use super::server::{Reply, Server, aliased, ids_of, is_probe, movie, movies};
use super::*;
use crate::graph::{Fetched, Graph, GraphError, HttpGraph};

fn error(path: Json, code: Option<&str>) -> Json {
    let mut error = json!({ "message": "boom" });
    if !path.is_null() {
        error["path"] = path;
    }
    if let Some(code) = code {
        error["extensions"] = json!({ "code": code });
    }
    error
}

async fn fetch(server: &Server, ids: &[String]) -> Vec<Fetched> {
    HttpGraph::new(&plan(&server.url)).unwrap().fetch(&super::movies(true), ids).await.unwrap()
}

/// One letter per outcome: found, missing, and failures by their class.
fn letters(fetched: &[Fetched]) -> String {
    fetched
        .iter()
        .map(|f| match f {
            Fetched::Found(_) => '+',
            Fetched::Missing => '-',
            Fetched::Waits(_) => 'w',
            Fetched::Failed(GraphError { class: ErrorClass::Transient, .. }) => 't',
            Fetched::Failed(GraphError { class: ErrorClass::Definite, .. }) => 'd',
            Fetched::Failed(GraphError { class: ErrorClass::Fatal, .. }) => 'f',
        })
        .collect()
}

fn failure(fetched: &Fetched) -> &str {
    match fetched {
        Fetched::Failed(error) => &error.message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_aligned_answer_gives_each_id_its_root() {
    let server = Server::movies(|ids| json!({ "data": movies(ids, &[("2", Json::Null)]) })).await;
    let fetched = fetch(&server, &ids(1..4)).await;
    assert_eq!(fetched, [Fetched::Found(movie("1")), Fetched::Missing, Fetched::Found(movie("3"))]);
    let requests = server.requests();
    // What an answer lacks that holds others is asked for once more, for the answer may have been cut.
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1]["variables"], json!({ "ids": ["2"] }));
    assert_eq!(requests[0]["operationName"], "Movies");
    assert_eq!(requests[0]["variables"], json!({ "ids": ["1", "2", "3"] }));
    assert_eq!(fetch(&server, &[]).await, []);
}

#[tokio::test]
async fn a_filtered_shuffled_answer_is_matched_by_id() {
    let server = Server::movies(move |ids| {
        let number = json!({ "__typename": "Movie", "id": 1, "title": "title 1" });
        let there = |id: &str| ids.iter().any(|asked| asked == id);
        let all = [("4", movie("4")), ("1", number)];
        let answered: Vec<Json> = all.into_iter().filter(|(id, _)| there(id)).map(|(_, movie)| movie).collect();
        json!({ "data": { "movies": answered } })
    })
    .await;
    let fetched = fetch(&server, &ids(1..5)).await;
    assert_eq!(letters(&fetched), "+--+");
    assert_eq!(fetched[3], Fetched::Found(movie("4")));
    // What a short list lacks is asked for once more, for it may have been cut.
    assert_eq!(server.sizes(), [4, 2]);
}

#[tokio::test]
async fn an_id_asked_for_twice_is_answered_twice() {
    let there = |ids: &[String]| ids.iter().any(|id| id == "7");
    let server =
        Server::movies(move |ids| json!({ "data": { "movies": if there(ids) { vec![movie("7")] } else { vec![] } } }))
            .await;
    let fetched = fetch(&server, &["7".into(), "8".into(), "7".into()]).await;
    assert_eq!(letters(&fetched), "+-+");
}

#[tokio::test]
async fn an_error_under_an_item_fails_that_item_alone() {
    let server = Server::movies(|ids| {
        let partial = json!({ "__typename": "Movie", "id": "2", "title": null });
        let errors = [
            error(json!(["movies", 1, "title"]), None),
            error(json!(["movies", 2]), Some("BAD_USER_INPUT")),
            error(json!(["movies", 3]), Some("NOT_FOUND")),
        ];
        let errors = if ids.len() > 1 { errors.to_vec() } else { Vec::new() };
        json!({
            "data": movies(ids, &[("2", partial), ("3", Json::Null), ("4", Json::Null), ("5", Json::Null)]),
            "errors": errors,
        })
    })
    .await;
    let fetched = fetch(&server, &ids(1..7)).await;
    assert_eq!(letters(&fetched), "+tdd-+");
    assert!(failure(&fetched[1]).contains("boom (at movies.1.title)"), "{fetched:?}");
    assert!(failure(&fetched[1]).starts_with("http://127.0.0.1:"), "{fetched:?}");
    assert_eq!(server.sizes(), [6, 1]);
}

#[tokio::test]
async fn an_error_in_a_filtered_list_is_matched_by_the_items_id() {
    let server = Server::movies(|ids| {
        let there = |id: &str| ids.iter().any(|asked| asked == id);
        let answered: Vec<Json> = ["3", "1"].into_iter().filter(|id| there(id)).map(movie).collect();
        let errors: Vec<Json> = there("3").then(|| error(json!(["movies", 0, "title"]), None)).into_iter().collect();
        json!({ "data": { "movies": answered }, "errors": errors })
    })
    .await;
    assert_eq!(letters(&fetch(&server, &ids(1..4)).await), "+-t");
    assert_eq!(server.sizes(), [3, 1]);
}

/// However a server hides whose error it is, exactly the ids at fault fail.
#[tokio::test]
async fn errors_that_name_nobody_are_found_by_bisection() {
    fn pathless(ids: &[String]) -> Json {
        json!({ "data": movies(ids, &[]), "errors": [error(Json::Null, None)] })
    }
    fn list_null(_: &[String]) -> Json {
        json!({ "data": { "movies": null }, "errors": [error(json!(["movies", 1, "title"]), None)] })
    }
    fn data_null(_: &[String]) -> Json {
        json!({ "data": null, "errors": [error(json!(["movies", 1]), None)] })
    }
    fn no_data(_: &[String]) -> Json {
        json!({ "errors": [error(Json::Null, Some("INTERNAL_SERVER_ERROR"))] })
    }
    fn filtered(ids: &[String]) -> Json {
        let mut list: Vec<Json> = ids.iter().filter(|i| *i != "3").map(|id| movie(id)).collect();
        list.push(Json::Null);
        json!({ "data": { "movies": list }, "errors": [error(json!(["movies", 90]), None)] })
    }
    for answer in [pathless, list_null, data_null, no_data, filtered] {
        let server = Server::movies(move |ids| match ids.iter().any(|i| i == "3" || i == "12") {
            true => answer(ids),
            false => json!({ "data": movies(ids, &[("5", Json::Null)]) }),
        })
        .await;
        assert_eq!(letters(&fetch(&server, &ids(0..16)).await), "+++t+-++++++t+++");
        assert!(server.requests().len() < 2 * 16);
    }
}

#[tokio::test]
async fn a_null_list_without_an_error_is_no_absence_of_all() {
    let server = Server::movies(|ids| match ids {
        [_] => json!({ "data": movies(ids, &[("2", Json::Null)]) }),
        _ => json!({ "data": { "movies": null } }),
    })
    .await;
    assert_eq!(letters(&fetch(&server, &ids(1..4)).await), "+-+");
}

#[tokio::test]
async fn ids_written_another_way_are_no_absence() {
    let server = Server::movies(|ids| {
        let answered: Vec<Json> = ids.iter().map(|id| movie(id.trim_start_matches('0'))).collect();
        json!({ "data": { "movies": answered } })
    })
    .await;
    let fetched = fetch(&server, &["1".into(), "02".into()]).await;
    assert_eq!(letters(&fetched), "+d");
    assert!(failure(&fetched[1]).contains("answers the id \"2\", \"02\" was asked for"), "{fetched:?}");
}

#[tokio::test]
async fn by_aliases_where_the_root_takes_one_id() {
    let server = Server::start(|request| {
        assert_eq!(request["operationName"], "Movies");
        let ids = ids_of(request);
        let data = aliased(&ids, |id| match id {
            "2" | "4" | "6" => Json::Null,
            "5" => movie("55"),
            "7" => json!({ "__typename": "Talent" }),
            id => movie(id),
        });
        let alias = |id: &str| ids.iter().position(|i| i == id).map(|i| format!("_{i}"));
        let errors: Vec<Json> = [("3", Some("title"), None), ("4", None, Some("NOT_FOUND")), ("6", None, None)]
            .into_iter()
            .filter_map(|(id, below, code)| {
                let path: Vec<String> = [alias(id)?].into_iter().chain(below.map(str::to_owned)).collect();
                Some(error(json!(path), code))
            })
            .collect();
        Reply::Json(json!({ "data": data, "errors": errors }))
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let fetched = graph.fetch(&super::movies(false), &ids(1..9)).await.unwrap();
    assert_eq!(letters(&fetched), "+-tddtd+");
    assert!(failure(&fetched[4]).contains("answers the id \"55\", \"5\" was asked for"), "{fetched:?}");
    assert!(failure(&fetched[6]).contains("answers Talent without `id`"), "{fetched:?}");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0]["variables"]["_7"], "8");
}

/// Where the root field must not be null, one that is missing takes the others with it.
#[tokio::test]
async fn a_null_that_rises_up_is_found_by_bisection() {
    let server = Server::start(|request| {
        let ids = ids_of(request);
        let at = ids.iter().position(|id| id == "3").map(|i| format!("_{i}"));
        Reply::Json(match at {
            Some(at) => json!({ "data": null, "errors": [error(json!([at]), Some("NOT_FOUND"))] }),
            None => json!({ "data": aliased(&ids, movie) }),
        })
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    assert_eq!(letters(&graph.fetch(&super::movies(false), &ids(0..8)).await.unwrap()), "+++d++++");
}

/// A server that loads all of a batch in one statement fails all of it for one that is bad, or for too many.
#[tokio::test]
async fn a_batch_that_fails_as_one_is_split() {
    let server = Server::start(|request| {
        let ids = ids_of(request);
        let fails = ids.len() > 5 || ids.contains(&"3".to_owned());
        let errors: Vec<Json> =
            (0..ids.len()).filter(|_| fails).map(|i| error(json!([format!("_{i}")]), None)).collect();
        let data = aliased(&ids, |id| if fails { Json::Null } else { movie(id) });
        Reply::Json(json!({ "data": data, "errors": errors }))
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    assert_eq!(letters(&graph.fetch(&super::movies(false), &ids(0..16)).await.unwrap()), "+++t++++++++++++");
}

/// A list that is padded with nulls may have been cut as well.
#[tokio::test]
async fn a_list_that_is_aligned_and_cut_is_asked_for_what_is_missing() {
    let server = Server::movies(|ids| {
        let movie = |(n, id): (usize, &String)| if n < 10 && id != "13" { movie(id) } else { Json::Null };
        json!({ "data": { "movies": ids.iter().enumerate().map(movie).collect::<Vec<_>>() } })
    })
    .await;
    assert_eq!(letters(&fetch(&server, &ids(0..25)).await), "+++++++++++++-+++++++++++");
    assert_eq!(server.sizes(), [25, 15, 6, 1]);
}

/// A server that reads the first ten ids of a list says nothing of the others with its nulls, also where the first are gone.
#[tokio::test]
async fn a_list_of_which_the_first_ids_are_read_is_asked_for_the_others_nearer() {
    for (gone, sizes) in [(10..20, vec![25, 15, 5]), (0..20, vec![25, 1, 1, 1, 1, 1])] {
        let there = gone.clone();
        let server = Server::movies(move |ids| {
            let gone = |id: &String| there.contains(&id.parse::<usize>().unwrap());
            let movie = |(n, id): (usize, &String)| if n < 10 && !gone(id) { movie(id) } else { Json::Null };
            json!({ "data": { "movies": ids.iter().enumerate().map(movie).collect::<Vec<_>>() } })
        })
        .await;
        let fetched = letters(&fetch(&server, &ids(0..25)).await);
        let expected: String = (0..25).map(|id| if gone.contains(&id) { '-' } else { '+' }).collect();
        assert_eq!(fetched, expected);
        assert!(server.sizes().starts_with(&sizes), "{:?}", server.sizes());
    }
}

/// A filter answers a connection, with numbers for ids, and may answer fewer than are asked for.
#[tokio::test]
async fn a_filter_that_is_cut_is_asked_for_what_is_missing() {
    for edges in [false, true] {
        let server = Server::start(move |request| {
            let ids = request["variables"]["ids"].as_array().unwrap().clone();
            let there = ids.iter().filter_map(Json::as_i64).filter(|id| *id != 13).take(10);
            let node = |id: i64| json!({ "__typename": "Movie", "rowId": id, "title": format!("title {id}") });
            let nodes: Vec<Json> = there.map(|id| if edges { json!({ "node": node(id) }) } else { node(id) }).collect();
            Reply::Json(json!({ "data": { "movies": { if edges { "edges" } else { "nodes" }: nodes } } }))
        })
        .await;
        let mut index = super::movies(true);
        index.fetch = Question {
            way: if edges { vec!["edges".into(), "node".into()] } else { vec!["nodes".into()] },
            key: "rowId".into(),
            sent_as: SentAs::Number,
            ..index.fetch
        };
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        let fetched = graph.fetch(&index, &ids(0..25)).await.unwrap();
        assert_eq!(letters(&fetched), "+++++++++++++-+++++++++++");
        assert_eq!(server.requests().len(), 4);
    }
}

#[tokio::test]
async fn an_error_in_a_connection_is_that_of_its_node() {
    let server = Server::start(|request| {
        let node = |id: &String| json!({ "node": movie(id) });
        let nodes: Vec<Json> = ids_of(request).iter().map(node).collect();
        let errors = [error(json!(["movies", "edges", 1, "node", "title"]), None)];
        Reply::Json(json!({ "data": { "movies": { "edges": nodes } }, "errors": errors }))
    })
    .await;
    let mut index = super::movies(true);
    index.fetch.way = vec!["edges".into(), "node".into()];
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    assert_eq!(letters(&graph.fetch(&index, &ids(0..3)).await.unwrap()), "+t+");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_batch_that_is_too_complex_is_split_and_the_size_is_remembered() {
    for (status, body) in [
        (200, json!({ "data": null, "errors": [{ "message": "Query is too complex." }] })),
        (400, json!({ "errors": [{ "message": "no", "extensions": { "code": "QUERY_TOO_COMPLEX" } }] })),
        (
            400,
            json!({ "errors": [{
            "message": "The query exceeds the maximum cost of 5. Actual cost is 9",
            "extensions": { "code": "GRAPHQL_VALIDATION_FAILED" },
        }] }),
        ),
        (413, json!("too big")),
        (504, json!("gateway")),
        (200, json!({ "errors": [{ "message": "late", "extensions": { "code": "GATEWAY_TIMEOUT" } }] })),
    ] {
        let server = Server::start(move |request| match ids_of(request).len() {
            0..=5 => Reply::Json(json!({ "data": movies(&ids_of(request), &[]) })),
            _ => Reply::Status(status, Vec::new(), body.to_string().into_bytes()),
        })
        .await;
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        let fetched = graph.fetch(&super::movies(true), &ids(0..16)).await.unwrap();
        assert_eq!(letters(&fetched), "+".repeat(16));
        assert_eq!(server.sizes(), [16, 8, 8, 4, 4, 4, 4]);
        graph.fetch(&super::movies(true), &ids(0..16)).await.unwrap();
        assert_eq!(server.sizes(), [16, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4]);
    }
}

#[tokio::test]
async fn a_single_root_that_is_too_much_is_a_fact_about_it() {
    let server = Server::movies(|ids| match ids.contains(&"2".to_owned()) {
        true => json!({ "errors": [{ "message": "query complexity 900 is over 500" }] }),
        false => json!({ "data": movies(ids, &[]) }),
    })
    .await;
    assert_eq!(letters(&fetch(&server, &ids(0..4)).await), "++d+");
}

#[tokio::test]
async fn a_batch_without_an_answer_in_time_is_split() {
    let server = Server::start(|request| match ids_of(request) {
        _ if is_probe(request) => Reply::Json(json!({ "data": { "__typename": "Query" } })),
        ids if ids.len() > 2 || ids.contains(&"5".to_owned()) => Reply::Silence,
        ids => Reply::Json(json!({ "data": movies(&ids, &[]) })),
    })
    .await;
    let graph = HttpGraph::new(&GraphPlan { timeout: Duration::from_millis(400), ..plan(&server.url) }).unwrap();
    let fetched = graph.fetch(&super::movies(true), &ids(0..8)).await.unwrap();
    assert_eq!(letters(&fetched), "+++++t++");
    assert!(failure(&fetched[5]).contains("no answer within 400ms"), "{fetched:?}");
}

#[tokio::test]
async fn a_server_that_hangs_fails_the_call_and_no_root() {
    let server = Server::start(|_| Reply::Silence).await;
    let graph = HttpGraph::new(&GraphPlan { timeout: Duration::from_millis(100), ..plan(&server.url) }).unwrap();
    let error = graph.fetch(&super::movies(true), &ids(0..8)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert_eq!(server.sizes(), [8]);
    let error = graph.fetch(&super::movies(true), &ids(0..1)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
}

#[tokio::test]
async fn a_huge_answer_is_asked_for_in_parts() {
    let server = Server::movies(|ids| json!({ "data": movies(ids, &[("3", json!("x".repeat(4_000)))]) })).await;
    let mut graph = HttpGraph::new(&plan(&server.url)).unwrap();
    graph.limit_answers(1_000);
    let fetched = graph.fetch(&super::movies(true), &ids(0..8)).await.unwrap();
    assert_eq!(letters(&fetched), "+++d++++");
    assert!(failure(&fetched[3]).contains("longer than 1000 bytes"), "{fetched:?}");
}
