//! Where a sink's dead letters are written.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::warn;
use tributary_event::ErrorClass;
use tributary_transport::{Batch, Producer};

use super::Delivery;
use crate::retry::Backoff;

/// Appends letters. A letter may be appended twice, which is one letter.
#[derive(Default)]
pub(super) struct Letters(Mutex<Option<Box<dyn Producer>>>);

impl Letters {
    /// Appends letters, however long that takes: when it returns they are durable.
    pub async fn append(&self, batch: &Batch, delivery: &Delivery) {
        if batch.is_empty() {
            return;
        }
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut producer = self.0.lock().await;
        loop {
            let appended = match producer.as_mut() {
                Some(producer) => producer.append(batch).await,
                None => match delivery.transport.appender().await {
                    Ok(opened) => {
                        *producer = Some(opened);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            let Err(error) = appended else { return };
            if error.class != ErrorClass::Transient {
                *producer = None;
            }
            if delivery.working.down(error.message.clone()) {
                let (stream, sink) = (&delivery.stream, &delivery.plan.name);
                warn!(stream, sink, error = error.message, "a dead letter cannot be written; trying again");
            }
            sleep(backoff.pause()).await;
        }
    }
}
