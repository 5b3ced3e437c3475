//! Kept answers fall when something that they hold changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use tributary_dsl::plan::{EnrichPlan, ServiceKind};
use tributary_event::Health;
use tributary_processor::{Answer, Enricher as _};
use tributary_services::{Asking, Held, Service};

use super::plans::{bytes, cached, found, movies, service};
use super::server::{Seen, Server, ok};

const HOUR: Duration = Duration::from_secs(3600);

/// A service whose movies have the time, and each a lead of the same number; answers wait for the gate once they are made.
struct Films {
    server: Server,
    time: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
}

impl Films {
    async fn start() -> Self {
        let (time, gate) = (Arc::new(AtomicU64::new(1)), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)));
        let (now, open) = (time.clone(), gate.clone());
        let server = Server::start(move |seen: Seen| {
            let (now, open) = (now.clone(), open.clone());
            async move {
                let is_typed = seen.json()["query"].as_str().is_some_and(|query| query.contains("__typename"));
                let movie = |id: &serde_json::Value| {
                    let mut movie = json!({ "id": id, "time": now.load(Ordering::SeqCst), "lead": { "rowId": id } });
                    if is_typed {
                        movie["tributary_type"] = "Movie".into();
                        movie["lead"]["tributary_type"] = "Talent".into();
                    }
                    movie
                };
                let movies: Vec<_> = seen.ids().iter().map(movie).collect();
                let _open = open.acquire().await.expect("a gate");
                ok(json!({ "data": { "movies": movies } }).to_string())
            }
        });
        Self { server: server.await, time, gate }
    }

    fn asking(&self, held: &Arc<Held>, step: &EnrichPlan) -> Arc<Asking> {
        let service = service(ServiceKind::Graphql, &self.server.url);
        let service = Service::new(&service, Health::default().part("catalog")).expect("a service");
        Asking::new(service, step, Some(held.clone())).expect("a step")
    }
}

fn held() -> Arc<Held> {
    let ids = [("Movie", "id"), ("Talent", "rowId")].map(|(name, id)| (name.to_owned(), id.to_owned()));
    Held::new(BTreeMap::from(ids), Duration::ZERO)
}

/// When the answers for keys were made.
async fn times(asking: &Asking, keys: &[&str]) -> Vec<u64> {
    let answers = asking.ask(&bytes(keys)).await.expect("answers");
    let time = |(key, answer): (&&str, &Answer)| {
        let id: u64 = key.parse().expect("a number");
        let made_at = |time| found(&json!({ "id": id, "lead": { "rowId": id }, "time": time }).to_string());
        (0..9).find(|time| made_at(*time) == *answer).unwrap_or_else(|| panic!("{answer:?}"))
    };
    keys.iter().zip(&answers).map(time).collect()
}

#[tokio::test]
async fn an_answer_falls_with_each_vertex_that_it_holds() {
    let (films, held) = (Films::start().await, held());
    let asking = films.asking(&held, &cached(movies(), HOUR, HOUR));
    // As long as nobody tells of changes nothing is kept.
    assert_eq!(times(&asking, &["7", "8"]).await, [1, 1]);
    films.time.store(2, Ordering::SeqCst);
    assert_eq!(times(&asking, &["7", "8"]).await, [2, 2]);
    held.is_followed();
    assert_eq!(times(&asking, &["7", "8"]).await, [2, 2]);
    for (time, changed, expected) in [
        (3, ("Movie", "7"), [3, 2]),
        (4, ("Talent", "8"), [3, 4]),
        (5, ("Vendor", "7"), [3, 4]),
        (6, ("Movie", "9"), [3, 4]),
    ] {
        films.time.store(time, Ordering::SeqCst);
        held.changed([changed]).await;
        assert_eq!(times(&asking, &["7", "8"]).await, expected, "{changed:?}");
    }
    held.emptied("Talent").await;
    assert_eq!(times(&asking, &["7", "8"]).await, [6, 6]);
    films.time.store(7, Ordering::SeqCst);
    held.missed();
    assert_eq!(times(&asking, &["7", "8"]).await, [7, 7]);
    assert_eq!(films.server.count(), 7);
}

#[tokio::test]
async fn an_answer_that_was_under_way_during_a_change_is_not_kept() {
    let (films, held) = (Films::start().await, held());
    held.is_followed();
    let asking = films.asking(&held, &cached(movies(), HOUR, HOUR));
    films.gate.forget_permits(Semaphore::MAX_PERMITS);
    let early = tokio::spawn({
        let asking = asking.clone();
        async move { times(&asking, &["7"]).await }
    });
    while films.server.count() < 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    films.time.store(2, Ordering::SeqCst);
    held.changed([("Movie", "7")]).await;
    films.gate.add_permits(100);
    assert_eq!(early.await.expect("done"), [1]);
    assert_eq!(times(&asking, &["7"]).await, [2]);
    films.time.store(3, Ordering::SeqCst);
    assert_eq!(times(&asking, &["7"]).await, [2]);
}

#[tokio::test]
async fn a_service_is_asked_as_it_was_where_changes_are_off() {
    let (films, held) = (Films::start().await, held());
    held.is_followed();
    let mut step = cached(movies(), HOUR, HOUR);
    step.cache.as_mut().expect("done").changes = false;
    let asking = films.asking(&held, &step);
    assert_eq!(times(&asking, &["7"]).await, [1]);
    films.time.store(2, Ordering::SeqCst);
    held.changed([("Movie", "7")]).await;
    assert_eq!(times(&asking, &["7"]).await, [1]);
    assert!(films.server.seen().iter().all(|seen| !seen.body.contains("__typename")));
}
