//! Requests that came of a change that is traced.

use std::sync::{Arc, Mutex};

use tributary_dsl::plan::ServiceKind;
use tributary_event::traces::{self, Context, Recorder, Span};
use tributary_processor::Enricher as _;

use super::plans::{World, bytes, get, movie_of, service, step};
use super::server::{Seen, Server, movies, ok, status};

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

impl Recorder for Spans {
    fn record(&self, span: Span) {
        self.0.lock().expect("not poisoned").push(span);
    }
}

fn context(request: &Seen) -> Option<Context> {
    Context::parse(request.headers.get("traceparent")?.as_bytes())
}

/// Each try is a span of its own, and says so, whatever the service is; requests that nobody traces say nothing.
#[tokio::test]
async fn a_request_says_which_span_it_is() {
    let spans = Spans::default();
    assert!(traces::install(1.0, Box::new(spans.clone())), "no other test of this process records spans");
    let tries = Arc::new(Mutex::new(0));
    let graph = Server::start(move |seen: Seen| {
        let is_first = std::mem::replace(&mut *tries.lock().expect("not poisoned"), 1) == 0;
        async move { if is_first { status(429, "") } else { movies(&seen.ids()) } }
    })
    .await;
    let rest = Server::start(|_| async { ok(r#"{"id":"7"}"#) }).await;
    let parent = Context { trace: 7, span: 77 };
    let world = World::movies(&graph.url);
    assert_eq!(world.asking.ask_within(&bytes(&["1"]), Some(parent)).await.unwrap(), [movie_of(1)]);
    let untraced = World::movies(&graph.url);
    assert_eq!(untraced.ask(&["2"]).await.unwrap(), [movie_of(2)]);
    let world = World::new(&service(ServiceKind::Rest, &rest.url), &step(get("/movies/{key}", &[])));
    world.asking.ask_within(&bytes(&["7"]), Some(parent)).await.unwrap();
    let said: Vec<Option<Context>> = graph.seen().iter().chain(&rest.seen()).map(context).collect();
    assert!(said[0].is_some() && said[1].is_some() && said[0] != said[1], "{said:?}");
    assert!(said.len() == 4 && said[2].is_none(), "{said:?}");
    let recorded = spans.0.lock().expect("not poisoned");
    assert_eq!(recorded.iter().map(|span| Some(span.context)).collect::<Vec<_>>(), [said[0], said[1], said[3]]);
    for (span, outcome) in recorded.iter().zip(["throttled", "answered", "answered"]) {
        assert_eq!((span.context.trace, span.parent, span.name.as_str()), (7, Some(77), "request catalog"));
        assert!(span.attributes.contains(&("tributary.outcome", outcome.to_owned())), "{span:?}");
        assert_eq!(span.error.is_some(), outcome != "answered");
    }
}
