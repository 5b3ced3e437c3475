//! Tasks that live and end together.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::intake::StageError;

/// Tasks of which each may fail.
pub type Tasks<E> = JoinSet<Result<(), E>>;

/// Waits for all tasks to end. The first failure, and the first end, stop the others.
///
/// # Errors
/// The first failure.
pub async fn supervise<E>(
    tasks: &mut Tasks<E>,
    shutdown: &CancellationToken,
    panicked: impl Fn(String) -> E,
) -> Result<(), E>
where
    E: Send + 'static,
{
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|e| Err(panicked(format!("a task panicked: {e}"))));
        result = result.and(ended);
        shutdown.cancel();
    }
    result
}

/// The failure of a stage whose task panicked.
pub fn panicked(stage: &str) -> impl Fn(String) -> StageError {
    move |message| StageError::new(stage, message)
}
