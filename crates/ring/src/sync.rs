//! The primitives of the ring, in one place, so that loom can take their stead under `--cfg loom`, and shuttle under
//! `--cfg shuttle`.
//!
//! Everything else in this crate takes atomics, cells, locks and threads from here and from nowhere else.

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
    thread::{Thread, current, park, yield_now},
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
    thread::yield_now,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
    thread::{Thread, current, park, park_timeout},
};

use std::time::Duration;
#[cfg(not(shuttle))]
pub(crate) use std::time::Instant;

/// Waits for a notification, for so long at most.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn wait_timeout<'a>(
    condvar: &Condvar,
    guard: MutexGuard<'a, ()>,
    limit: Duration,
) -> MutexGuard<'a, ()> {
    condvar.wait_timeout(guard, limit).unwrap_or_else(|poisoned| poisoned.into_inner()).0
}

/// Neither loom nor shuttle has a clock: the time is never over, so that a lost wake-up cannot hide.
#[cfg(any(loom, shuttle))]
pub(crate) fn wait_timeout<'a>(
    condvar: &Condvar,
    guard: MutexGuard<'a, ()>,
    _limit: Duration,
) -> MutexGuard<'a, ()> {
    condvar.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// loom has no clock: a bounded park is a chance for the others to run, and then the time is over.
#[cfg(loom)]
pub(crate) fn park_timeout(_limit: Duration) {
    loom::thread::yield_now();
}

/// Time stands still under shuttle: no limit ever ends a wait, so that a lost wake-up is a deadlock and cannot hide.
#[cfg(shuttle)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

#[cfg(shuttle)]
impl Instant {
    pub(crate) fn now() -> Self {
        Self(Duration::ZERO)
    }

    pub(crate) fn checked_add(self, limit: Duration) -> Option<Self> {
        self.0.checked_add(limit).map(Self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn elapsed(self) -> Duration {
        Duration::ZERO
    }
}

#[cfg(shuttle)]
pub(crate) use parker::{Thread, current, park, park_timeout};

/// Parking without what shuttle's own has: wake-ups out of nothing, which would help a forgotten sleeper along.
#[cfg(shuttle)]
pub mod parker {
    use std::{sync::Arc, time::Duration};

    use shuttle::sync::{Condvar, Mutex};

    shuttle::thread_local! {
        static CURRENT: Thread = Thread(Arc::new(Parker { token: Mutex::new(false), given: Condvar::new() }));
    }

    #[derive(Debug)]
    struct Parker {
        token: Mutex<bool>,
        given: Condvar,
    }

    /// Unparks a thread.
    #[derive(Clone, Debug)]
    pub struct Thread(Arc<Parker>);

    impl Thread {
        /// Differs from that of every other thread that lives.
        pub fn id(&self) -> usize {
            Arc::as_ptr(&self.0) as usize
        }

        /// Ends the thread's park, or the next one.
        pub fn unpark(&self) {
            *super::lock(&self.0.token) = true;
            self.0.given.notify_all();
        }
    }

    /// The calling thread.
    pub fn current() -> Thread {
        CURRENT.with(Clone::clone)
    }

    /// Waits for an unpark.
    pub fn park() {
        let Thread(parker) = current();
        let mut token = super::lock(&parker.token);
        while !*token {
            token = parker.given.wait(token).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        *token = false;
    }

    /// Waits for an unpark: time stands still.
    pub fn park_timeout(_limit: Duration) {
        park();
    }
}

/// Orders a `SeqCst` read-modify-write before a later `SeqCst` load *for loom only*.
///
/// By the language's memory model `SeqCst` accesses have one total order, and the ring's proofs lean on that. loom
/// treats `SeqCst` accesses as `AcqRel` and gives a total order to fences alone, so it needs one here; real hardware
/// would pay for a second full barrier next to the one that the read-modify-write already is.
#[inline(always)]
pub(crate) fn total_order_for_loom() {
    #[cfg(loom)]
    if model::TOTAL_ORDER.get() {
        fence(Ordering::SeqCst);
    }
}

/// What the models may set.
#[cfg(loom)]
pub mod model {
    use std::cell::Cell;

    std::thread_local! {
        /// Not loom's: a model's threads share one thread of the system, and thus this.
        pub(super) static TOTAL_ORDER: Cell<bool> = const { Cell::new(true) };
    }

    /// The fence that stands for the total order also orders more than the real code does, and could hide a missing
    /// acquire or release. Models in which the consumer never sleeps do not need it and run without.
    pub fn set_total_order(on: bool) {
        TOTAL_ORDER.set(on);
    }
}

/// Locks without regard to poison: no code that can panic runs under the locks of this crate.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// `loom::cell::UnsafeCell`'s closure interface, over the real one.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, access: impl FnOnce(*const T) -> R) -> R {
        access(self.0.get())
    }
}

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;
