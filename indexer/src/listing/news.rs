//! Hearing that something changed: as a `tokio::sync::watch` without a value, but that whoever waits is woken in the order in which they
//! began to. (That one wakes them in an order of chance, which no test could repeat.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Tells that something changed.
#[derive(Debug, Default)]
pub(crate) struct News(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How often something changed.
    count: AtomicU64,
    changed: Notify,
}

/// Hears it.
#[derive(Debug)]
pub(crate) struct Heard {
    shared: Arc<Shared>,
    /// What was heard so far.
    count: u64,
}

impl News {
    /// Something changed.
    pub fn tell(&self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }

    /// Hears of what changes from now on.
    pub fn subscribe(&self) -> Heard {
        Heard { shared: self.0.clone(), count: self.0.count.load(Ordering::Acquire) }
    }
}

impl Heard {
    /// Everything so far was heard.
    pub fn forget(&mut self) {
        self.count = self.shared.count.load(Ordering::Acquire);
    }

    /// Returns when something has changed that was not heard. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let changed = self.shared.changed.notified();
            let count = self.shared.count.load(Ordering::Acquire);
            if count != self.count {
                self.count = count;
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_changed_is_heard_once() {
        let news = News::default();
        let mut heard = news.subscribe();
        news.tell();
        news.tell();
        heard.changed().await;
        let waiting = tokio::spawn(async move {
            heard.changed().await;
            heard
        });
        tokio::task::yield_now().await;
        news.tell();
        let mut heard = waiting.await.expect("it heard");
        news.tell();
        heard.forget();
        assert!(futures::FutureExt::now_or_never(heard.changed()).is_none());
    }
}
