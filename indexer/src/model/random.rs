//! Random numbers of one seed (SplitMix64: Steele, Lea, Flood, 2014). The same for everybody in a world, so that a seed is a schedule.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A time below `most`, mostly a short one.
    pub fn time(&mut self, most: Duration) -> Duration {
        let share = (self.below(1001) as f64 / 1000.0).powi(3);
        most.mul_f64(share)
    }
}

/// One source of random numbers for all parts of a world.
#[derive(Debug, Clone)]
pub struct Dice(Arc<Mutex<Random>>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Random::new(seed))))
    }

    pub fn with<T>(&self, ask: impl FnOnce(&mut Random) -> T) -> T {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn time(&self, most: Duration) -> Duration {
        self.with(|random| random.time(most))
    }

    pub fn one_in(&self, n: usize) -> bool {
        self.with(|random| random.one_in(n))
    }
}
