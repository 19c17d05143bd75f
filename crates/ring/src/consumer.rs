//! The side that drains.

use std::{fmt, time::Duration};

use crate::{
    backoff::{self, Backoff, MAX_STEPS},
    shared::{STEP, Shared},
    signal::Signal,
    sync::{Arc, Instant},
};

/// What [`Consumer::drain`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Events moved into the vector.
    pub count: usize,
    /// Nothing more was published at that time: the moment to flush what was gathered.
    pub end_of_batch: bool,
    /// The ring is closed and every event that it ever took has been drained. There will be no other.
    pub closed: bool,
}

/// Why [`Consumer::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// There is an event to drain, or [`ConsumerWaker::wake`] was called: look at both.
    Ready,
    /// The time is over and nothing happened.
    TimedOut,
    /// The ring is closed and everything has been drained.
    Closed,
}

/// The one consumer of a ring.
///
/// Two ways to sleep: [`wait`](Self::wait) parks the thread; a thread that also polls sockets brackets its own sleep with
/// [`prepare_sleep`](Self::prepare_sleep) and [`end_sleep`](Self::end_sleep) and gives the ring a [`Wake`](crate::Wake).
///
/// Dropping it closes the ring and drops the events that were not drained.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The next position to drain. The shared head follows it, once a drain.
    head: usize,
    /// How many steps of spinning were worth it of late.
    spin_steps: u32,
}

/// After a park shorter than this, the next wait is spent awake again. The park and the wake-up of two threads that play
/// ping-pong take 10 to 30 µs by themselves; work that is a write to disk away takes longer, and is not worth a spin.
const SHORT_PARK: Duration = Duration::from_micros(50);

impl<T> Consumer<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, head: usize) -> Self {
        Self { shared, head, spin_steps: MAX_STEPS }
    }

    /// Moves up to `max` events into `into`, oldest first, behind what is there; never waits. The slots are free for
    /// producers when it returns, which also wakes as many of those that wait.
    pub fn drain(&mut self, max: usize, into: &mut Vec<T>) -> Drained {
        let mut count = 0;
        let mut more = self.shared.is_published(self.head);
        while more && count < max {
            if into.len() == into.capacity() {
                // Before the event is moved: if there is no memory, it is still in the ring.
                into.reserve((max - count).min(self.shared.capacity()));
            }
            into.push(self.take_front());
            count += 1;
            more = self.shared.is_published(self.head);
        }
        if count > 0 {
            self.shared.free_until(self.head, count);
        }
        Drained { count, end_of_batch: !more, closed: !more && self.is_closed_and_empty() }
    }

    /// Moves the front event out, without telling producers.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn take_front(&mut self) -> T {
        debug_assert!(self.shared.is_published(self.head));
        // SAFETY: this is the one consumer (`&mut`), callers have seen that the front is published, and the head moves on
        // right here, so that no position is taken twice.
        let event = unsafe { self.shared.take(self.head) };
        self.head = self.head.wrapping_add(STEP);
        event
    }

    fn is_closed_and_empty(&self) -> bool {
        // The flag first: while the ring is open, the producers' line is left alone.
        self.shared.signal.is_closed() && self.shared.tail().position() == self.head
    }

    /// Waits until there is an event, the ring is closed, [`ConsumerWaker::wake`] was called (before or during the wait),
    /// or `timeout` is over. `None` waits without limit. First a spin, as long as spins were worth it lately and only
    /// where there is more than one core; then parked.
    pub fn wait(&mut self, timeout: Option<Duration>) -> WaitOutcome {
        if let Some(outcome) = self.look() {
            return outcome;
        }
        if timeout.is_some_and(|limit| limit.is_zero()) {
            return WaitOutcome::TimedOut;
        }
        let mut backoff = Backoff::new(self.spin_steps);
        while backoff.snooze() {
            if let Some(outcome) = self.look() {
                self.spin_steps = MAX_STEPS;
                return outcome;
            }
        }
        self.park(timeout)
    }

    #[cold]
    fn park(&mut self, timeout: Option<Duration>) -> WaitOutcome {
        let start = Instant::now();
        // A limit beyond what the clock can say is no limit.
        let deadline = timeout.and_then(|limit| start.checked_add(limit));
        let outcome = loop {
            let announced = self.shared.signal.announce_park();
            if let Some(outcome) = self.look_before_sleep(announced) {
                break outcome;
            }
            self.shared
                .signal
                .park(deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())));
            if self.shared.signal.awake() {
                break WaitOutcome::Ready;
            }
            if let Some(outcome) = self.look() {
                break outcome;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break WaitOutcome::TimedOut;
            }
        };
        self.spin_steps = if start.elapsed() < SHORT_PARK { MAX_STEPS } else { self.spin_steps / 2 };
        outcome
    }

    /// What a wait may return for right now, without an announced sleep.
    #[inline]
    fn look(&self) -> Option<WaitOutcome> {
        if self.shared.is_published(self.head) || self.shared.signal.take_notification() {
            return Some(WaitOutcome::Ready);
        }
        self.is_closed_and_empty().then_some(WaitOutcome::Closed)
    }

    /// The look between the announcement of a sleep and the sleep; ends the sleep if it finds a reason.
    fn look_before_sleep(&self, announced: bool) -> Option<WaitOutcome> {
        if !announced {
            return Some(WaitOutcome::Ready);
        }
        // The tail, not the front slot: a claim is what the announcement is ordered with. This spares producers a barrier
        // between publish and their look at our state.
        let tail = self.shared.tail();
        let empty = tail.position() == self.head;
        if empty && !tail.is_closed() {
            return None;
        }
        self.shared.signal.awake();
        if empty {
            // Whoever set the mark says so on our line in a moment; `drain` shall not contradict us until then.
            self.shared.signal.mark_closed();
            return Some(WaitOutcome::Closed);
        }
        self.await_front();
        Some(WaitOutcome::Ready)
    }

    /// Waits for the publish of a slot that is claimed. Short: no code of users runs in between.
    fn await_front(&self) {
        backoff::await_instructions(|| self.shared.is_published(self.head));
    }

    /// For a poll loop that sleeps elsewhere: announces the sleep. After `true`, sleep; the next publish, close or
    /// [`ConsumerWaker::wake`] calls [`Wake::wake`](crate::Wake::wake) (unparks this thread, if the ring was made without
    /// one), once. After `false` there is an event to drain, or the ring is closed, or a wake came in: do not sleep.
    ///
    /// A sleep ends with [`end_sleep`](Self::end_sleep).
    pub fn prepare_sleep(&mut self) -> bool {
        let announced = self.shared.signal.announce_sleep();
        self.look_before_sleep(announced).is_none()
    }

    /// The sleep that [`prepare_sleep`](Self::prepare_sleep) announced is over, for whatever reason: producers need not
    /// wake any more. Call it before looking at what there is to do.
    pub fn end_sleep(&mut self) {
        self.shared.signal.awake();
    }

    /// A handle that wakes this consumer without an event.
    pub fn waker(&self) -> ConsumerWaker {
        ConsumerWaker { signal: self.shared.signal.clone() }
    }

    /// The number of slots; a power of two.
    pub fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// Closes the ring: publishes fail from now on, and producers that wait for a slot are woken. What was published
    /// stays to be drained.
    pub fn close(&mut self) {
        self.shared.close();
    }

    /// Closes the ring and hands back everything that was published and not drained, oldest first. A producer that has
    /// claimed a slot and is about to fill it is waited for; one that has not claims none. So every event is either handed
    /// back to its producer, drained, or in this vector.
    pub fn into_undrained(mut self) -> Vec<T> {
        self.close_and_take()
    }

    fn close_and_take(&mut self) -> Vec<T> {
        self.shared.close();
        let end = self.shared.tail().position();
        let mut undrained = Vec::with_capacity(end.wrapping_sub(self.head) / STEP);
        while self.head != end {
            self.await_front();
            undrained.push(self.take_front());
        }
        if !undrained.is_empty() {
            self.shared.free_until(end, undrained.len());
        }
        undrained
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        drop(self.close_and_take());
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// Wakes a sleeping consumer without an event: for progress that it reads elsewhere.
#[derive(Clone)]
pub struct ConsumerWaker {
    signal: Arc<Signal>,
}

impl ConsumerWaker {
    /// Ends the consumer's sleep, or keeps its next one from beginning: a wake is remembered until a
    /// [`Consumer::wait`], [`Consumer::prepare_sleep`] or [`Consumer::end_sleep`] takes it. What the caller wrote before is
    /// visible to the consumer then. Wakes that come together count as one. Does nothing once the consumer is gone.
    pub fn wake(&self) {
        self.signal.notify();
    }
}

impl fmt::Debug for ConsumerWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerWaker").finish_non_exhaustive()
    }
}
