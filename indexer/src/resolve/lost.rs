//! What makes up for records that are gone before they were read: every document that they may have concerned is built again.
//!
//! Which documents those are, nobody can say any more. The state that they should have is in the graph, and a listing that begins now
//! reads all of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use tributary_event::ErrorClass;
use tributary_processor::{Backoff, StageError};
use tributary_transport::{Assignment, Loss, LossCause, TopicPartition, TransportError};

use crate::listing::Listings;

/// The indexes that each topic of a stage concerns.
#[derive(Default)]
pub struct Concerned {
    topics: BTreeMap<String, Vec<Arc<Listings>>>,
}

impl Concerned {
    /// A topic concerns an index.
    pub fn add(&mut self, topic: String, listings: Arc<Listings>) {
        self.topics.entry(topic).or_default().push(listings);
    }

    /// Has every index that lost records concern list all its documents. Returns when that is durable.
    pub(crate) async fn make_up(&self, losses: &[Loss]) -> Result<(), StageError> {
        let mut concerned: BTreeMap<&str, (&Arc<Listings>, &Loss)> = BTreeMap::new();
        for loss in losses {
            for listings in self.topics.get(&*loss.place.topic).into_iter().flatten() {
                concerned.entry(listings.index()).or_insert((listings, loss));
            }
        }
        for (listings, loss) in concerned.into_values() {
            noted(listings, || listings.begin_anew(Some(why(loss)))).await?;
        }
        Ok(())
    }

    /// Has every index that a partition concerns list all its documents, and why. Returns when that is durable.
    pub(crate) async fn list_anew(&self, place: &TopicPartition, why: &str) -> Result<(), StageError> {
        for listings in self.topics.get(&*place.topic).into_iter().flatten() {
            noted(listings, || listings.begin_anew(Some(why.to_owned()))).await?;
        }
        Ok(())
    }

    /// Has every index that partitions concern, in which its group never had an offset, list all its documents if something is gone
    /// there. Returns when that is durable.
    pub(crate) async fn joined(&self, assignments: &[Assignment]) -> Result<(), StageError> {
        for Assignment { place, .. } in assignments.iter().filter(|assignment| assignment.committed.is_none()) {
            for listings in self.topics.get(&*place.topic).into_iter().flatten() {
                noted(listings, || listings.joined(place)).await?;
            }
        }
        Ok(())
    }
}

/// Has it kept that a listing begins anew: calls until the transport answers. The part of the index is left as it was otherwise, for
/// what keeps its listing waiting is told there too.
pub(crate) async fn noted<F: Future<Output = Result<(), TransportError>>>(
    listings: &Listings,
    call: impl Fn() -> F,
) -> Result<(), StageError> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut is_down = false;
    while let Err(error) = call().await {
        if error.class != ErrorClass::Transient {
            return Err(StageError::new(format!("index {}", listings.index()), error.message));
        }
        is_down = true;
        if listings.health().down(error.message.clone()) {
            warn!(
                index = listings.index(),
                error = error.message,
                "a listing that has to begin anew cannot be kept; trying again"
            );
        }
        tokio::time::sleep(backoff.pause()).await;
    }
    if is_down {
        listings.health().up();
    }
    Ok(())
}

fn why(loss: &Loss) -> String {
    let Loss { place, from, to, cause } = loss;
    let topic = &place.topic;
    match cause {
        LossCause::Removed => format!(
            "records of topic {topic} were removed before they were read ({} offsets of partition {}, from {from} on): its \
             retention is too short for how long this pipeline was down or behind, or somebody removed them",
            to.saturating_sub(*from),
            place.partition
        ),
        LossCause::MadeAnew => {
            format!("topic {topic} was deleted and made again: what of it was not read before is gone")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_what_is_gone() {
        let place = || TopicPartition { topic: "t".into(), partition: 3 };
        let loss = |from, to, cause| Loss { place: place(), from, to, cause };
        assert!(
            why(&loss(5, 10, LossCause::Removed))
                .contains("topic t were removed before they were read (5 offsets of partition 3, from 5 on)")
        );
        assert!(why(&loss(5, 7, LossCause::MadeAnew)).contains("topic t was deleted and made again"));
    }
}
