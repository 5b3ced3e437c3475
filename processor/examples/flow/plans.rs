//! What is done with events, as pipelines would have it.

use std::collections::BTreeMap;
use std::time::Duration;

use tributary_dsl::plan::{
    BatchSettings, BreakerSettings, CacheSettings, CallPlan, DeliveryOrder, DeliveryPlan, EnrichPlan, Missing, OnError,
    Origin, Place, Redelivery, Secret, ServiceKind, ServicePlan, SinkPlan, Start, Step, StepPlan, StreamInput,
    StreamPlan, TopicSink, WebhookFormat, WebhookPlan,
};
use tributary_event::Op;
use tributary_expression::{Path, Program, Shape};

use crate::Failure;
use crate::events::TABLE;

/// The step that asks a service.
pub const ENRICH: &str = "enrich-1";

fn program(text: &str) -> Result<Program, Failure> {
    let compiled = Program::compile(text, &Shape::any());
    compiled.map(|(program, _)| program).map_err(|problems| format!("{text}: {problems:?}").into())
}

/// A filter that lets none pass, or each and makes another event of it; or instead of both a question to a service.
pub fn stream(is_mapped: bool, enrich: Option<EnrichPlan>) -> Result<StreamPlan, Failure> {
    let step = |name: &str, plan| Step { name: name.into(), plan, on_error: None };
    let steps = match enrich {
        Some(enrich) => vec![step(ENRICH, StepPlan::Enrich(Box::new(enrich)))],
        None if is_mapped => {
            let map = r#". = { "id": .after.id, "title": .after.title, "votes": .after.imdb_votes }"#;
            vec![
                step("filter-1", StepPlan::Filter(program(".after.imdb_votes != 0")?)),
                step("transform-2", StepPlan::Transform(program(map)?)),
            ]
        }
        None => vec![step("filter-1", StepPlan::Filter(program(".after.runtime_min == 1")?))],
    };
    let out = TopicSink { name: "out".into(), key: None, compact: false, cloud_events: false, when: None };
    Ok(StreamPlan {
        name: "flow".into(),
        from: vec![StreamInput {
            topic: TABLE.into(),
            origin: Origin::Table { source: "db".into(), table: "public.movie".into() },
        }],
        ops: vec![Op::Update],
        start: Start::First,
        steps,
        on_error: OnError::Stop,
        max_event: 8 << 20,
        deliveries: Vec::new(),
        keeps_events: false,
        topics: vec![out],
    })
}

/// A service that answers lists of keys.
pub fn service(url: &str) -> ServicePlan {
    ServicePlan {
        name: "studios".into(),
        kind: ServiceKind::Rest,
        url: url.to_owned(),
        headers: BTreeMap::new(),
        timeout: Duration::from_secs(10),
        concurrency: 16,
        rate: None,
        breaker: BreakerSettings {
            failures: 5,
            slow: None,
            window: Duration::from_secs(10),
            pause: Duration::from_secs(5),
        },
    }
}

/// A question to it, whose answers are kept. Where they are put is all that is left of the event beside what it was.
pub fn enrich() -> Result<EnrichPlan, Failure> {
    let hour = Duration::from_secs(3_600);
    Ok(EnrichPlan {
        service: "studios".into(),
        call: CallPlan::Rest {
            shown: String::new(),
            method: "POST".into(),
            path: "/studios".into(),
            body: Some(Box::new(program(r#"{ "ids": .keys }"#)?)),
            is_list: true,
            each: vec!["studios".into()],
            matched: vec!["id".into()],
        },
        key: program(".after.studio_id")?,
        into: Path::parse(".studio").ok_or("no path")?,
        batch: BatchSettings { max: 100, linger: Duration::from_millis(5) },
        cache: Some(CacheSettings { ttl: hour, missing: hour, max: 64 << 20, changes: false }),
        missing: Missing::Keep,
    })
}

/// A receiver of signed requests.
pub fn webhook(url: &str) -> WebhookPlan {
    WebhookPlan {
        url: Secret::new(url),
        secrets: vec![Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        headers: BTreeMap::new(),
        format: WebhookFormat::Plain,
        timeout: Duration::from_secs(30),
        concurrency: crate::receiver::CONCURRENCY,
        batch: 1,
        private: true,
    }
}

/// Its delivery.
pub fn delivery(webhook: WebhookPlan) -> DeliveryPlan {
    DeliveryPlan {
        name: "webhook".into(),
        when: None,
        sink: SinkPlan::Webhook(webhook),
        on_error: OnError::Stop,
        redelivery: Redelivery { within: None, max_pause: Duration::from_secs(60) },
        order: DeliveryOrder::Key,
        place: Place::default(),
    }
}
