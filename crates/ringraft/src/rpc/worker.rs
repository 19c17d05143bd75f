//! Requests of users that take long: handled on a thread of their own, a few a connection, in turn.
//!
//! The network is driven by one thread, which with one lane is the owner of all groups: what it does for one client, all groups wait
//! for. A write must be quick there and mostly is; a look at all groups of a large host is not, and a client can ask for many of
//! them for the price of a few bytes. So these wait here. A connection whose share is used up is not read until one of its requests
//! is done: the queue is bounded by what asks, not by how much it asks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ringraft_core::{RaftError, Status};
use ringraft_net::{LogLimiter, ReplyHandle, Transport};
use rustc_hash::FxHashMap;

use crate::rpc::user::{AnswerPath, Responder, UserProcessor, UserRequest, handle_guarded};
use crate::thread::sync::{Condvar, Mutex};

/// Requests of one connection that wait at a time.
const PER_CONNECTION: usize = 4;

/// Bytes of content that wait at a time, of all connections; one request is always taken when nothing waits.
const MAX_BYTES: usize = 64 << 20;

/// Contents below this are copied, so that a request of few bytes does not hold the block that it was received in.
const COPY_BELOW: usize = 16 << 10;

/// A request that waits.
pub(crate) struct Job {
    pub(crate) handle: ReplyHandle,
    pub(crate) codec: u8,
    pub(crate) request: UserRequest,
    pub(crate) processor: Arc<dyn UserProcessor>,
}

/// Names one life of a connection.
type Connection = (u32, u32);

#[derive(Default)]
struct State {
    waiting: FxHashMap<Connection, VecDeque<Job>>,
    /// Connections with something that waits, each once, in order of their turn.
    turns: VecDeque<Connection>,
    bytes: usize,
    closed: bool,
}

/// The queue between the network and the worker.
#[derive(Default)]
pub(crate) struct WorkerQueue {
    state: Mutex<State>,
    changed: Condvar,
}

impl WorkerQueue {
    /// Queues a request, or gives it back: its connection has its share in the queue, or the queue is full.
    pub(crate) fn offer(&self, mut job: Job) -> Result<(), Job> {
        let connection = (job.handle.connection, job.handle.generation);
        let bytes = job.request.content.len();
        let mut state = self.state.lock();
        let full = state.bytes > 0 && state.bytes + bytes > MAX_BYTES;
        let has_share = state.waiting.get(&connection).is_some_and(|waiting| waiting.len() >= PER_CONNECTION);
        if full || has_share {
            return Err(job);
        }
        if bytes < COPY_BELOW {
            job.request.content = Bytes::copy_from_slice(&job.request.content);
            job.request.class = Bytes::copy_from_slice(&job.request.class);
        }
        state.bytes += bytes;
        let waiting = state.waiting.entry(connection).or_default();
        waiting.push_back(job);
        if waiting.len() == 1 {
            state.turns.push_back(connection);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for the next request. `true` with it: the queue was closed, so it is not to be handled any more. `None`: closed and empty.
    fn next(&self) -> Option<(Job, bool)> {
        let mut state = self.state.lock();
        loop {
            if let Some(connection) = state.turns.pop_front()
                && let Some(waiting) = state.waiting.get_mut(&connection)
                && let Some(job) = waiting.pop_front()
            {
                if waiting.is_empty() {
                    state.waiting.remove(&connection);
                } else {
                    state.turns.push_back(connection);
                }
                state.bytes -= job.request.content.len();
                return Some((job, state.closed));
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// What waits is refused from now on, and the worker ends.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Handles requests until the queue is closed.
    pub(crate) fn run(&self, transport: &Arc<dyn Transport>, answers: &Arc<dyn AnswerPath>) {
        let log = LogLimiter::new();
        while let Some((job, closed)) = self.next() {
            // Whoever asks and leaves at once must not cost more than that.
            if !transport.is_answerable(job.handle) {
                continue;
            }
            let responder = Responder::to(answers, job.handle, job.codec);
            if closed {
                responder.fail(Status::new(RaftError::Shutdown, "the host is shutting down"));
            } else {
                handle_guarded(&*job.processor, job.request, responder, &log);
            }
        }
    }
}

impl fmt::Debug for WorkerQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerQueue")
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn job(connection: u32, request: u32, bytes: usize) -> Job {
        Job {
            handle: ReplyHandle { connection, generation: 1, request },
            codec: 1,
            request: UserRequest {
                class: Bytes::from_static(b"test.Class"),
                content: vec![0; bytes].into(),
                timeout_ms: None,
            },
            processor: Arc::new(|_: UserRequest, _: Responder| ()),
        }
    }

    fn order(queue: &WorkerQueue, count: usize) -> Vec<(u32, u32)> {
        let next = || queue.next().expect("something waits").0.handle;
        (0..count).map(|_| next()).map(|handle| (handle.connection, handle.request)).collect()
    }

    #[test]
    fn connections_take_turns_however_much_each_asks() {
        let queue = WorkerQueue::default();
        for request in 0..PER_CONNECTION as u32 {
            assert!(queue.offer(job(1, request, 10)).is_ok());
        }
        assert!(queue.offer(job(1, 9, 10)).is_err(), "its share is used up");
        assert!(queue.offer(job(2, 0, 10)).is_ok() && queue.offer(job(3, 0, 10)).is_ok());
        assert_eq!(order(&queue, 4), [(1, 0), (2, 0), (3, 0), (1, 1)]);
        assert!(queue.offer(job(1, 9, 10)).is_ok());
        assert_eq!(order(&queue, 3), [(1, 2), (1, 3), (1, 9)]);
        // Another life of the connection is another connection.
        let mut other = job(1, 0, 10);
        other.handle.generation = 2;
        for request in 0..PER_CONNECTION as u32 {
            assert!(queue.offer(job(1, request, 10)).is_ok());
        }
        assert!(queue.offer(other).is_ok());
    }

    #[test]
    fn bytes_are_bounded_but_for_one() {
        let queue = WorkerQueue::default();
        assert!(queue.offer(job(1, 0, MAX_BYTES + 1)).is_ok());
        assert!(queue.offer(job(2, 0, 1)).is_err());
        order(&queue, 1);
        assert!(queue.offer(job(2, 0, 1)).is_ok());
    }

    #[test]
    fn a_closed_queue_hands_out_what_is_left_and_says_so() {
        let queue = WorkerQueue::default();
        assert!(queue.offer(job(1, 0, 10)).is_ok());
        queue.close();
        assert!(queue.next().is_some_and(|(_, closed)| closed));
        assert!(queue.next().is_none());
    }
}
