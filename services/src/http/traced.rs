//! Requests as parts of traces: each try of one is a span, and says so in its header, so that the service's own spans come of it.
//!
//! A question is one task, and everything that is asked for its keys came of the same span: the task has it, not each call in it.

use reqwest::header::{HeaderName, HeaderValue};
use tributary_event::traces::{Begun, Context, SpanKind, TRACEPARENT};

tokio::task_local! {
    static SPAN: Option<Context>;
}

/// Runs a question that came of a span, if there is one.
pub(crate) async fn within<T>(span: Option<Context>, question: impl Future<Output = T>) -> T {
    SPAN.scope(span, question).await
}

/// The span of a request that begins now, if what asks for it is traced.
pub(crate) fn begin() -> Option<Begun> {
    SPAN.try_with(|span| *span).ok().flatten().map(Begun::after)
}

/// What a request says of its span.
pub(crate) fn header(span: &Begun) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(span.context.to_string()).ok()?;
    Some((HeaderName::from_static(TRACEPARENT), value))
}

/// A request has ended.
pub(crate) fn end(span: Option<Begun>, service: &str, keys: usize, outcome: &str) {
    let Some(span) = span else { return };
    let attributes = vec![
        ("tributary.service", service.to_owned()),
        ("tributary.keys", keys.to_string()),
        ("tributary.outcome", outcome.to_owned()),
    ];
    let error = (outcome != "answered").then(|| outcome.to_owned());
    span.end(format!("request {service}"), SpanKind::Client, attributes, error);
}
