//! Which document is built next. Pure: time is handed in.
//!
//! One build per document is in flight at a time. Requests for a document that waits are merged into one job; requests
//! for one that is in flight wait for the next build, which starts after the present one has ended. The live lane is
//! served first, and a document asked for in both lanes is live.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::request::Lane;

/// Everything that waits for the next build of one document.
#[derive(Debug)]
pub struct Job<R> {
    /// Who asked.
    pub requests: Vec<R>,
    /// The lane.
    pub lane: Lane,
    /// Builds that failed so far.
    pub attempts: u32,
    /// Since when fetches say that the root is not there; a later one confirms it.
    pub missing_since: Option<Instant>,
    /// Whether a write of the document may be under way of which nobody knows the end.
    pub in_doubt: bool,
}

impl<R> Job<R> {
    fn new(lane: Lane) -> Self {
        Self { requests: Vec::new(), lane, attempts: 0, missing_since: None, in_doubt: false }
    }
}

#[derive(Debug)]
struct Entry<R> {
    in_flight: bool,
    waiting: Option<(Job<R>, Place)>,
}

/// A waiting job's place in its lane's queue: when it may start, and in which order it came.
type Place = (Instant, u64);

/// The documents that wait or are in flight.
#[derive(Debug)]
pub struct Schedule<R> {
    debounce: Duration,
    documents: HashMap<Arc<str>, Entry<R>>,
    live: BTreeMap<Place, Arc<str>>,
    bulk: BTreeMap<Place, Arc<str>>,
    order: u64,
}

impl<R> Schedule<R> {
    /// A schedule that waits `debounce` after a document's first request.
    pub fn new(debounce: Duration) -> Self {
        Self { debounce, documents: HashMap::new(), live: BTreeMap::new(), bulk: BTreeMap::new(), order: 0 }
    }

    /// Documents that wait or are in flight.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Asks for a build.
    pub fn add(&mut self, id: &Arc<str>, lane: Lane, request: R, now: Instant) {
        let mut job = Job::new(lane);
        job.requests.push(request);
        self.wait(id, job, now + self.debounce);
    }

    /// A write of a document that waits may be under way of which nobody knows the end.
    pub fn doubt(&mut self, id: &str) {
        if let Some((job, _)) = self.documents.get_mut(id).and_then(|entry| entry.waiting.as_mut()) {
            job.in_doubt = true;
        }
    }

    /// Takes up to `max` jobs of a lane that may start now. They are in flight until [`finish`](Self::finish).
    pub fn take(&mut self, lane: Lane, max: usize, now: Instant) -> Vec<(Arc<str>, Job<R>)> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let queue = self.queue(lane);
            let Some((place, _)) = queue.first_key_value() else { break };
            if place.0 > now {
                break;
            }
            let Some((_, id)) = queue.pop_first() else { break };
            if let Some(entry) = self.documents.get_mut(&id)
                && let Some((job, _)) = entry.waiting.take()
            {
                entry.in_flight = true;
                taken.push((id, job));
            }
        }
        taken
    }

    /// A build has ended. What was asked meanwhile may start after its own debounce. Given its job back, the document waits again.
    pub fn finish(&mut self, id: &Arc<str>, back: Option<(Job<R>, Instant)>) {
        let Some(entry) = self.documents.get_mut(id) else { return };
        entry.in_flight = false;
        if let Some((_, place)) = &entry.waiting {
            let (lane, place) = (entry.waiting.as_ref().map_or(Lane::Live, |(j, _)| j.lane), *place);
            self.queue(lane).insert(place, id.clone());
        }
        if let Some((job, not_before)) = back {
            self.wait(id, job, not_before);
        } else if self.documents.get(id).is_some_and(|e| e.waiting.is_none()) {
            self.documents.remove(id);
        }
    }

    /// When the next job of a lane may start; none if none waits.
    pub fn next_start(&self, lane: Lane) -> Option<Instant> {
        let queue = match lane {
            Lane::Live => &self.live,
            Lane::Bulk => &self.bulk,
        };
        queue.first_key_value().map(|(place, _)| place.0)
    }

    fn queue(&mut self, lane: Lane) -> &mut BTreeMap<Place, Arc<str>> {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// Merges a job into what waits for the document. The merged job keeps the more urgent lane and, of two starts, that
    /// of the job that failed (a back-off is not cut short), else the earlier.
    fn wait(&mut self, id: &Arc<str>, mut job: Job<R>, start: Instant) {
        self.order += 1;
        let mut place = (start, self.order);
        let entry = self.documents.entry(id.clone()).or_insert_with(|| Entry { in_flight: false, waiting: None });
        let in_flight = entry.in_flight;
        if let Some((mut old, old_place)) = entry.waiting.take() {
            place = match (old.attempts, job.attempts) {
                (0, 0) => place.min(old_place),
                (0, _) => place,
                (_, 0) => old_place,
                _ => place.max(old_place),
            };
            let old_lane = old.lane;
            if old_lane == Lane::Live {
                job.lane = Lane::Live;
            }
            job.attempts = job.attempts.max(old.attempts);
            job.missing_since = old.missing_since.or(job.missing_since);
            job.in_doubt |= old.in_doubt;
            old.requests.append(&mut job.requests);
            job.requests = old.requests;
            self.queue(old_lane).remove(&old_place);
        }
        let lane = job.lane;
        if let Some(entry) = self.documents.get_mut(id) {
            entry.waiting = Some((job, place));
        }
        if !in_flight {
            self.queue(lane).insert(place, id.clone());
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
