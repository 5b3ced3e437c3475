//! When a root is taken to be gone: the graph has to say it twice, at least a second apart and as far as it may lag, and the second time
//! where it is asked for that root alone.
//!
//! An answer may lack a root that is there, without an error: it was cut, or what answers it is wrong for a moment. What is asked
//! of many at once may be refused in silence, so each is asked for alone. Where a person said that documents may be deleted, some of
//! many are enough, unless one of them is there after all. (An answer that holds some and lacks others is asked again by every
//! [`Graph`]; that a graph has nothing at all is not believed by [`PatientGraph`](crate::graph::PatientGraph).)

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tracing::debug;
use tributary_dsl::plan::IndexPlan;

use crate::graph::{Fetched, Graph, GraphError};

/// Between the two answers that a root is not there, at least.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// Of many that may be deleted so many are asked for alone.
const SOME: usize = 5;
/// Requests at a time.
const WIDTH: usize = 8;

/// Whether a root that was missing first at this moment may be taken to be gone if it is missing now, of a graph that lags by so much: one that
/// answers from several copies may have asked one that does not have the root yet.
pub fn is_old_enough(missing_since: Instant, asked: Instant, lag: Duration) -> bool {
    asked.saturating_duration_since(missing_since) >= CONFIRM_AFTER.max(lag)
}

/// How long it is until such a root is asked for again: soon at first, for the graph may know it by then, and when it is old enough at the latest.
pub fn ask_after(missing_since: Instant, now: Instant, lag: Duration) -> Duration {
    let waited = now.saturating_duration_since(missing_since);
    let left = CONFIRM_AFTER.max(lag).saturating_sub(waited);
    if left.is_zero() { CONFIRM_AFTER } else { CONFIRM_AFTER.max(waited).min(left) }
}

/// Which of these roots, all missing in an answer about many, are gone: one answer for each, in order; none where it was not answered,
/// or not asked before this moment (some are asked in any case). `allowed`: a person said that they may be deleted.
pub async fn gone(
    graph: &dyn Graph,
    index: &IndexPlan,
    ids: &[String],
    allowed: bool,
    until: Instant,
) -> Vec<Option<bool>> {
    if allowed {
        let some: Vec<String> = sample(ids.len()).into_iter().map(|at| ids[at].clone()).collect();
        if alone(graph, index, &some, until).await.into_iter().all(|gone| gone == Some(true)) {
            return vec![Some(true); ids.len()];
        }
    }
    alone(graph, index, ids, until).await
}

/// Asks for each in a request of its own.
async fn alone(graph: &dyn Graph, index: &IndexPlan, ids: &[String], until: Instant) -> Vec<Option<bool>> {
    let mut gone = Vec::with_capacity(ids.len());
    for ids in ids.chunks(WIDTH) {
        if !gone.is_empty() && Instant::now() >= until {
            break;
        }
        let ask = |id| graph.fetch(index, std::slice::from_ref(id));
        gone.extend(join_all(ids.iter().map(ask)).await.into_iter().map(answer));
    }
    gone.resize(ids.len(), None);
    gone
}

fn answer(fetched: Result<Vec<Fetched>, GraphError>) -> Option<bool> {
    match fetched.as_deref() {
        Ok([Fetched::Missing]) => Some(true),
        Ok([Fetched::Found(_)]) => Some(false),
        Ok([Fetched::Failed(error) | Fetched::Waits(error)]) | Err(error) => {
            debug!(error = error.message, "a root that is missing could not be asked for alone");
            None
        }
        Ok(_) => None,
    }
}

/// Places that are spread over so many.
fn sample(of: usize) -> Vec<usize> {
    if of <= SOME { (0..of).collect() } else { (0..SOME).map(|n| n * (of - 1) / (SOME - 1)).collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use serde_json::Value as Json;
    use tributary_dsl::plan::{FanOutPlan, Paging, Question};
    use tributary_event::ErrorClass;

    use super::*;
    use crate::graph::{IdPage, Identified, Vertex};

    /// Answers nothing to whoever asks for more than one.
    struct Silent {
        there: HashSet<String>,
        asked: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl Graph for Silent {
        async fn fetch(&self, _: &IndexPlan, ids: &[String]) -> Result<Vec<Fetched>, GraphError> {
            self.asked.lock().unwrap().push(ids.len());
            let found = |id: &String| ids.len() == 1 && self.there.contains(id);
            Ok(ids.iter().map(|id| if found(id) { Fetched::Found(Json::Null) } else { Fetched::Missing }).collect())
        }

        async fn parents(
            &self,
            _: &FanOutPlan,
            _: &[String],
        ) -> Result<Vec<Result<Vec<Vertex>, GraphError>>, GraphError> {
            Err(GraphError::new(ErrorClass::Fatal, "not asked"))
        }

        async fn identify(&self, _: &Question, _: &str, _: &[String]) -> Result<Vec<Identified>, GraphError> {
            Err(GraphError::new(ErrorClass::Fatal, "not asked"))
        }

        async fn root_ids(&self, _: &Paging, _: Option<&str>, _: usize) -> Result<IdPage, GraphError> {
            Err(GraphError::new(ErrorClass::Fatal, "not asked"))
        }

        async fn probe(&self) -> Result<(), GraphError> {
            Err(GraphError::new(ErrorClass::Fatal, "not asked"))
        }

        async fn introspect(&self) -> Result<Json, GraphError> {
            Err(GraphError::new(ErrorClass::Fatal, "not asked"))
        }
    }

    async fn of(there: &[usize], count: usize, allowed: bool) -> (Vec<usize>, usize) {
        let graph = Silent { there: there.iter().map(ToString::to_string).collect(), asked: Mutex::default() };
        let ids: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let index = crate::graph::tests::index(true, Vec::new());
        let gone = gone(&graph, &index, &ids, allowed, Instant::now()).await;
        let kept = gone.iter().enumerate().filter(|(_, gone)| **gone != Some(true)).map(|(at, _)| at).collect();
        let asked = graph.asked.lock().unwrap().len();
        (kept, asked)
    }

    #[tokio::test]
    async fn what_is_there_when_asked_for_alone_is_not_gone() {
        for allowed in [false, true] {
            assert_eq!(of(&[], 1, allowed).await, (vec![], 1));
        }
        assert_eq!(of(&[2], 4, false).await, (vec![2], 4));
        assert_eq!(of(&[], 100, true).await, (vec![], SOME), "a mass delete is no flood of requests");
        // Time is up: the rest is asked another time.
        assert_eq!(of(&[], 100, false).await, ((WIDTH..100).collect(), WIDTH));
        assert_eq!(of(&[0], 6, true).await, (vec![0], SOME + 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_graph_that_lags_is_given_the_time_to_know_a_root() {
        let since = Instant::now();
        for (lag, after) in [(0, 1_000), (1_000, 1_000), (3_000, 3_000)] {
            let (lag, after) = (Duration::from_millis(lag), Duration::from_millis(after));
            assert!(!is_old_enough(since, since + after - Duration::from_millis(1), lag));
            assert!(is_old_enough(since, since + after, lag));
        }
        let (mut now, mut asked) = (since, Vec::new());
        while !is_old_enough(since, now, Duration::from_secs(30)) {
            now += ask_after(since, now, Duration::from_secs(30));
            asked.push((now - since).as_secs());
        }
        assert_eq!(asked, [1, 2, 4, 8, 16, 30]);
        // It was asked for before it was old enough, and not answered alone.
        assert_eq!(ask_after(since, now, Duration::ZERO), CONFIRM_AFTER);
    }

    #[test]
    fn a_sample_has_the_first_and_the_last() {
        assert!(sample(0).is_empty());
        assert_eq!(sample(3), [0, 1, 2]);
        assert_eq!(sample(6), [0, 1, 2, 3, 5]);
        assert_eq!(sample(101), [0, 25, 50, 75, 100]);
    }
}
