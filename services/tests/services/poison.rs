//! A key that a service fails for fails alone, and is told from an outage.

use std::time::Duration;

use serde_json::Value as Json;
use tributary_dsl::plan::{BatchSettings, BreakerSettings, ServiceKind};
use tributary_event::{ErrorClass, HealthState};
use tributary_processor::Answer;

use super::plans::{World, cached, found, get, movie_of, movies as list, post_list, service, step, why};
use super::server::{Seen, Server, movies, ok, status};

/// A GraphQL service that answers so to every request with one of these keys in it.
async fn poisoned(poison: &'static [u32], answer: (u16, &'static str)) -> Server {
    Server::start(move |seen: Seen| async move {
        let ids = seen.ids();
        let is_poisoned = ids.iter().any(|id| poison.iter().any(|poison| *id == *poison));
        if is_poisoned { status(answer.0, answer.1) } else { movies(&ids) }
    })
    .await
}

fn keys(count: u32) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

async fn ask_many(world: &World, count: u32) -> Vec<Answer> {
    let keys = keys(count);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    world.ask(&keys).await.expect("an answer for each")
}

fn only_failed(answers: &[Answer], failed: &[u32], because: &str) {
    for (id, answer) in (0..).zip(answers) {
        if failed.contains(&id) {
            assert!(why(answer).contains(because), "{answer:?}");
        } else {
            assert_eq!(*answer, movie_of(id));
        }
    }
}

#[tokio::test]
async fn one_key_that_fails_a_whole_request_fails_alone() {
    for (answer, because) in [
        ((500, "oops"), "oops"),
        ((200, r#"{"data":null,"errors":[{"message":"resolver panicked"}]}"#), "resolver panicked"),
        ((400, r#"{"errors":[{"message":"bad id"}]}"#), "bad id"),
        ((413, ""), "413"),
        ((422, "no"), "422"),
        ((200, "<html>"), "<html>"),
        ((404, "nothing"), "404"),
    ] {
        let server = poisoned(&[13], answer).await;
        let world = World::movies(&server.url);
        only_failed(&ask_many(&world, 40).await, &[13], because);
        assert!(server.count() < 40, "{} requests for {answer:?}", server.count());
        assert_eq!(world.part().state, HealthState::Up);
    }
}

#[tokio::test]
async fn several_keys_that_fail_a_whole_request_fail_alone() {
    let server = poisoned(&[0, 7, 8, 31], (500, "oops")).await;
    let world = World::movies(&server.url);
    // Which keys are tried alone at first is up to chance.
    let answers = loop {
        if let Ok(answers) = world.ask(&keys(32).iter().map(String::as_str).collect::<Vec<_>>()).await {
            break answers;
        }
    };
    only_failed(&answers, &[0, 7, 8, 31], "oops");
}

#[tokio::test]
async fn poison_does_not_open_the_breaker() {
    let server = poisoned(&[2, 3, 5, 7, 11, 13], (500, "oops")).await;
    let mut plan = service(ServiceKind::Graphql, &server.url);
    plan.breaker = BreakerSettings { failures: 5, slow: None, ..plan.breaker };
    let mut step = step(list());
    step.batch = BatchSettings { max: 5, linger: Duration::from_millis(1) };
    let world = World::new(&plan, &step);
    world.ask(&["100"]).await.expect("a key that it knows");
    only_failed(&ask_many(&world, 20).await, &[2, 3, 5, 7, 11, 13], "oops");
    assert_eq!(world.part().state, HealthState::Up);
}

#[tokio::test]
async fn a_connection_that_breaks_for_a_key_is_that_keys() {
    let server = Server::start(|seen: Seen| async move {
        assert!(!seen.ids().contains(&3.into()), "a panic takes its connection with it");
        movies(&seen.ids())
    })
    .await;
    only_failed(&ask_many(&World::movies(&server.url), 8).await, &[3], "broke off");
}

#[tokio::test]
async fn a_key_that_hangs_is_that_keys() {
    let server = Server::start(|seen: Seen| async move {
        if seen.ids().contains(&3.into()) {
            std::future::pending::<()>().await;
        }
        movies(&seen.ids())
    })
    .await;
    let mut plan = service(ServiceKind::Graphql, &server.url);
    plan.timeout = Duration::from_millis(400);
    only_failed(&ask_many(&World::new(&plan, &step(list())), 4).await, &[3], "did not answer within");
}

#[tokio::test]
async fn a_list_at_a_url_is_halved_too() {
    let server = Server::start(|seen: Seen| async move {
        match seen.ids() {
            ids if ids.contains(&3.into()) => status(500, "oops"),
            ids => ok(Json::from(ids.iter().map(|id| serde_json::json!({ "id": id })).collect::<Vec<_>>()).to_string()),
        }
    })
    .await;
    let world = World::new(&service(ServiceKind::Rest, &server.url), &step(post_list("/all", &[], &["id"])));
    let answers = world.ask(&["1", "2", "3", "4"]).await.unwrap();
    assert_eq!([0, 1, 3].map(|n| answers[n].clone()), [1, 2, 4].map(|id| found(&format!(r#"{{"id":{id}}}"#))));
    assert!(why(&answers[2]).contains("oops"));
}

#[tokio::test]
async fn a_key_alone_is_to_blame_only_beside_others() {
    let server =
        Server::start(
            |seen: Seen| async move { if seen.target == "/3" { status(500, "oops") } else { ok(r#"{"a":1}"#) } },
        )
        .await;
    let world = World::new(&service(ServiceKind::Rest, &server.url), &step(get("/{key}", &[])));
    let error = world.ask(&["3"]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "nobody knows whether it answers at all");
    assert!(error.message.contains("oops"), "{error}");
    world.ask(&["1"]).await.expect("it does");
    let answers = world.ask(&["3", "2"]).await.unwrap();
    assert!(why(&answers[0]).contains("oops"));
    assert_eq!(answers[1], found(r#"{"a":1}"#));
    let asked: Vec<String> = server.seen().iter().map(|seen| seen.target.clone()).collect();
    assert!(asked.iter().filter(|target| *target == "/1").count() > 1, "it is asked for what it knew: {asked:?}");
}

#[tokio::test]
async fn what_fails_for_every_key_is_an_outage() {
    for answer in [
        (500, "oops"),
        (503, "oops"),
        (200, r#"{"data":null,"errors":[{"message":"oops"}]}"#),
        (200, "oops"),
        (404, "oops"),
    ] {
        let all: &[u32] = &[0, 1, 2, 3, 4];
        let server = poisoned(all, answer).await;
        let world = World::movies(&server.url);
        let error = world.ask(&["0", "1", "2", "3", "4"]).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{answer:?}");
        assert!(error.message.contains("the service catalog at http://127.0.0.1:") && error.message.contains("oops"));
        // That another key goes well makes it theirs.
        world.ask(&["5"]).await.expect("it answers");
        let answers = world.ask(&["0", "1", "2", "3", "4"]).await.unwrap();
        assert!(answers.iter().all(|answer| why(answer).contains("oops")), "{answers:?}");
    }
}

#[tokio::test]
async fn failures_are_not_kept() {
    let server = poisoned(&[3], (422, "oops")).await;
    let hour = Duration::from_secs(3600);
    let world = World::new(&service(ServiceKind::Graphql, &server.url), &cached(list(), hour, hour));
    only_failed(&ask_many(&world, 8).await, &[3], "oops");
    let asked = server.count();
    only_failed(&ask_many(&world, 8).await, &[3], "oops");
    assert_eq!(server.seen()[asked..].iter().map(Seen::ids).collect::<Vec<_>>(), [[3]]);
}

#[tokio::test]
async fn requests_become_smaller_where_they_are_too_much() {
    let server =
        Server::start(
            |seen: Seen| async move { if seen.ids().len() > 10 { status(413, "") } else { movies(&seen.ids()) } },
        )
        .await;
    let world = World::movies(&server.url);
    for _ in 0..5 {
        only_failed(&ask_many(&world, 64).await, &[], "");
    }
    let asked = server.count();
    only_failed(&ask_many(&world, 64).await, &[], "");
    let sizes: Vec<usize> = server.seen()[asked..].iter().map(|seen| seen.ids().len()).collect();
    assert_eq!(sizes, [8; 8]);
}

#[tokio::test]
async fn a_key_that_fails_once_is_asked_for_again() {
    let fails = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let server = Server::start(move |seen: Seen| {
        let fails = seen.target == "/3" && fails.swap(false, std::sync::atomic::Ordering::SeqCst);
        async move { if fails { status(500, "oops") } else { ok("7") } }
    })
    .await;
    let world = World::new(&service(ServiceKind::Rest, &server.url), &step(get("/{key}", &[])));
    world.ask(&["1"]).await.expect("it answers");
    assert_eq!(world.ask(&["3"]).await.unwrap(), [found("7")]);
}
