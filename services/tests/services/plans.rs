//! Plans of services and steps, as short as tests want them, and what tests do with answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tributary_dsl::plan::{
    BatchSettings, BreakerSettings, CacheSettings, CallPlan, EnrichPlan, Missing, ServiceKind, ServicePlan,
};
use tributary_event::{Health, PartHealth};
use tributary_expression::{Path, Program, Shape};
use tributary_processor::{Answer, Enricher};
use tributary_services::{Asking, Service};

/// A service that does not mind failures, and waits for ten seconds.
pub fn service(kind: ServiceKind, url: &str) -> ServicePlan {
    ServicePlan {
        name: "catalog".to_owned(),
        kind,
        url: url.to_owned(),
        headers: Default::default(),
        timeout: Duration::from_secs(10),
        concurrency: 16,
        rate: None,
        breaker: BreakerSettings {
            failures: 100,
            slow: None,
            window: Duration::from_secs(3600),
            pause: Duration::from_millis(200),
        },
    }
}

/// A list of movies by a GraphQL query.
pub fn movies() -> CallPlan {
    CallPlan::Graphql {
        query: "query Movies($ids: [ID!]!) { movies(ids: $ids) { id title } }".to_owned(),
        operation: Some("Movies".to_owned()),
        variable: "ids".to_owned(),
        is_list: true,
        each: vec!["movies".to_owned()],
        matched: vec!["id".to_owned()],
    }
}

/// One movie by a GraphQL query.
pub fn movie() -> CallPlan {
    CallPlan::Graphql {
        query: "query ($id: ID!) { movie(id: $id) { id title } }".to_owned(),
        operation: None,
        variable: "id".to_owned(),
        is_list: false,
        each: vec!["movie".to_owned()],
        matched: Vec::new(),
    }
}

/// A request for one key.
pub fn get(path: &str, each: &[&str]) -> CallPlan {
    CallPlan::Rest {
        shown: String::new(),
        method: "GET".to_owned(),
        path: path.to_owned(),
        body: None,
        is_list: false,
        each: each.iter().map(|name| name.to_string()).collect(),
        matched: Vec::new(),
    }
}

/// A request for a list of keys, whose body is `{"ids": […]}`.
pub fn post_list(path: &str, each: &[&str], matched: &[&str]) -> CallPlan {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    CallPlan::Rest {
        shown: String::new(),
        method: "POST".to_owned(),
        path: path.to_owned(),
        body: Some(Box::new(program(r#"{ "ids": .keys }"#))),
        is_list: true,
        each: names(each),
        matched: names(matched),
    }
}

pub fn program(text: &str) -> Program {
    Program::compile(text, &Shape::any()).expect("it compiles").0
}

/// A step that keeps no answers, and waits five milliseconds for other keys.
pub fn step(call: CallPlan) -> EnrichPlan {
    EnrichPlan {
        service: "catalog".to_owned(),
        call,
        key: program(".id"),
        into: Path::parse(".movie").expect("a path"),
        batch: BatchSettings { max: 100, linger: Duration::from_millis(5) },
        cache: None,
        missing: Missing::Keep,
    }
}

pub fn cached(call: CallPlan, ttl: Duration, missing: Duration) -> EnrichPlan {
    EnrichPlan { cache: Some(CacheSettings { ttl, missing, max: 1 << 20, changes: true }), ..step(call) }
}

/// A service and a step that asks it.
pub struct World {
    pub health: Health,
    pub asking: Arc<Asking>,
}

impl World {
    pub fn new(service: &ServicePlan, step: &EnrichPlan) -> Self {
        let health = Health::default();
        let service = Service::new(service, health.part("catalog")).expect("a service");
        Self { health, asking: Asking::new(service, step, None).expect("a step") }
    }

    /// GraphQL movies by lists, at a URL.
    pub fn movies(url: &str) -> Self {
        Self::new(&service(ServiceKind::Graphql, url), &step(movies()))
    }

    pub async fn ask(&self, keys: &[&str]) -> Result<Vec<Answer>, tributary_processor::OutsideError> {
        self.asking.ask(&bytes(keys)).await
    }

    pub fn part(&self) -> PartHealth {
        self.health.parts()["catalog"].clone()
    }
}

pub fn bytes(keys: &[&str]) -> Vec<Bytes> {
    keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect()
}

pub fn found(json: &str) -> Answer {
    Answer::Found(Bytes::copy_from_slice(json.as_bytes()))
}

/// What [`crate::services::server::movies`] says of an id.
pub fn movie_of(id: u32) -> Answer {
    found(&format!(r#"{{"id":{id},"title":"movie {id}"}}"#))
}

/// What is told of a failure.
pub fn why(answer: &Answer) -> &str {
    match answer {
        Answer::Failed(why) => why,
        other => panic!("{other:?} is no failure"),
    }
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
