//! How long to stay awake before a thread is parked.

use std::sync::OnceLock;

/// The number of steps that are pauses of the processor; step `n` of them takes `2^n` pauses.
const PAUSE_STEPS: u32 = 7;

/// The steps of a full wait: the pauses, then some turns given to other threads.
pub(crate) const MAX_STEPS: u32 = 11;

/// Whether a second thread can run while this one spins. On one core a spin only delays the one that is waited for.
pub(crate) fn spin_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    !cfg!(any(loom, shuttle))
        && *ALLOWED.get_or_init(|| std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1))
}

/// One bounded wait: steps that grow from one pause of the processor to a yield of the thread's turn.
pub(crate) struct Backoff {
    step: u32,
    limit: u32,
}

impl Backoff {
    /// A wait of at most `limit` steps; of none at all where spinning does not help.
    pub(crate) fn new(limit: u32) -> Self {
        Self { step: 0, limit: if spin_allowed() { limit } else { 0 } }
    }

    /// Waits one step. `false`, without waiting, when the steps are used up: it is time to park.
    pub(crate) fn snooze(&mut self) -> bool {
        if self.step >= self.limit {
            return false;
        }
        if self.step < PAUSE_STEPS {
            for _ in 0..1_u32 << self.step {
                std::hint::spin_loop();
            }
        } else {
            std::thread::yield_now();
        }
        self.step += 1;
        true
    }
}

/// Waits until `done`, for a thread that is known to need a handful of instructions more: a producer between its claim
/// and its publish. That thread may have lost its core right there, hence yields, and at last short sleeps.
pub(crate) fn await_instructions(mut done: impl FnMut() -> bool) {
    #[cfg(any(loom, shuttle))]
    while !done() {
        crate::sync::yield_now();
    }
    #[cfg(not(any(loom, shuttle)))]
    {
        let mut backoff = Backoff::new(MAX_STEPS);
        let mut yields = 0_u32;
        while !done() {
            if backoff.snooze() {
                continue;
            }
            if yields < 64 {
                yields += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    }
}
