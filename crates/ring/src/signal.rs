//! Waking a consumer that sleeps, and nobody else.

use std::{sync::Arc as StdArc, time::Duration};

use crossbeam_utils::CachePadded;

use crate::{
    Wake,
    sync::{self, AtomicBool, AtomicUsize, Mutex, Ordering, Thread},
};

/// The consumer runs and looks at the ring by itself.
const AWAKE: usize = 0;
/// The consumer's thread is parked, or about to be, in `wait`.
const PARKED: usize = 1;
/// The consumer sleeps, or is about to, in a poll loop of its own that [`Wake`] can interrupt.
const OUTSIDE: usize = 2;
/// A [`ConsumerWaker`](crate::ConsumerWaker) called; the consumer has not noticed yet.
const NOTIFIED: usize = 3;

/// What producers read after every publish: one line that changes only when the consumer goes to sleep or the ring closes.
struct Line {
    state: AtomicUsize,
    /// Set after the closed mark of the tail. The consumer reads this one, and so leaves the producers' line alone.
    closed: AtomicBool,
}

/// The consumer's bed: its sleeping state, and the way to wake it.
pub(crate) struct Signal {
    line: CachePadded<Line>,
    wake: Option<StdArc<dyn Wake>>,
    /// The thread that last announced that it would park.
    sleeper: Mutex<Option<Thread>>,
}

impl Signal {
    pub(crate) fn new(wake: Option<StdArc<dyn Wake>>) -> Self {
        Self {
            line: CachePadded::new(Line { state: AtomicUsize::new(AWAKE), closed: AtomicBool::new(false) }),
            wake,
            sleeper: Mutex::new(None),
        }
    }

    /// Producer, after a publish or a close: wakes the consumer if it sleeps.
    ///
    /// The caller's read-modify-write of the tail and this load are both `SeqCst`, as are the consumer's
    /// [`announce_sleep`](Self::announce_sleep) and its load of the tail after it: one of the two sees the other.
    #[inline]
    pub(crate) fn rouse(&self) {
        let state = self.line.state.load(Ordering::SeqCst);
        if state == PARKED || state == OUTSIDE {
            self.rouse_from(state);
        }
    }

    #[cold]
    fn rouse_from(&self, state: usize) {
        // Of many producers that see the consumer asleep, one pays for waking it.
        if self.line.state.compare_exchange(state, AWAKE, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            self.ring_bell(state);
        }
    }

    /// Wakes the consumer whether or not there is an event; remembered until it looks.
    pub(crate) fn notify(&self) {
        // A read-modify-write even when it is notified already: the consumer's own exchange then either sees this one,
        // and with it all that the caller wrote before, or comes before it and finds the mark next time.
        let state = self.line.state.swap(NOTIFIED, Ordering::SeqCst);
        if state == PARKED || state == OUTSIDE {
            self.ring_bell(state);
        }
    }

    fn ring_bell(&self, state: usize) {
        if state == OUTSIDE
            && let Some(wake) = &self.wake
        {
            wake.wake();
            return;
        }
        let sleeper = sync::lock(&self.sleeper).clone();
        if let Some(thread) = sleeper {
            thread.unpark();
        }
    }

    /// Consumer: from here on it counts as parked in `wait`. The caller must look at the tail once more, with `SeqCst`,
    /// before it parks. `false`: a notification was waiting and is now taken; do not sleep.
    pub(crate) fn announce_park(&self) -> bool {
        self.register_thread();
        self.announce(PARKED)
    }

    /// As [`announce_park`](Self::announce_park), for a sleep that [`Wake`] ends (the current thread's parker if there is
    /// none).
    pub(crate) fn announce_sleep(&self) -> bool {
        if self.wake.is_some() { self.announce(OUTSIDE) } else { self.announce_park() }
    }

    fn announce(&self, state: usize) -> bool {
        if self.line.state.swap(state, Ordering::SeqCst) == NOTIFIED {
            self.awake();
            return false;
        }
        sync::total_order_for_loom();
        true
    }

    fn register_thread(&self) {
        let current = sync::current();
        let mut sleeper = sync::lock(&self.sleeper);
        if sleeper.as_ref().is_none_or(|thread| thread.id() != current.id()) {
            *sleeper = Some(current);
        }
    }

    /// Consumer: no longer asleep. Takes a notification that came meanwhile, and says whether there was one.
    pub(crate) fn awake(&self) -> bool {
        self.line.state.swap(AWAKE, Ordering::SeqCst) == NOTIFIED
    }

    /// Consumer: takes a waiting notification. Cheap when there is none.
    pub(crate) fn take_notification(&self) -> bool {
        self.line.state.load(Ordering::Relaxed) == NOTIFIED && self.awake()
    }

    /// Parks the current thread, which has announced it; may return early.
    pub(crate) fn park(&self, limit: Option<Duration>) {
        match limit {
            None => sync::park(),
            Some(limit) => sync::park_timeout(limit),
        }
    }

    /// Whether somebody has said that the ring is closed. The tail knows first; this follows.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.line.closed.load(Ordering::Acquire)
    }

    pub(crate) fn mark_closed(&self) {
        self.line.closed.store(true, Ordering::Release);
    }
}
