//! Workflows on a stub that behaves as the servers' sources and documentation say: Orkes keeps the keys of starts; the open source server
//! ignores them, and what it looks up by correlation id may lag behind.

mod stub;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use tributary_dsl::plan::{ConductorFlavor, ConductorPlan, KnownFields, Secret};
use tributary_event::ErrorClass;
use tributary_event::traces::Context;
use tributary_processor::sink::{DeliverySink as _, OutEvent, Verdict};
use tributary_sinks::Conductor;

use crate::support::event;
use stub::{Fault, Stub};

const BOTH: [ConductorFlavor; 2] = [ConductorFlavor::Orkes, ConductorFlavor::Oss];

fn plan(stub: &Stub, flavor: ConductorFlavor) -> ConductorPlan {
    ConductorPlan {
        url: Secret::new(format!("http://127.0.0.1:{}/api/", stub.port)),
        workflow: "green light".into(),
        version: Some(3),
        input: None,
        input_fields: KnownFields::default(),
        flavor,
        headers: BTreeMap::new(),
        settle: Duration::from_millis(50),
        timeout: Duration::from_millis(500),
        concurrency: 4,
        private: true,
        dry_run: false,
    }
}

fn sink(stub: &Stub, flavor: ConductorFlavor) -> Conductor {
    Conductor::new(&plan(stub, flavor), "conductor").expect("a sink")
}

async fn told(sink: &Conductor, event: &OutEvent) -> Verdict {
    let verdicts = sink.deliver(std::slice::from_ref(event)).await.expect("verdicts");
    let [verdict] = &verdicts[..] else { panic!("{verdicts:?}") };
    verdict.clone()
}

/// An event of a key.
fn of_key(sequence: u64, key: &'static str) -> OutEvent {
    OutEvent { key: Some(key.into()), ..event(sequence) }
}

#[tokio::test]
async fn each_event_starts_a_workflow_with_its_input() {
    for flavor in BOTH {
        let stub = Stub::start(flavor).await;
        let mut plan = plan(&stub, flavor);
        plan.headers.insert("x-authorization".into(), Secret::new("hunter2"));
        let sink = Conductor::new(&plan, "conductor").expect("a sink");
        let verdicts = sink.deliver(&[event(7), event(8)]).await.expect("verdicts");
        assert_eq!(verdicts, [Verdict::Delivered, Verdict::Delivered]);
        let expected = |id: u64| {
            let key = format!("films:main:orders.shipped:conductor:{id}");
            (key, json!({ "id": id, "status": "shipped" }), Some(3))
        };
        assert_eq!(stub.started(), [expected(7), expected(8)], "{flavor:?}");
        let requests = stub.requests();
        assert!(requests.iter().all(|request| request.headers["x-authorization"] == "hunter2"));
        assert_eq!(requests[0].line, "GET /api/metadata/workflow/green%20light?version=3");
        let definitions = requests.iter().filter(|request| request.line.contains("metadata")).count();
        assert_eq!(definitions, 1, "it is asked for once");
        if flavor == ConductorFlavor::Orkes {
            assert_eq!(requests[1].headers["x-idempotency-key"], "films:main:orders.shipped:conductor:7");
            assert_eq!(requests[1].headers["x-on-conflict"], "RETURN_EXISTING");
        }
        assert!(!format!("{sink:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_dry_run_looks_for_the_workflow_and_starts_none() {
    for flavor in BOTH {
        let stub = Stub::start(flavor).await;
        let plan = ConductorPlan { dry_run: true, ..plan(&stub, flavor) };
        let sink = Conductor::new(&plan, "conductor").expect("a sink");
        let verdicts = sink.deliver(&[event(7), event(8)]).await.expect("verdicts");
        assert_eq!(verdicts, [Verdict::Delivered, Verdict::Delivered]);
        let lines: Vec<String> = stub.requests().iter().map(|request| request.line.clone()).collect();
        assert_eq!(lines, ["GET /api/metadata/workflow/green%20light?version=3"], "{flavor:?}");
        let broken = OutEvent { content: Some("{".into()), ..event(9) };
        let verdict = told(&sink, &broken).await;
        assert!(matches!(verdict, Verdict::Rejected(_)), "{verdict:?}");
        let unknown = ConductorPlan { workflow: "redlight".into(), ..plan };
        let unknown = Conductor::new(&unknown, "conductor").expect("a sink");
        assert_eq!(unknown.deliver(&[event(7)]).await.expect_err("unknown").class, ErrorClass::Fatal);
        assert!(stub.started().is_empty(), "{flavor:?}");
    }
}

#[tokio::test]
async fn a_start_says_which_span_it_came_of() {
    for flavor in BOTH {
        let stub = Stub::start(flavor).await;
        let traced = OutEvent { span: Some(Context { trace: 7, span: 8 }), ..event(7) };
        assert_eq!(told(&sink(&stub, flavor), &traced).await, Verdict::Delivered);
        let requests = stub.requests();
        let start = requests.last().expect("a request");
        assert_eq!(
            start.headers["traceparent"], "00-00000000000000000000000000000007-0000000000000008-01",
            "{flavor:?}"
        );
    }
}

#[tokio::test]
async fn the_latest_version_is_asked_for_by_none() {
    for flavor in BOTH {
        let stub = Stub::start(flavor).await;
        let plan = ConductorPlan { version: None, ..plan(&stub, flavor) };
        assert_eq!(told(&Conductor::new(&plan, "c").expect("a sink"), &event(7)).await, Verdict::Delivered);
        assert_eq!(stub.started()[0].2, None);
    }
}

#[tokio::test]
async fn two_sinks_may_start_the_same_workflow_for_an_event() {
    for flavor in BOTH {
        let stub = Stub::start(flavor).await;
        for name in ["conductor", "conductor-2"] {
            let sink = Conductor::new(&plan(&stub, flavor), name).expect("a sink");
            assert_eq!(told(&sink, &event(7)).await, Verdict::Delivered);
        }
        assert_eq!(stub.started().len(), 2, "{flavor:?}");
    }
}

#[tokio::test]
async fn a_start_whose_answer_does_not_come_is_not_done_again() {
    for flavor in BOTH {
        for fault in [Fault::StartsAndHangs, Fault::StartsAndFails(StatusCode::BAD_GATEWAY)] {
            let stub = Stub::start(flavor).await;
            let sink = sink(&stub, flavor);
            // The key is known already, so that the start is not looked up before.
            assert_eq!(told(&sink, &of_key(6, "1")).await, Verdict::Delivered);
            stub.faults(&[fault]);
            let verdict = told(&sink, &of_key(7, "1")).await;
            let Verdict::Retry { after, .. } = verdict else { panic!("{verdict:?}") };
            let settle = (flavor == ConductorFlavor::Oss).then_some(Duration::from_millis(50));
            assert_eq!(after, settle);
            assert_eq!(told(&sink, &of_key(7, "1")).await, Verdict::Delivered);
            assert_eq!(stub.started().len(), 2, "{flavor:?} {fault:?}");
            // And the next one of the key.
            assert_eq!(told(&sink, &of_key(8, "1")).await, Verdict::Delivered);
            assert_eq!(stub.started().len(), 3, "{flavor:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn what_a_former_process_started_is_not_started_again() {
    for flavor in BOTH {
        let stub = Stub::start(flavor).await;
        let former = sink(&stub, flavor);
        for sequence in 1..=3 {
            assert_eq!(told(&former, &of_key(sequence, "1")).await, Verdict::Delivered);
        }
        // It ends while it waits for an answer.
        stub.faults(&[Fault::StartsAndHangs]);
        let fourth = of_key(4, "1");
        let delivering = tokio::time::timeout(Duration::from_millis(200), told(&former, &fourth)).await;
        assert!(delivering.is_err());
        drop(former);
        let next = sink(&stub, flavor);
        for sequence in 1..=6 {
            assert_eq!(told(&next, &of_key(sequence, "1")).await, Verdict::Delivered);
        }
        let keys: Vec<String> = stub.started().into_iter().map(|(key, ..)| key).collect();
        let expected: Vec<String> = (1..=6).map(|id| format!("films:main:orders.shipped:conductor:{id}")).collect();
        assert_eq!(keys, expected, "{flavor:?}");
    }
}

#[tokio::test]
async fn what_another_process_started_in_between_is_not_started_again() {
    let stub = Stub::start(ConductorFlavor::Oss).await;
    let (one, other) = (sink(&stub, ConductorFlavor::Oss), sink(&stub, ConductorFlavor::Oss));
    assert_eq!(told(&one, &of_key(1, "1")).await, Verdict::Delivered);
    assert_eq!(told(&other, &of_key(2, "1")).await, Verdict::Delivered);
    one.handed_over();
    assert_eq!(told(&one, &of_key(2, "1")).await, Verdict::Delivered);
    assert_eq!(stub.started().len(), 2);
}

/// Two processes have the partition in turns, and end at any moment; what they had not committed comes again.
async fn turns(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let stub = Stub::start(ConductorFlavor::Oss).await;
    let plan = ConductorPlan { settle: Duration::ZERO, ..plan(&stub, ConductorFlavor::Oss) };
    let new = || Conductor::new(&plan, "conductor").expect("a sink");
    let mut processes = [new(), new()];
    let keys = ["1", "2", "3"];
    let events: Vec<OutEvent> = (0..16).map(|n| of_key(n, keys[random.usize(0..keys.len())])).collect();
    let mut committed = 0;
    while committed < events.len() {
        let process = random.usize(0..2);
        if random.bool() {
            processes[process] = new();
        } else {
            processes[process].handed_over();
        }
        let until = random.usize(committed..=events.len());
        for event in &events[committed..until] {
            if random.u8(0..4) == 0 {
                stub.faults(&[Fault::StartsAndFails(StatusCode::BAD_GATEWAY)]);
            }
            while told(&processes[process], event).await != Verdict::Delivered {}
        }
        committed = random.usize(committed..=until);
    }
    let mut started: Vec<String> = stub.started().into_iter().map(|(key, ..)| key).collect();
    let mut expected: Vec<String> =
        events.iter().map(|e| format!("films:main:orders.shipped:conductor:{}", e.id)).collect();
    started.sort();
    expected.sort();
    assert_eq!(started, expected, "seed {seed}");
}

#[tokio::test]
async fn whatever_ends_a_process_no_workflow_starts_twice() {
    futures::future::join_all((0..24).map(turns)).await;
}

#[tokio::test]
async fn look_ups_wait_and_end() {
    let stub = Stub::start(ConductorFlavor::Oss).await;
    let settle = Duration::from_millis(300);
    let plan = ConductorPlan { settle, ..plan(&stub, ConductorFlavor::Oss) };
    let sink = Conductor::new(&plan, "conductor").expect("a sink");
    let begun = Instant::now();
    let look_ups = || stub.requests().iter().filter(|request| request.line.contains("/correlated/")).count();
    assert_eq!(told(&sink, &of_key(1, "1")).await, Verdict::Delivered);
    assert!(begun.elapsed() >= settle, "{:?}", begun.elapsed());
    assert_eq!(look_ups(), 2, "that there is none is asked for twice");
    for sequence in 2..10 {
        assert_eq!(told(&sink, &of_key(sequence, "1")).await, Verdict::Delivered);
    }
    assert_eq!(look_ups(), 2, "nothing was started past what was not");
    let line = stub.requests().into_iter().map(|request| request.line).find(|line| line.contains("/correlated/"));
    let expected =
        "GET /api/workflow/green%20light/correlated/films:main:orders.shipped:conductor:1?includeClosed=true";
    assert_eq!(line.as_deref(), Some(expected));
}

#[tokio::test]
async fn a_look_up_that_lags_is_why_a_workflow_may_start_twice() {
    for (lag, starts) in [(Duration::from_millis(150), 1), (Duration::from_secs(60), 2)] {
        let stub = Stub::start(ConductorFlavor::Oss).await;
        let plan = ConductorPlan { settle: Duration::from_millis(300), ..plan(&stub, ConductorFlavor::Oss) };
        stub.lags(lag);
        let former = Conductor::new(&plan, "conductor").expect("a sink");
        assert_eq!(told(&former, &event(7)).await, Verdict::Delivered);
        let next = Conductor::new(&plan, "conductor").expect("a sink");
        assert_eq!(told(&next, &event(7)).await, Verdict::Delivered);
        assert_eq!(stub.started().len(), starts, "{lag:?}");
    }
}

#[tokio::test]
async fn a_workflow_that_is_being_written_is_found_all_the_same() {
    let stub = Stub::start(ConductorFlavor::Oss).await;
    assert_eq!(told(&sink(&stub, ConductorFlavor::Oss), &event(7)).await, Verdict::Delivered);
    stub.overlooks(1);
    assert_eq!(told(&sink(&stub, ConductorFlavor::Oss), &event(7)).await, Verdict::Delivered);
    assert_eq!(stub.started().len(), 1);
}

#[tokio::test]
async fn answers_are_about_the_event_or_about_the_server() {
    for flavor in BOTH {
        let stub = Stub::start(flavor).await;
        let sink = sink(&stub, flavor);
        for status in [400, 409, 422] {
            stub.faults(&[Fault::Refuses(StatusCode::from_u16(status).expect("a status"), None)]);
            let verdict = told(&sink, &event(7)).await;
            assert!(matches!(&verdict, Verdict::Rejected(why) if why.contains("as told")), "{verdict:?}");
        }
        stub.faults(&[Fault::Refuses(StatusCode::TOO_MANY_REQUESTS, Some("17"))]);
        let verdict = told(&sink, &event(7)).await;
        let Verdict::Retry { after, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!(after, Some(Duration::from_secs(17)));
        for status in [401, 403, 404] {
            stub.faults(&[Fault::Refuses(StatusCode::from_u16(status).expect("a status"), None)]);
            let error = sink.deliver(&[event(7)]).await.expect_err("an error");
            assert!(error.class == ErrorClass::Fatal && error.message.contains(&status.to_string()), "{error}");
        }
        assert!(stub.started().is_empty());
        assert_eq!(told(&sink, &event(7)).await, Verdict::Delivered);
        assert_eq!(stub.started().len(), 1, "{flavor:?}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let stub = Stub::start(ConductorFlavor::Oss).await;
    for flavor in BOTH {
        let url = Secret::new(format!("http://127.0.0.1:{port}/hunter2"));
        let plan = ConductorPlan { url, ..plan(&stub, flavor) };
        let error = Conductor::new(&plan, "c").expect("a sink").deliver(&[event(7)]).await.expect_err("an error");
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
        assert!(error.message.contains("http://127.0.0.1:") && !error.message.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_workflow_that_is_not_registered_is_told_with_a_remedy() {
    for flavor in BOTH {
        let stub = Stub::start(flavor).await;
        let plan = ConductorPlan { workflow: "redlight".into(), ..plan(&stub, flavor) };
        let sink = Conductor::new(&plan, "conductor").expect("a sink");
        for _ in 0..2 {
            let error = sink.deliver(&[event(7)]).await.expect_err("an error");
            assert_eq!(error.class, ErrorClass::Fatal);
            for part in ["\"redlight\" of version 3", "register it", "/api"] {
                assert!(error.message.contains(part), "{error}");
            }
        }
        assert!(stub.started().is_empty());
        // As soon as it is registered, it goes on.
        stub.registers("redlight");
        assert_eq!(told(&sink, &event(7)).await, Verdict::Delivered);
    }
}

#[tokio::test]
async fn a_definition_that_may_not_be_seen_does_not_hold_up_starts() {
    let stub = Stub::start(ConductorFlavor::Orkes).await;
    stub.hides_definitions();
    assert_eq!(told(&sink(&stub, ConductorFlavor::Orkes), &event(7)).await, Verdict::Delivered);
}

#[tokio::test]
async fn a_page_of_another_server_is_no_workflow() {
    let stub = Stub::start(ConductorFlavor::Oss).await;
    let url = Secret::new(format!("http://127.0.0.1:{}/", stub.port));
    for flavor in BOTH {
        let plan = ConductorPlan { url: url.clone(), ..plan(&stub, flavor) };
        let error = Conductor::new(&plan, "c").expect("a sink").deliver(&[event(7)]).await.expect_err("an error");
        assert!(error.class == ErrorClass::Fatal && error.message.contains("/api"), "{error}");
    }
}

#[tokio::test]
async fn plans_that_cannot_work_are_refused_with_a_remedy() {
    let stub = Stub::start(ConductorFlavor::Oss).await;
    let good = plan(&stub, ConductorFlavor::Oss);
    let refused = |plan: ConductorPlan, remedy: &str| {
        let error = Conductor::new(&plan, "conductor").expect_err("refused");
        assert!(error.class == ErrorClass::Fatal && error.message.contains(remedy), "{error}");
        assert!(!error.message.contains("hunter2"), "{error}");
    };
    refused(ConductorPlan { url: Secret::new("hunter2"), ..good.clone() }, "https://host/path");
    refused(ConductorPlan { private: false, ..good.clone() }, "private: on");
    let headers = BTreeMap::from([("X-Idempotency-Key".to_owned(), Secret::new("hunter2"))]);
    refused(ConductorPlan { headers, ..good }, "remove it");
}
