//! Calls that wait for their next attempt, on one thread.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// What is run when its time has come, or dropped when the queue closes first.
pub(crate) type Retry = Box<dyn FnOnce() + Send>;

struct Waiting {
    at: Instant,
    /// Keeps the order of those with the same time.
    sequence: u64,
    run: Retry,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[derive(Default)]
struct State {
    waiting: BinaryHeap<Reverse<Waiting>>,
    sequence: u64,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Runs things at their time.
pub(crate) struct RetryQueue {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RetryQueue {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<RetryQueue> {
        let shared = Arc::new(Shared::default());
        let looped = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("atomic-retry".into()).spawn(move || looped.run())?;
        Ok(RetryQueue { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `run` at `at`. A closed queue drops it.
    pub(crate) fn at(&self, at: Instant, run: Retry) {
        let mut state = self.shared.state.lock();
        if state.closed {
            drop(state); // outside the lock: what is dropped may call back
            return;
        }
        let sequence = state.sequence;
        state.sequence += 1;
        state.waiting.push(Reverse(Waiting { at, sequence, run }));
        self.shared.changed.notify_one();
    }

    /// Drops what waits and ends the thread. Safe to call twice.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        self.shared.changed.notify_one();
        drop(waiting); // outside the lock: what is dropped may call back
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // A panic of a callback has been reported by its thread.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            match state.waiting.peek() {
                None => self.changed.wait(&mut state),
                Some(Reverse(first)) if first.at > Instant::now() => {
                    let at = first.at;
                    self.changed.wait_until(&mut state, at);
                }
                Some(_) => {
                    if let Some(Reverse(first)) = state.waiting.pop() {
                        parking_lot::MutexGuard::unlocked(&mut state, first.run);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn runs_in_order_of_time() {
        let queue = RetryQueue::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        let start = Instant::now();
        for (name, delay) in [("late", 30), ("soon", 1), ("now", 0)] {
            let sender = sender.clone();
            queue.at(start + Duration::from_millis(delay), Box::new(move || sender.send(name).unwrap()));
        }
        drop(sender);
        let order: Vec<&str> = receiver.iter().collect();
        assert_eq!(order.last(), Some(&"late"));
        assert_eq!(order.len(), 3);
    }

    #[test]
    fn what_waits_when_the_queue_closes_is_dropped() {
        let queue = RetryQueue::start().unwrap();
        let (sender, receiver) = mpsc::channel::<()>();
        let hold = sender.clone();
        queue.at(Instant::now() + Duration::from_secs(3600), Box::new(move || drop(hold)));
        queue.close();
        queue.at(Instant::now(), Box::new(move || drop(sender)));
        assert!(receiver.recv().is_err(), "both senders are gone");
        queue.close();
    }
}
