//! What the two event loops (TCP and in-process) have in common: turns and wake-ups.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::Inbound;

/// An event loop that somebody drives, turn by turn: a thread of its own, or an owner thread between its batches.
pub trait EventLoop: Send {
    /// Waits at most `timeout` (`None`: until something happens) and handles everything that is ready, with a bounded
    /// share of work per connection. Ends with one [`Inbound::on_turn_end`] when anything was delivered.
    ///
    /// `Some(Duration::ZERO)` never waits and costs one system call at most when nothing is ready.
    ///
    /// # Errors
    /// Only what makes the loop itself unusable (the poller failed); troubles of one connection close that connection.
    fn turn(&mut self, timeout: Option<Duration>, inbound: &mut dyn Inbound) -> io::Result<TurnReport>;

    /// A handle that ends a waiting turn from any thread.
    fn waker(&self) -> LoopWaker;

    /// Closes everything and gives every waiting context its [`Inbound::on_request_failed`].
    /// Afterwards nothing can be sent, and a turn does nothing but wait.
    fn shutdown(&mut self, inbound: &mut dyn Inbound);
}

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnReport {
    /// Calls made to the [`Inbound`], `on_turn_end` and refused offers not counted.
    pub delivered: usize,
    /// Connections hold input that did not fit the turn's budget: the next turn will not wait.
    pub more: bool,
    /// Connections that stand still because the consumer answered [`Accept::Busy`](crate::Accept::Busy).
    pub busy: usize,
}

/// Ends a waiting turn. Cheap to clone and to call: the system call is made only when the loop really sleeps, and
/// at most once until its next turn.
#[derive(Clone)]
pub struct LoopWaker {
    inner: Arc<Inner>,
}

struct Inner {
    state: AtomicU8,
    bell: Bell,
}

enum Bell {
    Poll(mio::Waker),
    Parker { lock: Mutex<()>, condvar: Condvar },
}

/// The loop runs; it will look at everything before it sleeps.
const AWAKE: u8 = 0;
/// The loop is about to wait or waits.
const ASLEEP: u8 = 1;
/// Somebody wants a turn.
const NOTIFIED: u8 = 2;

impl LoopWaker {
    pub(crate) fn for_poll(waker: mio::Waker) -> Self {
        Self { inner: Arc::new(Inner { state: AtomicU8::new(AWAKE), bell: Bell::Poll(waker) }) }
    }

    pub(crate) fn for_parker() -> Self {
        let bell = Bell::Parker { lock: Mutex::new(()), condvar: Condvar::new() };
        Self { inner: Arc::new(Inner { state: AtomicU8::new(AWAKE), bell }) }
    }

    /// Makes the current or the next waiting turn return at once. What the caller published before is visible to
    /// whoever drives the loop once that turn returns.
    pub fn wake(&self) {
        if self.inner.state.swap(NOTIFIED, Ordering::AcqRel) != ASLEEP {
            return;
        }
        match &self.inner.bell {
            Bell::Poll(waker) => {
                if let Err(error) = waker.wake() {
                    tracing::error!(%error, "cannot wake the event loop");
                }
            }
            Bell::Parker { lock, condvar } => {
                // Passing through the lock orders this after a sleeper that has checked the state but not slept yet.
                drop(lock.lock());
                condvar.notify_one();
            }
        }
    }

    /// Announces a wait. `false`: somebody asked for a turn meanwhile, so do not wait.
    pub(crate) fn try_sleep(&self) -> bool {
        self.inner.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The wait is over; forgets the notification, which the rest of the turn serves.
    pub(crate) fn awake(&self) {
        self.inner.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Waits until somebody wakes or the time is over; for a loop without a poller, after [`Self::try_sleep`].
    pub(crate) fn park(&self, timeout: Option<Duration>) {
        let Bell::Parker { lock, condvar } = &self.inner.bell else { return };
        let mut guard = lock.lock();
        let still = || self.inner.state.load(Ordering::Acquire) == ASLEEP;
        match timeout {
            None => condvar.wait_while(&mut guard, |()| still()),
            Some(timeout) => {
                condvar.wait_while_for(&mut guard, |()| still(), timeout);
            }
        }
    }
}

impl fmt::Debug for LoopWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopWaker").field("state", &self.inner.state.load(Ordering::Relaxed)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_before_the_wait_is_not_lost() {
        let waker = LoopWaker::for_parker();
        waker.wake();
        assert!(!waker.try_sleep());
        waker.awake();
        assert!(waker.try_sleep());
        waker.wake();
        // Returns although no timeout is given: the notification came after the announcement.
        waker.park(None);
    }

    #[test]
    fn a_wake_up_from_another_thread_ends_the_wait() {
        let waker = LoopWaker::for_parker();
        for _ in 0..1000 {
            assert!(waker.try_sleep());
            let other = waker.clone();
            std::thread::scope(|scope| {
                scope.spawn(move || other.wake());
                waker.park(None);
            });
            waker.awake();
        }
    }
}
