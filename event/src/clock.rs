//! A hybrid logical clock of 63 bits: close to wall time, strictly rising, fit for a store's
//! external version (Elasticsearch accepts 0 ..= 2^63 - 1).
//!
//! Layout: 52 bits of microseconds since the Unix epoch (enough until the year 2112), then 11 bits of counter.
//! Kulkarni et al., "Logical Physical Clocks", 2014.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const COUNTER_BITS: u32 = 11;

/// Clocks of two processes differ by less.
pub const SKEW: Duration = Duration::from_secs(1);

/// A clock whose readings are strictly rising, also across threads, and never behind what it has observed.
pub struct HybridClock {
    last: AtomicU64,
    /// The wall clock, in microseconds since the Unix epoch.
    wall: Wall,
}

type Wall = Box<dyn Fn() -> i64 + Send + Sync>;

impl Default for HybridClock {
    fn default() -> Self {
        Self::starting_after(0)
    }
}

impl std::fmt::Debug for HybridClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HybridClock").field("last", &self.last).finish_non_exhaustive()
    }
}

impl HybridClock {
    /// A clock that gives only readings above `last` (0 for a new one).
    pub fn starting_after(last: u64) -> Self {
        Self { last: AtomicU64::new(last), wall: Box::new(now_us) }
    }

    /// A clock over another wall clock, which tells microseconds since the Unix epoch.
    pub fn over(wall: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { last: AtomicU64::new(0), wall: Box::new(wall) }
    }

    /// The wall clock, in microseconds since the Unix epoch.
    pub fn wall_us(&self) -> i64 {
        (self.wall)()
    }

    /// The next reading, taken from the wall clock.
    pub fn now(&self) -> u64 {
        self.tick(self.wall_us())
    }

    /// The next reading for an event that happened at `us` microseconds since the Unix epoch:
    /// the later of that time and the last reading plus one.
    pub fn tick(&self, us: i64) -> u64 {
        let wall = Self::at(us);
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = wall.max(last + 1);
            match self.last.compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return next,
                Err(seen) => last = seen,
            }
        }
    }

    /// Moves the clock past a reading of another process.
    pub fn observe(&self, reading: u64) {
        self.last.fetch_max(reading, Ordering::AcqRel);
    }

    /// The lowest reading of a moment, in microseconds since the Unix epoch.
    pub fn at(us: i64) -> u64 {
        (us.max(0) as u64) << COUNTER_BITS
    }

    /// The reading that is later by a time.
    pub fn later(reading: u64, by: Duration) -> u64 {
        reading.saturating_add(Self::span(by))
    }

    /// The reading that is earlier by a time; zero if there is none.
    pub fn earlier(reading: u64, by: Duration) -> u64 {
        reading.saturating_sub(Self::span(by))
    }

    /// A time as the difference of two readings.
    fn span(time: Duration) -> u64 {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX >> COUNTER_BITS);
        micros.saturating_mul(1 << COUNTER_BITS)
    }

    /// The moment of a reading, in microseconds since the Unix epoch.
    pub fn micros(reading: u64) -> i64 {
        (reading >> COUNTER_BITS) as i64
    }
}

/// Wall time in microseconds since the Unix epoch.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_rise_even_when_the_wall_clock_goes_back() {
        let clock = HybridClock::default();
        let a = clock.tick(1_000_000);
        let b = clock.tick(10);
        assert!(b > a);
        clock.observe(HybridClock::at(5_000_000));
        assert!(clock.tick(4_000_000) > HybridClock::at(5_000_000));
    }

    #[test]
    fn a_reading_fits_63_bits_and_keeps_its_moment() {
        let now = now_us();
        let reading = HybridClock::default().tick(now);
        assert!(reading < 1 << 63);
        assert_eq!(HybridClock::micros(reading), now);
    }
}
