//! How many bytes of tasks may wait before a lane for the groups of one state-machine worker.
//!
//! The slots of the rings bound how many tasks wait, whatever their size: 16,384 of 4 MiB are 64 GiB. So large tasks are counted in
//! bytes as well, from when a caller hands them in until the lane has made a proposal of them or refused them; those that wait in a
//! backlog of their group are still counted.
//!
//! Room is a question of what is taken already, not of what is asked for: a large task must get in as easily as a small one, or small ones
//! that come all the time keep it out for ever. So whoever finds the bound not reached goes, and the one that crosses it is the last.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::thread::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, fence};

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

/// Bytes of tasks that a ring and the backlogs behind it may hold: `max`, which one task crosses.
pub(crate) struct TaskCredit {
    max: usize,
    taken: AtomicUsize,
    /// Callers that stand in line. While there are any, nobody gets room beside the line.
    waiting: AtomicUsize,
    closed: AtomicBool,
    /// Where each of them sleeps; who came first is first.
    line: Mutex<VecDeque<Arc<Condvar>>>,
}

impl TaskCredit {
    /// Nothing is taken of `max` bytes.
    pub(crate) fn new(max: usize) -> TaskCredit {
        TaskCredit {
            max,
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            line: Mutex::new(VecDeque::new()),
        }
    }

    /// Takes `bytes` for one task, if there is room and nobody waits for it. Rule R1.
    #[inline]
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        bytes == 0 || !self.has_line() && self.take_below(self.max, bytes)
    }

    /// Takes `bytes` for several tasks, if none of them crosses the bound and nobody waits.
    pub(crate) fn try_take_all(&self, bytes: usize) -> bool {
        bytes == 0 || !self.has_line() && bytes <= self.max && self.take_below(self.max - bytes + 1, bytes)
    }

    /// Whether others wait. Who has just missed one that joins overtakes it once, and no more.
    #[inline]
    fn has_line(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes `bytes` where less than `limit` is taken; so one at a time crosses the bound. Nothing is added that does not go, not for a
    /// moment: another caller who sees it would wait, and nobody would wake it.
    fn take_below(&self, limit: usize, bytes: usize) -> bool {
        // The tasks travel through the ring, which orders them; this is a number.
        let add = |taken| (taken < limit).then(|| taken + bytes);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Takes `bytes` for one task, and waits for room, behind those who wait already.
    ///
    /// # Errors
    /// The lane has ended.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Closed> {
        if self.try_take(bytes) {
            return Ok(());
        }
        let place = Arc::new(Condvar::new());
        let mut line = self.line.lock();
        line.push_back(Arc::clone(&place));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Together with the fence of `give_back`: either we see what was given back, or the giver sees us and waits for the lock.
        fence(Ordering::SeqCst);
        let outcome = loop {
            if self.closed.load(Ordering::Acquire) {
                break Err(Closed);
            }
            let first = line.front().is_some_and(|first| Arc::ptr_eq(first, &place));
            if first && self.take_below(self.max, bytes) {
                break Ok(());
            }
            place.wait(&mut line);
        };
        line.retain(|other| !Arc::ptr_eq(other, &place));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        // There may be room for the next as well, and whoever gave it back woke us alone.
        if let Some(next) = line.front() {
            next.notify_one();
        }
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
        for place in self.line.lock().iter() {
            place.notify_one();
        }
    }

    /// Has the first in line look again. Whoever has seen no room is asleep once we have the lock.
    fn wake(&self) {
        if let Some(first) = self.line.lock().front() {
            first.notify_one();
        }
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
        assert!(!credit.try_take(1024) && credit.try_take(0), "10,000 are taken");
        credit.give_back(6000);
        assert!(!credit.try_take_all(6001) && credit.try_take_all(6000));
    }

    #[test]
    fn one_task_crosses_the_bound_whatever_its_size() {
        let credit = TaskCredit::new(10_000);
        assert!(!credit.try_take_all(20_000), "several do not");
        assert!(credit.try_take(9_999) && credit.try_take(20_000));
        assert!(!credit.try_take(1024), "the bound is crossed");
        credit.give_back(9_999);
        assert!(!credit.try_take(1024), "it still is");
        credit.give_back(20_000);
        assert!(credit.try_take(1024));
    }

    /// Small tasks that leave no more room than a small one needs: a large one, even one above the bound, gets in all the same.
    #[test]
    fn small_tasks_do_not_keep_a_large_one_out() {
        let credit = TaskCredit::new(1 << 20);
        assert!(credit.try_take(512 << 10) && credit.try_take(512 << 10));
        credit.give_back(512 << 10);
        assert!(credit.try_take(2 << 20));
        assert!(!credit.try_take(512 << 10));
    }

    /// Who waits is not overtaken: not by who comes later and does not wait, and not by who waits behind it.
    #[test]
    fn who_waits_is_first() {
        let credit = TaskCredit::new(2048);
        assert!(credit.try_take(2048));
        let until = |waiting| {
            while credit.waiting.load(Ordering::SeqCst) != waiting {
                std::thread::yield_now();
            }
        };
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for bytes in [4096, 2048] {
                let before = credit.waiting.load(Ordering::SeqCst);
                let (credit, order) = (&credit, &order);
                scope.spawn(move || {
                    credit.take(bytes).unwrap();
                    order.lock().push(bytes);
                });
                until(before + 1);
            }
            // As if somebody had given back and the first in line had not run yet: without the lock it cannot.
            let line = credit.line.lock();
            credit.taken.store(0, Ordering::SeqCst);
            assert!(!credit.try_take(1024) && !credit.try_take_all(1024), "others wait");
            credit.taken.store(2048, Ordering::SeqCst);
            drop(line);
            credit.give_back(2048);
            until(1);
            while order.lock().is_empty() {
                std::thread::yield_now();
            }
            credit.give_back(4096);
        });
        assert_eq!(*order.lock(), [4096, 2048]);
        assert_eq!(credit.taken.load(Ordering::SeqCst), 2048);
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
