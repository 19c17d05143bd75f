//! Reads that futures wait for: each ends in its time, whatever the state machine does.
//!
//! Until a read is confirmed the node watches its time. Then it goes to the worker of its group and is answered there, between two entries;
//! and a refusal is told there, too. A state machine that stands still holds all of that back, with the reads that are still in the ring
//! behind it, so that only the owner, which never waits for a worker, can end them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use ringraft_core::{RaftError, Status, Time};

use crate::task::completion::{ApplyError, ApplyResult};
use crate::task::promise::Expiry;

/// No read waits.
const NEVER: u64 = u64::MAX;

struct Waiting {
    /// By their time, for all reads of a group may wait for as long.
    reads: VecDeque<(Time, Expiry<ApplyResult>)>,
    /// The owner knows that it has to look at the time.
    watched: bool,
    /// The group has ended.
    closed: bool,
}

/// The reads of one group that futures wait for. Callers add, the owner ends.
pub(crate) struct ReadDeadlines {
    waiting: Mutex<Waiting>,
    /// When the first of them may have to end, in microseconds.
    next: AtomicU64,
}

impl Default for ReadDeadlines {
    fn default() -> ReadDeadlines {
        let waiting = Waiting { reads: VecDeque::new(), watched: false, closed: false };
        ReadDeadlines { waiting: Mutex::new(waiting), next: AtomicU64::new(NEVER) }
    }
}

impl ReadDeadlines {
    /// A read that must have ended `timeout_ms` after what `clock` says. Gives whether the owner must be told to look at the time: it
    /// is told once, not for each read.
    ///
    /// # Errors
    /// [`ApplyError::Shutdown`]: the group has ended, and nobody would end the read.
    pub(crate) fn add(
        &self,
        clock: fn() -> Time,
        timeout_ms: u64,
        read: Expiry<ApplyResult>,
    ) -> Result<bool, ApplyError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(ApplyError::Shutdown);
        }
        // Most have ended long before their time. Here they go, so that no more are kept than wait, and those behind the oldest that does.
        while waiting.reads.pop_front_if(|(_, read)| read.is_over()).is_some() {}
        // Under the lock, so that they are in order.
        let at = clock().after_millis(timeout_ms);
        waiting.reads.push_back((at, read));
        self.note_next(&waiting);
        Ok(!std::mem::replace(&mut waiting.watched, true))
    }

    /// The owner could not be told: the next read tells it.
    pub(crate) fn owner_was_not_told(&self) {
        self.waiting.lock().watched = false;
    }

    /// When the owner wants to look at the time.
    pub(crate) fn next(&self) -> Option<Time> {
        Some(Time(self.next.load(Ordering::Relaxed))).filter(|at| at.0 != NEVER)
    }

    /// Ends the reads whose time is over at `now`.
    pub(crate) fn end_late(&self, now: Time, timeout_ms: u64) {
        let mut late = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            while let Some((_, read)) = waiting.reads.pop_front_if(|(at, read)| *at <= now || read.is_over())
            {
                late.push(read);
            }
            waiting.watched = !waiting.reads.is_empty();
            self.note_next(&waiting);
        }
        // Outside the lock, for it wakes whoever waits.
        let message = format!(
            "the state machine, or another that shares its thread, stood in the way of this read for {timeout_ms} ms; nothing was \
             changed, try again or ask another replica"
        );
        let outcome = Err(ApplyError::ReadFailed(Status::new(RaftError::TimedOut, message)));
        late.iter().for_each(|read| read.end(outcome.clone()));
    }

    /// The group has ended, and with it every read.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        let reads = std::mem::take(&mut waiting.reads);
        self.note_next(&waiting);
        drop(waiting);
        reads.iter().for_each(|(_, read)| read.end(Err(ApplyError::Shutdown)));
    }

    fn note_next(&self, waiting: &Waiting) {
        let next = waiting.reads.front().map_or(NEVER, |(at, _)| at.0);
        self.next.store(next, Ordering::Relaxed);
    }
}

impl fmt::Debug for ReadDeadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDeadlines").field("next", &self.next()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::completion::Applied;
    use crate::task::promise::{Promise, Waiter, promise};

    fn add(reads: &ReadDeadlines, clock: fn() -> Time) -> (bool, Promise<ApplyResult>, Waiter<ApplyResult>) {
        let (promise, waiter) = promise();
        let tell = reads.add(clock, 10, promise.expiry()).unwrap();
        (tell, promise, waiter)
    }

    fn outcome(waiter: &Waiter<ApplyResult>) -> Option<ApplyResult> {
        waiter.wait(Some(Duration::ZERO))
    }

    #[test]
    fn a_read_ends_in_its_time_and_once() {
        let reads = ReadDeadlines::default();
        let (tell, first, of_first) = add(&reads, || Time(0));
        let (again, second, of_second) = add(&reads, || Time(5_000));
        assert!(tell && !again, "the owner is told once");
        assert_eq!(reads.next(), Some(Time(10_000)));
        reads.end_late(Time(9_999), 10);
        assert_eq!((outcome(&of_first), reads.next()), (None, Some(Time(10_000))));
        reads.end_late(Time(10_000), 10);
        let Some(Err(ApplyError::ReadFailed(status))) = outcome(&of_first) else { panic!("it waits") };
        assert_eq!(status.error, RaftError::TimedOut);
        first.fulfil(Ok(Applied::default()));
        assert_eq!(outcome(&of_first), None, "the worker comes too late, and nobody hears twice");
        second.fulfil(Ok(Applied::default()));
        assert_eq!(reads.next(), Some(Time(15_000)));
        reads.end_late(Time(15_000), 10);
        assert_eq!((outcome(&of_second), reads.next()), (Some(Ok(Applied::default())), None));
        assert!(add(&reads, || Time(20_000)).0, "the owner does not look any more, and is told again");
    }

    #[test]
    fn reads_that_have_ended_are_not_kept() {
        let reads = ReadDeadlines::default();
        for _ in 0..100 {
            let (_, promise, waiter) = add(&reads, || Time(0));
            promise.fulfil(Ok(Applied::default()));
            drop(waiter);
            let (_, _dropped, waiter) = add(&reads, || Time(0));
            drop(waiter);
        }
        assert!(reads.waiting.lock().reads.len() <= 2);
    }

    #[test]
    fn a_group_that_ends_takes_its_reads_along() {
        let reads = ReadDeadlines::default();
        let (_, _promise, waiter) = add(&reads, || Time(0));
        reads.close();
        assert_eq!((outcome(&waiter), reads.next()), (Some(Err(ApplyError::Shutdown)), None));
        let (late, _waiter) = promise();
        assert_eq!(reads.add(|| Time(0), 10, late.expiry()), Err(ApplyError::Shutdown));
    }
}
