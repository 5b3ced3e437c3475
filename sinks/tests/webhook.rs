//! Requests as a receiver sees them, and what its answers mean.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tributary_dsl::plan::{Secret, WebhookFormat, WebhookPlan};
use tributary_event::ErrorClass;
use tributary_event::traces::Context;
use tributary_processor::sink::{DeliverySink as _, OutEvent, Verdict};
use tributary_sinks::Webhook;

use crate::support::event;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

type Judge = dyn Fn(&[u8]) -> Option<Response> + Send + Sync;

/// A receiver that remembers what it was sent, and answers what it was told to: first what `judge` says of a body.
#[derive(Clone)]
struct Receiver {
    requests: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    answers: Arc<Mutex<VecDeque<Response>>>,
    judge: Arc<Judge>,
    port: u16,
    _server: Arc<AbortOnDrop>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Shared = (Arc<Mutex<Vec<(HeaderMap, Bytes)>>>, Arc<Mutex<VecDeque<Response>>>, Arc<Judge>);

async fn receive(State((requests, answers, judge)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = judge(&body).or_else(|| answers.lock().expect("unpoisoned").pop_front());
    requests.lock().expect("unpoisoned").push((headers, body));
    answer.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
}

impl Receiver {
    async fn start() -> Self {
        Self::judging(|_| None).await
    }

    async fn judging(judge: impl Fn(&[u8]) -> Option<Response> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (requests, answers) = <(Arc<Mutex<Vec<_>>>, Arc<Mutex<VecDeque<_>>>)>::default();
        let judge: Arc<Judge> = Arc::new(judge);
        let router = Router::new().fallback(receive).with_state((requests.clone(), answers.clone(), judge.clone()));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { requests, answers, judge, port, _server: Arc::new(AbortOnDrop(server)) }
    }

    fn plan(&self) -> WebhookPlan {
        plan(&format!("http://127.0.0.1:{}/hooks/hunter2", self.port))
    }

    fn answer(&self, response: impl axum::response::IntoResponse) {
        self.answers.lock().expect("unpoisoned").push_back(response.into_response());
    }

    fn requests(&self) -> Vec<(HeaderMap, Bytes)> {
        self.requests.lock().expect("unpoisoned").clone()
    }

    /// The only request.
    fn request(&self) -> (HeaderMap, Bytes) {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1);
        requests.remove(0)
    }
}

fn plan(url: &str) -> WebhookPlan {
    WebhookPlan {
        url: Secret::new(url),
        secrets: vec![Secret::new(SECRET)],
        headers: BTreeMap::new(),
        format: WebhookFormat::Plain,
        timeout: Duration::from_secs(30),
        concurrency: 4,
        batch: 1,
        private: true,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap_or_else(|| panic!("{name} in {headers:?}")).to_str().expect("text")
}

async fn deliver(plan: &WebhookPlan, events: &[OutEvent]) -> Vec<Verdict> {
    Webhook::new(plan).expect("a sink").deliver(events).await.expect("verdicts")
}

#[tokio::test]
async fn requests_are_signed_as_the_specification_says() {
    let receiver = Receiver::start().await;
    let mut plan = receiver.plan();
    plan.secrets.push(Secret::new("the old one"));
    plan.headers.insert("authorization".into(), Secret::new("Bearer 7"));
    assert_eq!(deliver(&plan, &[event(7)]).await, [Verdict::Delivered]);
    let (headers, body) = receiver.request();
    assert_eq!(Some(&body[..]), event(7).content.as_deref());
    let (id, seconds) = (text(&headers, "webhook-id"), text(&headers, "webhook-timestamp"));
    assert_eq!((id, text(&headers, "idempotency-key")), ("/films/main/7", "/films/main/7"));
    let age =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_secs() - seconds.parse::<u64>().expect("seconds");
    assert!(age < 300, "receivers allow five minutes: {age}");
    let signed = [id.as_bytes(), b".", seconds.as_bytes(), b".", &body].concat();
    let keys = [STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64"), b"the old one".to_vec()];
    let signatures: Vec<&str> = text(&headers, "webhook-signature").split(' ').collect();
    assert_eq!(signatures.len(), 2);
    for (signature, key) in signatures.iter().zip(keys) {
        let mac = STANDARD.decode(signature.strip_prefix("v1,").expect("a version")).expect("base64");
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed, &mac).expect("the signature");
    }
    assert_eq!((text(&headers, "content-type"), text(&headers, "authorization")), ("application/json", "Bearer 7"));
}

/// Of a list it is the first one that is traced. Where nothing is, nobody is told of a span.
#[tokio::test]
async fn a_request_says_which_span_it_came_of() {
    let receiver = Receiver::start().await;
    let span = |span| Some(Context { trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span });
    let mut plan = receiver.plan();
    plan.batch = 3;
    let traced = |sequence, number| OutEvent { span: span(number), ..event(sequence) };
    deliver(&plan, &[event(1), traced(2, 0xb7ad_6b71_6920_3331), traced(3, 8), event(4)]).await;
    let requests = receiver.requests();
    assert_eq!(text(&requests[0].0, "traceparent"), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!((requests.len(), requests[1].0.get("traceparent")), (2, None));
}

#[tokio::test]
async fn a_try_again_is_the_same_message() {
    let receiver = Receiver::start().await;
    receiver.answer((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "17")], "slow down"));
    let sink = Webhook::new(&receiver.plan()).expect("a sink");
    let verdicts = sink.deliver(&[event(7)]).await.expect("verdicts");
    let [Verdict::Retry { after: Some(after), why }] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!(*after, Duration::from_secs(17));
    assert!(why.contains("429") && why.contains("slow down"), "{why}");
    assert_eq!(sink.deliver(&[event(7)]).await.expect("verdicts"), [Verdict::Delivered]);
    let requests = receiver.requests();
    let [(first, body), (second, again)] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((text(first, "webhook-id"), body), (text(second, "webhook-id"), again));
}

#[tokio::test]
async fn a_binary_cloud_event_is_told_by_headers() {
    let receiver = Receiver::start().await;
    let plan = WebhookPlan { format: WebhookFormat::CloudEventsBinary, ..receiver.plan() };
    let event = OutEvent { key: Some("7 \"é\"".into()), ..event(7) };
    assert_eq!(deliver(&plan, &[event]).await, [Verdict::Delivered]);
    let (headers, _) = receiver.request();
    let expected = [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/films/main"),
        ("ce-type", "orders.shipped"),
        ("ce-time", "2021-02-25T15:02:10.250000Z"),
        ("ce-subject", "7%20%22%C3%A9%22"),
        ("content-type", "application/json"),
    ];
    for (name, value) in expected {
        assert_eq!(text(&headers, name), value, "{name}");
    }
}

#[tokio::test]
async fn a_structured_cloud_event_is_an_envelope() {
    let receiver = Receiver::start().await;
    let plan = WebhookPlan { format: WebhookFormat::CloudEventsStructured, ..receiver.plan() };
    assert_eq!(deliver(&plan, &[event(7)]).await, [Verdict::Delivered]);
    let (headers, body) = receiver.request();
    assert_eq!(text(&headers, "content-type"), "application/cloudevents+json");
    assert_eq!(
        serde_json::from_slice::<Json>(&body).expect("JSON"),
        json!({
            "specversion": "1.0", "id": "7", "source": "/films/main", "type": "orders.shipped",
            "time": "2021-02-25T15:02:10.250000Z", "subject": "{\"id\":7}", "datacontenttype": "application/json",
            "data": { "id": 7, "status": "shipped" },
        })
    );
}

#[tokio::test]
async fn the_culprit_of_a_list_is_found_and_the_others_arrive() {
    let receiver = Receiver::judging(|body| {
        let list: Json = serde_json::from_slice(body).expect("JSON");
        let bad = list.as_array().expect("a list").iter().any(|event| event["data"]["id"] == 5);
        bad.then(|| (StatusCode::UNPROCESSABLE_ENTITY, "the fifth is odd").into_response())
    })
    .await;
    let plan = WebhookPlan { format: WebhookFormat::CloudEventsStructured, batch: 8, ..receiver.plan() };
    let events: Vec<OutEvent> = (0..8).map(event).collect();
    let verdicts = deliver(&plan, &events).await;
    for (n, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Verdict::Rejected(why) => {
                assert!(n == 5 && why.contains("422") && why.contains("the fifth is odd"), "{n}: {why}")
            }
            verdict => assert!(n != 5 && *verdict == Verdict::Delivered, "{n}: {verdict:?}"),
        }
    }
    let requests = receiver.requests();
    assert_eq!(text(&requests[0].0, "content-type"), "application/cloudevents-batch+json");
    let mut arrived: Vec<u64> = Vec::new();
    for (_, body) in requests.iter().filter(|(_, body)| !String::from_utf8_lossy(body).contains("\"id\":5,")) {
        let list: Vec<Json> = serde_json::from_slice(body).expect("a list");
        arrived.extend(list.iter().map(|event| event["data"]["id"].as_u64().expect("an id")));
    }
    assert_eq!(arrived, [0, 1, 2, 3, 4, 6, 7]);
    let ids: std::collections::BTreeSet<&str> =
        requests.iter().map(|(headers, _)| text(headers, "webhook-id")).collect();
    assert_eq!(ids.len(), requests.len(), "another list is another message");
}

#[tokio::test]
async fn what_is_wrong_with_the_receiver_is_no_fact_about_the_event() {
    let receiver = Receiver::start().await;
    let sink = Webhook::new(&receiver.plan()).expect("a sink");
    for (status, told) in [(401, "secret"), (403, "rights"), (410, "for good")] {
        receiver.answer((StatusCode::from_u16(status).expect("a status"), "no"));
        let error = sink.deliver(&[event(7)]).await.expect_err("an error");
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        assert!(error.message.contains(&status.to_string()) && error.message.contains(told), "{error}");
        assert!(error.message.contains("http://127.0.0.1:") && !error.message.contains("hunter2"), "{error}");
    }
    receiver.answer((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "https://elsewhere.example/hunter2")]));
    let error = sink.deliver(&[event(7)]).await.expect_err("an error");
    assert!(error.class == ErrorClass::Fatal && error.message.contains("https://elsewhere.example:443"), "{error}");
    assert!(error.message.contains("not followed") && !error.message.contains("hunter2"), "{error}");
    assert_eq!(receiver.requests().len(), 4);
}

#[tokio::test]
async fn what_arrived_before_the_receiver_refused_is_told() {
    let receiver = Receiver::start().await;
    receiver.answer(StatusCode::OK);
    receiver.answer(StatusCode::FORBIDDEN);
    let sink = Webhook::new(&receiver.plan()).expect("a sink");
    let verdicts = sink.deliver(&[event(1), event(2), event(3)]).await.expect("verdicts");
    assert_eq!(verdicts[0], Verdict::Delivered);
    assert!(verdicts[1..].iter().all(|verdict| matches!(verdict, Verdict::Retry { .. })), "{verdicts:?}");
    assert_eq!((verdicts.len(), receiver.requests().len()), (3, 2));
}

#[tokio::test]
async fn a_receiver_that_is_away_or_breaks_off_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut plan = plan(&format!("http://{}/hunter2", listener.local_addr().expect("an address")));
    let breaks = tokio::spawn(async move {
        use tokio::io::AsyncReadExt as _;
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.read_u8().await.expect("a byte");
    });
    let verdicts = deliver(&plan, &[event(7)]).await;
    assert!(matches!(&verdicts[..], [Verdict::Retry { after: None, .. }]), "{verdicts:?}");
    breaks.await.expect("done");
    // The listener is gone now.
    let error = Webhook::new(&plan).expect("a sink").deliver(&[event(7)]).await.expect_err("an error");
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    // A server that does not speak TLS.
    let plain = Receiver::start().await;
    plan.url = Secret::new(format!("https://127.0.0.1:{}/hunter2", plain.port));
    let error = Webhook::new(&plan).expect("a sink").deliver(&[event(7)]).await.expect_err("an error");
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(plain.requests().is_empty() && !error.message.contains("hunter2"), "{error}");
    plan.url = Secret::new("http://nobody.invalid/hunter2");
    let error = Webhook::new(&plan).expect("a sink").deliver(&[event(7)]).await.expect_err("an error");
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(!error.message.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_in_time_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let plan = WebhookPlan { timeout: Duration::from_millis(50), ..plan(&url) };
    let verdicts = deliver(&plan, &[event(7)]).await;
    let [Verdict::Retry { after: None, why }] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert!(why.contains("timeout"), "{why}");
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let receiver = Receiver::judging(|_| {
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1024])));
        Some((StatusCode::BAD_REQUEST, axum::body::Body::from_stream(endless)).into_response())
    })
    .await;
    let verdicts = deliver(&receiver.plan(), &[event(7)]).await;
    let [Verdict::Rejected(why)] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert!(why.contains("xxx") && why.len() < 300, "{why}");
}

#[tokio::test]
async fn private_addresses_are_refused_before_a_byte_is_sent() {
    let receiver = Receiver::start().await;
    let port = receiver.port;
    for host in ["127.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[::1]", "2130706433", "0"] {
        let plan = WebhookPlan { private: false, ..plan(&format!("http://{host}:{port}/hunter2")) };
        let error = Webhook::new(&plan).expect_err(host);
        assert!(error.class == ErrorClass::Fatal && error.message.contains("private: on"), "{error}");
    }
    // Names of this machine that lead to itself, whatever they are.
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    let own = lines
        .flat_map(|mut words| words.next().filter(|ip| ip.starts_with("127.")).map_or(vec![], |_| words.collect()));
    for host in own.chain(["localhost", "LOCALHOST"]) {
        let mut plan = plan(&format!("http://{host}:{port}/hunter2"));
        plan.private = false;
        let error = Webhook::new(&plan).expect("a sink").deliver(&[event(7)]).await.expect_err(host);
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        assert!(error.message.contains("private: on") && !error.message.contains("hunter2"), "{error}");
        assert!(receiver.requests().is_empty());
        plan.private = true;
        if host == "localhost" {
            assert_eq!(deliver(&plan, &[event(7)]).await, [Verdict::Delivered]);
            receiver.requests.lock().expect("unpoisoned").clear();
        }
    }
    assert!((receiver.judge)(b"").is_none());
}

#[tokio::test]
async fn plans_that_cannot_work_are_refused_with_a_remedy() {
    let refused = |plan: &WebhookPlan, remedy: &str| {
        let error = Webhook::new(plan).expect_err("refused");
        assert!(error.class == ErrorClass::Fatal && error.message.contains(remedy), "{error}");
        assert!(!error.message.contains("hunter2"), "{error}");
    };
    let good = plan("https://hooks.example/hunter2");
    refused(&WebhookPlan { format: WebhookFormat::CloudEventsBinary, batch: 2, ..good.clone() }, "structured");
    refused(&plan("hunter2"), "https://host/path");
    refused(&plan("ftp://hooks.example/hunter2"), "https://host/path");
    refused(&WebhookPlan { secrets: vec![Secret::new("whsec_hunter2!")], ..good.clone() }, "copy it again");
    for (name, value, remedy) in
        [("a b", "x", "rename"), ("Webhook-Id", "x", "remove it"), ("x", "hunter2\n", "printable")]
    {
        let headers = BTreeMap::from([(name.to_owned(), Secret::new(value))]);
        refused(&WebhookPlan { headers, ..good.clone() }, remedy);
    }
    assert!(!format!("{:?}", Webhook::new(&good).expect("a sink")).contains("hunter2"));
}
