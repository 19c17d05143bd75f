//! Calls of state machines that take long: the other groups of the worker wait for them, and the log says so.

use ringraft_core::Time;

use crate::handler::SharedNames;

/// Tells of calls of `on_apply` that take long, with a bound on the lines.
#[derive(Debug)]
pub(super) struct SlowCalls {
    limit_ms: u64,
    clock: fn() -> Time,
    told_at: Option<Time>,
    not_told: u64,
}

/// Time between two lines about slow calls of one worker.
const SLOW_CALLS_PAUSE_MS: u64 = 10_000;

impl SlowCalls {
    /// Tells of calls that take `limit_ms` or longer by `clock`.
    pub(super) fn new(limit_ms: u64, clock: fn() -> Time) -> SlowCalls {
        SlowCalls { limit_ms, clock, told_at: None, not_told: 0 }
    }

    /// The time at which a call begins.
    pub(super) fn now(&self) -> Time {
        (self.clock)()
    }

    /// A call that began at `start` has ended.
    pub(super) fn ended(&mut self, start: Time, names: &SharedNames, entries: usize) {
        let now = self.now();
        let took_ms = now.since(start) / 1000;
        if took_ms < self.limit_ms {
            return;
        }
        if self.told_at.is_some_and(|at| now < at.after_millis(SLOW_CALLS_PAUSE_MS)) {
            self.not_told += 1;
            return;
        }
        self.told_at = Some(now);
        let not_told = std::mem::take(&mut self.not_told);
        tracing::warn!(group = %names.group_id, took_ms, entries, not_told,
            "on_apply took long; the other groups of this worker waited for it");
    }
}
