//! What travels between the stages.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ringraft_core::{
    AppendKind, CallDone, CallFailure, Configuration, CoreOptions, EntryChunk, FsmEvent, LogIndex, LogOp,
    LogRead, Marks, Members, MembershipChange, Mutant, NodeDescription, PeerId, RaftRequest, RaftResponse,
    ReadOnlyOption, RecoveredState, Status, Term, Ticket,
};
use ringraft_net::{Endpoint, LinkId, ReplyHandle, RequestContext};
use ringraft_proto::IncomingResponse;
use ringraft_storage::{GroupKey, StorageError};

use crate::handler::{FsmGroup, GroupHandle, GroupProgress, SharedNames};
use crate::status::NodeStatus;
use crate::task::Task;
use crate::task::closure_queue::ClosureBatch;
use crate::task::completion::{ApplyError, Completion};
use crate::task::promise::Promise;
use crate::thread::sync::{AtomicBool, Ordering};

/// A task on its way to its owner.
#[derive(Debug)]
pub struct ApplyEvent {
    /// Whose it is.
    pub handle: GroupHandle,
    /// The term that it is meant for; 0 means any.
    pub expected_term: Term,
    /// The command.
    pub data: Bytes,
    /// Where the outcome goes.
    pub done: Completion,
}

impl ApplyEvent {
    /// A task's event.
    pub fn new(
        handle: GroupHandle,
        expected_term: Option<Term>,
        data: Bytes,
        done: Completion,
    ) -> ApplyEvent {
        // No task runs in term 0, and 0 means "any" here: the largest term is no group's either.
        let expected_term = expected_term.map_or(0, |term| if term == 0 { Term::MAX } else { term });
        ApplyEvent { handle, expected_term, data, done }
    }
}

/// A linearizable read on its way to its owner.
#[derive(Debug)]
pub struct ReadEvent {
    /// Whose it is.
    pub handle: GroupHandle,
    /// How the leader makes sure that it leads.
    pub mode: ReadOnlyOption,
    /// Told, on the group's state-machine worker, when the state machine may answer.
    pub done: Completion,
}

/// What an operator or a program asks of a node, besides writes and reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeCall {
    /// Change the members.
    ChangeMembers {
        /// What shall be different.
        change: MembershipChange,
        /// Refuse unless the configuration in force is the entry at this index.
        prev_index: Option<LogIndex>,
    },
    /// Hand leadership over, to the best follower when `to` is `None`.
    TransferLeadership {
        /// The new leader.
        to: Option<PeerId>,
    },
    /// Force these members upon the node. Unsafe.
    ResetPeers {
        /// The members.
        conf: Configuration,
    },
}

/// The end of a [`NodeCall`].
pub type CallResult = Result<CallDone, CallFailure>;

/// A request of another replica.
#[derive(Debug)]
pub struct RequestEvent {
    /// Whom it is for.
    pub handle: GroupHandle,
    /// Sender as it names itself.
    pub from: PeerId,
    /// The connection and request that wait for the answer.
    pub reply: ReplyHandle,
    /// Codec byte to echo.
    pub codec: u8,
    /// What it asks.
    pub request: RaftRequest,
}

/// The answer to a request of ours, or its failure.
#[derive(Debug)]
pub struct ResponseEvent {
    /// What the request was sent with.
    pub context: RequestContext,
    /// The answer, as it came.
    pub result: Result<IncomingResponse, Status>,
}

/// What an owner takes from its rings.
///
/// *Control* is votes, heartbeats, questions for reads, answers, log reads, connections and commands of the host: an owner takes it in
/// every turn. *Bulk* waits in its ring for room downstream: entries (with all else that comes on a connection for entries) for
/// room in the disk ring, tasks and reads for room with their group's state-machine worker, too.
#[derive(Debug)]
pub enum LaneEvent {
    /// A task.
    Apply(ApplyEvent),
    /// A read.
    Read(ReadEvent),
    /// A request of another replica.
    Request(Box<RequestEvent>),
    /// An answer.
    Response(Box<ResponseEvent>),
    /// Entries that were read from the store.
    LogRead {
        /// Whose.
        handle: GroupHandle,
        /// The read's ticket.
        ticket: Ticket,
        /// The entries.
        result: Box<Result<Vec<Arc<EntryChunk>>, StorageError>>,
    },
    /// A connection to a host came up.
    Connected(Endpoint),
    /// The connection for entries to a host, which had no room, has some again.
    LinkHasRoom(Endpoint),
    /// A command of the host.
    Control(Box<Control>),
}

impl LaneEvent {
    /// Whether it goes with entries: it came on the connection for entries, whose order it keeps, and may bring work for the disk in
    /// bulk. An order to campaign stays behind the entries that were sent before it; a probe stays among them.
    pub fn goes_with_entries(&self) -> bool {
        let LaneEvent::Request(event) = self else { return false };
        is_bulk(&event.request)
    }

    /// Bytes of the entries that it brings.
    pub(crate) fn entry_bytes(&self) -> usize {
        match self {
            LaneEvent::Request(event) => match &event.request {
                RaftRequest::AppendEntries(append) => append.payload_bytes(),
                _ => 0,
            },
            _ => 0,
        }
    }

    /// The task that a caller gets back.
    pub(crate) fn into_task(self) -> Option<Task> {
        let LaneEvent::Apply(ApplyEvent { expected_term, data, done, .. }) = self else { return None };
        let expected_term = match expected_term {
            0 => None,
            Term::MAX => Some(0),
            term => Some(term),
        };
        Some(Task { data, done, expected_term })
    }
}

/// Whether a request waits for room. Rule R3: a vote or a heartbeat that waited for a full disk would cost the leader its place.
fn is_bulk(request: &RaftRequest) -> bool {
    match request {
        _ if Mutant::K3ControlWaitsBehindBulk.is_active() => true,
        RaftRequest::AppendEntries(append) => append.kind != AppendKind::Heartbeat,
        RaftRequest::TimeoutNow(_) => true,
        RaftRequest::RequestVote(_) | RaftRequest::ReadIndex(_) => false,
    }
}

/// Everything that a lane needs to run a group.
pub struct OpenGroup {
    /// Group and replica.
    pub names: SharedNames,
    /// The group in the store.
    pub key: GroupKey,
    /// The core's settings.
    pub options: CoreOptions,
    /// What the store knew.
    pub recovered: RecoveredState,
    /// Feeds the group's election time-outs.
    pub seed: u64,
    /// The state-machine worker that the group is pinned to.
    pub worker: u16,
    /// Where stable and applied indexes come back.
    pub progress: Arc<GroupProgress>,
    /// What callers read.
    pub status: Arc<NodeStatus>,
    /// Goes to the worker.
    pub fsm: Box<FsmGroup>,
}

/// A group of which the store has met a record that it cannot read back.
#[derive(Debug)]
pub struct DamagedGroup {
    /// The group in the store.
    pub key: GroupKey,
    /// What is wrong.
    pub status: Status,
    stopped: AtomicBool,
}

impl DamagedGroup {
    /// A group that was not told yet.
    pub fn new(key: GroupKey, status: Status) -> DamagedGroup {
        DamagedGroup { key, status, stopped: AtomicBool::new(false) }
    }

    /// Its owner has stopped it.
    pub fn stopped(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether an owner has.
    pub fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// A command of the host to an owner. Each is answered exactly once, unless the host stops first.
pub enum Control {
    /// Start a group.
    Open {
        /// What it takes.
        group: Box<OpenGroup>,
        /// Gets the group's handle.
        answer: Promise<Result<GroupHandle, Status>>,
    },
    /// Stop a group.
    Close {
        /// Which group.
        handle: GroupHandle,
        /// Told when the state machine is gone; `false` when there was no such group.
        answer: Promise<bool>,
    },
    /// Say what is known of a group; `None` when it is gone.
    Describe {
        /// Which group.
        handle: GroupHandle,
        /// Where the answer goes.
        answer: Promise<Option<NodeDescription>>,
    },
    /// Say who the members are; `None` when the group is gone.
    Members {
        /// Which group.
        handle: GroupHandle,
        /// Where the answer goes.
        answer: Promise<Option<Result<Members, Status>>>,
    },
    /// Ask something of a node.
    Call {
        /// Which group.
        handle: GroupHandle,
        /// What.
        call: NodeCall,
        /// Where the outcome goes; a failure when the group is gone.
        answer: Promise<CallResult>,
    },
    /// Futures wait for reads of a group: see to it that they end in their time.
    WatchReads {
        /// Which group.
        handle: GroupHandle,
    },
    /// The store has met records of groups that it cannot read back. Whoever asks learns it from the group.
    Damaged {
        /// In order of their keys, those of other lanes among them.
        groups: Arc<[DamagedGroup]>,
    },
    /// Stop every group and take nothing more.
    Stop,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Control::Open { .. } => "Open",
            Control::Close { .. } => "Close",
            Control::Describe { .. } => "Describe",
            Control::Members { .. } => "Members",
            Control::Call { .. } => "Call",
            Control::WatchReads { .. } => "WatchReads",
            Control::Damaged { .. } => "Damaged",
            Control::Stop => "Stop",
        })
    }
}

/// A request on its way out.
#[derive(Debug)]
pub struct OutSend {
    /// The path to the receiver's host.
    pub link: LinkId,
    /// Comes back with the answer.
    pub context: RequestContext,
    /// Group and sender.
    pub names: SharedNames,
    /// Receiver, as text.
    pub to: Arc<str>,
    /// What it asks.
    pub request: RaftRequest,
    /// How long the answer is waited for, in milliseconds.
    pub timeout_ms: u32,
}

/// An answer on its way out.
#[derive(Debug)]
pub struct OutReply {
    /// The connection and request.
    pub handle: ReplyHandle,
    /// Codec byte to echo.
    pub codec: u8,
    /// Creation number of the group that answers, which goes along; 0 for none.
    pub creation: u64,
    /// The answer.
    pub response: RaftResponse,
}

/// The writes of one group in one turn, and what must not leave before they are durable.
#[derive(Debug)]
pub struct DiskWrite {
    /// Whose.
    pub handle: GroupHandle,
    /// The group in the store.
    pub key: GroupKey,
    /// Where to say that it is stable.
    pub progress: Arc<GroupProgress>,
    /// The core's number of the last write in here; 0 when `ops` is empty.
    pub sequence: u64,
    /// The operations, in order.
    pub ops: Vec<LogOp>,
    /// What they take, about, in bytes.
    pub bytes: usize,
    /// Requests that wait.
    pub sends: Vec<OutSend>,
    /// Answers that wait.
    pub replies: Vec<OutReply>,
}

/// What a state-machine worker has to do, in order for each group.
#[derive(Debug)]
pub enum FsmTask {
    /// Apply entries, then complete their tasks.
    Committed {
        /// Whose.
        handle: GroupHandle,
        /// The entries.
        chunk: Arc<EntryChunk>,
        /// The completions of those that were proposed here.
        closures: Vec<ClosureBatch>,
    },
    /// Tell the state machine.
    Event {
        /// Whose.
        handle: GroupHandle,
        /// What.
        event: FsmEvent,
    },
    /// Complete reads: everything that was handed over before is applied by now.
    ReadIndex {
        /// Whose.
        handle: GroupHandle,
        /// The index that they waited for.
        index: LogIndex,
        /// The reads.
        completions: Vec<Completion>,
    },
    /// Complete tasks with an error.
    Fail {
        /// Whose.
        handle: GroupHandle,
        /// The tasks.
        completions: Vec<Completion>,
        /// The error.
        error: ApplyError,
    },
    /// Take a state machine in.
    Open {
        /// Whose.
        handle: GroupHandle,
        /// The state machine and what belongs to it.
        group: Box<FsmGroup>,
    },
    /// Shut a state machine down and let it go.
    Close {
        /// Whose.
        handle: GroupHandle,
        /// Told when it is gone.
        answer: Option<Promise<bool>>,
    },
}

/// Entries to read from the store.
#[derive(Clone, Copy, Debug)]
pub struct ReadTask {
    /// For whom.
    pub handle: GroupHandle,
    /// The group in the store.
    pub key: GroupKey,
    /// What.
    pub read: LogRead,
}

/// What a lane wants done after a turn. What the next stage cannot take yet stays, and more is added behind it.
#[derive(Debug, Default)]
pub struct LaneOutput {
    /// Requests that may leave at once.
    pub sends: Vec<OutSend>,
    /// Answers that may leave at once.
    pub replies: Vec<OutReply>,
    /// Writes, in order for each group.
    pub disk: Vec<DiskWrite>,
    /// Tasks for each state-machine worker.
    pub fsm: Vec<Vec<FsmTask>>,
    /// Reads of the store for each read worker, oldest first. A group has one for its state machine and one for each peer at most, and
    /// the next of each stands at the end: no group reads its whole log before another's turn.
    pub reads: Vec<VecDeque<ReadTask>>,
    /// Steps of nodes since somebody last set it to 0; for simulations.
    pub steps: u64,
    /// Branches that those steps took.
    pub marks: Marks,
}

impl LaneOutput {
    /// No output, for so many state-machine workers and read workers.
    pub fn new(fsm_workers: usize, read_workers: usize) -> LaneOutput {
        LaneOutput {
            fsm: (0..fsm_workers).map(|_| Vec::new()).collect(),
            reads: (0..read_workers).map(|_| VecDeque::new()).collect(),
            ..LaneOutput::default()
        }
    }

    /// Whether the disk stage has taken all that it was given: there is room for more.
    pub fn disk_has_room(&self) -> bool {
        self.disk.is_empty()
    }

    /// Whether a state-machine worker has taken all that it was given, and the disk too, which comes first.
    pub fn worker_has_room(&self, worker: usize) -> bool {
        self.disk_has_room() && self.fsm.get(worker).is_none_or(Vec::is_empty)
    }

    /// Completes tasks with an error, on their worker.
    pub(crate) fn fail(
        &mut self,
        worker: u16,
        handle: GroupHandle,
        completions: Vec<Completion>,
        error: ApplyError,
    ) {
        let Some(tasks) = self.fsm.get_mut(usize::from(worker)) else { return };
        // Refusals of one turn often come in a row.
        if let Some(FsmTask::Fail { handle: last, completions: before, error: same }) = tasks.last_mut()
            && *last == handle
            && *same == error
        {
            before.extend(completions);
            return;
        }
        tasks.push(FsmTask::Fail { handle, completions, error });
    }

    /// Whether everything was handed on.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
            && self.replies.is_empty()
            && self.disk.is_empty()
            && self.reads.iter().all(VecDeque::is_empty)
            && self.fsm.iter().all(Vec::is_empty)
    }
}
