//! Looks at the parts that an idle pipeline would not notice: asks graph, stores and transport whether they are there.
//!
//! Work says more than a question can, so it has the last word: an answer lifts only what silence, or the start, has put
//! down. Silence puts a part down at once.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tributary_event::{Health, HealthState, Reporter};
use tributary_transport::Transport;

use crate::context::IndexContext;
use crate::graph::Graph;

/// How often each part is asked.
const EVERY: Duration = Duration::from_secs(5);
/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of one part.
struct Watched {
    reporter: Reporter,
    /// We put it down; nobody else did.
    silent: bool,
}

impl Watched {
    fn new(reporter: Reporter) -> Self {
        Self { reporter, silent: false }
    }

    /// Takes an answer. `starting`: the part has not said anything yet.
    fn take(&mut self, answer: Result<(), String>, starting: bool) {
        match answer {
            Ok(()) if self.silent || starting => {
                self.reporter.up();
                self.silent = false;
            }
            Ok(()) => {}
            Err(why) => {
                self.silent = true;
                if self.reporter.down(why.clone()) {
                    let outage_s = self.reporter.outage().as_secs();
                    tracing::warn!(part = self.reporter.name(), error = why, outage_s, "a part does not answer");
                }
            }
        }
    }
}

/// Watches until shutdown.
pub async fn run(
    health: Health,
    graph: Arc<dyn Graph>,
    transport: Arc<dyn Transport>,
    indexes: Vec<Arc<IndexContext>>,
    shutdown: CancellationToken,
) {
    let mut graph_part = Watched::new(health.reporter("graph"));
    let mut transport_part = Watched::new(health.reporter("transport"));
    let mut stores: Vec<Watched> = indexes.iter().map(|index| Watched::new(index.store_health.clone())).collect();
    loop {
        let starting = |reporter: &Reporter| {
            let parts = health.parts();
            parts.get(reporter.name()).is_some_and(|part| part.state == HealthState::Starting)
        };
        let answer = answer(async { graph.probe().await.map_err(|e| e.message) }).await;
        graph_part.take(answer, starting(&graph_part.reporter));
        let answer = self::answer(async { transport.probe().await.map_err(|e| e.message) }).await;
        transport_part.take(answer, starting(&transport_part.reporter));
        for (index, part) in indexes.iter().zip(&mut stores).filter(|(index, _)| index.store.is_open()) {
            let answer = self::answer(async { index.store.probe().await.map_err(|e| e.message) }).await;
            part.take(answer, starting(&part.reporter));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn answer(question: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let asked = tokio::time::timeout(PATIENCE, question).await;
    asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lifts_only_what_silence_or_the_start_put_down() {
        let health = Health::default();
        let mut part = Watched::new(health.part("graph"));
        part.take(Ok(()), true);
        assert!(health.is_up());
        part.take(Err("refused".into()), false);
        assert_eq!(health.parts()["graph"].why.as_deref(), Some("refused"));
        part.take(Ok(()), false);
        assert!(health.is_up());
        health.reporter("graph").down("it refuses our queries");
        part.take(Ok(()), false);
        assert!(!health.is_up());
    }
}
