//! SOFAJRaft's `RepeatedTimer`, as a deadline in virtual time.

use crate::types::Time;

/// A timer that is stopped or armed for one moment. Nothing runs by itself: the node asks whether it is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RepeatedTimer(Option<Time>);

impl RepeatedTimer {
    /// Arms it for `at`, replacing any earlier deadline.
    pub(crate) fn start(&mut self, at: Time) {
        self.0 = Some(at);
    }

    /// Disarms it.
    pub(crate) fn stop(&mut self) {
        self.0 = None;
    }

    /// Whether it is armed for `now` or earlier.
    pub(crate) fn is_due(self, now: Time) -> bool {
        self.0.is_some_and(|at| at <= now)
    }

    /// When it is due.
    pub(crate) fn deadline(self) -> Option<Time> {
        self.0
    }
}
