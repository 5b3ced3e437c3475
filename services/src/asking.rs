//! A step's way to a service: repeated keys asked for once, answers that are kept, and the order of the caller.

pub(crate) mod call;
mod gathering;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tributary_dsl::plan::{CallPlan, EnrichPlan};
use tributary_event::ErrorClass;
use tributary_event::traces::Context;
use tributary_processor::{Answer, Enricher, OutsideError};

use self::call::Call;
use self::gathering::Gathering;
use crate::kept::cache::{Cache, Falls};
use crate::kept::held::Held;
use crate::kept::typed::Typed;
use crate::questions::Questions;
use crate::service::Service;

/// What one step asks of a service. One for the step in all its partitions, so that they share requests and answers.
#[derive(Debug)]
pub struct Asking {
    service: Arc<Service>,
    cache: Arc<Cache>,
    gathering: Gathering,
}

impl Asking {
    /// What a step asks of `service`. It runs tasks on the runtime that this is called in, and aborts them when it is dropped. Answers that
    /// are kept fall by what is told to `held`, where they say what they hold: those of GraphQL services.
    ///
    /// # Errors
    /// Fatal: requests cannot be made as the plan has them, or there is no runtime.
    pub fn new(service: Arc<Service>, plan: &EnrichPlan, held: Option<Arc<Held>>) -> Result<Arc<Self>, OutsideError> {
        let held = held.filter(|_| plan.cache.as_ref().is_some_and(|cache| cache.changes));
        let (typed, falls) = match (&plan.call, held) {
            (CallPlan::Graphql { query, .. }, Some(held)) => {
                let Typed { query, aliases } = Typed::new(query);
                (Some(query), Some(Falls { held, aliases }))
            }
            _ => (None, None),
        };
        let call = Call::new(&service, &plan.call, typed.as_deref())?;
        let runtime = Handle::try_current()
            .map_err(|e| OutsideError::fatal(format!("services.{}: nothing runs its requests: {e}", service.name())))?;
        let cache = Cache::new(plan.cache, falls);
        let questions = Questions::new(service.clone(), call);
        let gathering = Gathering::new(questions, cache.clone(), plan.batch, &runtime);
        Ok(Arc::new(Self { service, cache, gathering }))
    }

    fn count(&self, metric: &'static str, by: usize) {
        if by > 0 {
            metrics::counter!(metric, "service" => self.service.label()).increment(by as u64);
        }
    }
}

#[async_trait]
impl Enricher for Asking {
    async fn ask(&self, keys: &[Bytes]) -> Result<Vec<Answer>, OutsideError> {
        self.ask_within(keys, None).await
    }

    async fn ask_within(&self, keys: &[Bytes], span: Option<Context>) -> Result<Vec<Answer>, OutsideError> {
        let mut known: HashMap<&Bytes, Answer> = HashMap::with_capacity(keys.len());
        let mut unknown: Vec<Bytes> = Vec::new();
        let mut seen: HashSet<&Bytes> = HashSet::with_capacity(keys.len());
        for key in keys {
            if !seen.insert(key) {
                continue;
            }
            match self.cache.get(key).await {
                Some(answer) => {
                    known.insert(key, answer);
                }
                None => unknown.push(key.clone()),
            }
        }
        if self.cache.is_used() {
            self.count("tributary_service_cache_hits_total", known.len());
            self.count("tributary_service_cache_misses_total", unknown.len());
        }
        let mut failed: Option<OutsideError> = None;
        if !unknown.is_empty() {
            let outcomes = self.gathering.outcomes(unknown.clone(), span).await;
            for (key, outcome) in unknown.iter().zip(outcomes) {
                match outcome {
                    Ok(answer) => {
                        known.insert(key, answer);
                    }
                    // What somebody has to do something about is told first.
                    Err(error) if failed.is_none() || error.class == ErrorClass::Fatal => failed = Some(error),
                    Err(_) => {}
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let lost =
            || OutsideError::transient(format!("the service {} left a key without an answer", self.service.name()));
        keys.iter().map(|key| known.get(key).cloned().ok_or_else(lost)).collect()
    }
}
