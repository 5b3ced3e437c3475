//! Parents, root ids, introspection.

use serde_json::{Value as Json, json};
use tributary_event::ErrorClass;

use super::server::{Reply, Server, aliased, ids_of, movie};
use super::*;
use crate::graph::{Graph, HttpGraph, IdPage, Vertex};

fn parent(id: u32) -> Json {
    json!({ "__typename": "Movie", "id": id })
}

fn talent(id: &str, parents: Json) -> Json {
    json!({ "__typename": "Talent", "id": id, "p0": parents })
}

fn talents(ids: &[String]) -> Vec<Json> {
    let talent = |id: &String| match id.as_str() {
        "0" => Json::Null,
        "1" => talent(id, json!([parent(7), null, parent(5), parent(7)])),
        "2" => talent(id, Json::Null),
        _ => talent(id, json!([])),
    };
    ids.iter().map(talent).collect()
}

#[tokio::test]
async fn parents_by_every_access_to_lists() {
    for (variable, root, of) in [("representations", "_entities", of_talents()), ("ids", "talents", None)] {
        let server =
            Server::start(move |request| Reply::Json(json!({ "data": { root: talents(&ids_of(request)) } }))).await;
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        let question = together("", variable, root, of.clone());
        let parents = graph.parents(&fan_out(question, &["movies"]), &ids(0..4)).await.unwrap();
        let expected = vec![Vertex::new("Movie", "5"), Vertex::new("Movie", "7")];
        assert_eq!(parents, [Ok(vec![]), Ok(expected), Ok(vec![]), Ok(vec![])]);
        let variables = &server.requests()[0]["variables"];
        match of {
            Some(_) => assert_eq!(variables["representations"][1], json!({ "__typename": "Talent", "id": "1" })),
            None => assert_eq!(variables, &json!({ "ids": ["0", "1", "2", "3"] })),
        }
    }
}

#[tokio::test]
async fn parents_by_aliases_through_a_connection() {
    let server = Server::start(|request| {
        let ids = ids_of(request);
        let movies = |id: &str, edges: Json| talent(id, json!({ "edges": edges }));
        let data = aliased(&ids, |id| match id {
            "0" | "2" | "3" => Json::Null,
            "1" => movies(id, json!([{ "node": parent(3) }, { "node": null }, { "node": parent(2) }])),
            "4" => talent(id, json!({ "edges": [], "pageInfo": { "hasNextPage": true } })),
            "5" => talent(id, Json::Null),
            _ => movies(id, json!([{ "node": { "__typename": "Movie" } }])),
        });
        let errors: Vec<Json> = ids
            .iter()
            .enumerate()
            .filter_map(|(i, id)| {
                let error = |message: &str, path: Json| Some(json!({ "message": message, "path": path }));
                let not_found = |message: &str, path: Json| {
                    Some(json!({ "message": message, "path": path, "extensions": { "code": "NOT_FOUND" } }))
                };
                let alias = format!("_{i}");
                match id.as_str() {
                    "2" => not_found("no such talent", json!([alias])),
                    "3" => error("boom", json!([alias])),
                    "5" => not_found("no such movie", json!([alias, "p0"])),
                    _ => None,
                }
            })
            .collect();
        Reply::Json(json!({ "data": data, "errors": errors }))
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let plan = fan_out(apart("node", "{ whatever }"), &["movies", "edges", "node"]);
    let parents = graph.parents(&plan, &ids(0..7)).await.unwrap();
    assert_eq!(parents[..3], [Ok(vec![]), Ok(vec![Vertex::new("Movie", "2"), Vertex::new("Movie", "3")]), Ok(vec![])]);
    assert_eq!(parents[3].as_ref().unwrap_err().class, ErrorClass::Transient);
    let many = parents[4].as_ref().unwrap_err();
    assert!(many.class == ErrorClass::Definite && many.message.contains("more parents than one page"), "{many}");
    assert_eq!(parents[5].as_ref().unwrap_err().class, ErrorClass::Definite);
    assert!(parents[6].as_ref().unwrap_err().message.contains("Talent:6"));
    assert_eq!(server.requests().len(), 1);
}

/// The members of a union may have keys of several kinds.
#[tokio::test]
async fn a_parent_whose_key_has_a_response_key_of_its_own() {
    let parents = json!([parent(3), { "__typename": "Series", "id_Series": "s" }]);
    let server = Server::start(move |request| {
        let talents: Vec<Json> = ids_of(request).iter().map(|id| talent(id, parents.clone())).collect();
        Reply::Json(json!({ "data": { "talents": talents } }))
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let plan = fan_out(together("", "ids", "talents", None), &["works"]);
    let expected = vec![Vertex::new("Movie", "3"), Vertex::new("Series", "s")];
    assert_eq!(graph.parents(&plan, &ids(0..1)).await.unwrap(), [Ok(expected)]);
}

#[tokio::test]
async fn an_error_among_parents_fails_that_vertex_alone() {
    let server = Server::start(|request| {
        let ids = ids_of(request);
        let at = ids.iter().position(|i| i == "3");
        let errors: Vec<Json> =
            at.map(|at| json!({ "message": "boom", "path": ["_entities", at, "p0"] })).into_iter().collect();
        Reply::Json(json!({ "data": { "_entities": talents(&ids) }, "errors": errors }))
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let parents = graph
        .parents(&fan_out(together("", "representations", "_entities", of_talents()), &["movies"]), &ids(1..5))
        .await
        .unwrap();
    let failed: Vec<bool> = parents.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, false, true, false]);
}

fn page(request: &Json, total: u64, edges: bool) -> Json {
    let variables = &request["variables"];
    let start = variables["after"].as_str().map_or(0, |after| after.parse::<u64>().unwrap());
    let end = (start + variables["first"].as_u64().unwrap()).min(total);
    let nodes: Vec<Json> = (start..end).map(|i| movie(&i.to_string())).collect();
    let info = json!({ "hasNextPage": end < total, "endCursor": end.to_string() });
    let connection = if edges {
        json!({ "edges": nodes.into_iter().map(|n| json!({ "node": n })).collect::<Vec<_>>(), "pageInfo": info })
    } else {
        json!({ "nodes": nodes, "pageInfo": info })
    };
    json!({ "data": { "movies": connection } })
}

#[tokio::test]
async fn root_ids_are_paged() {
    for edges in [true, false] {
        let server = Server::start(move |request| Reply::Json(page(request, 25, edges))).await;
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = graph.root_ids(&paging(), after.as_deref(), 10).await.unwrap();
            all.extend(page.ids);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(all, ids(0..25));
        assert_eq!(server.requests().len(), 3);
    }
}

/// Cursors of some servers are numbers, and are sent back as such.
#[tokio::test]
async fn a_cursor_may_be_a_number() {
    let server = Server::start(|request| {
        let after = &request["variables"]["after"];
        let info = json!({ "hasNextPage": after.is_null(), "endCursor": 17 });
        Reply::Json(json!({ "data": { "movies": { "nodes": [movie("1")], "pageInfo": info } } }))
    })
    .await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    let paging = Paging { cursor: SentAs::Number, ..paging() };
    let next = graph.root_ids(&paging, None, 10).await.unwrap().next.unwrap();
    assert_eq!(graph.root_ids(&paging, Some(&next), 10).await.unwrap().next, None);
    assert_eq!(server.requests()[1]["variables"]["after"], json!(17));
}

#[tokio::test]
async fn a_page_that_is_refused_is_asked_for_in_parts() {
    for error in [
        json!({ "message": "first must be at most 20", "path": ["movies"], "extensions": { "code": "BAD_USER_INPUT" } }),
        json!({ "message": "Query is too complex." }),
    ] {
        let server = Server::start(move |request| {
            let refused = request["variables"]["first"].as_u64().unwrap() > 20;
            Reply::Json(if refused { json!({ "data": null, "errors": [error] }) } else { page(request, 25, true) })
        })
        .await;
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        let expected = IdPage { ids: ids(0..13), next: Some("13".into()) };
        assert_eq!(graph.root_ids(&paging(), None, 50).await.unwrap(), expected);
        assert_eq!(server.requests().len(), 3);
        graph.root_ids(&paging(), Some("13"), 50).await.unwrap();
        assert_eq!(server.requests().len(), 4);
    }
}

#[tokio::test]
async fn a_broken_connection_type_is_no_end_of_the_list() {
    let info = |info: Json| json!({ "data": { "movies": { "nodes": [], "pageInfo": info } } });
    for (answer, class) in [
        (info(json!({ "hasNextPage": true, "endCursor": null })), ErrorClass::Fatal),
        (info(json!({ "hasNextPage": true, "endCursor": "c" })), ErrorClass::Fatal),
        (info(json!({})), ErrorClass::Fatal),
        (json!({ "data": { "movies": {} } }), ErrorClass::Fatal),
        (json!({ "data": { "movies": null } }), ErrorClass::Transient),
        (
            json!({ "data": { "movies": null }, "errors": [{ "message": "boom", "path": ["movies"] }] }),
            ErrorClass::Transient,
        ),
    ] {
        let server = Server::start(move |_| Reply::Json(answer.clone())).await;
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        assert_eq!(graph.root_ids(&paging(), Some("c"), 10).await.unwrap_err().class, class);
    }
}

#[tokio::test]
async fn introspection_and_its_refusal() {
    let schema = json!({ "__schema": { "queryType": { "name": "Query" }, "types": [] } });
    let answer = json!({ "data": schema });
    let server = Server::start(move |_| Reply::Json(answer.clone())).await;
    let graph = HttpGraph::new(&plan(&server.url)).unwrap();
    assert_eq!(graph.introspect().await.unwrap(), schema);
    for (status, body) in [
        (
            400,
            json!({ "errors": [{
            "message": "GraphQL introspection is not allowed by Apollo Server, but the query contained __schema or __type.",
            "extensions": { "code": "GRAPHQL_VALIDATION_FAILED" },
        }] }),
        ),
        (200, json!({ "data": null, "errors": [{ "message": "Unknown field \"__schema\" on type \"Query\"." }] })),
        (200, json!({ "data": { "__schema": null } })),
        (
            200,
            json!({ "data": { "__schema": null }, "errors": [{ "message": "introspection is off", "path": ["__schema"] }] }),
        ),
    ] {
        let server = Server::start(move |_| Reply::Status(status, Vec::new(), body.to_string().into_bytes())).await;
        let graph = HttpGraph::new(&plan(&server.url)).unwrap();
        let error = graph.introspect().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(error.message.contains("`graph.schema: schema.graphql`"), "{error}");
    }
}
