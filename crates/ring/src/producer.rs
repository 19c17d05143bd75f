//! The side that publishes.

use std::{fmt, time::Duration};

use crate::{
    backoff::{Backoff, MAX_STEPS},
    error::{Closed, ClosedBatch, TryPublishError},
    shared::{Claim, Shared},
    sync::{Arc, AtomicUsize, Instant, Ordering},
};

/// Publishes events into a ring. Clone it for every thread that publishes: a handle remembers how far the consumer was,
/// and threads that share one share that memory's cache line.
///
/// Events of one producer are drained in the order of its publishes. When the last handle is dropped the ring closes.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// The head as this handle last saw it; at most behind the real one.
    known_head: AtomicUsize,
}

impl<T> Producer<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, head: usize) -> Self {
        Self { shared, known_head: AtomicUsize::new(head) }
    }

    /// Publishes `event` if a slot is free; never waits.
    ///
    /// # Errors
    /// [`TryPublishError::Full`] or [`TryPublishError::Closed`], each with the event.
    #[inline]
    pub fn try_publish(&self, event: T) -> Result<(), TryPublishError<T>> {
        match self.shared.claim(1, &self.known_head) {
            Claim::Claimed { position, .. } => {
                self.publish_claimed(position, event);
                Ok(())
            }
            Claim::Full => Err(TryPublishError::Full(event)),
            Claim::Closed => Err(TryPublishError::Closed(event)),
        }
    }

    /// Publishes `event`, and waits for a free slot if it must: a short spin where there are cores to spare, then parked
    /// until the consumer has drained. Waiting producers are served in no particular order.
    ///
    /// Never call it on the thread that drains this ring, nor while holding what that thread needs.
    ///
    /// # Errors
    /// [`Closed`] with the event when the ring is closed, before or during the wait.
    #[inline]
    pub fn publish(&self, event: T) -> Result<(), Closed<T>> {
        match self.try_publish(event) {
            Ok(()) => Ok(()),
            Err(TryPublishError::Closed(event)) => Err(Closed(event)),
            Err(TryPublishError::Full(event)) => match self.publish_when_free(event, None) {
                Ok(()) => Ok(()),
                Err(error) => Err(Closed(error.into_inner())),
            },
        }
    }

    /// As [`publish`](Self::publish), but waits for a free slot no longer than `timeout`, which is looked at when the wait
    /// ends: a consumer that drains and is refilled at once may make it a little longer.
    ///
    /// # Errors
    /// [`TryPublishError::Full`] when the time is over, [`TryPublishError::Closed`] when the ring is closed, before or during
    /// the wait; each with the event.
    pub fn publish_timeout(&self, event: T, timeout: Duration) -> Result<(), TryPublishError<T>> {
        match self.try_publish(event) {
            Err(TryPublishError::Full(event)) => {
                // A limit beyond what the clock can say is no limit.
                self.publish_when_free(event, Instant::now().checked_add(timeout))
            }
            done => done,
        }
    }

    #[cold]
    fn publish_when_free(&self, mut event: T, deadline: Option<Instant>) -> Result<(), TryPublishError<T>> {
        let mut backoff = Backoff::new(MAX_STEPS);
        loop {
            let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !over && !backoff.snooze() {
                self.shared.wait_for_room(deadline);
            }
            match self.try_publish(event) {
                Err(TryPublishError::Full(back)) if !over => event = back,
                done => return done,
            }
        }
    }

    /// Publishes as many events from the front of `events` as there are free slots, with one claim: they are drained next
    /// to each other, in order. Those events leave the vector; the rest moves to its front. Returns how many went; 0 when
    /// the ring is full or `events` is empty. Never waits.
    ///
    /// # Errors
    /// [`ClosedBatch`] when the ring is closed; then `events` is as it was.
    #[inline]
    pub fn try_publish_batch(&self, events: &mut Vec<T>) -> Result<usize, ClosedBatch> {
        if events.is_empty() {
            return if self.shared.tail().is_closed() { Err(ClosedBatch) } else { Ok(0) };
        }
        match self.shared.claim(events.len(), &self.known_head) {
            Claim::Claimed { position, count } => {
                self.publish_front(position, count, events);
                Ok(count)
            }
            Claim::Full => Ok(0),
            Claim::Closed => Err(ClosedBatch),
        }
    }

    #[inline]
    #[allow(unsafe_code)]
    fn publish_claimed(&self, position: usize, event: T) {
        // SAFETY: `position` comes from a claim of one slot by this call's caller, just now.
        unsafe { self.shared.publish_at(position, event) };
        self.shared.signal.rouse();
    }

    /// Moves the first `count` events of the vector into the claimed slots. No code of `T` runs in here. Rule R7: one that
    /// panicked, or slept, would leave a slot claimed for ever, and the ring would stand still.
    #[inline]
    #[allow(unsafe_code)]
    fn publish_front(&self, position: usize, count: usize, events: &mut Vec<T>) {
        let len = events.len();
        debug_assert!(count <= len, "a claim gives no more than was asked for");
        // SAFETY: nothing below can panic; the length is 0 while events are moved out bit by bit, and then covers exactly
        // those that were not. Each of the `count` claimed positions is published once.
        unsafe {
            events.set_len(0);
            let first = events.as_mut_ptr();
            self.shared.publish_run_at(position, first, count);
            if count < len {
                first.copy_from(first.add(count), len - count);
            }
            events.set_len(len - count);
        }
        self.shared.signal.rouse();
    }

    /// The number of slots; a power of two.
    pub fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// Events published or being published that the consumer has not drained. Others move on meanwhile: an estimate.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether [`len`](Self::len) is 0; an estimate as that one is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Free slots. For the only producer of a ring this many publishes succeed without waiting (the consumer only frees
    /// more); with others about it is an estimate.
    pub fn remaining_capacity(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Whether the ring is closed, by whichever side.
    pub fn is_closed(&self) -> bool {
        self.shared.tail().is_closed()
    }

    /// Closes the ring for all producers: no later publish succeeds, those that wait fail, and the consumer is woken. What
    /// was published stays to be drained. Closing twice does nothing.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        // Relaxed: the handle that is cloned keeps the count above 0.
        self.shared.producers.fetch_add(1, Ordering::Relaxed);
        Self::new(self.shared.clone(), self.known_head.load(Ordering::Acquire))
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // AcqRel: the last one's close comes after the publishes of all others.
        if self.shared.producers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.close();
        }
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("capacity", &self.capacity())
            .field("len", &self.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
