//! A client for users' requests, for programs that host no group.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use ringraft_core::{RaftError, Status};
use ringraft_net::inproc::Network;
use ringraft_net::tcp::NetLoop;
use ringraft_net::{
    Accept, ConnectionClass, Endpoint, EventLoop, Inbound, LinkId, LoopWaker, NetLoopOptions, ReplyHandle,
    RequestContext, SendError, Transport,
};
use ringraft_proto::{
    RequestFrame, RequestKind, ResponseFrame, ResponseStatus, class, decode_error_response,
    encode_request_shared, encode_status_response,
};
use rustc_hash::FxHashMap;

use crate::error::StartError;
use crate::task::promise::promise;
use crate::thread::panic_text;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcResponse {
    /// Class of the message.
    pub class: Bytes,
    /// The serialized message.
    pub content: Bytes,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// There is no connection; the request was not sent. It is being re-established: try again later.
    #[error("no connection to {endpoint}: {reason}")]
    NotConnected {
        /// Where to.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// Too many requests are waiting; this one was not sent.
    #[error("too many requests to {endpoint} are waiting")]
    Busy {
        /// Where to.
        endpoint: String,
    },
    /// The server answered with an error.
    #[error("{endpoint} answered: {status}")]
    Remote {
        /// Who.
        endpoint: String,
        /// What.
        status: Status,
    },
    /// The request was sent and the connection broke: it may have been handled.
    #[error("connection to {endpoint} was lost before the answer: {reason}")]
    Lost {
        /// Where to.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The request was sent and not answered in time: it may have been or may yet be handled.
    #[error("{endpoint} did not answer within {timeout_ms} ms")]
    TimedOut {
        /// Where to.
        endpoint: String,
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The client is shut down; the request was not sent.
    #[error("the client is shut down")]
    Closed,
}

impl RpcError {
    /// Whether the server certainly did not take the request, so that repeating it is safe. An answer of the server
    /// ([`Remote`](RpcError::Remote)) is for the caller to judge by its code; here it counts as taken.
    pub fn was_not_sent(&self) -> bool {
        matches!(self, RpcError::NotConnected { .. } | RpcError::Busy { .. } | RpcError::Closed)
    }
}

/// Settings of an [`RpcClient`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcClientOptions {
    /// How long a call waits for a connection before it fails, in milliseconds (1000); part of the call's own time-out.
    pub connect_timeout_ms: u64,
}

impl Default for RpcClientOptions {
    fn default() -> RpcClientOptions {
        RpcClientOptions { connect_timeout_ms: 1000 }
    }
}

/// Time-outs beyond this are cut: the clock must be able to say when the time is over.
const LONGEST_CALL: Duration = Duration::from_secs(365 * 24 * 3600);

/// The outcome of a call.
pub type RpcResult = Result<RpcResponse, RpcError>;

type Done = Box<dyn FnOnce(RpcResult) + Send>;

/// A request that waits for its connection or its answer.
struct Call {
    endpoint: Endpoint,
    class: String,
    content: Bytes,
    timeout: Duration,
    deadline: Instant,
    sent: bool,
    done: Done,
}

#[derive(Default)]
struct State {
    calls: FxHashMap<u64, Call>,
    next: u64,
    /// Calls that wait for a connection, by link, oldest first. Calls that are gone leave from the front.
    waiting: FxHashMap<LinkId, VecDeque<u64>>,
    /// When which call fails. Entries of calls that are gone are skipped.
    deadlines: BTreeSet<(Instant, u64)>,
    closed: bool,
}

struct Shared {
    options: RpcClientOptions,
    transport: Arc<dyn Transport>,
    waker: LoopWaker,
    state: Mutex<State>,
}

impl Shared {
    fn request(&self, endpoint: &str, class: &str, content: Bytes, timeout: Duration, done: Done) {
        let endpoint = Endpoint(endpoint.into());
        let link = self.transport.link(&endpoint, ConnectionClass::Control);
        let start = Instant::now();
        let timeout = timeout.min(LONGEST_CALL);
        let deadline = start + timeout;
        let call = Call { endpoint, class: class.to_owned(), content, timeout, deadline, sent: false, done };
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return (call.done)(Err(RpcError::Closed));
        }
        let id = state.next;
        state.next += 1;
        state.calls.insert(id, call);
        let refused = self.send(&mut state, link, id);
        if refused.is_none() {
            let sent = state.calls.get(&id).is_some_and(|call| call.sent);
            let connect_limit = timeout.min(Duration::from_millis(self.options.connect_timeout_ms));
            let limit = if sent { deadline } else { start + connect_limit };
            let first = state.deadlines.first().is_none_or(|(at, _)| limit < *at);
            state.deadlines.insert((limit, id));
            drop(state);
            if sent {
                self.transport.flush(link);
            }
            if first {
                self.waker.wake();
            }
            return;
        }
        drop(state);
        if let Some((call, error)) = refused {
            (call.done)(Err(error));
        }
    }

    /// Sends a call, or has it wait for the connection. Gives it back when it can do neither.
    fn send(&self, state: &mut State, link: LinkId, id: u64) -> Option<(Call, RpcError)> {
        let call = state.calls.get_mut(&id)?;
        let context =
            RequestContext { lane: 0, kind: RequestKind::Typed.into(), slot: 0, generation: 0, ticket: id };
        let timeout_ms = i32::try_from(call.timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        let queued = self.transport.request(link, context, &mut |request| {
            encode_request_shared(request, &call.class, timeout_ms, &[], call.content.clone())
        });
        let error = match queued {
            Ok(()) => {
                call.sent = true;
                call.content = Bytes::new();
                return None;
            }
            Err(SendError::NotConnected(_)) => {
                state.waiting.entry(link).or_default().push_back(id);
                return None;
            }
            Err(SendError::Full(endpoint)) => RpcError::Busy { endpoint: endpoint.to_string() },
            Err(SendError::Closed) => RpcError::Closed,
        };
        state.calls.remove(&id).map(|call| (call, error))
    }

    /// Fails the calls whose time is over; says when the next one's is.
    fn expire(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut failed = Vec::new();
        let mut state = self.state.lock();
        let next = loop {
            let Some(&(at, id)) = state.deadlines.first() else { break None };
            if at > now {
                break Some(at - now);
            }
            state.deadlines.remove(&(at, id));
            let Some(call) = state.calls.get(&id) else { continue };
            if call.sent && call.deadline > now {
                // It was waiting for its connection when this deadline was set.
                let later = (call.deadline, id);
                state.deadlines.insert(later);
                continue;
            }
            failed.extend(state.calls.remove(&id));
        };
        if !failed.is_empty() {
            let State { calls, waiting, .. } = &mut *state;
            waiting.retain(|_, ids| {
                while ids.front().is_some_and(|id| !calls.contains_key(id)) {
                    ids.pop_front();
                }
                !ids.is_empty()
            });
        }
        drop(state);
        for call in failed {
            let endpoint = call.endpoint.to_string();
            let error = if call.sent {
                RpcError::TimedOut { endpoint, timeout_ms: call.timeout.as_millis() as u64 }
            } else {
                RpcError::NotConnected { endpoint, reason: "it cannot be reached".to_owned() }
            };
            finish(call, Err(error));
        }
        next
    }

    fn close(&self) -> Vec<Call> {
        let mut state = self.state.lock();
        state.closed = true;
        state.deadlines.clear();
        state.waiting.clear();
        state.calls.drain().map(|(_, call)| call).collect()
    }
}

fn finish(call: Call, result: RpcResult) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (call.done)(result))) {
        tracing::error!("a callback of an RPC call panicked: {}", panic_text(&*payload));
    }
}

/// What a bare status of the frame means, in words: Java's answer has no other.
fn refusal_of_the_frame(class: &str, status: ResponseStatus) -> String {
    let why = match status {
        ResponseStatus::ServerException => ": nobody serves this class there, or its processor failed",
        _ => "",
    };
    format!("a request of class {class} was answered with Bolt status {status:?}{why}")
}

/// What the client's loop reads.
struct Answers(Arc<Shared>);

impl Answers {
    fn take(&self, context: RequestContext) -> Option<Call> {
        self.0.state.lock().calls.remove(&context.ticket)
    }
}

impl Inbound for Answers {
    fn on_request(&mut self, handle: ReplyHandle, frame: RequestFrame) -> Accept {
        // A client serves nothing.
        let answer = encode_status_response(handle.request, frame.codec, ResponseStatus::ServerException);
        if self.0.transport.reply(handle, answer).is_ok() {
            self.0.transport.flush_reply(handle);
        }
        Accept::Refused
    }

    fn on_response(&mut self, context: RequestContext, frame: ResponseFrame) {
        let Some(call) = self.take(context) else { return };
        let endpoint = call.endpoint.to_string();
        let remote = |message: String| RpcError::Remote {
            endpoint: endpoint.clone(),
            status: Status::new(RaftError::Internal, message),
        };
        let result = if frame.status != ResponseStatus::Success {
            Err(remote(refusal_of_the_frame(&call.class, frame.status)))
        } else if frame.class == class::ERROR_RESPONSE {
            match decode_error_response(&frame.content) {
                Ok(None) => Ok(RpcResponse { class: frame.class, content: frame.content }),
                Ok(Some(status)) => Err(RpcError::Remote { endpoint, status }),
                Err(error) => Err(remote(error.to_string())),
            }
        } else {
            Ok(RpcResponse { class: frame.class, content: frame.content })
        };
        finish(call, result);
    }

    fn on_request_failed(&mut self, context: RequestContext, reason: &str) {
        let Some(call) = self.take(context) else { return };
        let error = RpcError::Lost { endpoint: call.endpoint.to_string(), reason: reason.to_owned() };
        finish(call, Err(error));
    }

    fn on_connected(&mut self, link: LinkId, _endpoint: &Endpoint, _class: ConnectionClass) {
        let mut refused = Vec::new();
        let mut state = self.0.state.lock();
        for id in state.waiting.remove(&link).unwrap_or_default() {
            refused.extend(self.0.send(&mut state, link, id));
        }
        drop(state);
        self.0.transport.flush(link);
        for (call, error) in refused {
            finish(call, Err(error));
        }
    }
}

/// Sends requests of users to hosts, over one connection each. It needs no host, and runs one thread of its own.
pub struct RpcClient {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RpcClient {
    /// Starts a client over TCP.
    ///
    /// # Errors
    /// [`StartError::Net`] or [`StartError::Thread`] when the system refuses.
    pub fn new(options: RpcClientOptions) -> Result<RpcClient, StartError> {
        let (event_loop, transport) =
            NetLoop::new(NetLoopOptions::default()).map_err(|error| StartError::Net(error.to_string()))?;
        RpcClient::start(options, event_loop, Arc::new(transport))
    }

    /// Starts a client inside an in-process network, where it takes part as `name`.
    ///
    /// # Errors
    /// [`StartError::Net`] when the name is taken, [`StartError::Thread`] when the system refuses.
    pub fn inproc(options: RpcClientOptions, network: &Network, name: &str) -> Result<RpcClient, StartError> {
        let (event_loop, transport) = network
            .host(&Endpoint(name.into()), NetLoopOptions::default())
            .map_err(|error| StartError::Net(error.to_string()))?;
        RpcClient::start(options, event_loop, Arc::new(transport))
    }

    fn start(
        options: RpcClientOptions,
        mut event_loop: impl EventLoop + 'static,
        transport: Arc<dyn Transport>,
    ) -> Result<RpcClient, StartError> {
        let waker = event_loop.waker();
        let shared = Arc::new(Shared { options, transport, waker, state: Mutex::default() });
        let stop = Arc::new(AtomicBool::new(false));
        let (of_thread, stopped) = (Arc::clone(&shared), Arc::clone(&stop));
        let run = move || {
            let mut answers = Answers(of_thread);
            while !stopped.load(Ordering::Acquire) {
                let timeout = answers.0.expire();
                if let Err(error) = event_loop.turn(timeout, &mut answers) {
                    tracing::error!(%error, "the event loop of an RPC client cannot go on");
                    break;
                }
            }
            event_loop.shutdown(&mut answers);
            for call in answers.0.close() {
                let endpoint = call.endpoint.to_string();
                let reason = "the client was shut down".to_owned();
                let error = if call.sent { RpcError::Lost { endpoint, reason } } else { RpcError::Closed };
                finish(call, Err(error));
            }
        };
        let name = "rr-client".to_owned();
        let spawned = std::thread::Builder::new().name(name.clone()).spawn(run);
        let thread = spawned.map_err(|error| StartError::Thread { name, message: error.to_string() })?;
        Ok(RpcClient { shared, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Sends a request of `class` to the host at `endpoint` (`ip:port`) and waits for the answer.
    ///
    /// # Errors
    /// [`RpcError`]. An answer that is an `ErrorResponse` is [`RpcError::Remote`].
    pub fn call(&self, endpoint: &str, class: &str, content: Bytes, timeout: Duration) -> RpcResult {
        let (promise, waiter) = promise();
        self.call_async(endpoint, class, content, timeout, move |result| promise.fulfil(result));
        // The client answers every call in its time; this is for the case that its thread is held up.
        let limit = timeout.saturating_add(Duration::from_secs(1));
        waiter.wait(Some(limit)).unwrap_or_else(|| {
            let endpoint = endpoint.to_owned();
            Err(RpcError::TimedOut { endpoint, timeout_ms: timeout.as_millis() as u64 })
        })
    }

    /// As [`call`](RpcClient::call) without waiting: `done` gets the outcome exactly once, on the client's thread or, when the request
    /// is refused at once, on the caller's. It must not block.
    pub fn call_async(
        &self,
        endpoint: &str,
        class: &str,
        content: Bytes,
        timeout: Duration,
        done: impl FnOnce(RpcResult) + Send + 'static,
    ) {
        self.shared.request(endpoint, class, content, timeout, Box::new(done));
    }

    /// Ends the client: calls that wait fail with [`RpcError::Closed`] or, once sent, with [`RpcError::Lost`]. Safe to call twice; in
    /// a callback of the client itself it does not wait.
    pub fn shutdown(&self) {
        self.stop.store(true, Ordering::Release);
        self.shared.waker.wake();
        let of_others = |handle: &mut JoinHandle<()>| handle.thread().id() != std::thread::current().id();
        let handle = self.thread.lock().take_if(of_others);
        // Not under the lock: a callback may call this, too, and its thread is waited for here.
        if let Some(handle) = handle {
            // Its callbacks' panics are caught.
            let _ = handle.join();
        }
    }
}

impl Drop for RpcClient {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl std::fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcClient").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn client(name: &str, connect_timeout_ms: u64) -> RpcClient {
        RpcClient::inproc(RpcClientOptions { connect_timeout_ms }, &Network::new(), name).unwrap()
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn calls_that_were_given_up_leave_nothing_behind() {
        let client = client("patient", 1);
        let (sender, outcomes) = mpsc::channel();
        for _ in 0..100 {
            let sender = sender.clone();
            client.call_async("nowhere:1", "c", Bytes::new(), LIMIT, move |outcome| {
                sender.send(outcome).unwrap();
            });
        }
        for _ in 0..100 {
            let outcome = outcomes.recv_timeout(LIMIT).unwrap();
            assert!(matches!(outcome, Err(RpcError::NotConnected { .. })), "{outcome:?}");
        }
        let state = client.shared.state.lock();
        assert_eq!((state.calls.len(), state.deadlines.len(), state.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn a_callback_may_end_the_client_that_another_thread_ends() {
        let client = Arc::new(client("ending", u64::MAX));
        let (sender, outcomes) = mpsc::channel();
        let of_callback = Arc::clone(&client);
        // The longest time-out there is must not overflow the clock.
        client.call_async("nowhere:1", "c", Bytes::new(), Duration::MAX, move |outcome| {
            of_callback.shutdown();
            sender.send(outcome).unwrap();
        });
        let ends = std::thread::spawn(move || client.shutdown());
        assert_eq!(
            outcomes.recv_timeout(LIMIT).expect("the threads wait for each other"),
            Err(RpcError::Closed)
        );
        ends.join().unwrap();
    }
}
