//! Pauses between tries: exponential, bounded, with jitter so that many waiters do not come back together.

use std::time::Duration;

/// The pauses of one thing that is tried again and again.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    /// Pauses from `initial`, doubled each time, up to `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, tries: 0 }
    }

    /// The next pause: between half of the exponential step and the whole of it.
    pub fn pause(&mut self) -> Duration {
        let pause = Self::nth(self.initial, self.max, self.tries);
        self.tries = self.tries.saturating_add(1);
        pause
    }

    /// It went well: the next pause is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The pause after the `tries`th failure (from 0).
    pub fn nth(initial: Duration, max: Duration, tries: u32) -> Duration {
        let step = initial.saturating_mul(1_u32.checked_shl(tries.min(20)).unwrap_or(u32::MAX)).min(max);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_start_anew() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(initial, max);
        assert!(backoff.pause() <= initial);
        for _ in 0..100 {
            let pause = backoff.pause();
            assert!(pause >= initial / 2 && pause <= max);
        }
        assert!(backoff.pause() >= max / 2);
        backoff.reset();
        assert!(backoff.pause() <= initial);
    }
}
