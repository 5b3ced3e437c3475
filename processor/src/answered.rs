//! Asking until there is an answer: the one way in which a stage waits for a server that is away.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_event::{ErrorClass, Reporter};
use tributary_transport::TransportError;

use crate::retry::Backoff;

/// A failed call, as far as whoever waits must know it.
pub trait FailedCall {
    /// What may be done about it.
    fn class(&self) -> ErrorClass;

    /// Place, cause, remedy.
    fn message(&self) -> &str;
}

impl FailedCall for TransportError {
    fn class(&self) -> ErrorClass {
        self.class
    }

    fn message(&self) -> &str {
        &self.message
    }
}

/// Calls until the answer is no transient failure, with growing pauses. Meanwhile the part is down, and the log says once a minute
/// `what` cannot be done. None: shutdown came first; a call that is under way then is finished before.
///
/// # Errors
/// The first failure that is not transient.
pub async fn until_answered<T, E, C, F>(
    health: &Reporter,
    what: &str,
    shutdown: &CancellationToken,
    mut call: C,
) -> Result<Option<T>, E>
where
    E: FailedCall,
    C: FnMut() -> F,
    F: Future<Output = Result<T, E>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        match call().await {
            Ok(answer) => {
                health.up();
                return Ok(Some(answer));
            }
            Err(error) => {
                let is_news = health.down(error.message());
                if error.class() != ErrorClass::Transient {
                    return Err(error);
                }
                if is_news {
                    let (part, outage_s) = (health.name(), health.outage().as_secs());
                    warn!(part, error = error.message(), outage_s, "cannot {what}; trying again");
                }
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tributary_event::{Health, HealthState};

    use super::*;

    fn failed(class: ErrorClass) -> Result<u32, TransportError> {
        Err(TransportError::new(class, "refused"))
    }

    #[tokio::test]
    async fn it_asks_until_there_is_an_answer_and_says_how_the_part_is() {
        let (health, calls) = (Health::default(), AtomicU32::new(0));
        let part = health.part("store");
        let call = || async {
            let number = calls.fetch_add(1, Ordering::Relaxed);
            if number > 0 {
                assert_eq!(health.state(), HealthState::Down);
            }
            if number < 3 { failed(ErrorClass::Transient) } else { Ok(number) }
        };
        let answer = until_answered(&part, "ask", &CancellationToken::new(), call).await;
        assert_eq!(answer.expect("an answer"), Some(3));
        assert!(health.is_up());
    }

    #[tokio::test]
    async fn it_ends_with_shutdown_and_with_what_does_not_pass() {
        let (part, shutdown) = (Health::default().part("store"), CancellationToken::new());
        let refused = until_answered(&part, "ask", &shutdown, || async { failed(ErrorClass::Fatal) }).await;
        assert!(refused.is_err());
        shutdown.cancel();
        let stopped = until_answered(&part, "ask", &shutdown, || async { failed(ErrorClass::Transient) }).await;
        assert_eq!(stopped.expect("no failure"), None);
    }
}
