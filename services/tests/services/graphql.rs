//! What a GraphQL service says of keys, and what it leaves open.

use serde_json::{Value as Json, json};
use tributary_dsl::plan::ServiceKind;
use tributary_event::ErrorClass;
use tributary_processor::Answer;

use super::plans::{World, found, movie, movie_of, service, step, why};
use super::server::{Seen, Server, movies, ok, status};

#[tokio::test]
async fn a_page_of_a_list_is_no_lack() {
    // It shows three elements at most, and does not know the key 7.
    let server = Server::start(|seen: Seen| async move {
        movies(&seen.ids().into_iter().filter(|id| *id != 7).take(3).collect::<Vec<_>>())
    })
    .await;
    let world = World::movies(&server.url);
    let answers = world.ask(&["1", "2", "3", "4", "7", "5", "6", "8"]).await.unwrap();
    let mut expected = [1, 2, 3, 4, 7, 5, 6, 8].map(movie_of);
    expected[4] = Answer::Missing;
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn null_elements_without_errors_are_missing() {
    let server = Server::start(|seen: Seen| async move {
        let known = |id: &Json| if *id == 2 { Json::Null } else { json!({ "id": id.to_string() }) };
        let all: Vec<Json> = seen.ids().iter().map(known).collect();
        ok(json!({ "data": { "movies": all } }).to_string())
    })
    .await;
    let answers = World::movies(&server.url).ask(&["1", "2", "3"]).await.unwrap();
    assert_eq!(answers, [found(r#"{"id":"1"}"#), Answer::Missing, found(r#"{"id":"3"}"#)]);
    assert_eq!(server.count(), 2, "what was lacking is asked for once more");
}

#[tokio::test]
async fn what_errors_may_hide_is_asked_for_alone() {
    // The null element of 2 comes with an error that has a path; 4 is not known.
    let server = Server::start(|seen: Seen| async move {
        let ids: Vec<Json> = seen.ids().into_iter().filter(|id| *id != 4).collect();
        let known = |id: &Json| if *id == 2 { Json::Null } else { json!({ "id": id }) };
        let all: Vec<Json> = ids.iter().map(known).collect();
        let mut answer = json!({ "data": { "movies": all } });
        if let Some(place) = ids.iter().position(|id| *id == 2) {
            answer["errors"] = json!([{ "message": "no reviews", "path": ["movies", place] }]);
        }
        ok(answer.to_string())
    })
    .await;
    let answers = World::movies(&server.url).ask(&["1", "2", "3", "4"]).await.unwrap();
    assert_eq!((&answers[0], &answers[2]), (&found(r#"{"id":1}"#), &found(r#"{"id":3}"#)));
    assert!(why(&answers[1]).contains("no reviews"), "{answers:?}");
    assert_eq!(answers[3], Answer::Missing);
}

#[tokio::test]
async fn an_error_within_an_element_is_its_keys_alone() {
    let server = Server::start(|seen: Seen| async move {
        let all: Vec<Json> = seen.ids().iter().map(|id| json!({ "id": id, "title": null })).collect();
        let place = seen.ids().iter().position(|id| *id == 2);
        let errors: Vec<Json> =
            place.iter().map(|n| json!({ "message": "boom", "path": ["movies", n, "title"] })).collect();
        ok(json!({ "data": { "movies": all }, "errors": errors }).to_string())
    })
    .await;
    let answers = World::movies(&server.url).ask(&["1", "2", "3"]).await.unwrap();
    let whole = |id: u32| found(&format!(r#"{{"id":{id},"title":null}}"#));
    assert_eq!((&answers[0], &answers[2]), (&whole(1), &whole(3)));
    assert!(why(&answers[1]).contains("boom"));
}

#[tokio::test]
async fn an_error_of_every_element_is_an_outage() {
    let server = Server::start(|seen: Seen| async move {
        let all: Vec<Json> = seen.ids().iter().map(|id| json!({ "id": id, "title": null })).collect();
        let error = |n: usize| json!({ "message": "titles are away", "path": ["movies", n, "title"] });
        let errors: Vec<Json> = (0..all.len()).map(error).collect();
        ok(json!({ "data": { "movies": all }, "errors": errors }).to_string())
    })
    .await;
    let error = World::movies(&server.url).ask(&["1", "2", "3"]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("titles are away"), "{error}");
}

#[tokio::test]
async fn a_key_alone_is_found_missing_or_failed() {
    let server = Server::start(|seen: Seen| async move {
        match seen.json()["variables"]["id"].as_str() {
            Some("a") => ok(r#"{"data":{"movie":{"id":"a", "n": 1.10}}}"#),
            Some("b") => ok(r#"{"data":{"movie":null}}"#),
            Some("c") => ok(r#"{"data":{"movie":null},"errors":[{"message":"boom","path":["movie"]}]}"#),
            _ => status(422, r#"{"error":"no such kind of id"}"#),
        }
    })
    .await;
    let world = World::new(&service(ServiceKind::Graphql, &server.url), &step(movie()));
    let answers = world.ask(&[r#""a""#, r#""b""#, r#""c""#, r#""d""#]).await.unwrap();
    assert_eq!(answers[..2], [found(r#"{"id":"a", "n": 1.10}"#), Answer::Missing]);
    assert!(why(&answers[2]).contains("boom"));
    assert!(why(&answers[3]).contains("422") && why(&answers[3]).contains("no such kind of id"));
    assert!(server.seen()[0].json().get("operationName").is_none());
}

#[tokio::test]
async fn keys_that_are_written_in_another_way_are_no_lack() {
    let server = Server::start(|seen: Seen| async move {
        let upper = |id: &Json| json!({ "id": id.as_str().unwrap_or_default().to_uppercase() });
        ok(json!({ "data": { "movies": seen.ids().iter().map(upper).collect::<Vec<_>>() } }).to_string())
    })
    .await;
    let world = World::movies(&server.url);
    for keys in [&[r#""a1""#, r#""b2""#][..], &[r#""a1""#]] {
        let error = world.ask(keys).await.unwrap_err();
        assert!(error.message.contains("and A1;") || error.message.contains("and B2;"), "{error}");
    }
    // One that is found shows that keys are compared as they should be.
    assert_eq!(world.ask(&[r#""C3""#]).await.unwrap(), [found(r#"{"id":"C3"}"#)]);
    assert_eq!(world.ask(&[r#""a1""#]).await.unwrap(), [Answer::Missing]);
}
