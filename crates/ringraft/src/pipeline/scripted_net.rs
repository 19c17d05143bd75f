//! A network without sockets, for shuttle: requests arrive as a test scripts them, answers are noted, and nothing can be sent.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ringraft_net::{
    Accept, ConnectionClass, Endpoint, Inbound, LinkId, ReplyHandle, RequestContext, SendError, Transport,
};
use ringraft_proto::{OutFrame, RequestFrame};

use crate::rpc::Processors;
use crate::thread::sync::{Condvar, Mutex};

std::thread_local! {
    /// Not shuttle's: a schedule's threads share one thread of the system, and thus this.
    static NEWEST: RefCell<Option<Arc<ScriptedNet>>> = const { RefCell::new(None) };
}

/// What a test sees of the network of a host.
#[derive(Default)]
pub(crate) struct ScriptedNet {
    state: Mutex<State>,
    /// The bell was rung, or a request answered.
    rung: Condvar,
}

#[derive(Default)]
struct State {
    rung: bool,
    arriving: VecDeque<(ReplyHandle, RequestFrame)>,
    replies: Vec<u32>,
}

#[cfg(test)]
impl ScriptedNet {
    /// The network of the host that was started last.
    pub(crate) fn newest() -> Arc<ScriptedNet> {
        NEWEST.with_borrow(Clone::clone).expect("a host was started")
    }

    /// A request arrives, and wakes the loop as a socket does.
    pub(crate) fn deliver(&self, frame: RequestFrame) {
        let handle = ReplyHandle { connection: 1, generation: 1, request: frame.id };
        self.state.lock().arriving.push_back((handle, frame));
        self.wake();
    }

    /// Waits until so many requests were answered.
    pub(crate) fn await_replies(&self, count: usize) {
        let mut state = self.state.lock();
        while state.replies.len() < count {
            self.rung.wait(&mut state);
        }
    }

    /// Ids of the requests that were answered, in order.
    pub(crate) fn replies(&self) -> Vec<u32> {
        self.state.lock().replies.clone()
    }
}

impl ScriptedNet {
    fn wake(&self) {
        self.state.lock().rung = true;
        self.rung.notify_all();
    }
}

impl Transport for ScriptedNet {
    fn link(&self, _: &Endpoint, _: ConnectionClass) -> LinkId {
        LinkId(0)
    }

    fn request(
        &self,
        _: LinkId,
        _: RequestContext,
        _: &mut dyn FnMut(u32) -> OutFrame,
    ) -> Result<(), SendError> {
        Err(SendError::Closed)
    }

    fn reply(&self, handle: ReplyHandle, _: OutFrame) -> Result<(), SendError> {
        self.state.lock().replies.push(handle.request);
        self.rung.notify_all();
        Ok(())
    }

    fn flush(&self, _: LinkId) {}

    fn flush_reply(&self, _: ReplyHandle) {}
}

/// Ends a waiting turn.
#[derive(Clone)]
pub(crate) struct NetWaker(Arc<ScriptedNet>);

impl NetWaker {
    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

/// Waits up to this are turns of the other threads; longer ones end by a wake-up alone, for time stands still.
const SHORT_WAIT: Duration = Duration::from_millis(1);

/// Stands where the TCP loop stands.
pub(crate) struct HostLoop(Arc<ScriptedNet>);

impl HostLoop {
    pub(crate) fn new() -> (HostLoop, Arc<dyn Transport>) {
        let net = Arc::new(ScriptedNet::default());
        NEWEST.set(Some(Arc::clone(&net)));
        (HostLoop(Arc::clone(&net)), net)
    }

    pub(crate) fn waker(&self) -> NetWaker {
        NetWaker(Arc::clone(&self.0))
    }

    pub(crate) fn turn(&mut self, timeout: Option<Duration>, inbound: &mut Processors) {
        if timeout != Some(Duration::ZERO) {
            let mut state = self.0.state.lock();
            // A request that was handed back as busy is offered again in a moment.
            if timeout.is_some_and(|limit| limit <= SHORT_WAIT) || !state.arriving.is_empty() {
                drop(state);
                shuttle::thread::yield_now();
            } else {
                while !state.rung {
                    self.0.rung.wait(&mut state);
                }
            }
        }
        self.0.state.lock().rung = false;
        while let Some((handle, frame)) = self.take() {
            if let Accept::Busy(frame) | Accept::Later(frame) = inbound.on_request(handle, frame) {
                self.0.state.lock().arriving.push_front((handle, frame));
                break;
            }
        }
        inbound.on_turn_end();
    }

    fn take(&self) -> Option<(ReplyHandle, RequestFrame)> {
        self.0.state.lock().arriving.pop_front()
    }

    pub(crate) fn shutdown(&mut self, _: &mut Processors) {}
}
