//! A slot that is filled once and waited for, by a blocked thread or by a task of any async runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ringraft_core::{RaftError, Status};

use crate::completion::{ApplyError, ApplyResult};
use crate::sync::{Condvar, Mutex};

enum Slot<T> {
    Empty(Option<Waker>),
    Full(T),
    Taken,
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

/// The side that fills the slot. One that is dropped without a value leaves its waiter with none.
pub struct Promise<T>(Option<Receiver<T>>);

/// Who gets the value of a promise.
enum Receiver<T> {
    Slot(Arc<Shared<T>>),
    Call(Box<dyn FnOnce(Option<T>) + Send>),
}

impl<T> Receiver<T> {
    fn receive(self, value: Option<T>) {
        match self {
            Receiver::Slot(shared) => fill(&shared, value.map_or(Slot::Taken, Slot::Full)),
            Receiver::Call(call) => call(value),
        }
    }
}

impl<T> std::fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Promise")
    }
}

/// The side that waits.
pub struct Waiter<T>(Arc<Shared<T>>);

/// An empty slot.
pub fn promise<T>() -> (Promise<T>, Waiter<T>) {
    let shared = Arc::new(Shared { slot: Mutex::new(Slot::Empty(None)), filled: Condvar::new() });
    (Promise(Some(Receiver::Slot(Arc::clone(&shared)))), Waiter(shared))
}

impl<T> Promise<T> {
    /// A promise for which nobody waits: `call` gets the value, or `None` when the promise is dropped, on the thread on which that
    /// happens. That may be an owner: it must be short and must neither block nor panic.
    pub(crate) fn calling(call: impl FnOnce(Option<T>) + Send + 'static) -> Promise<T> {
        Promise(Some(Receiver::Call(Box::new(call))))
    }

    /// Fills the slot and wakes whoever waits.
    pub fn fulfil(mut self, value: T) {
        if let Some(receiver) = self.0.take() {
            receiver.receive(Some(value));
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(receiver) = self.0.take() {
            receiver.receive(None);
        }
    }
}

fn fill<T>(shared: &Shared<T>, slot: Slot<T>) {
    let before = std::mem::replace(&mut *shared.slot.lock(), slot);
    shared.filled.notify_all();
    if let Slot::Empty(Some(waker)) = before {
        waker.wake();
    }
}

impl<T> Waiter<T> {
    /// Waits for the value; `None` when the time is over first, when it was taken before, or when the
    /// promise was dropped.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<T> {
        let deadline = timeout.and_then(|limit| Instant::now().checked_add(limit));
        let mut slot = self.0.slot.lock();
        loop {
            match &*slot {
                Slot::Full(_) => match std::mem::replace(&mut *slot, Slot::Taken) {
                    Slot::Full(value) => return Some(value),
                    _ => return None,
                },
                Slot::Taken => return None,
                Slot::Empty(_) => {}
            }
            match deadline {
                None => self.0.filled.wait(&mut slot),
                Some(deadline) => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                    self.0.filled.wait_until(&mut slot, deadline);
                }
            }
        }
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.slot.lock();
        match &mut *slot {
            Slot::Empty(waker) => {
                if waker.as_ref().is_none_or(|known| !known.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            full => match std::mem::replace(full, Slot::Taken) {
                Slot::Full(value) => Poll::Ready(value),
                _ => Poll::Pending,
            },
        }
    }
}

/// The outcome of [`Node::propose`](crate::Node::propose): await it, or block with [`wait`](ProposeFuture::wait).
///
/// Dropping it does not take the proposal back.
#[must_use = "the outcome of a proposal matters; drop it on purpose if it does not"]
pub struct ProposeFuture(Waiter<ApplyResult>);

impl ProposeFuture {
    pub(crate) fn new(waiter: Waiter<ApplyResult>) -> ProposeFuture {
        ProposeFuture(waiter)
    }

    /// Blocks until the outcome is there, or for `timeout`.
    ///
    /// # Errors
    /// The outcome; [`ApplyError::Unknown`] with `ETIMEDOUT` when the time is over, for the proposal goes on.
    pub fn wait(&mut self, timeout: Duration) -> ApplyResult {
        self.0.wait(Some(timeout)).unwrap_or_else(|| {
            let message = format!("no outcome within {} ms", timeout.as_millis());
            Err(ApplyError::Unknown(Status::new(RaftError::TimedOut, message)))
        })
    }
}

impl Future for ProposeFuture {
    type Output = ApplyResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<ApplyResult> {
        self.0.poll(context)
    }
}

impl std::fmt::Debug for ProposeFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProposeFuture")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_taken_once() {
        let (promise, waiter) = promise();
        assert_eq!(waiter.wait(Some(Duration::ZERO)), None);
        promise.fulfil(7);
        assert_eq!(waiter.wait(None), Some(7));
        assert_eq!(waiter.wait(None), None);
    }

    #[test]
    fn a_dropped_promise_ends_the_wait() {
        let (promise, waiter) = promise::<u8>();
        let dropper = std::thread::spawn(move || drop(promise));
        assert_eq!(waiter.wait(None), None);
        dropper.join().unwrap();
    }

    #[test]
    fn a_promise_calls_back_once() {
        let (sender, values) = std::sync::mpsc::channel();
        let again = sender.clone();
        Promise::calling(move |value| sender.send(value).unwrap()).fulfil(7);
        drop(Promise::<i32>::calling(move |value| again.send(value).unwrap()));
        assert_eq!(values.into_iter().collect::<Vec<_>>(), [Some(7), None]);
    }

    #[test]
    fn a_waiting_task_is_woken() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let (promise, waiter) = promise();
        let mut context = Context::from_waker(&waker);
        assert!(waiter.poll(&mut context).is_pending());
        assert!(waiter.poll(&mut context).is_pending());
        promise.fulfil("x");
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(waiter.poll(&mut context), Poll::Ready("x"));
    }
}
