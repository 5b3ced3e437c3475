//! A reader of an index's topics that gives nothing away while another plan may have taken the place of this process's.
//!
//! What it gave away before was appended before the other plan began to list, so that listing shows it, whatever becomes of it here.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tributary_transport::{Consumer, Delivery, Measuring, TopicPartition, TransportError};

use super::lease::Listings;

/// A consumer behind the lease of an index.
pub(crate) struct Guarded {
    inner: Box<dyn Consumer>,
    listings: Arc<Listings>,
    /// Read, and not given away yet.
    read: Option<Delivery>,
}

impl Guarded {
    /// Guards a consumer.
    pub fn new(inner: Box<dyn Consumer>, listings: Arc<Listings>) -> Self {
        Self { inner, listings, read: None }
    }
}

#[async_trait]
impl Consumer for Guarded {
    async fn next(&mut self) -> Result<Delivery, TransportError> {
        loop {
            match self.read.take() {
                None => self.read = Some(self.inner.next().await?),
                Some(Delivery::Records(records)) => {
                    self.read = Some(Delivery::Records(records));
                    self.listings.hold().await;
                    if let Some(read) = self.read.take() {
                        return Ok(read);
                    }
                }
                Some(delivery) => return Ok(delivery),
            }
        }
    }

    /// What waits here already may still come.
    fn pause(&mut self, places: &[TopicPartition]) {
        self.inner.pause(places);
    }

    fn resume(&mut self, places: &[TopicPartition]) {
        self.inner.resume(places);
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError> {
        self.inner.commit(offsets).await
    }

    fn lag(&mut self, come_to: HashMap<TopicPartition, u64>) -> Measuring {
        self.inner.lag(come_to)
    }

    fn backlog(&mut self) -> Measuring {
        self.inner.backlog()
    }
}
