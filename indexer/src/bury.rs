//! Setting aside: a dead letter on its way to its topic.

use tributary_processor::{OutRecord, Outbox, StageError, Ticket};
use tributary_transport::dead_letter::DeadLetter;

use crate::request::names;

/// Sends a dead letter to the pipeline's topic of them. The tickets are done when it is durable.
pub async fn bury(
    outbox: &Outbox,
    pipeline: &str,
    letter: &DeadLetter,
    tickets: Vec<Ticket>,
) -> Result<(), StageError> {
    metrics::counter!("tributary_dead_letters_total", "stage" => letter.stage.clone()).increment(1);
    let record = OutRecord {
        topic: names::dead_letters(pipeline).into(),
        key: Some(letter.id.clone().into_bytes()),
        value: Some(letter.encode(outbox.limit())),
    };
    outbox.send(vec![record], tickets).await
}
