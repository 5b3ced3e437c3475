//! What is counted of steps, and of what is not done yet.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tributary_dsl::plan::{CollapsePlan, DedupePlan, OnError, Start, StepPlan};
use tributary_expression::Path;

use crate::bench::{Bench, plan, program, until};

fn value(told: &str, name: &str) -> Option<f64> {
    told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn steps_count_what_becomes_of_events() {
    let recorder = PrometheusBuilder::new().build_recorder();
    // This test and all that it asks run on one thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut bench = Bench::new().await;
    let minute = Duration::from_secs(60);
    let dedupe = DedupePlan { by: program(".after.by"), within: minute, limit: 1 << 20 };
    let (each, into) = (Path::parse(".after.parts").unwrap(), Path::parse(".part").unwrap());
    let steps = vec![
        StepPlan::Filter(program("int!(.after.n) > 1")),
        StepPlan::Filter(program("int!(.after.n) > 2")),
        StepPlan::Dedupe(Box::new(dedupe)),
        StepPlan::Transform(program(".n = to_int!(.after.by)")),
        StepPlan::Split { each, into },
    ];
    let row = |n: u64, by: &str| (n as u8, n as i64, format!(r#""n":{n},"by":{by},"parts":[1,2,3]"#));
    let rows = [row(1, "1"), row(2, "2"), row(3, "3"), row(4, "3"), row(5, "\"bad\""), row(6, "\"bad\""), row(7, "7")];
    bench.commit(&rows).await;
    let running = bench.start_plan(plan(Start::First, steps, OnError::DeadLetter));
    until("all came", async || bench.out().await.len() >= 6).await;
    until("nothing is left", async || {
        value(&recorder.handle().render(), r#"tributary_stage_lag_records{stage="reader"}"#) == Some(0.0)
    })
    .await;
    let told = recorder.handle().render();
    running.stop().await;
    for (step, came, out, dropped, failed) in [
        ("from", 7, 7, 0, 0),
        ("filter-1", 7, 6, 1, 0),
        ("filter-2", 6, 5, 1, 0),
        ("dedupe-3", 5, 3, 2, 0),
        ("transform-4", 3, 2, 0, 1),
        ("split-5", 2, 6, 0, 0),
    ] {
        for (outcome, count) in [("in", came), ("out", out), ("dropped", dropped), ("failed", failed)] {
            let name = format!(r#"tributary_step_events_total{{stream="titles",step="{step}",outcome="{outcome}"}}"#);
            assert_eq!(value(&told, &name).unwrap_or_default() as u64, count, "{step} {outcome}:\n{told}");
        }
    }
    for step in ["from", "dedupe-3", "transform-4", "split-5"] {
        let line = format!(r#"tributary_step_seconds{{stream="titles",step="{step}",quantile="0.99"}}"#);
        assert!(told.contains(&line), "{line}\n{told}");
    }
    assert_eq!(value(&told, r#"tributary_stage_lag_seconds{stage="reader"}"#), Some(0.0));
}

/// What is held is not done: it is old, and is counted when it goes on.
#[tokio::test]
async fn what_is_held_lags() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut bench = Bench::new().await;
    let (by, period, keys) = (program("%key"), Duration::from_secs(3_600), 10);
    let collapse = CollapsePlan { by, period, patience: period, keys, limit: 1 << 20 };
    bench.commit(&[(1, 0, r#""n":1"#.to_owned()), (1, 1, r#""n":2"#.to_owned())]).await;
    let steps = vec![StepPlan::Collapse(Box::new(collapse))];
    let running = bench.start_plan(plan(Start::First, steps, OnError::Stop));
    let at = |name: &str| value(&recorder.handle().render(), name);
    until("it is held", async || at(r#"tributary_stage_lag_records{stage="reader"}"#) == Some(2.0)).await;
    // Both were in 1970.
    until("it is old", async || at(r#"tributary_stage_lag_seconds{stage="reader"}"#).is_some_and(|age| age > 1e9))
        .await;
    bench.commit(&[(2, 4_000_000, r#""n":3"#.to_owned())]).await;
    until("it goes on", async || bench.out().await.len() == 1).await;
    let count = |outcome| {
        at(&format!(r#"tributary_step_events_total{{stream="titles",step="collapse-1",outcome="{outcome}"}}"#))
    };
    until("it is counted", async || count("in") == Some(3.0)).await;
    assert_eq!((count("out"), count("dropped")), (Some(1.0), Some(1.0)));
    running.kill().await;
}
