//! Services that speak JSON at URLs.

use serde_json::{Value as Json, json};
use tributary_dsl::plan::{CallPlan, Secret, ServiceKind};
use tributary_event::{ErrorClass, Health};
use tributary_processor::Answer;
use tributary_services::{Asking, Service};

use super::plans::{World, found, get, post_list, program, service, step, why};
use super::server::{Seen, Server, ok, status};

fn world(url: &str, call: CallPlan) -> World {
    World::new(&service(ServiceKind::Rest, url), &step(call))
}

#[tokio::test]
async fn a_key_alone_is_found_missing_or_failed() {
    let server = Server::start(|seen: Seen| async move {
        match seen.target.as_str() {
            "/v1/movies/1?full=1" => ok(r#"{"movie": {"id":1, "n": 1.10} }"#),
            "/v1/movies/2?full=1" => status(404, "not here"),
            "/v1/movies/3?full=1" => status(410, ""),
            "/v1/movies/4?full=1" => ok(r#"{"movie":null}"#),
            "/v1/movies/5?full=1" => status(400, "x".repeat(500)),
            "/v1/movies/6?full=1" => status(204, ""),
            other => panic!("{other}"),
        }
    })
    .await;
    let world = world(&format!("{}/v1/", server.url), get("/movies/{key}?full=1", &["movie"]));
    let answers = world.ask(&["1", "2", "3", "4", "5", "6"]).await.unwrap();
    assert_eq!(answers[0], found(r#"{"id":1, "n": 1.10}"#));
    assert_eq!((&answers[1..4], &answers[5]), (&[const { Answer::Missing }; 3][..], &Answer::Missing));
    let why = why(&answers[4]);
    assert!(why.contains("400") && why.contains(&"x".repeat(200)) && !why.contains(&"x".repeat(201)), "{why}");
}

#[tokio::test]
async fn keys_are_escaped_in_paths() {
    let server = Server::start(|seen: Seen| async move { ok(Json::from(seen.target).to_string()) }).await;
    let world = world(&server.url, get("/movies/{key}", &[]));
    let keys = ["7", "1.5", r#""a b/c?d=é&{key}""#, "true", r#"{"a":[1]}"#, r#""..""#, r#""""#];
    let answers = world.ask(&keys).await.unwrap();
    let targets = ["7", "1.5", "a%20b%2Fc%3Fd%3D%C3%A9%26%7Bkey%7D", "true", "%7B%22a%22%3A%5B1%5D%7D"];
    let expected: Vec<Answer> = targets.iter().map(|target| found(&format!(r#""/movies/{target}""#))).collect();
    assert_eq!(answers[..5], expected);
    assert!(why(&answers[5]).contains("cannot stand in a path") && why(&answers[6]).contains("cannot stand in a path"));
    assert_eq!(server.count(), 5);
}

#[tokio::test]
async fn a_list_is_taken_apart_by_the_keys_of_its_elements() {
    let server = Server::start(|seen: Seen| async move {
        let price = |id: &Json| json!({ "of": { "id": id.to_string() }, "eur": 9.5 });
        let known: Vec<Json> = seen.ids().iter().filter(|id| **id != 2).map(price).collect();
        ok(json!({ "prices": known }).to_string())
    })
    .await;
    let world = world(&server.url, post_list("/prices:batch", &["prices"], &["of", "id"]));
    let answers = world.ask(&["1", "2", "3"]).await.unwrap();
    let price = |id: u32| found(&format!(r#"{{"eur":9.5,"of":{{"id":"{id}"}}}}"#));
    assert_eq!(answers, [price(1), Answer::Missing, price(3)]);
    assert_eq!(
        (server.seen()[0].target.as_str(), server.seen()[0].body.as_str()),
        ("/prices:batch", r#"{"ids":[1,2,3]}"#)
    );
}

#[tokio::test]
async fn an_object_of_keys_is_taken_apart() {
    let server = Server::start(|_| async move { ok(r#"{"prices":{"7":1.10,"a b":{"x":1},"8":null}}"#) }).await;
    let world = world(&server.url, post_list("/prices", &["prices"], &[]));
    let answers = world.ask(&["7", r#""7""#, r#""a b""#, "8"]).await.unwrap();
    assert_eq!(answers, [found("1.10"), found("1.10"), found(r#"{"x":1}"#), Answer::Missing]);
}

#[tokio::test]
async fn a_body_is_made_of_one_key() {
    let server = Server::start(|seen: Seen| async move { ok(seen.body) }).await;
    let call = CallPlan::Rest {
        shown: String::new(),
        method: "PUT".to_owned(),
        path: "/score".to_owned(),
        body: Some(Box::new(program(r#"{ "of": .key, "twice": int!(.key) * 2 }"#))),
        is_list: false,
        each: Vec::new(),
        matched: Vec::new(),
    };
    let world = world(&server.url, call);
    let answers = world.ask(&["21", r#""x""#]).await.unwrap();
    assert_eq!(answers[0], found(r#"{"of":21,"twice":42}"#));
    assert!(why(&answers[1]).contains("the program of the body failed"), "{answers:?}");
    assert_eq!((server.count(), server.seen()[0].method.as_str()), (1, "PUT"));
}

#[tokio::test]
async fn headers_are_sent_and_never_told() {
    let server = Server::start(|seen: Seen| async move {
        let sent = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
        assert_eq!((sent("accept"), sent("x-token")), ("text/x".into(), "Bearer s3cret-token".into()));
        assert_eq!(sent("authorization"), "Basic dXNlcjp0b3BzZWNyZXQ=");
        status(422, "who is Bearer s3cret-token, called s3cret-token, of topsecret, dXNlcjp0b3BzZWNyZXQ=?")
    })
    .await;
    let mut plan = service(ServiceKind::Rest, &server.url.replace("//", "//user:topsecret@"));
    plan.url.push_str("?key=alsosecret");
    plan.headers.insert("X-Token".to_owned(), Secret::new("Bearer s3cret-token"));
    plan.headers.insert("accept".to_owned(), Secret::new("text/x"));
    let world = World::new(&plan, &step(get("/{key}", &[])));
    let answers = world.ask(&["1"]).await.unwrap();
    let why = why(&answers[0]);
    assert!(why.contains("who is ***, called ***, of ***, ***?") && why.contains("http://127.0.0.1"), "{why}");
    assert!(!why.contains("secret") && !why.contains("user"), "{why}");
    assert_eq!(server.seen()[0].target, "/1?key=alsosecret");
    let debug = format!("{:?}", world.asking);
    assert!(!debug.contains("s3cret") && !debug.contains("topsecret") && !debug.contains("alsosecret"), "{debug}");
}

#[tokio::test]
async fn a_plan_that_cannot_work_is_refused() {
    let health = Health::default();
    let refused = |url: &str, header: &str| {
        let mut plan = service(ServiceKind::Rest, url);
        plan.headers.insert(header.to_owned(), Secret::new("x"));
        Service::new(&plan, health.part("catalog")).unwrap_err()
    };
    for (url, header) in [("catalog", "a"), ("ftp://a", "a"), ("unix:/a", "a"), ("http://a", "a b")] {
        let error = refused(url, header);
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(error.message.starts_with("services.catalog: "), "{error}");
    }
    let service = Service::new(&service(ServiceKind::Rest, "http://a"), health.part("catalog")).unwrap();
    let refused = |call: CallPlan| Asking::new(service.clone(), &step(call), None).unwrap_err();
    assert_eq!(refused(post_list("/prices/{key}", &[], &[])).class, ErrorClass::Fatal);
    let CallPlan::Rest { path, body, is_list, each, matched, .. } = get("/{key}", &[]) else { panic!("it is one") };
    let call = CallPlan::Rest { shown: String::new(), method: "GET IT".to_owned(), path, body, is_list, each, matched };
    assert!(refused(call).message.contains("no method"));
}
