//! The locks, atomics and threads of the loops and of what passes between them, in one place, so that shuttle can take their
//! stead under `--cfg shuttle`: its schedules run the loops as they are.

#[cfg(not(shuttle))]
pub(crate) use {
    parking_lot::{Condvar, Mutex, RwLock},
    std::{
        sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
        thread::{Builder, JoinHandle},
        thread_local,
    },
};

#[cfg(shuttle)]
pub(crate) use {
    locks::{Condvar, Mutex, RwLock},
    shuttle::{
        sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
        thread::{Builder, JoinHandle},
        thread_local,
    },
};

/// Ends the process after a panic that no group answers for.
#[cfg(not(shuttle))]
pub(crate) fn abort(_: Box<dyn std::any::Any + Send>) -> ! {
    std::process::abort()
}

/// Ends the schedule, which shuttle then reports.
#[cfg(shuttle)]
pub(crate) fn abort(panic: Box<dyn std::any::Any + Send>) -> ! {
    std::panic::resume_unwind(panic)
}

/// `parking_lot`'s interface, as far as it is used, over shuttle's locks.
#[cfg(shuttle)]
mod locks {
    use std::fmt;
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Instant;

    use shuttle::sync;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    /// Empty only while a condition variable has it.
    pub(crate) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Mutex<T> {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Mutex")
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("held")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("held")
        }
    }

    #[derive(Default)]
    pub(crate) struct Condvar(sync::Condvar);

    impl Condvar {
        pub(crate) const fn new() -> Condvar {
            Condvar(sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.0.take().expect("held");
            guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }

        /// Time stands still: only a notification ends the wait.
        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) {
            self.wait(guard);
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    #[derive(Default)]
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
