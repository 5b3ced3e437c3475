//! What steps count: how many events come to each, go on, end and fail, and how long it takes for them. Once for each run of records.

use std::time::Duration;

use metrics::{Counter, Histogram};

use super::{RECORD, Traveller};

/// Counters of a stream's steps.
pub(in crate::stream) struct Counts {
    from: Of,
    steps: Vec<Of>,
}

/// Those of one step.
struct Of {
    came: Counter,
    went_on: Counter,
    ended: Counter,
    failed: Counter,
    seconds: Histogram,
}

/// What became of some events at a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::stream) struct Tally {
    pub came: usize,
    pub went_on: usize,
    pub ended: usize,
    pub failed: usize,
}

impl Of {
    fn new(stream: &str, step: &str) -> Self {
        let counter = |outcome: &'static str| {
            let (stream, step) = (stream.to_owned(), step.to_owned());
            metrics::counter!("tributary_step_events_total", "stream" => stream, "step" => step, "outcome" => outcome)
        };
        let (stream, name) = (stream.to_owned(), step.to_owned());
        Self {
            came: counter("in"),
            went_on: counter("out"),
            ended: counter("dropped"),
            failed: counter("failed"),
            seconds: metrics::histogram!("tributary_step_seconds", "stream" => stream, "step" => name),
        }
    }

    fn add(&self, tally: Tally) {
        let counters = [&self.came, &self.went_on, &self.ended, &self.failed];
        let counts = [tally.came, tally.went_on, tally.ended, tally.failed];
        counters.into_iter().zip(counts).filter(|(_, count)| *count > 0).for_each(|(counter, count)| {
            counter.increment(count as u64);
        });
    }
}

impl Counts {
    pub fn new<'a>(stream: &str, steps: impl Iterator<Item = &'a str>) -> Self {
        Self { from: Of::new(stream, "from"), steps: steps.map(|step| Of::new(stream, step)).collect() }
    }

    /// Records were read, and went through so many of the steps that only look.
    pub fn began(&self, travellers: &[Traveller], looked: usize, took: Duration) {
        let count = |of: &dyn Fn(&Traveller) -> bool| travellers.iter().filter(|traveller| of(traveller)).count();
        let unreadable = |one: &Traveller| one.events.as_ref().is_err_and(|error| error.step == RECORD);
        let failed = count(&unreadable);
        let went_on = count(&|one| one.looked.is_some() && !unreadable(one));
        let came = travellers.len();
        self.from.add(Tally { came, went_on, ended: came - failed - went_on, failed });
        self.from.seconds.record(took.as_secs_f64());
        for (place, step) in self.steps.iter().enumerate().take(looked) {
            let came = count(&|one| one.looked.is_some_and(|looked| looked >= place) && !unreadable(one));
            let went_on = count(&|one| one.looked.is_some_and(|looked| looked > place) && !unreadable(one));
            let failed = count(&|one| one.looked == Some(place) && one.events.is_err() && !unreadable(one));
            step.add(Tally { came, went_on, ended: came - went_on - failed, failed });
        }
    }

    /// How many events each record is, before a step; none: it has failed.
    pub fn before(travellers: &[Traveller]) -> Vec<Option<usize>> {
        travellers.iter().map(|traveller| traveller.events.as_ref().ok().map(Vec::len)).collect()
    }

    /// What became of them at the step at a place.
    pub fn passed(&self, place: usize, before: &[Option<usize>], travellers: &[Traveller], took: Duration) {
        let mut tally = Tally::default();
        for (before, traveller) in before.iter().zip(travellers) {
            let Some(before) = before else { continue };
            tally.came += before;
            match &traveller.events {
                Ok(events) => {
                    tally.went_on += events.len();
                    tally.ended += before.saturating_sub(events.len());
                }
                Err(_) => tally.failed += 1,
            }
        }
        self.add(place, tally);
        if let Some(step) = self.steps.get(place).filter(|_| tally.came > 0) {
            step.seconds.record(took.as_secs_f64());
        }
    }

    pub fn add(&self, place: usize, tally: Tally) {
        if let Some(step) = self.steps.get(place) {
            step.add(tally);
        }
    }
}
