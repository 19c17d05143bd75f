//! A slot that is filled once and waited for, by a blocked thread or by a task of any async runtime.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ringraft_core::{RaftError, Status};

use crate::thread::on_host_thread;
use crate::thread::sync::{Condvar, Mutex};

enum Slot<T> {
    Empty(Option<Waker>),
    Full(T),
    /// The promise was dropped: no value will come.
    Broken,
    /// The value came and was taken.
    Taken,
}

/// Why a waiter has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoValue {
    /// The time is over; the value may still come.
    Late,
    /// The promise was dropped: no value will come.
    Broken,
    /// It was given before.
    Taken,
    /// The current thread belongs to a host, perhaps to the one that has to give the value: it must not wait.
    OwnThread,
}

impl NoValue {
    /// What callers are told who waited for `timeout`.
    pub(crate) fn status(self, timeout: Duration) -> Status {
        match self {
            NoValue::Late => {
                Status::new(RaftError::TimedOut, format!("no outcome within {} ms", timeout.as_millis()))
            }
            NoValue::Broken => Status::new(RaftError::NodeShutdown, "the node has stopped"),
            NoValue::Taken => Status::new(RaftError::Invalid, "the outcome of this future was taken before"),
            NoValue::OwnThread => Status::new(
                RaftError::NotPermitted,
                "a thread of the host cannot wait for an outcome; await it elsewhere, or give a completion that is called",
            ),
        }
    }

    /// What a future says that was polled: it waits without an end.
    fn polled(self) -> Status {
        self.status(Duration::MAX)
    }
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
            Receiver::Slot(shared) => fill(&shared, value.map_or(Slot::Broken, Slot::Full)),
            Receiver::Call(call) => call(value),
        }
    }
}

impl<T> std::fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Promise")
    }
}

/// Ends a promise that takes too long, beside whoever is to fulfil it: the first of both counts.
pub(crate) struct Expiry<T>(Weak<Shared<T>>);

impl<T> Expiry<T> {
    /// Gives the waiter `value`, unless it has one, or will get none, or waits no more.
    pub(crate) fn end(&self, value: T) {
        if let Some(shared) = self.0.upgrade() {
            fill(&shared, Slot::Full(value));
        }
    }

    /// Whether there is nothing left to end.
    pub(crate) fn is_over(&self) -> bool {
        self.0.upgrade().is_none_or(|shared| !matches!(*shared.slot.lock(), Slot::Empty(_)))
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

    /// What ends it when its time is over. A promise that calls has nobody who waits, and nothing to end.
    pub(crate) fn expiry(&self) -> Expiry<T> {
        match &self.0 {
            Some(Receiver::Slot(shared)) => Expiry(Arc::downgrade(shared)),
            Some(Receiver::Call(_)) | None => Expiry(Weak::new()),
        }
    }

    /// Whether nobody can wait for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(&self.0, Some(Receiver::Slot(shared)) if Arc::strong_count(shared) == 1)
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

/// Fills an empty slot. One that is not has been ended before, and whoever waited for it has its outcome.
fn fill<T>(shared: &Shared<T>, value: Slot<T>) {
    let waker = {
        let mut slot = shared.slot.lock();
        let Slot::Empty(waker) = &mut *slot else { return };
        let waker = waker.take();
        *slot = value;
        waker
    };
    shared.filled.notify_all();
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T> Waiter<T> {
    /// Waits for the value; `None` when the time is over first, when it was taken before, or when the
    /// promise was dropped.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<T> {
        self.take_within(timeout).ok()
    }

    /// Waits for a value that a host gives. On a thread of a host it does not wait: that thread may be the one to give the value.
    pub(crate) fn wait_for_host(&self, timeout: Duration) -> Result<T, NoValue> {
        let own_thread = on_host_thread();
        let outcome = self.take_within(Some(if own_thread { Duration::ZERO } else { timeout }));
        outcome.map_err(|reason| match reason {
            NoValue::Late if own_thread => NoValue::OwnThread,
            reason => reason,
        })
    }

    fn take_within(&self, timeout: Option<Duration>) -> Result<T, NoValue> {
        let deadline = timeout.and_then(|limit| Instant::now().checked_add(limit));
        let mut slot = self.0.slot.lock();
        loop {
            match take(&mut slot) {
                Err(NoValue::Late) => {}
                outcome => return outcome,
            }
            match deadline {
                None => self.0.filled.wait(&mut slot),
                Some(deadline) => {
                    if Instant::now() >= deadline {
                        return Err(NoValue::Late);
                    }
                    self.0.filled.wait_until(&mut slot, deadline);
                }
            }
        }
    }

    /// The value, or why none will come. Polled again after either, it is ready again and says so.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<T, Status>> {
        let mut slot = self.0.slot.lock();
        if let Slot::Empty(waker) = &mut *slot {
            if waker.as_ref().is_none_or(|known| !known.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(take(&mut slot).map_err(NoValue::polled))
    }
}

/// Takes the value out of a slot; [`NoValue::Late`] when it has not come yet.
fn take<T>(slot: &mut Slot<T>) -> Result<T, NoValue> {
    match slot {
        Slot::Empty(_) => Err(NoValue::Late),
        Slot::Broken => Err(NoValue::Broken),
        full => match std::mem::replace(full, Slot::Taken) {
            Slot::Full(value) => Ok(value),
            _ => Err(NoValue::Taken),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiting_task_is_woken() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let (promise, waiter) = promise();
        let mut context = Context::from_waker(&waker);
        assert!(waiter.poll(&mut context).is_pending());
        assert!(waiter.poll(&mut context).is_pending());
        promise.fulfil("x");
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(waiter.poll(&mut context), Poll::Ready(Ok("x")));
        let Poll::Ready(Err(again)) = waiter.poll(&mut context) else { panic!("pending for ever") };
        assert_eq!(again.error, RaftError::Invalid, "{again}");
    }

    #[test]
    fn a_dropped_promise_wakes_the_task_and_ends_the_future() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let (promise, waiter) = promise::<u8>();
        assert!(waiter.poll(&mut context).is_pending());
        drop(promise);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        for _ in 0..2 {
            let Poll::Ready(Err(status)) = waiter.poll(&mut context) else { panic!("pending for ever") };
            assert_eq!(status.error, RaftError::NodeShutdown, "{status}");
        }
    }

    #[test]
    fn a_promise_knows_that_nobody_waits() {
        let (promise, waiter) = promise::<u8>();
        assert!(!promise.is_abandoned());
        drop(waiter);
        assert!(promise.is_abandoned());
    }
}
