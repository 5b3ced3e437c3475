//! Traces: the way of a change from its commit to the sinks, as spans. This is the small part that every room shares: who a span is, how
//! that travels in the header `traceparent` (W3C Trace Context, level 1), and where ended spans are handed in. Until a recorder is installed
//! there are none, which costs a look at one place in memory.
//!
//! Which changes are traced follows from their numbers alone, and so do the ids of their traces: a change that is published again after a
//! crash has the same trace.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::OnceLock;

use crate::change::ChangeEvent;
use crate::clock::now_us;

/// The header of a record, or of a request, that says which span it came of.
pub const TRACEPARENT: &str = "traceparent";

static INSTALLED: OnceLock<Installed> = OnceLock::new();

struct Installed {
    /// A trace is recorded if the lower half of its id, without its first bit, is less.
    threshold: u64,
    recorder: Box<dyn Recorder>,
}

/// Takes spans that have ended. Called from hot paths: it must not wait.
pub trait Recorder: Send + Sync {
    /// A span has ended.
    fn record(&self, span: Span);
}

/// A span of a trace that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
}

/// What a span is to the way of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A part of something else.
    Internal,
    /// It asks somebody.
    Client,
    /// It leaves something for others.
    Producer,
    /// It takes what others left.
    Consumer,
}

/// Something that took time, and has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which one it is.
    pub context: Context,
    /// The span that it came of.
    pub parent: Option<u64>,
    /// What was done.
    pub name: String,
    /// What that is to the change.
    pub kind: SpanKind,
    /// When it began, microseconds since the Unix epoch.
    pub begun_us: i64,
    /// When it ended.
    pub ended_us: i64,
    /// What else is known.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// From now on traces are recorded: of this share of the changes, from 0 to 1. False: somebody takes them already, and goes on.
pub fn install(ratio: f64, recorder: Box<dyn Recorder>) -> bool {
    INSTALLED.set(Installed { threshold: threshold(ratio), recorder }).is_ok()
}

/// As OpenTelemetry's sampler by the ratio of trace ids has it.
fn threshold(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64
}

/// Whether any traces are recorded.
pub fn is_on() -> bool {
    INSTALLED.get().is_some()
}

/// The first span of a change's trace: its capture. None: it is not recorded.
pub fn of_change(event: &ChangeEvent) -> Option<Context> {
    let installed = INSTALLED.get()?;
    let of = (&*event.table.schema, &*event.table.name, event.sequence);
    let trace = u128::from(number(("trace", of))) << 64 | u128::from(number(("of", of)));
    let is_recorded = (trace as u64) >> 1 < installed.threshold;
    is_recorded.then(|| Context { trace, span: number(("capture", of)) })
}

fn number(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish().max(1)
}

/// The span that a record or a request came of, as its header says it. None: there is none, or its trace is not recorded.
pub fn continued(header: Option<&[u8]>) -> Option<Context> {
    if is_on() { Context::parse(header?) } else { None }
}

/// Hands a span in.
pub fn record(span: Span) {
    if let Some(installed) = INSTALLED.get() {
        installed.recorder.record(span);
    }
}

impl Context {
    /// Reads a header (version 00, or what a later version has in common with it). None: it is none, or not sampled.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_well_formed = [(version, 2), (trace, 32), (span, 16), (flags, 2)].iter().all(|(part, length)| {
            part.len() == *length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if !is_well_formed || version == "ff" || version == "00" && parts.next().is_some() {
            return None;
        }
        let context = Self { trace: u128::from_str_radix(trace, 16).ok()?, span: u64::from_str_radix(span, 16).ok()? };
        let is_sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        (is_sampled && context.trace != 0 && context.span != 0).then_some(context)
    }

    /// A new span of the same trace.
    pub fn child(self) -> Self {
        // Each such state has keys of its own.
        let span = RandomState::new().build_hasher().finish().max(1);
        Self { span, ..self }
    }
}

impl fmt::Display for Context {
    /// As the header has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

/// A span that has begun, with the spans inside of it.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Which one it is.
    pub context: Context,
    parent: u64,
    begun_us: i64,
    inside: Vec<Span>,
    next: Context,
}

impl Begun {
    /// One that came of another one, and begins now.
    pub fn after(parent: Context) -> Self {
        Self::of(parent.child(), parent)
    }

    /// The same, and which one it is was said before.
    pub fn of(context: Context, parent: Context) -> Self {
        Self { context, parent: parent.span, begun_us: now_us(), inside: Vec::new(), next: context.child() }
    }

    /// The same, and it began before: so many microseconds since the Unix epoch.
    pub fn since(self, begun_us: i64) -> Self {
        Self { begun_us: begun_us.min(self.begun_us), ..self }
    }

    /// The part that ends next: what is asked during it came of it.
    pub fn next_part(&self) -> Context {
        self.next
    }

    /// Something inside of it has ended now.
    pub fn part(&mut self, name: String, kind: SpanKind, begun_us: i64, outcome: &str, error: Option<String>) {
        let context = std::mem::replace(&mut self.next, self.context.child());
        self.inside.push(Span {
            context,
            parent: Some(self.context.span),
            name,
            kind,
            begun_us,
            ended_us: now_us(),
            attributes: vec![("tributary.outcome", outcome.to_owned())],
            error,
        });
    }

    /// It ends now, and is handed in with all that is inside of it.
    pub fn end(self, name: String, kind: SpanKind, attributes: Vec<(&'static str, String)>, error: Option<String>) {
        let Self { context, parent, begun_us, inside, next: _ } = self;
        inside.into_iter().for_each(record);
        let ended_us = now_us().max(begun_us);
        record(Span { context, parent: Some(parent), name, kind, begun_us, ended_us, attributes, error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(text.as_bytes()).expect("a context");
        assert_eq!(context.to_string(), text);
        assert_eq!(context.child().trace, context.trace);
        assert_ne!(context.child().span, context.child().span);
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later";
        assert_eq!(Context::parse(later.as_bytes()), Some(context));
        for wrong in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "",
        ] {
            assert_eq!(Context::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_share_of_the_traces_is_recorded() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.1, 800, 1_200), (0.5, 4_700, 5_300), (1.0, 10_000, 10_000)] {
            let threshold = threshold(ratio);
            let recorded = (0..10_000_u64).filter(|n| number(("of", n)) >> 1 < threshold).count();
            assert!((least..=most).contains(&recorded), "{ratio}: {recorded}");
        }
        assert!(!is_on() && continued(Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")).is_none());
    }
}
