//! A service: what all steps that ask it share. Its requests in flight, its rate, its breaker, and how it is.

mod breaker;
pub(crate) mod pace;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;
use tributary_dsl::plan::ServicePlan;
use tributary_event::Reporter;
use tributary_processor::{Backoff, OutsideError};

use self::breaker::{Admission, Breaker, Mark, Position};
use self::pace::{Pause, Rate};
use crate::http::stand_in::StandIn;
use crate::http::traced;
use crate::http::trouble::Trouble;
use crate::http::{Client, Reply, Request};

/// Requests wait for the end of a pause that the service asked for, if it is no longer than this; else they fail at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// The shortest and the longest pause after an answer that it is asked too often, without a word for how long.
const THROTTLED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A service that steps of streams ask: one for all of them, so that its limits hold for all together.
#[derive(Debug)]
pub struct Service {
    name: Arc<str>,
    pub(crate) client: Client,
    permits: Semaphore,
    rate: Option<Rate>,
    pause: Pause,
    /// How often it was said, one after the other, that it is asked too often.
    throttled: Mutex<Backoff>,
    breaker: Mutex<Breaker>,
    slow: Option<Duration>,
    /// What the breaker's time begins with.
    made: Instant,
    health: Reporter,
}

impl Service {
    /// A service as the plan has it. `health` is its part: up until it is known to be otherwise, down with the cause while it refuses us
    /// or its breaker is open, and up again after its next good answer.
    ///
    /// # Errors
    /// Fatal: its URL or a header cannot be used.
    pub fn new(plan: &ServicePlan, health: Reporter) -> Result<Arc<Self>, OutsideError> {
        Self::with(plan, Client::new(plan)?, health)
    }

    /// The same, but nobody is asked: a stand-in answers.
    ///
    /// # Errors
    /// Fatal: its URL or a header cannot be used.
    pub fn stood_in(
        plan: &ServicePlan,
        stand_in: Arc<dyn StandIn>,
        health: Reporter,
    ) -> Result<Arc<Self>, OutsideError> {
        Self::with(plan, Client::new(plan)?.stood_in(stand_in), health)
    }

    fn with(plan: &ServicePlan, client: Client, health: Reporter) -> Result<Arc<Self>, OutsideError> {
        health.up();
        let service = Self {
            name: plan.name.as_str().into(),
            client,
            permits: Semaphore::new(plan.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            rate: plan.rate.map(Rate::new),
            pause: Pause::default(),
            throttled: Mutex::new(Backoff::new(THROTTLED.0, THROTTLED.1)),
            breaker: Mutex::new(Breaker::new(plan.breaker)),
            slow: plan.breaker.slow,
            made: Instant::now(),
            health,
        };
        service.show(Position::Closed);
        Ok(Arc::new(service))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, as metrics take it.
    pub(crate) fn label(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Leave to ask, which ends by telling how it went.
    pub(crate) fn admit(&self) -> Result<Pass<'_>, Trouble> {
        let mut breaker = self.breaker();
        let admission = breaker.admit(self.made.elapsed());
        let position = breaker.position();
        drop(breaker);
        match admission {
            Admission::Pass => Ok(Pass { service: self, is_trial: false, is_told: false }),
            Admission::Trial => {
                self.show(position);
                Ok(Pass { service: self, is_trial: true, is_told: false })
            }
            Admission::LeftAlone { left, cause } => {
                let name = &self.name;
                let message = if left.is_zero() {
                    format!("the service {name} is left alone until one request has tried it: {cause}")
                } else {
                    format!("the service {name} is left alone for {left:.1?}: {cause}")
                };
                Err(Trouble::LeftAlone(message))
            }
        }
    }

    /// Sends a request when the service's limits allow it.
    pub(crate) async fn send(&self, request: Request) -> Result<Answered, Trouble> {
        let closed = |_| Trouble::LeftAlone(format!("the service {} was closed", self.name));
        let _permit = self.permits.acquire().await.map_err(closed)?;
        self.wait_for_pause().await?;
        if let Some(rate) = &self.rate {
            rate.wait().await;
            self.wait_for_pause().await?;
        }
        let (begun, span, keys) = (Instant::now(), traced::begin(), request.keys.len());
        let exchanged = self.client.exchange(request, span.as_ref()).await;
        let took = begun.elapsed();
        let outcome = exchanged.as_ref().map_or_else(|failure| failure.trouble.word(), |_| "answered");
        metrics::counter!("tributary_service_requests_total", "service" => self.label(), "outcome" => outcome)
            .increment(1);
        metrics::histogram!("tributary_service_request_seconds", "service" => self.label()).record(took.as_secs_f64());
        traced::end(span, &self.name, keys, outcome);
        match exchanged {
            Ok(reply) => {
                self.throttled().reset();
                Ok(Answered { reply, begun, took })
            }
            Err(failure) => {
                let is_throttled = matches!(failure.trouble, Trouble::Throttled(_));
                let pause = failure.pause.or_else(|| is_throttled.then(|| self.throttled().pause()));
                if let Some(pause) = pause {
                    self.pause.begin(pause);
                    metrics::counter!("tributary_service_throttled_total", "service" => self.label()).increment(1);
                }
                if let Trouble::Refused(cause) = &failure.trouble {
                    self.is_down(cause);
                }
                Err(failure.trouble)
            }
        }
    }

    async fn wait_for_pause(&self) -> Result<(), Trouble> {
        while let Some(left) = self.pause.left() {
            if left > PATIENCE {
                let name = &self.name;
                let message = format!("the service {name} asked to be left alone for another {left:.0?}");
                return Err(Trouble::LeftAlone(message));
            }
            tokio::time::sleep(left).await;
        }
        Ok(())
    }

    fn is_down(&self, cause: &str) {
        if self.health.down(cause) {
            warn!(service = &*self.name, cause, "a service does not do its work");
        }
    }

    fn show(&self, position: Position) {
        let value = match position {
            Position::Closed => 0.0,
            Position::HalfOpen => 1.0,
            Position::Open => 2.0,
        };
        metrics::gauge!("tributary_service_breaker_state", "service" => self.label()).set(value);
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttled(&self) -> MutexGuard<'_, Backoff> {
        self.throttled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reply, and how long it took.
#[derive(Debug)]
pub(crate) struct Answered {
    pub reply: Reply,
    pub begun: Instant,
    pub took: Duration,
}

/// Leave to ask a service. If it is dropped, nothing is known of how it went.
#[derive(Debug)]
pub(crate) struct Pass<'s> {
    service: &'s Service,
    is_trial: bool,
    is_told: bool,
}

impl Pass<'_> {
    /// The service did its work, in that time.
    pub(crate) fn went_well(self, took: Duration) {
        let service = self.service;
        let mark = match service.slow {
            Some(slow) if took > slow => {
                Mark::Bad(format!("{} took {took:.1?}, and slow is what takes {slow:?}", service.client.place))
            }
            _ => Mark::Good,
        };
        self.tell(mark);
    }

    /// It did not.
    pub(crate) fn failed(self, cause: &str) {
        self.tell(Mark::Bad(cause.to_owned()));
    }

    fn tell(mut self, mark: Mark) {
        self.is_told = true;
        self.record(mark);
    }

    fn record(&self, mark: Mark) {
        let service = self.service;
        let is_good = mark == Mark::Good;
        let cause = if let Mark::Bad(cause) = &mark { cause.clone() } else { String::new() };
        let mut breaker = service.breaker();
        let before = breaker.position();
        breaker.record(service.made.elapsed(), self.is_trial, mark);
        let after = breaker.position();
        drop(breaker);
        if before != after {
            service.show(after);
        }
        match after {
            Position::Open if before != after => service.is_down(&format!("it is left alone for a while: {cause}")),
            Position::Closed if is_good => {
                service.health.up();
            }
            _ => {}
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            self.record(Mark::Nothing);
        }
    }
}
