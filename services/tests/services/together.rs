//! Keys that are asked for together: in one request, once, in the order of whoever asks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::Semaphore;
use tributary_dsl::plan::{BatchSettings, RateLimit, ServiceKind};
use tributary_processor::{Answer, Enricher};

use super::plans::{World, bytes, cached, found, movie_of, movies as list, service, step, until};
use super::server::{Seen, Server, movies, ok};

const HOUR: Duration = Duration::from_secs(3600);

/// A server that answers when it is let.
async fn gated() -> (Server, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let server = Server::start(move |seen: Seen| {
        let held = held.clone();
        async move {
            held.acquire().await.expect("it is not closed").forget();
            movies(&seen.ids())
        }
    });
    (server.await, gate)
}

#[tokio::test]
async fn keys_go_in_one_request_once_and_answers_come_in_order() {
    let server =
        Server::start(|seen: Seen| async move { movies(&seen.ids().into_iter().rev().collect::<Vec<_>>()) }).await;
    let world = World::movies(&server.url);
    let answers = world.ask(&["3", "1", "3", "2", "1"]).await.unwrap();
    assert_eq!(answers, [3, 1, 3, 2, 1].map(movie_of));
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].ids()), (1, vec![3.into(), 1.into(), 2.into()]));
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/"));
    assert_eq!(seen[0].json()["operationName"], "Movies");
    assert_eq!(seen[0].headers["content-type"], "application/json");
    assert_eq!(world.ask(&[]).await.unwrap(), []);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn no_request_has_more_keys_than_it_may() {
    let server = Server::start(|seen: Seen| async move { movies(&seen.ids()) }).await;
    let mut plan = step(list());
    plan.batch = BatchSettings { max: 10, linger: Duration::from_millis(1) };
    let world = World::new(&service(ServiceKind::Graphql, &server.url), &plan);
    let keys: Vec<String> = (0..95).map(|n| n.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(world.ask(&keys).await.unwrap(), (0..95).map(movie_of).collect::<Vec<_>>());
    let mut sizes: Vec<usize> = server.seen().iter().map(|seen| seen.ids().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [5, 10, 10, 10, 10, 10, 10, 10, 10, 10]);
}

#[tokio::test]
async fn keys_of_several_callers_gather_in_one_request() {
    let server = Server::start(|seen: Seen| async move { movies(&seen.ids()) }).await;
    let mut plan = step(list());
    // Only a full request is sent.
    plan.batch = BatchSettings { max: 4, linger: HOUR };
    let world = World::new(&service(ServiceKind::Graphql, &server.url), &plan);
    let (one, other) = futures::join!(world.ask(&["1", "2"]), world.ask(&["2", "3", "4"]));
    assert_eq!(one.unwrap(), [1, 2].map(movie_of));
    assert_eq!(other.unwrap(), [2, 3, 4].map(movie_of));
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_key_that_is_being_asked_for_is_waited_for() {
    let (server, gate) = gated().await;
    let world = Arc::new(World::movies(&server.url));
    let ask = |keys: &'static [&'static str]| {
        let world = world.clone();
        tokio::spawn(async move { world.ask(keys).await })
    };
    let first = ask(&["1", "2"]);
    until("the first request", || server.count() == 1).await;
    let second = ask(&["2", "3"]);
    until("the second request", || server.count() == 2).await;
    gate.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap(), [1, 2].map(movie_of));
    assert_eq!(second.await.unwrap().unwrap(), [2, 3].map(movie_of));
    assert_eq!(server.seen()[1].ids(), [3]);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_nothing_from_others() {
    let (server, gate) = gated().await;
    let world = Arc::new(World::movies(&server.url));
    let asking = world.clone();
    let gone = tokio::spawn(async move { asking.ask(&["1", "2"]).await });
    until("the request", || server.count() == 1).await;
    let asking = world.clone();
    let stays = tokio::spawn(async move { asking.ask(&["2"]).await });
    // It is waiting when a later question is on its way.
    let asking = world.clone();
    let later = tokio::spawn(async move { asking.ask(&["3", "2"]).await });
    until("the later request", || server.count() == 2).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    gate.add_permits(2);
    assert_eq!(stays.await.unwrap().unwrap(), [movie_of(2)]);
    assert_eq!(later.await.unwrap().unwrap(), [3, 2].map(movie_of));
    gate.add_permits(1);
    assert_eq!(world.ask(&["1"]).await.unwrap(), [movie_of(1)]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_asked_for() {
    let server = Server::start(|seen: Seen| async move { movies(&seen.ids()) }).await;
    let mut plan = step(list());
    plan.batch = BatchSettings { max: 2, linger: HOUR };
    let world = Arc::new(World::new(&service(ServiceKind::Graphql, &server.url), &plan));
    for _ in 0..3 {
        let asking = world.clone();
        let gone = tokio::time::timeout(Duration::from_millis(50), async move { asking.ask(&["1"]).await }).await;
        assert!(gone.is_err(), "it waits for another key");
    }
    let both = futures::join!(world.ask(&["2"]), world.ask(&["3", "4"]));
    // The first key fills a request, and goes with it or not at all.
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (vec![movie_of(2)], [3, 4].map(movie_of).to_vec()));
    let asked: Vec<Json> = server.seen().iter().flat_map(Seen::ids).collect();
    assert!(!asked.contains(&1.into()), "{asked:?}");
}

#[tokio::test]
async fn answers_are_kept_for_their_time_and_lacks_for_theirs() {
    let server =
        Server::start(
            |seen: Seen| async move { movies(&seen.ids().into_iter().filter(|id| *id != 9).collect::<Vec<_>>()) },
        )
        .await;
    let plan = cached(list(), HOUR, Duration::from_millis(300));
    let world = World::new(&service(ServiceKind::Graphql, &server.url), &plan);
    let expected = [movie_of(1), Answer::Missing];
    assert_eq!(world.ask(&["1", "9"]).await.unwrap(), expected);
    let asked = server.count();
    let asked_for_missing = || server.seen().iter().skip(asked).map(Seen::ids).collect::<Vec<_>>();
    while asked_for_missing().is_empty() {
        assert_eq!(world.ask(&["1", "9"]).await.unwrap(), expected);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(asked_for_missing(), [[9]], "what was known is still kept");
}

#[tokio::test]
async fn kept_answers_are_asked_for_again_after_their_time() {
    let server = Server::start(|seen: Seen| async move { movies(&seen.ids()) }).await;
    let plan = cached(list(), Duration::from_millis(200), HOUR);
    let world = World::new(&service(ServiceKind::Graphql, &server.url), &plan);
    while server.count() < 3 {
        assert_eq!(world.ask(&["1"]).await.unwrap(), [movie_of(1)]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let hour = World::new(&service(ServiceKind::Graphql, &server.url), &cached(list(), HOUR, HOUR));
    for _ in 0..5 {
        assert_eq!(hour.ask(&["1", "2"]).await.unwrap(), [1, 2].map(movie_of));
    }
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn requests_in_flight_are_as_many_as_may_be() {
    let (server, gate) = gated().await;
    let mut plan = service(ServiceKind::Graphql, &server.url);
    plan.concurrency = 3;
    let mut one = step(list());
    one.batch = BatchSettings { max: 1, linger: Duration::ZERO };
    let world = Arc::new(World::new(&plan, &one));
    let asking = world.clone();
    let all = tokio::spawn(async move { asking.ask(&["1", "2", "3", "4", "5", "6", "7"]).await });
    until("three requests", || server.count() == 3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.count(), 3);
    gate.add_permits(1);
    until("another one", || server.count() == 4).await;
    gate.add_permits(100);
    assert_eq!(all.await.unwrap().unwrap(), [1, 2, 3, 4, 5, 6, 7].map(movie_of));
}

#[tokio::test]
async fn all_steps_of_a_service_share_its_rate() {
    let server = Server::start(|seen: Seen| async move { movies(&seen.ids()) }).await;
    let mut plan = service(ServiceKind::Graphql, &server.url);
    plan.rate = Some(RateLimit { requests: 2, per: HOUR });
    let health = tributary_event::Health::default();
    let service = tributary_services::Service::new(&plan, health.part("catalog")).unwrap();
    let one = tributary_services::Asking::new(service.clone(), &step(list()), None).unwrap();
    let other = tributary_services::Asking::new(service, &step(list()), None).unwrap();
    assert_eq!(one.ask(&bytes(&["1"])).await.unwrap(), [movie_of(1)]);
    let keys = bytes(&["2"]);
    assert!(tokio::time::timeout(Duration::from_millis(200), other.ask(&keys)).await.is_err());
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn answers_are_what_was_sent_digit_by_digit() {
    let body =
        r#"{"data":{"movies":[ {"title" : "é","id":"9007199254740993", "box": 12345678901234567890.0123456789 } ]}}"#;
    let server = Server::start(move |_| async move { ok(body) }).await;
    let world = World::movies(&server.url);
    // A number as a key, a text in the answer.
    let answers = world.ask(&["9007199254740993"]).await.unwrap();
    let sent = r#"{"title" : "é","id":"9007199254740993", "box": 12345678901234567890.0123456789 }"#;
    assert_eq!(answers, [found(sent)]);
    assert!(server.seen()[0].body.contains(r#"{"ids":[9007199254740993]}"#), "{}", server.seen()[0].body);
}
