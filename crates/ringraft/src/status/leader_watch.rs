//! Waiting until a node knows a leader.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use ringraft_core::{PeerId, RaftError, Status};

use crate::task::promise::{Promise, Waiter, promise};

/// The leader, or why the node will never know one.
pub(crate) type KnownLeader = Result<PeerId, Status>;

/// Who waits until one node knows a leader. The owner of the group tells them.
#[derive(Default)]
pub(crate) struct LeaderWatch(Mutex<Vec<Promise<KnownLeader>>>);

impl LeaderWatch {
    /// A waiter that is told at the next [`tell`](LeaderWatch::tell), or now when `known` has something to say. Whoever tells has
    /// made visible to `known` what it is about to tell, so that nothing is missed: `known` is asked under the same lock.
    pub(crate) fn wait(&self, known: impl FnOnce() -> Option<KnownLeader>) -> Waiter<KnownLeader> {
        let (promise, waiter) = promise();
        let mut waiting = self.0.lock();
        match known() {
            None => {
                // Without a leader nobody is told for long, and callers that gave up must not pile up.
                waiting.retain(|promise| !promise.is_abandoned());
                waiting.push(promise);
            }
            Some(outcome) => {
                drop(waiting);
                promise.fulfil(outcome);
            }
        }
        waiter
    }

    /// Tells everybody who waits.
    pub(crate) fn tell(&self, outcome: &KnownLeader) {
        // Not under the lock: a task that is woken may ask again.
        let waiting = std::mem::take(&mut *self.0.lock());
        waiting.into_iter().for_each(|promise| promise.fulfil(outcome.clone()));
    }
}

impl fmt::Debug for LeaderWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaderWatch")
    }
}

/// The leader, once the node knows one: await it, or block with [`wait`](LeaderFuture::wait).
///
/// It ends with an error when the node stops (`ENODESHUTDOWN`) or fails (the status of the failure) before that, and with `EINVAL`
/// for whoever asks again after the outcome was given. It has no time-out of its own; dropping it ends the wait.
#[must_use = "a wait that nobody waits for is none"]
pub struct LeaderFuture(Waiter<KnownLeader>);

impl LeaderFuture {
    pub(crate) fn new(waiter: Waiter<KnownLeader>) -> LeaderFuture {
        LeaderFuture(waiter)
    }

    /// Blocks until the node knows a leader, or for `timeout`.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the time is over; `EPERM` at once on a thread of a host, which would wait for itself; and the errors of the
    /// future.
    pub fn wait(&mut self, timeout: Duration) -> Result<PeerId, Status> {
        self.0.wait_for_host(timeout).unwrap_or_else(|reason| {
            let status = reason.status(timeout);
            if status.error != RaftError::TimedOut {
                return Err(status);
            }
            let message = format!(
                "the node has known no leader for {} ms; is a majority of the members running, and can they reach each other?",
                timeout.as_millis()
            );
            Err(Status::new(RaftError::TimedOut, message))
        })
    }
}

impl Future for LeaderFuture {
    type Output = Result<PeerId, Status>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context).map(|outcome| outcome.unwrap_or_else(Err))
    }
}

impl fmt::Debug for LeaderFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaderFuture")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn leader() -> KnownLeader {
        Ok("a:1".parse().unwrap())
    }

    #[test]
    fn who_waits_is_told_and_who_comes_later_hears_at_once() {
        let watch = LeaderWatch::default();
        let early = watch.wait(|| None);
        assert_eq!(early.wait(NOW), None);
        watch.tell(&leader());
        assert_eq!(early.wait(NOW), Some(leader()));
        assert_eq!(watch.wait(|| Some(leader())).wait(NOW), Some(leader()));
    }

    #[test]
    fn callers_that_gave_up_do_not_pile_up() {
        let watch = LeaderWatch::default();
        let kept = watch.wait(|| None);
        for _ in 0..1000 {
            drop(watch.wait(|| None));
        }
        assert!(watch.0.lock().len() <= 2, "{}", watch.0.lock().len());
        watch.tell(&leader());
        assert_eq!(kept.wait(NOW), Some(leader()));
    }
}
