//! Ctrl-C and the other signals that ask a program to end, so that servers are stopped first.

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Returns when the process is asked to end.
pub(crate) async fn asked_to_end() -> Result<()> {
    let watch = |kind| signal(kind).context("watching for a signal");
    let (mut interrupt, mut terminate, mut hangup) =
        (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?, watch(SignalKind::hangup())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Does the work unless the process is asked to end first; then the work is dropped, and its servers with it.
pub(crate) async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        asked = asked_to_end() => {
            asked?;
            bail!("interrupted");
        }
    }
}
