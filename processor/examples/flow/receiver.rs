//! Requests to a receiver: by the webhook, counted, and by the client of HTTP alone, which is what they cost anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::task::JoinSet;
use tributary_processor::OutsideError;
use tributary_processor::sink::{DeliverySink, OutEvent, Verdict};
use tributary_sinks::Webhook;

use crate::{Failure, events};

/// Requests in flight.
pub const CONCURRENCY: usize = 8;

/// A webhook, and how many events have arrived there.
pub struct Counting {
    webhook: Webhook,
    arrived: AtomicU64,
}

impl Counting {
    pub fn new(webhook: Webhook) -> Self {
        Self { webhook, arrived: AtomicU64::new(0) }
    }

    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl DeliverySink for Counting {
    fn most(&self) -> usize {
        self.webhook.most()
    }

    async fn deliver(&self, events: &[OutEvent]) -> Result<Vec<Verdict>, OutsideError> {
        let verdicts = self.webhook.deliver(events).await?;
        let arrived = verdicts.iter().filter(|verdict| **verdict == Verdict::Delivered).count();
        self.arrived.fetch_add(arrived as u64, Ordering::Relaxed);
        Ok(verdicts)
    }
}

/// Posts as many events, as many at a time, and nothing else.
pub async fn post(url: &str, events: u64) -> Result<(), Failure> {
    let (http, next) = (reqwest::Client::builder().no_proxy().build()?, Arc::new(AtomicU64::new(0)));
    let mut posting = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (http, next, url) = (http.clone(), next.clone(), url.to_owned());
        posting.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= events {
                    return Ok::<_, reqwest::Error>(());
                }
                let request = http.post(&url).header("content-type", "application/json").body(events::event(n, events));
                request.send().await?.error_for_status()?.bytes().await?;
            }
        });
    }
    while let Some(ended) = posting.join_next().await {
        ended??;
    }
    Ok(())
}
