//! Producers that wait for a free slot.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::sync::{self, AtomicUsize, Condvar, Instant, Mutex, Ordering, fence};

/// Where producers park while the ring is full. The consumer reads one counter a drain, and takes the lock only when
/// somebody waits.
pub(crate) struct Room {
    waiting: CachePadded<AtomicUsize>,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { waiting: CachePadded::new(AtomicUsize::new(0)), lock: Mutex::new(()), freed: Condvar::new() }
    }

    /// Parks until `ready`, or until `deadline` is over. `ready` runs under the lock: it only reads atomics.
    #[cold]
    pub(crate) fn wait_until(&self, deadline: Option<Instant>, ready: impl Fn() -> bool) {
        let mut guard = sync::lock(&self.lock);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        loop {
            // Dekker with `announce`: either `ready` sees the consumer's new head, or the consumer sees us waiting, and
            // then its notification needs the lock that we hold until we wait.
            fence(Ordering::SeqCst);
            if ready() {
                break;
            }
            guard = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.freed.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(Duration::ZERO) => break,
                Some(left) => sync::wait_timeout(&self.freed, guard, left),
            };
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// `slots` slots are free (the head that says so is stored): wakes as many producers, if any wait.
    #[inline]
    pub(crate) fn announce(&self, slots: usize) {
        fence(Ordering::SeqCst);
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting != 0 {
            self.wake(slots, waiting);
        }
    }

    #[cold]
    fn wake(&self, slots: usize, waiting: usize) {
        // Held only to pass every producer that has looked and not yet parked.
        drop(sync::lock(&self.lock));
        if slots >= waiting {
            self.freed.notify_all();
        } else {
            // Each of them takes one slot or, if another was faster, waits again: no slot is left with a sleeper.
            for _ in 0..slots {
                self.freed.notify_one();
            }
        }
    }
}
