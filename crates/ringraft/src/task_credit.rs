//! How many bytes of tasks may wait before a lane.
//!
//! The slots of the rings bound how many tasks wait, whatever their size: 16,384 of 4 MiB are 64 GiB. So large tasks are counted in
//! bytes as well, from when a caller hands them in until the lane has made a proposal of them or refused them; those that wait in a
//! backlog of their group are still counted.

use std::fmt;

use crate::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, fence};

/// Tasks below this are bounded by the slots of the rings, and cost callers no atomic here: 16 MiB in 16,384 slots.
const COUNTED_FROM: usize = 1024;

/// What a task of so many bytes counts with.
#[inline]
pub(crate) fn cost(bytes: usize) -> usize {
    if bytes < COUNTED_FROM { 0 } else { bytes }
}

/// The lane has ended: nobody will give anything back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// Bytes of tasks that one lane's rings and backlogs may hold; one larger task passes alone.
pub(crate) struct TaskCredit {
    max: usize,
    taken: AtomicUsize,
    /// Callers that wait for room.
    waiting: AtomicUsize,
    closed: AtomicBool,
    lock: Mutex<()>,
    freed: Condvar,
}

impl TaskCredit {
    /// Nothing is taken of `max` bytes.
    pub(crate) fn new(max: usize) -> TaskCredit {
        TaskCredit {
            max,
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            lock: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    /// Takes `bytes` for one task, if there is room or nothing else waits. Rule R1.
    #[inline]
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        bytes == 0 || self.take_if(|taken| taken == 0 || taken.saturating_add(bytes) <= self.max, bytes)
    }

    /// Takes `bytes` for several tasks, if there is room for all of them.
    pub(crate) fn try_take_all(&self, bytes: usize) -> bool {
        bytes == 0 || self.take_if(|taken| taken.saturating_add(bytes) <= self.max, bytes)
    }

    /// Nothing is added that does not fit, not for a moment: another caller who sees it would wait, and nobody would wake it.
    fn take_if(&self, fits: impl Fn(usize) -> bool, bytes: usize) -> bool {
        // The tasks travel through the ring, which orders them; this is a number.
        let add = |taken| fits(taken).then(|| taken + bytes);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Takes `bytes` for one task, and waits for room.
    ///
    /// # Errors
    /// The lane has ended.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Closed> {
        if self.try_take(bytes) {
            return Ok(());
        }
        let mut guard = self.lock.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Together with the fence of `give_back`: either we see what was given back, or the giver sees us and waits for the lock.
        fence(Ordering::SeqCst);
        let outcome = loop {
            if self.closed.load(Ordering::Acquire) {
                break Err(Closed);
            }
            if self.try_take(bytes) {
                break Ok(());
            }
            self.freed.wait(&mut guard);
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    /// Gives back what tasks counted with: once for all tasks of a turn.
    pub(crate) fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let before = self.taken.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more is given back than was taken");
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    /// The lane ends: whoever waits is told so.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // Whoever has seen no room is asleep once we have had the lock.
        drop(self.lock.lock());
        self.freed.notify_all();
    }
}

impl fmt::Debug for TaskCredit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskCredit")
            .field("max", &self.max)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// Shows rule R1.
    #[test]
    fn large_tasks_wait_in_bytes_and_small_ones_in_slots() {
        let credit = TaskCredit::new(10_000);
        assert_eq!((cost(1023), cost(1024)), (0, 1024));
        assert!(credit.try_take(6000) && credit.try_take(0) && credit.try_take(4000));
        assert!(!credit.try_take(1024), "10,000 are taken");
        credit.give_back(6000);
        assert!(!credit.try_take_all(6001) && credit.try_take_all(6000));
    }

    #[test]
    fn a_task_larger_than_the_bound_passes_alone() {
        let credit = TaskCredit::new(10_000);
        assert!(!credit.try_take_all(20_000), "several do not");
        assert!(credit.try_take(20_000));
        assert!(!credit.try_take(20_000));
        credit.give_back(20_000);
        assert!(credit.try_take(20_000));
    }

    /// Callers that wait get what others give back, and nobody sleeps for ever: each of them must give back before the next can take.
    #[test]
    fn who_waits_is_woken() {
        let credit = TaskCredit::new(2048);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        credit.take(2048).unwrap();
                        credit.give_back(2048);
                    }
                });
            }
        });
        assert!(credit.try_take_all(2048));
    }

    #[test]
    fn the_end_of_the_lane_ends_every_wait() {
        let credit = TaskCredit::new(2048);
        assert!(credit.try_take(2048));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| credit.take(2048));
            credit.close();
            assert_eq!(waits.join().unwrap(), Err(Closed));
        });
    }
}
