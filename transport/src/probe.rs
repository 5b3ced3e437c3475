//! Whether a transport answers, asked by one thread at a time: who gives up waiting leaves the question to whoever asks next, so
//! that a disk or a broker that hangs does not gather threads.

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tributary_event::ErrorClass;

use crate::contract::TransportError;

/// The question that is under way.
#[derive(Default)]
pub(crate) struct Probe(Mutex<Option<JoinHandle<Result<(), TransportError>>>>);

impl Probe {
    /// The answer to the question that is under way, or to one that is begun now. Cancel-safe.
    pub async fn ask(
        &self,
        begin: impl FnOnce() -> JoinHandle<Result<(), TransportError>>,
    ) -> Result<(), TransportError> {
        let mut under_way = self.0.lock().await;
        let answer = under_way.get_or_insert_with(begin).await;
        *under_way = None;
        answer.unwrap_or_else(|error| {
            Err(TransportError::caused(ErrorClass::Transient, "a question to the transport was interrupted", error))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_gives_up_leaves_the_question_to_the_next() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
        let probe = Probe::default();
        let begin = || {
            let wait = wait.clone();
            tokio::task::spawn_blocking(move || {
                ASKED.fetch_add(1, Ordering::SeqCst);
                let _ = wait.lock().unwrap().recv();
                Ok(())
            })
        };
        for _ in 0..5 {
            assert!(tokio::time::timeout(Duration::from_millis(5), probe.ask(begin)).await.is_err());
        }
        drop(release);
        probe.ask(begin).await.unwrap();
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        probe.ask(begin).await.unwrap();
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    }
}
