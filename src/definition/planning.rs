//! From a draft to a plan: asks the graph for its schema until it tells it.
//!
//! A graph that is being deployed is away, or what stands before it answers 404, 403 or a redirect. A pipeline that ended then
//! would end at each of its starts. A mistake in the definition looks the same, so what is said names the cause and what to check.
//! A graph that tells its schema soon is waited for, so that a definition that is wrong starts nothing; while another one is waited
//! for, what needs no plan runs already.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_dsl::Schema;
use tributary_dsl::plan::Plan;
use tributary_event::Reporter;
use tributary_processor::Backoff;

use super::{Draft, NoSchema};
use crate::cli::exit::Failure;

/// The first answer is waited for so long before others begin without it.
const SOON: Duration = Duration::from_secs(3);

/// A plan that may be waited for.
pub struct Planning {
    draft: Arc<Draft>,
    graph: Reporter,
    backoff: Backoff,
    /// The question that is under way.
    asking: Pin<Box<dyn Future<Output = Result<Schema, NoSchema>> + Send>>,
}

impl Planning {
    /// Nothing is asked yet. `graph`: where it says how the graph is.
    pub fn new(draft: Arc<Draft>, graph: Reporter) -> Self {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        Self { asking: ask(draft.clone(), Duration::ZERO), draft, graph, backoff }
    }

    /// The plan, if the graph tells its schema soon. Not cancel-safe.
    ///
    /// # Errors
    /// The definition is wrong, as far as that is known.
    pub async fn soon(&mut self) -> Result<Option<Plan>, Failure> {
        match tokio::time::timeout(SOON, &mut self.asking).await {
            Ok(answer) => self.take(answer),
            // It is still being asked.
            Err(_) => {
                self.tell(format!("no answer within {} s", SOON.as_secs()));
                self.draft.text_is_right()?;
                Ok(None)
            }
        }
    }

    /// The plan, when the graph has told its schema. None: shutdown came first.
    ///
    /// # Errors
    /// The definition is wrong.
    pub async fn waited_for(mut self, shutdown: &CancellationToken) -> Result<Option<Plan>, Failure> {
        loop {
            let answer = tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                answer = &mut self.asking => answer,
            };
            if let Some(plan) = self.take(answer)? {
                info!(after_s = self.graph.outage().as_secs(), "the graph tells its schema; the indexes start");
                return Ok(Some(plan));
            }
        }
    }

    /// Takes an answer; if it was none, the next question is under way.
    fn take(&mut self, answer: Result<Schema, NoSchema>) -> Result<Option<Plan>, Failure> {
        let error = match answer {
            Ok(schema) => return self.draft.plan(&schema).map(Some),
            Err(NoSchema::Graph(error)) => error.message,
            Err(NoSchema::Failure(failure)) => return Err(failure),
        };
        self.draft.text_is_right()?;
        self.tell(error);
        self.asking = ask(self.draft.clone(), self.backoff.pause());
        Ok(None)
    }

    fn tell(&self, error: String) {
        if self.graph.down(error.clone()) {
            warn!(
                error,
                outage_s = self.graph.outage().as_secs(),
                "the graph does not tell its schema; asking again until it does, and capturing changes meanwhile. If this does not \
                 pass, graph.endpoint or graph.headers may be wrong (run with --fail-fast to end instead of waiting)"
            );
        }
    }
}

/// Asks for the schema after a while.
fn ask(draft: Arc<Draft>, pause: Duration) -> Pin<Box<dyn Future<Output = Result<Schema, NoSchema>> + Send>> {
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        draft.schema().await
    })
}
