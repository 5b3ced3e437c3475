//! Whatever keys a service does not know, fails for or hides: each key gets the answer that is its own.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tributary_dsl::plan::{BatchSettings, ServiceKind};
use tributary_event::ErrorClass;
use tributary_processor::{Answer, OutsideError};

use super::plans::{World, found, movies as list, service, step};
use super::server::{Seen, Server, ok, status};

/// What a service does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Knows,
    Lacks,
    /// It sends null for it.
    Nulls,
    /// It fails for the whole request: by a status, by an error without a path, by something that is no JSON.
    Breaks(u16),
    Panics,
    Garbles,
    /// It fails for its element: with null for it, or for a field of it.
    Withholds,
    Spoils,
}

#[derive(Debug, Clone)]
struct Truth {
    does: BTreeMap<u64, Does>,
    /// Elements of an answer at most.
    page: usize,
    is_reversed: bool,
}

impl Truth {
    fn random(random: &mut fastrand::Rng) -> Self {
        let share = random.f64();
        let count = random.u64(1..60);
        let kinds = [
            Does::Lacks,
            Does::Nulls,
            Does::Breaks(500),
            Does::Breaks(400),
            Does::Breaks(422),
            Does::Breaks(504),
            Does::Panics,
            Does::Garbles,
            Does::Withholds,
            Does::Spoils,
        ];
        // All kinds at once say less than a few.
        let some = random.usize(1..5);
        let kinds = random.choose_multiple(kinds, some);
        let mut does: BTreeMap<u64, Does> = (0..count)
            .map(|key| (key, if random.f64() < share * 0.6 { kinds[random.usize(..kinds.len())] } else { Does::Knows }))
            .collect();
        does.insert(1000, Does::Knows);
        Self { does, page: *random.choice(&[1, 3, 1000, 1000]).expect("one"), is_reversed: random.bool() }
    }

    fn answer(&self, ids: &[Json]) -> axum::response::Response {
        let mut keys: Vec<u64> = ids.iter().filter_map(Json::as_u64).collect();
        if self.is_reversed {
            keys.reverse();
        }
        for key in &keys {
            match self.does[key] {
                Does::Breaks(code) => return status(code, "it broke"),
                Does::Garbles => return ok("<html>"),
                Does::Panics => return ok(r#"{"data":null,"errors":[{"message":"it panicked"}]}"#),
                _ => {}
            }
        }
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for key in keys {
            let place = all.len();
            if place >= self.page || self.does[&key] == Does::Lacks {
                continue;
            }
            all.push(match self.does[&key] {
                Does::Nulls => Json::Null,
                Does::Withholds => {
                    errors.push(json!({ "message": "it is withheld", "path": ["movies", place] }));
                    Json::Null
                }
                Does::Spoils => {
                    errors.push(json!({ "message": "it is spoilt", "path": ["movies", place, "title"] }));
                    json!({ "id": key, "title": null })
                }
                _ => json!({ "id": key.to_string(), "title": "x" }),
            });
        }
        let mut answer = json!({ "data": { "movies": all } });
        if !errors.is_empty() {
            answer["errors"] = errors.into();
        }
        ok(answer.to_string())
    }
}

/// Asks as a stream does: again after what may pass. A request that has the only key that the service knows beside many that it fails for is
/// told from an outage only when that key happens to be asked for alone.
async fn answers(world: &World, keys: &[&str]) -> Result<Vec<Answer>, OutsideError> {
    const TRIES: usize = 300;
    for _ in 1..TRIES {
        match world.ask(keys).await {
            Err(error) if error.class == ErrorClass::Transient => tokio::time::sleep(Duration::from_millis(2)).await,
            told => return told,
        }
    }
    world.ask(keys).await
}

#[tokio::test]
async fn each_key_gets_the_answer_that_is_its_own() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let truth = Truth::random(&mut random);
        let told = truth.clone();
        let server = Server::start(move |seen: Seen| {
            let answer = told.answer(&seen.ids());
            async move { answer }
        })
        .await;
        let mut plan = step(list());
        plan.batch = BatchSettings { max: random.usize(1..40), linger: Duration::from_millis(1) };
        let mut service = service(ServiceKind::Graphql, &server.url);
        // What is poisonous opens no breaker.
        service.breaker.failures = 1;
        service.breaker.pause = Duration::from_millis(1);
        let world = World::new(&service, &plan);
        assert_eq!(world.ask(&["1000"]).await.unwrap(), [found(r#"{"id":"1000","title":"x"}"#)]);
        let mut keys: Vec<String> = truth.does.keys().map(u64::to_string).collect();
        random.shuffle(&mut keys);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let answers = answers(&world, &keys).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for (key, answer) in keys.iter().zip(answers) {
            let does = truth.does[&key.parse::<u64>().unwrap()];
            let is_right = match does {
                Does::Knows => answer == found(&format!(r#"{{"id":"{key}","title":"x"}}"#)),
                Does::Lacks | Does::Nulls => answer == Answer::Missing,
                _ => matches!(answer, Answer::Failed(_)),
            };
            assert!(is_right, "seed {seed}: {key} {does:?}: {answer:?}, of {truth:?}");
        }
    }
}
