//! A service that is away, refuses us, hangs, or wants to be left alone: nothing is skipped, and nothing is taken for a fact about a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::Response;
use tokio::net::TcpListener;
use tributary_dsl::plan::{BreakerSettings, ServiceKind, ServicePlan};
use tributary_event::{ErrorClass, HealthState};
use tributary_processor::Answer;

use super::plans::{World, get, movie_of, movies as list, service, step, why};
use super::server::{Seen, Server, movies, ok, pieces, status};

fn with(mut answer: Response, header: &'static str, value: impl Into<String>) -> Response {
    answer.headers_mut().insert(header, HeaderValue::try_from(value.into()).expect("a header"));
    answer
}

/// A GraphQL service of movies that answers by a status, until that is 200.
async fn switched(first: u16) -> (Server, Arc<AtomicU16>) {
    let now = Arc::new(AtomicU16::new(first));
    let switch = now.clone();
    let server = Server::start(move |seen: Seen| {
        let code = switch.load(Ordering::SeqCst);
        async move { if code == 200 { movies(&seen.ids()) } else { status(code, "oops") } }
    })
    .await;
    (server, now)
}

fn touchy(url: &str) -> ServicePlan {
    let mut plan = service(ServiceKind::Graphql, url);
    plan.breaker = BreakerSettings { failures: 50, pause: Duration::from_secs(2), ..plan.breaker };
    plan
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let left = Arc::new(AtomicUsize::new(2));
    let server = Server::start(move |seen: Seen| {
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        async move { if fails { status(502, "") } else { movies(&seen.ids()) } }
    })
    .await;
    assert_eq!(World::movies(&server.url).ask(&["1"]).await.unwrap(), [movie_of(1)]);
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn an_outage_ends_when_the_server_comes_back() {
    let server = Server::start(|seen: Seen| async move { movies(&seen.ids()) }).await;
    let world = World::movies(&server.url);
    world.ask(&["1"]).await.expect("it is there");
    let address = server.stop().await;
    let error = world.ask(&["1", "2"]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    let listener = TcpListener::bind(address).await.expect("the same port");
    let _server = Server::on(listener, |seen: Seen| async move { movies(&seen.ids()) });
    assert_eq!(world.ask(&["1", "2"]).await.unwrap(), [1, 2].map(movie_of));
}

#[tokio::test]
async fn the_breaker_opens_and_closes_again() {
    let (server, code) = switched(200).await;
    let world = World::new(&touchy(&server.url), &step(list()));
    world.ask(&["1"]).await.expect("it works");
    code.store(500, Ordering::SeqCst);
    let left_alone = loop {
        let error = world.ask(&["1", "2"]).await.expect_err("it fails for all");
        assert_eq!(error.class, ErrorClass::Transient);
        if error.message.contains("is left alone for") {
            break error.message;
        }
    };
    assert!(left_alone.contains("the service catalog") && left_alone.contains("oops"), "{left_alone}");
    let part = world.part();
    assert_eq!(part.state, HealthState::Down);
    assert!(part.why.as_deref().is_some_and(|why| why.contains("oops")), "{part:?}");
    let asked = server.count();
    assert!(world.ask(&["3"]).await.is_err());
    assert_eq!(server.count(), asked, "nothing is sent while it is open");
    code.store(200, Ordering::SeqCst);
    let answers = loop {
        if let Ok(answers) = world.ask(&["1", "2"]).await {
            break answers;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(answers, [1, 2].map(movie_of));
    assert_eq!((world.part().state, world.part().why), (HealthState::Up, None));
}

#[tokio::test]
async fn a_trial_that_fails_opens_it_again() {
    let (server, code) = switched(500).await;
    let mut plan = touchy(&server.url);
    plan.breaker.pause = Duration::from_millis(500);
    let world = World::new(&plan, &step(list()));
    let opens = async || {
        while !world.ask(&["1"]).await.expect_err("it fails for all").message.contains("is left alone for") {}
    };
    opens().await;
    let before = server.count();
    tokio::time::sleep(Duration::from_millis(600)).await;
    opens().await;
    assert_eq!(server.count(), before + 1, "one request tries it");
    code.store(200, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.ask(&["1"]).await.unwrap(), [movie_of(1)]);
}

#[tokio::test]
async fn slow_answers_open_the_breaker() {
    let server = Server::start(|seen: Seen| async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        movies(&seen.ids())
    })
    .await;
    let mut plan = touchy(&server.url);
    plan.breaker.slow = Some(Duration::from_millis(10));
    let world = World::new(&plan, &step(list()));
    let error = loop {
        if let Err(error) = world.ask(&["1"]).await {
            break error;
        }
    };
    assert!(error.message.contains("slow is what takes 10ms"), "{error}");
}

#[tokio::test]
async fn a_service_that_is_asked_too_often_is_left_alone_as_long_as_it_says() {
    let first = Arc::new(AtomicUsize::new(0));
    let counting = first.clone();
    let server = Server::start(move |seen: Seen| {
        let is_first = counting.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if is_first { with(status(429, "slow down"), "retry-after", "1") } else { movies(&seen.ids()) } }
    })
    .await;
    let world = World::movies(&server.url);
    let begun = std::time::Instant::now();
    assert_eq!(world.ask(&["1", "2"]).await.unwrap(), [1, 2].map(movie_of));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_long_pause_holds_for_the_whole_service_and_is_told() {
    for (code, after) in [(429, "3000"), (503, "Fri, 31 Dec 2100 23:59:59 GMT")] {
        let server = Server::start(move |_| async move { with(status(code, "later"), "retry-after", after) }).await;
        let world = World::movies(&server.url);
        let error = world.ask(&["1"]).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient);
        assert!(error.message.contains("asked to be left alone"), "{error}");
        let asked = server.count();
        let again = world.ask(&["2", "3"]).await.unwrap_err();
        assert!(again.message.contains("asked to be left alone"), "{again}");
        assert_eq!((asked, server.count()), (1, 1), "{code}");
    }
}

#[tokio::test]
async fn a_service_that_always_says_too_often_is_no_fact_about_keys() {
    let server = Server::start(|_| async move { status(429, "slow down") }).await;
    let world = World::movies(&server.url);
    let error = world.ask(&["1", "2"]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("429") && error.message.contains("lower the rate"), "{error}");
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_service_that_refuses_us_is_told_with_the_remedy() {
    for (code, word) in [(401, "headers"), (403, "headers"), (407, "headers"), (405, "method")] {
        let (server, now) = switched(code).await;
        let world = World::movies(&server.url);
        let error = world.ask(&["1", "2"]).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(error.message.contains("the service catalog at") && error.message.contains(word), "{error}");
        assert_eq!(server.count(), 1, "it is not tried again");
        assert_eq!((world.part().state, world.part().why.as_deref()), (HealthState::Down, Some(&*error.message)));
        now.store(200, Ordering::SeqCst);
        assert_eq!(world.ask(&["1", "2"]).await.unwrap(), [1, 2].map(movie_of));
        assert_eq!(world.part().state, HealthState::Up);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Server::start(|seen: Seen| async move {
        assert_eq!(seen.target, "/");
        with(status(308, ""), "location", "https://elsewhere/graphql?token=abc")
    })
    .await;
    let error = World::movies(&server.url).ask(&["1"]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("to https://elsewhere/graphql is not followed"), "{error}");
    assert!(!error.message.contains("abc"), "{error}");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_an_outage() {
    let server = Server::start(|_| std::future::pending()).await;
    let mut plan = service(ServiceKind::Graphql, &server.url);
    plan.timeout = Duration::from_millis(100);
    let error = World::new(&plan, &step(list())).ask(&["1", "2"]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("did not answer within 100ms"), "{error}");
}

#[tokio::test]
async fn a_body_that_never_ends_in_time_is_as_bad() {
    let server = Server::start(|_| async {
        use futures::StreamExt;
        let first = futures::stream::iter([Ok::<_, std::convert::Infallible>(axum::body::Bytes::from_static(b"{"))]);
        Response::new(axum::body::Body::from_stream(first.chain(futures::stream::pending())))
    })
    .await;
    let mut plan = service(ServiceKind::Graphql, &server.url);
    plan.timeout = Duration::from_millis(100);
    let error = World::new(&plan, &step(list())).ask(&["1"]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_that_keys() {
    static PIECE: [u8; 1 << 20] = [b' '; 1 << 20];
    let server =
        Server::start(|seen: Seen| async move { if seen.target == "/big" { pieces(65, &PIECE) } else { ok("7") } })
            .await;
    let world = World::new(&service(ServiceKind::Rest, &server.url), &step(get("/{key}", &[])));
    let answers = world.ask(&[r#""big""#, r#""small""#]).await.unwrap();
    assert!(why(&answers[0]).contains("more than 67108864 bytes"), "{answers:?}");
    assert_eq!(answers[1], Answer::Found("7".into()));
}
