//! When a link is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The reconnection state of one link.
#[derive(Debug)]
pub(crate) struct Retry {
    failures: u32,
    /// When the next attempt is due; `None` while one is under way or the link is up.
    pub(crate) due: Option<Instant>,
    /// Whether the link was up before.
    pub(crate) was_up: bool,
}

impl Retry {
    /// A new link is due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { failures: 0, due: Some(now), was_up: false }
    }

    /// The attempt failed, or the connection broke before it proved itself.
    pub(crate) fn failed(&mut self, now: Instant, min: Duration, max: Duration) {
        let full = min.saturating_mul(1 << self.failures.min(20)).min(max);
        self.failures = self.failures.saturating_add(1);
        // Half of the pause is random, so that the peers of a host that died do not come back in step.
        // A fresh hasher is keyed randomly, which is all the randomness that this needs.
        let random = RandomState::new().hash_one(self.failures) % 1000;
        self.due = Some(now + full / 2 + (full / 2).mul_f64(random as f64 / 1000.0));
    }

    /// The connection carried something: the next failure is the first one.
    pub(crate) fn proven(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_begin_anew() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(2));
        let now = Instant::now();
        let mut retry = Retry::new(now);
        let mut pause = |proven| {
            if proven {
                retry.proven();
            }
            retry.failed(now, min, max);
            retry.due.unwrap() - now
        };
        for n in 0..40 {
            let full = (min * (1 << n.min(10))).min(max);
            let pause = pause(false);
            assert!(pause >= full / 2 && pause <= full, "{n}: {pause:?}");
        }
        assert!(pause(true) <= min);
    }
}
