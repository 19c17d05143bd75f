//! How the outcome of a task reaches whoever waits for it: exactly once, whatever happens.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use ringraft_core::{LogIndex, PeerId, RaftError, Status, Term};

use crate::task::promise::Promise;

/// A task was committed and applied by the state machine of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Where the task stands in the log.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: Term,
    /// What the state machine answered through [`Iterator::set_response`](crate::Iterator::set_response); empty if nothing.
    pub response: Bytes,
}

/// Why a task has no answer from the state machine.
///
/// Every kind but [`Unknown`](ApplyError::Unknown) is *definite*: the task was not and will not be applied anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// This node does not lead the group (`EPERM`).
    #[error("this node is not the leader of the group; the leader it knows is {}", display_leader(.leader))]
    NotLeader {
        /// The leader, when this node knows one; send the task there.
        leader: Option<PeerId>,
    },
    /// A bound of the group or the host is reached, or leadership is being transferred (`EBUSY`). Try again later.
    #[error("the group is overloaded or transferring leadership; try again later")]
    Busy,
    /// The task expected another term than the current one (`EPERM`).
    #[error("the task was meant for term {expected}, the current term is {actual}")]
    TermMismatch {
        /// [`Task::expected_term`](crate::Task::expected_term).
        expected: Term,
        /// The term of the group.
        actual: Term,
    },
    /// The task is larger than [`HostOptions::max_task_bytes`](crate::HostOptions::max_task_bytes) (`EINVAL`).
    #[error("a task of {size} bytes is over the limit of {limit} bytes; split it or raise max_task_bytes")]
    TooLarge {
        /// Bytes of the task.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The node or its host was shut down before the task was handed on (`ENODESHUTDOWN`).
    #[error("the node was shut down before it took the task")]
    Shutdown,
    /// The node is in error state and took nothing (`EBADNODE`, or the error of the log store or state machine).
    #[error("the node has failed and takes no task: {0}")]
    Failed(Status),
    /// A read could not be confirmed (`ETIMEDOUT`, or what the leader said). Nothing was changed; try again.
    #[error("the read was not confirmed: {0}")]
    ReadFailed(Status),
    /// The task was handed on and then lost from sight: it may be applied later, elsewhere, or never.
    #[error("the outcome is unknown: {0}")]
    Unknown(Status),
}

fn display_leader(leader: &Option<PeerId>) -> String {
    leader.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
}

impl ApplyError {
    /// Whether the task was certainly not applied, so that repeating it cannot apply it twice.
    pub fn is_definite(&self) -> bool {
        !matches!(self, ApplyError::Unknown(_))
    }

    /// The failure as SOFAJRaft's code and message.
    pub fn status(&self) -> Status {
        let code = match self {
            ApplyError::NotLeader { .. } | ApplyError::TermMismatch { .. } => RaftError::NotPermitted,
            ApplyError::Busy => RaftError::Busy,
            ApplyError::TooLarge { .. } => RaftError::Invalid,
            ApplyError::Shutdown => RaftError::NodeShutdown,
            ApplyError::Failed(status) | ApplyError::ReadFailed(status) | ApplyError::Unknown(status) => {
                status.error
            }
        };
        Status::new(code, self.to_string())
    }
}

/// The outcome of a task.
pub type ApplyResult = Result<Applied, ApplyError>;

/// Receives outcomes as plain values, without an allocation a task: for hot loops.
///
/// Called on a state-machine worker of the host, or on the caller's thread when a task is refused at once. It must not
/// block; a panic stops the group.
pub trait CompletionSink: Send + Sync {
    /// The outcome of the task that carried `tag`.
    fn complete(&self, tag: u64, outcome: Result<&Applied, &ApplyError>);

    /// The outcomes of one batch have been delivered: the moment to wake whoever waits for them.
    fn batch_end(&self) {}
}

/// Names a registered [`CompletionSink`]; plain data, valid in the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SinkId(u32);

static SINKS: RwLock<Vec<Option<Arc<dyn CompletionSink>>>> = RwLock::new(Vec::new());

impl SinkId {
    /// Registers a sink for the life of the process or until [`unregister`](SinkId::unregister).
    pub fn register(sink: Arc<dyn CompletionSink>) -> SinkId {
        let mut sinks = SINKS.write();
        sinks.push(Some(sink));
        SinkId((sinks.len() - 1) as u32)
    }

    /// Forgets the sink; outcomes that come later go nowhere. The id is never given again.
    pub fn unregister(self) {
        let sink = SINKS.write().get_mut(self.0 as usize).and_then(Option::take);
        drop(sink); // outside the lock: it is the user's code
    }

    fn find(self) -> Option<Arc<dyn CompletionSink>> {
        SINKS.read().get(self.0 as usize).and_then(Clone::clone)
    }
}

/// Boxed form of a closure that takes an outcome.
pub(crate) type ApplyClosure = Box<dyn FnOnce(ApplyResult) + Send>;

enum Kind {
    None,
    Closure(ApplyClosure),
    Promise(Promise<ApplyResult>),
    Sink(SinkId, u64),
}

/// Where the outcome of a [`Task`](crate::Task) goes. It is delivered exactly once: a completion that is dropped on the way
/// (a stage that panics, a host that goes away) delivers [`ApplyError::Unknown`].
///
/// Closures run on a state-machine worker of the host, or on the caller's thread when a task is refused at once. They must
/// not block; a panic in one stops the group.
pub struct Completion(Kind);

impl Completion {
    /// Nobody waits, and nobody hears when the task is refused, which may happen after it was taken ([`Node::apply`](crate::Node::apply)).
    pub const fn none() -> Completion {
        Completion(Kind::None)
    }

    /// Runs `closure` with the outcome.
    pub fn closure(closure: impl FnOnce(ApplyResult) + Send + 'static) -> Completion {
        Completion(Kind::Closure(Box::new(closure)))
    }

    /// Calls the sink with `tag` and the outcome.
    pub const fn sink(sink: SinkId, tag: u64) -> Completion {
        Completion(Kind::Sink(sink, tag))
    }

    pub(crate) fn promise(promise: Promise<ApplyResult>) -> Completion {
        Completion(Kind::Promise(promise))
    }

    /// Whether nobody waits.
    pub fn is_none(&self) -> bool {
        matches!(self.0, Kind::None)
    }

    /// Delivers the outcome on the current thread; see [`Deliveries`] for many at once.
    pub fn complete(self, outcome: ApplyResult) {
        let mut deliveries = Deliveries::new();
        deliveries.deliver(self, outcome);
    }

    fn take(&mut self) -> Kind {
        std::mem::replace(&mut self.0, Kind::None)
    }
}

impl Drop for Completion {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.0, Kind::None) {
            drop_undelivered(self.take());
        }
    }
}

#[cold]
fn drop_undelivered(kind: Kind) {
    let status = Status::new(RaftError::Unknown, "the task was dropped on its way through the host");
    Completion(kind).complete(Err(ApplyError::Unknown(status)));
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::None => "Completion::None",
            Kind::Closure(_) => "Completion::Closure",
            Kind::Promise(_) => "Completion::Promise",
            Kind::Sink(..) => "Completion::Sink",
        })
    }
}

/// Delivers the outcomes of one batch: looks each sink up once, and tells it the end of the batch.
#[derive(Default)]
pub struct Deliveries {
    sink: Option<(SinkId, Option<Arc<dyn CompletionSink>>)>,
    panicked: bool,
}

impl Deliveries {
    /// No outcome delivered yet.
    pub fn new() -> Deliveries {
        Deliveries::default()
    }

    /// Whether a closure or a sink has panicked; the others got their outcomes all the same.
    pub fn panicked(&self) -> bool {
        self.panicked
    }

    /// Delivers one outcome. Rule O3: it takes the completion, so that nobody hears twice; one that is dropped hears *unknown*.
    #[inline]
    pub fn deliver(&mut self, mut completion: Completion, outcome: ApplyResult) {
        match completion.take() {
            Kind::None => {}
            Kind::Sink(id, tag) => self.deliver_to_sink(id, tag, &outcome),
            Kind::Closure(closure) => self.guard(|| closure(outcome)),
            Kind::Promise(promise) => promise.fulfil(outcome),
        }
    }

    #[inline]
    fn deliver_to_sink(&mut self, id: SinkId, tag: u64, outcome: &ApplyResult) {
        if self.sink.as_ref().is_none_or(|(known, _)| *known != id) {
            self.end_batch();
            self.sink = Some((id, id.find()));
        }
        let Some((_, Some(sink))) = &self.sink else { return };
        if catch_unwind(AssertUnwindSafe(|| sink.complete(tag, outcome.as_ref()))).is_err() {
            self.panicked = true;
        }
    }

    fn guard(&mut self, call: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(call)).is_err() {
            self.panicked = true;
        }
    }

    /// Ends the batch for the sink that was used last. Called by `drop` too.
    pub fn end_batch(&mut self) {
        if let Some((_, Some(sink))) = self.sink.take() {
            self.guard(|| sink.batch_end());
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.end_batch();
    }
}
