//! Traces: the way of a change, from its commit through streams to sinks, as a collector hears of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value as Json;
use tributary_dsl::plan::own_topic;
use tributary_event::traces::{Context, TRACEPARENT};
use tributary_transport::{Kafka, KafkaSettings, Polled};

use crate::client;
use crate::world::hook::Hook;
use crate::world::topics::records;
use crate::world::{MOVIES, Own, Pair, World};

/// A collector that takes OTLP over HTTP, but for its first request.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Json>>>,
    requests: Arc<Mutex<u32>>,
}

async fn collect(State(collector): State<Collector>, headers: HeaderMap, body: String) -> StatusCode {
    let mut requests = collector.requests.lock().unwrap_or_else(PoisonError::into_inner);
    *requests += 1;
    if *requests == 1 {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    if headers.get("authorization").is_none_or(|token| token != "Bearer t") {
        return StatusCode::UNAUTHORIZED;
    }
    let told: Json = serde_json::from_str(&body).expect("JSON");
    for resource in told["resourceSpans"].as_array().expect("resources") {
        let service = &resource["resource"]["attributes"][0];
        assert_eq!((&service["key"], &service["value"]["stringValue"]), (&"service.name".into(), &"tributary".into()));
        let spans = resource["scopeSpans"][0]["spans"].as_array().expect("spans");
        collector.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans.iter().cloned());
    }
    StatusCode::OK
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let app = Router::new().route("/v1/traces", post(collect)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        (collector, format!("http://{address}"))
    }

    fn spans(&self) -> Vec<Json> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of each trace, by their names.
    fn traces(&self) -> BTreeMap<String, BTreeMap<String, Json>> {
        let mut traces: BTreeMap<String, BTreeMap<String, Json>> = BTreeMap::new();
        for span in self.spans() {
            let trace = traces.entry(text(&span["traceId"])).or_default();
            trace.insert(text(&span["name"]), span);
        }
        traces
    }
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Json) -> u64 {
    text(value).parse().expect("a number as text")
}

fn attribute(span: &Json, name: &str) -> String {
    let all = span["attributes"].as_array().into_iter().flatten();
    all.clone().find(|one| one["key"] == name).map_or_else(String::new, |one| text(&one["value"]["stringValue"]))
}

const STREAMS: &str = r#"
traces: { otlp: "COLLECTOR", ratio: 1, headers: { authorization: "Bearer ${COLLECTOR_TOKEN:-t}" } }

services:
  catalog: { graphql: "GRAPH" }
  pricing: { rest: "HOOK" }

streams:
  titled:
    from: public.movie
    ops: [u]
    steps:
      - filter: .after.title != "Quiet"
        name: loud
      - enrich: { service: catalog, query: titles.graphql, key: .after.id, into: .known }
      - enrich: { service: pricing, request: POST /prices, body: '{ "ids": .keys }', each: .prices, match: .sku, key: .after.id, into: .price }
      - transform: '. = { "id": .after.id, "known": .known.title, "usd": .price.usd }'
    to:
      - webhook: { url: "HOOK/hook", secret: "${SIGNATURE:-s}", private: on, format: plain }
      - files: { folder: "FOLDER", every: 100ms }
  again:
    from: { stream: titled }
    to:
      - topic: { name: AGAIN, key: .id }
  last:
    from: { topic: AGAIN }
    start: first
    to:
      - webhook: { url: "HOOK/hook", secret: "${SIGNATURE:-s}", private: on, format: plain }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_followed_from_its_commit_to_each_sink() {
    let (mut world, trace) = followed(Pair::Embedded).await;
    assert_eq!(trace.len(), ALL.len() + 3);
    world.assert_converged().await;
}

/// What crosses Kafka has its trace in a header of its record, as whoever else reads the topics finds it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_followed_through_topics_of_kafka() {
    let (mut world, trace) = followed(Pair::KafkaElasticsearch).await;
    let brokers = Kafka::connect(KafkaSettings::single_broker(world.brokers())).expect("settings");
    let (own, again) = (own_topic(&world.name, "titled"), format!("again-{}", world.name));
    for (topic, of) in
        [(world.topic("public.movie"), "capture public.movie"), (own, "stream titled"), (again, "stream again")]
    {
        let records = records(&brokers, &topic).await;
        let said = |record: &Polled| Context::parse(record.headers.view().get(TRACEPARENT)?);
        let said: Vec<String> = records.iter().flatten().filter_map(said).map(|context| id(context.span)).collect();
        assert!(said.contains(&text(&trace[of]["spanId"])), "{topic}: {said:?} {}", trace[of]);
    }
    world.assert_converged().await;
}

/// The spans that a whole trace has, beside those of the other steps.
const ALL: [&str; 10] = [
    "capture public.movie",
    "stream titled",
    "step loud",
    "request catalog",
    "request pricing",
    "sink titled/webhook",
    "sink titled/files",
    "stream again",
    "stream last",
    "sink last/webhook",
];

fn id(span: u64) -> String {
    format!("{span:016x}")
}

/// One change, one trace: its capture, each stream with its steps, each request, each sink, one behind the other by the headers of records.
async fn followed(pair: Pair) -> (World, BTreeMap<String, Json>) {
    let mut world = World::new("traces", pair, Own::default()).await;
    let (collector, url) = Collector::start().await;
    let hook = Hook::start().await;
    let query = "query Titles($ids: [ID!]!) { movies(ids: $ids) { id title } }";
    std::fs::write(world.folder.path().join("titles.graphql"), query).expect("the query");
    let folder = world.folder.path().join("lake");
    let streams = STREAMS
        .replace("COLLECTOR\"", &format!("{url}\""))
        .replace("GRAPH", &world.graph_url())
        .replace("HOOK", &hook.url())
        .replace("AGAIN", &format!("again-{}", world.name))
        .replace("FOLDER", folder.to_str().expect("a path"));
    let text_of_world = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    std::fs::write(world.pipeline(), format!("{text_of_world}{streams}")).expect("the pipeline");
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = 'Quiet' WHERE id = 2").await;
    world.execute("UPDATE movie SET title = 'Loud' WHERE id = 1").await;
    let whole = || collector.traces().into_values().find(|trace| ALL.iter().all(|name| trace.contains_key(*name)));
    let has_quiet = || collector.spans().iter().any(|span| attribute(span, "tributary.outcome") == "dropped");
    world.until("a trace is whole", async |_| whole().is_some() && has_quiet()).await;
    let trace = whole().expect("a trace");
    for (name, parent) in [
        ("stream titled", "capture public.movie"),
        ("step loud", "stream titled"),
        ("step enrich-2", "stream titled"),
        ("step enrich-3", "stream titled"),
        ("step transform-4", "stream titled"),
        ("request catalog", "step enrich-2"),
        ("request pricing", "step enrich-3"),
        ("sink titled/webhook", "stream titled"),
        ("sink titled/files", "stream titled"),
        ("stream again", "stream titled"),
        ("stream last", "stream again"),
        ("sink last/webhook", "stream last"),
    ] {
        let (span, parent) = (&trace[name], &trace[parent]);
        assert_eq!(span["parentSpanId"], parent["spanId"], "{name}: {span} {parent}");
        assert!(number(&span["startTimeUnixNano"]) <= number(&span["endTimeUnixNano"]), "{span}");
        assert!(number(&span["startTimeUnixNano"]) >= number(&parent["startTimeUnixNano"]), "{span} {parent}");
    }
    let capture = &trace["capture public.movie"];
    assert!(capture.get("parentSpanId").is_none() && attribute(capture, "tributary.op") == "u", "{capture}");
    assert!(attribute(&trace["sink titled/webhook"], "tributary.outcome") == "delivered");
    let plans = ["stream titled", "sink titled/webhook"].map(|name| attribute(&trace[name], "tributary.plan"));
    assert!(plans[0].len() == 16 && plans[0] == plans[1], "{plans:?}");
    assert_eq!((text(&capture["traceId"]).len(), text(&capture["spanId"]).len()), (32, 16));
    // Who is asked, or told, hears which span that is.
    let heard = |said: &str| Context::parse(said.as_bytes()).map(|context| id(context.span));
    let told: Vec<_> = hook.received().iter().filter_map(|one| heard(one.traceparent.as_deref()?)).collect();
    let asked: Vec<_> = hook.prices_traced().iter().filter_map(|said| heard(said)).collect();
    for (name, heard) in [("sink titled/webhook", &told), ("sink last/webhook", &told), ("request pricing", &asked)] {
        assert!(heard.contains(&text(&trace[name]["spanId"])), "{name}: {heard:?} {}", trace[name]);
    }
    // One that ends at a filter is followed up to it.
    let quiet = collector
        .traces()
        .into_values()
        .find(|trace| trace.get("stream titled").is_some_and(|span| attribute(span, "tributary.outcome") == "dropped"));
    let quiet = quiet.expect("a trace");
    assert!(attribute(&quiet["step loud"], "tributary.outcome") == "dropped" && !quiet.contains_key("step enrich-2"));
    let is_counted = async |address: &str| {
        client::text(address, "/metrics")
            .await
            .is_some_and(|metrics| metrics.contains("tributary_trace_spans_sent_total"))
    };
    world.until("spans are counted", is_counted).await;
    (world, trace)
}
