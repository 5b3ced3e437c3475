//! `tributary tap`: what flows through the steps of streams, live. The running pipeline tells it as lines of JSON.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::time::Instant;
use tributary_expression::{Flow, Program, Shape, Value};
use tributary_processor::stream::tap::{Tapped, Watcher};

use super::http::{Api, refused};
use super::record;
use crate::cli::exit::Failure;
use crate::cli::output::line;
use crate::definition::{self, PipelineFile};

/// Events of which it is known that they are shown.
const SHOWN: usize = 1_000;
/// The longest that a condition may take for one event.
const DEADLINE: Duration = Duration::from_millis(50);

/// What somebody wants to see.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Wish {
    /// A stream; none: all of them.
    pub stream: Option<String>,
    /// A step of it; none: all of them.
    pub step: Option<String>,
    /// A condition in VRL on the event.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Events a second at most.
    pub rate: Option<u32>,
}

impl Wish {
    /// The streams or steps that a target names: `priced`, or `priced/filter-1`.
    pub fn of(target: Option<&str>) -> Self {
        let (stream, step) = match target.and_then(|target| target.split_once('/')) {
            Some((stream, step)) => (Some(stream), Some(step)),
            None => (target, None),
        };
        Self { stream: stream.map(str::to_owned), step: step.map(str::to_owned), ..Self::default() }
    }
}

/// A watcher with its wish.
struct Tap {
    watcher: Watcher,
    wish: Wish,
    condition: Option<Program>,
    allowance: Allowance,
    /// Events whose steps are shown, the newest last: the stream, and where each was read.
    shown: VecDeque<(Arc<str>, String)>,
    /// The event that was left out last, and how many were.
    left_out: (String, u64),
}

/// How many events may be shown now: so many a second, and as many at once.
struct Allowance {
    rate: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(rate: Option<u32>) -> Self {
        let rate = rate.map_or(f64::INFINITY, f64::from);
        Self { rate, left: rate, at: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        self.left = (self.left + self.rate * (now - self.at).as_secs_f64()).min(self.rate);
        self.at = now;
        let may = self.left >= 1.0;
        self.left -= f64::from(u8::from(may));
        may
    }
}

impl Tap {
    fn is_meant(&self, tapped: &Tapped) -> bool {
        let named = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        named(&self.wish.stream, &tapped.stream) && named(&self.wish.step, &tapped.step)
    }

    fn fits(&self, tapped: &Tapped) -> bool {
        self.condition.as_ref().is_none_or(|condition| {
            let mut flow = Flow::new(tapped.event.clone());
            condition.run(&mut flow, DEADLINE).is_ok_and(|answer| answer == Value::Boolean(true))
        })
    }

    /// The next line. An event that fits once is shown at all of its steps, whatever those make of it.
    async fn line(&mut self) -> Option<String> {
        loop {
            let tapped = match self.watcher.next().await? {
                Ok(tapped) if !self.is_meant(&tapped) => continue,
                Ok(tapped) => tapped,
                Err(missed) => return Some(format!("{}\n", json!({ "missed": missed }))),
            };
            let is_shown =
                self.shown.iter().rev().any(|(stream, place)| *stream == tapped.stream && *place == tapped.place);
            if !is_shown {
                if !self.fits(&tapped) {
                    continue;
                }
                if !self.allowance.take() {
                    if self.left_out.0 != tapped.place {
                        self.left_out = (tapped.place.clone(), self.left_out.1 + 1);
                    }
                    continue;
                }
                self.shown.push_back((tapped.stream.clone(), tapped.place.clone()));
                if self.shown.len() > SHOWN {
                    self.shown.pop_front();
                }
            }
            let mut told = tapped.to_json();
            if self.left_out.1 > 0 {
                told["left_out"] = json!(std::mem::take(&mut self.left_out.1));
            }
            return Some(format!("{told}\n"));
        }
    }
}

/// Lines of JSON until whoever asked leaves, or the pipeline stops.
pub async fn serve(State(api): State<Arc<Api>>, Query(wish): Query<Wish>) -> Response {
    let streams = api.shown.read().unwrap_or_else(PoisonError::into_inner).streams.clone();
    if let Some(stream) = wish.stream.as_ref().filter(|name| !streams.iter().any(|(known, _)| known == *name)) {
        let known: Vec<&str> = streams.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("no stream {stream:?} in this pipeline (it has: {})", known.join(", "));
        return refused(StatusCode::NOT_FOUND, message);
    }
    let steps = streams.iter().find(|(name, _)| Some(name) == wish.stream.as_ref()).map(|(_, steps)| steps);
    if let Some((step, known)) =
        wish.step.as_ref().zip(steps).filter(|(step, known)| *step != "from" && !known.contains(step))
    {
        let message = format!("no step {step:?} in this stream (it has: from, {})", known.join(", "));
        return refused(StatusCode::NOT_FOUND, message);
    }
    let condition = match wish
        .condition
        .as_deref()
        .map(|text| Program::compile_with(text, &Shape::any(), api.functions.functions()))
        .transpose()
    {
        Ok(compiled) => compiled.map(|(program, _)| program),
        Err(problems) => {
            let said: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            return refused(StatusCode::BAD_REQUEST, format!("the condition is no program: {}", said.join("; ")));
        }
    };
    let (shown, left_out) = (VecDeque::new(), (String::new(), 0));
    let allowance = Allowance::new(wish.rate);
    let tap = Tap { watcher: api.taps.watch(), wish, condition, allowance, shown, left_out };
    let stopping = api.stopping.clone();
    let lines = stream::unfold(tap, move |mut tap| {
        let stopping = stopping.clone();
        async move {
            let line = tokio::select! {
                () = stopping.cancelled() => None,
                line = tap.line() => line,
            };
            line.map(|line| (Ok::<_, std::convert::Infallible>(line), tap))
        }
    });
    let headers = [("content-type", "application/x-ndjson")];
    (headers, Body::from_stream(lines)).into_response()
}

/// `tap`.
///
/// # Errors
/// The pipeline does not run here, or knows no such stream or step.
pub async fn tap(file: &PipelineFile, wish: Wish, count: Option<u64>, as_json: bool) -> Result<(), Failure> {
    let draft = definition::read(file).await?;
    draft.text_is_right()?;
    let pipeline = draft.definition();
    let Some(running) = record::find(pipeline.data(), pipeline.pipeline()).await else {
        return Err(Failure::NotFound(format!(
            "the pipeline {} does not run on this machine (tributary run {} starts it)",
            pipeline.pipeline(),
            file.path.display()
        )));
    };
    let mut lines = running.lines("/tap", &wish).await?;
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut seen = 0;
    while let Some(text) = lines.next().await? {
        let Ok(told) = serde_json::from_str::<Json>(&text) else { continue };
        if as_json {
            line(&text);
        } else {
            line(&shown(&told, color));
        }
        let _ = std::io::stdout().flush();
        seen += u64::from(told.get("missed").is_none());
        if count.is_some_and(|count| seen >= count) {
            return Ok(());
        }
    }
    Err(Failure::Unreachable("the pipeline stopped".to_owned()))
}

/// A line for people.
fn shown(told: &Json, color: bool) -> String {
    if let Some(missed) = told["missed"].as_u64() {
        return format!("… {missed} events came faster than they could be shown");
    }
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    let paint = |text: &str, code: &str| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let mark = match text("outcome") {
        "passed" => paint("→", "32"),
        "dropped" => paint("×", "33"),
        _ => paint("!", "31"),
    };
    let cause = told["cause"].as_str().map_or_else(String::new, |cause| format!("  {}", paint(cause, "31")));
    let left_out = told["left_out"].as_u64().map_or_else(String::new, |n| format!("  ({n} left out before)"));
    let step = paint(&format!("{}/{}", text("stream"), text("step")), "36");
    format!("{mark} {step}  {}{cause}{left_out}\n    {}", paint(text("place"), "2"), told["event"])
}
