//! What is counted of services.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tributary_dsl::plan::ServiceKind;

use super::plans::{World, cached, movies as list, service};
use super::server::{Seen, Server, movies, status};

#[tokio::test]
async fn requests_keys_and_the_breaker_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    // This test and all that it asks run on one thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::start(|seen: Seen| async move {
        match seen.ids() {
            ids if ids.contains(&3.into()) => status(422, ""),
            ids if ids.contains(&4.into()) => status(429, ""),
            ids => movies(&ids),
        }
    })
    .await;
    let hour = Duration::from_secs(3600);
    let mut plan = service(ServiceKind::Graphql, &server.url);
    plan.breaker.failures = 10;
    plan.breaker.pause = hour;
    let world = World::new(&plan, &cached(list(), hour, hour));
    assert!(recorder.handle().render().contains(r#"tributary_service_breaker_state{service="catalog"} 0"#));
    for _ in 0..2 {
        world.ask(&["1", "2"]).await.expect("it knows them");
    }
    world.ask(&["3"]).await.expect("an answer");
    world.ask(&["4"]).await.expect_err("it is asked too often");
    let (one, other) = futures::join!(world.ask(&["6"]), world.ask(&["6"]));
    assert!(one.is_ok() && other.is_ok());
    let told = recorder.handle().render();
    for line in [
        r#"tributary_service_requests_total{service="catalog",outcome="answered"} 2"#,
        r#"tributary_service_requests_total{service="catalog",outcome="unfit"} 1"#,
        r#"tributary_service_requests_total{service="catalog",outcome="throttled"} 3"#,
        r#"tributary_service_throttled_total{service="catalog"} 3"#,
        r#"tributary_service_cache_hits_total{service="catalog"} 2"#,
        r#"tributary_service_cache_misses_total{service="catalog"} 6"#,
        r#"tributary_service_coalesced_total{service="catalog"} 1"#,
        r#"tributary_service_failed_keys_total{service="catalog"} 1"#,
        r#"tributary_service_batch_keys_count{service="catalog"} 4"#,
        r#"tributary_service_request_seconds_count{service="catalog"} 6"#,
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    server.stop().await;
    while !recorder.handle().render().contains(r#"tributary_service_breaker_state{service="catalog"} 2"#) {
        world.ask(&["5"]).await.expect_err("it is away");
    }
}
