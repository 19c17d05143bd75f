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
    /// Somebody was told that the host cannot be reached.
    reported: bool,
}

/// Failures in a row after which somebody is told: a host that starts a moment later is no news.
const REPORT_AFTER: u32 = 4;

impl Retry {
    /// A new link is due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { failures: 0, due: Some(now), was_up: false, reported: false }
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

    /// Whether it is time to tell that the host cannot be reached; true once until it is reached again.
    pub(crate) fn report(&mut self) -> bool {
        self.failures >= REPORT_AFTER && !std::mem::replace(&mut self.reported, true)
    }

    /// The host is reached. Whether somebody was told that it could not be.
    pub(crate) fn reached(&mut self) -> bool {
        std::mem::take(&mut self.reported)
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

    #[test]
    fn an_unreachable_host_is_told_of_once() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(2));
        let now = Instant::now();
        let mut retry = Retry::new(now);
        for round in 0..2 {
            let told: Vec<bool> = (0..10)
                .map(|_| {
                    retry.failed(now, min, max);
                    retry.report()
                })
                .collect();
            assert_eq!(told.iter().filter(|told| **told).count(), 1, "round {round}: {told:?}");
            assert!(!told[0], "a host that starts a moment later is no news");
            assert!(retry.reached() && !retry.reached());
            retry.proven();
        }
    }
}
