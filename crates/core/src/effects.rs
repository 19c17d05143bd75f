//! What goes into a node and what comes out of it.

use std::sync::Arc;

use crate::chunk::EntryChunk;
use crate::marks::Marks;
use crate::message::{RaftRequest, RaftResponse, ReadOnlyOption};
use crate::peer::{Configuration, ConfigurationEntry, PeerId};
use crate::status::Status;
use crate::types::{LogId, LogIndex, Term};
use crate::vote::Vote;

/// Term and vote, the state that must be durable before anything that depends on it leaves (Raft figure 2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Vote,
}

/// One operation of a group's ordered record stream. Storage replays them in exactly the order of emission. Rule P1: only
/// so does a vote that is found say that the entries before it are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOp {
    /// Remember term and vote.
    HardState(HardState),
    /// Drop every entry from this index on.
    TruncateSuffix {
        /// First index that goes.
        from: LogIndex,
    },
    /// Append entries; the first stands right after the last entry of the log.
    Append(Arc<EntryChunk>),
    /// Drop every entry below this index (after a snapshot). It is at most one past the last entry.
    TruncatePrefix {
        /// First index that stays.
        first_kept: LogIndex,
    },
    /// Drop the whole log; it goes on behind `before` (a snapshot from elsewhere, or a log that is given up).
    Reset {
        /// The entry before the next one; 0/0 for a log that begins anew.
        before: LogId,
        /// The configuration in force there; `None` for the initial one.
        conf: Option<Box<ConfigurationEntry>>,
    },
    /// Remember the largest promise to vote for nobody that this node gave, in milliseconds. It only grows.
    Promise {
        /// Milliseconds.
        ms: u64,
    },
    /// Remember that a committed configuration no longer names this node.
    MemberRemoved {
        /// The configuration's entry; 0/0 when a newer one names the node again.
        at: LogId,
    },
}

/// Where an answer goes; meaningful to the driver only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyToken(pub u64);

/// Names a request or a log read of one node until its answer comes; never used twice by a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names a call of the driver until its outcome comes; meaningful to the driver only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallToken(pub u64);

/// What happens to a node: everything that is not a command with an immediate answer.
#[derive(Debug)]
pub enum Input {
    /// Time has passed; call it at [`NodeImpl::deadline`](crate::NodeImpl::deadline) or later.
    Tick,
    /// A request of another replica arrived. It is answered exactly once through [`Effects::replies`].
    Request {
        /// Sender as it names itself (`server_id`).
        from: PeerId,
        /// Where the answer goes.
        reply: ReplyToken,
        /// What it asks.
        request: RaftRequest,
    },
    /// The answer to a [`Send`], or its failure (connection lost, refused, queue full).
    Response {
        /// Whom the request went to.
        from: PeerId,
        /// The request's ticket.
        ticket: Ticket,
        /// The answer.
        result: Result<RaftResponse, Status>,
    },
    /// Everything that the node emitted up to this write sequence is durable.
    Persisted {
        /// Value of [`Effects::write_sequence`] of the last durable step.
        sequence: u64,
    },
    /// The state machine has applied everything up to this index.
    Applied {
        /// Last applied index.
        index: LogIndex,
    },
    /// The answer to a [`LogRead`].
    LogRead {
        /// The read's ticket.
        ticket: Ticket,
        /// Entries from the asked index on, contiguous, at least one, perhaps fewer than asked.
        result: Result<Vec<Arc<EntryChunk>>, Status>,
    },
    /// A connection to this peer's host came up: blocked replicators probe at once.
    PeerConnected {
        /// The peer that can be reached again.
        peer: PeerId,
    },
    /// The log store or the state machine failed for good; the node stops taking part (SOFAJRaft's `onError`).
    Failed {
        /// Why.
        status: Status,
    },
    /// Linearizable reads: each ends in [`FsmEvent::ReadIndex`] when the state machine may answer it, or in
    /// [`Effects::calls`] with the reason why not. On a follower or learner the leader is asked.
    ReadIndex {
        /// The reads, which share one round.
        calls: Vec<CallToken>,
        /// How the leader makes sure that it still leads.
        mode: ReadOnlyOption,
    },
    /// Change the members (SOFAJRaft's `addPeer`, `changePeers`, `addLearners` and their like). Ends in [`Effects::calls`].
    ChangeMembers {
        /// The call.
        call: CallToken,
        /// What shall be different.
        change: MembershipChange,
        /// Refuse when the configuration in force is not the entry at this index (hashicorp/raft's `prevIndex`).
        prev_index: Option<LogIndex>,
    },
    /// Hand leadership over, to the best follower when `to` is `None`. Ends in [`Effects::calls`].
    TransferLeadership {
        /// The call.
        call: CallToken,
        /// The new leader.
        to: Option<PeerId>,
    },
    /// Force a configuration upon this node alone (SOFAJRaft's `resetPeers`). **Unsafe**: members of the old configuration may
    /// elect a leader of their own, and what only they hold is lost. For when a majority is gone for good. Ends in
    /// [`Effects::calls`].
    ResetPeers {
        /// The call.
        call: CallToken,
        /// The members from now on.
        conf: Configuration,
    },
    /// Stop: a leader hands over and steps down, nothing is answered or sent after that.
    Shutdown,
}

/// A change of the members. All of them go through joint consensus when voters differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// A new voter, or a learner that becomes one.
    AddPeer(PeerId),
    /// A voter leaves.
    RemovePeer(PeerId),
    /// Exactly these members.
    ChangePeers(Configuration),
    /// Exactly these voters; learners that are not among them stay (what a `ChangePeersRequest` can say).
    ChangeVoters(Vec<PeerId>),
    /// These learn, too.
    AddLearners(Vec<PeerId>),
    /// These learn no more.
    RemoveLearners(Vec<PeerId>),
    /// Exactly these learn.
    ResetLearners(Vec<PeerId>),
}

/// The end of a call that was given in as an [`Input`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOutcome {
    /// Which call.
    pub call: CallToken,
    /// What became of it.
    pub result: Result<CallDone, CallFailure>,
}

/// What a call did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallDone {
    /// The members are changed, and a majority of the new ones knows.
    Changed {
        /// Who they were.
        old: Configuration,
        /// Who they are.
        new: Configuration,
    },
    /// Whom leadership was handed to leads.
    Transferred {
        /// Its term.
        term: Term,
    },
    /// The configuration is forced upon this node.
    PeersReset,
}

/// Why a call did nothing, or may have done nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// It certainly has no effect. `EPERM` means: not the leader.
    #[error("{0}")]
    Failed(Status),
    /// It may take effect yet, under another leader.
    #[error("the outcome is unknown: {0}")]
    Unknown(Status),
}

/// A message to another replica.
#[derive(Debug, PartialEq, Eq)]
pub struct Send {
    /// Receiver.
    pub to: PeerId,
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// What is asked.
    pub request: RaftRequest,
    /// Leave only after everything emitted up to and with this step is durable.
    pub after_durable: bool,
    /// How long the answer is waited for, in milliseconds; travels in the Bolt header.
    pub timeout_ms: u32,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where it goes.
    pub token: ReplyToken,
    /// The answer.
    pub response: RaftResponse,
    /// Leave only after everything emitted up to and with this step is durable.
    pub after_durable: bool,
}

/// Entries that must be fetched from the log store, off the owner thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// Comes back with the entries.
    pub ticket: Ticket,
    /// First index wanted.
    pub from: LogIndex,
    /// Last index wanted, inclusive.
    pub to: LogIndex,
    /// Stop after about so many bytes of payload; at least one entry comes.
    pub max_bytes: usize,
}

/// What the state-machine stage must know, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsmEvent {
    /// Committed and locally stable entries, contiguous with what was handed over before.
    Committed(Arc<EntryChunk>),
    /// This node leads the term, and the term's first entry has just been handed over (`onLeaderStart`).
    LeaderStart {
        /// The term it leads.
        term: Term,
    },
    /// It leads no more (`onLeaderStop`).
    LeaderStop {
        /// Why.
        status: Status,
    },
    /// It follows a leader (`onStartFollowing`).
    StartFollowing {
        /// The leader.
        leader: PeerId,
        /// The leader's term.
        term: Term,
    },
    /// It follows that leader no more (`onStopFollowing`).
    StopFollowing {
        /// The former leader.
        leader: PeerId,
        /// The term in which it was followed.
        term: Term,
        /// Why.
        status: Status,
    },
    /// Reads that may be answered from a state machine with everything that was handed over before.
    ReadIndex {
        /// The reads.
        calls: Vec<CallToken>,
        /// The index that they had to wait for.
        index: LogIndex,
    },
    /// A configuration entry is committed (`onConfigurationCommitted`).
    ConfigurationCommitted(ConfigurationEntry),
    /// The node failed (`onError`); nothing is applied after this.
    Error(Status),
}

/// Everything that one step wants done. They leave together or not at all: a driver that drops one drops all.
///
/// Reused from step to step; the driver takes what is in it and calls [`clear`](Effects::clear).
#[derive(Debug, Default)]
pub struct Effects {
    /// Operations for the record stream, in order.
    pub log: Vec<LogOp>,
    /// Number of this write, larger than any before, when `log` is not empty; otherwise 0.
    pub write_sequence: u64,
    /// Messages to peers, in order for each peer.
    pub sends: Vec<Send>,
    /// Answers to requests.
    pub replies: Vec<Reply>,
    /// Reads of the log store.
    pub reads: Vec<LogRead>,
    /// For the state-machine stage, in order.
    pub fsm: Vec<FsmEvent>,
    /// Proposals above the committed ones are lost to this node: answer all that wait with *unknown* for this
    /// reason. Comes after the `fsm` events of the same step.
    pub abandoned: Option<Status>,
    /// Calls that have ended, each once.
    pub calls: Vec<CallOutcome>,
    /// Which branches the step took, for whoever asks what was never tried; nothing to do.
    pub marks: Marks,
}

impl Effects {
    /// Empty effects.
    pub fn new() -> Effects {
        Effects::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
            && self.sends.is_empty()
            && self.replies.is_empty()
            && self.reads.is_empty()
            && self.fsm.is_empty()
            && self.abandoned.is_none()
            && self.calls.is_empty()
    }

    /// Forgets everything, keeping the memory for the next step.
    pub fn clear(&mut self) {
        self.log.clear();
        self.write_sequence = 0;
        self.sends.clear();
        self.replies.clear();
        self.reads.clear();
        self.fsm.clear();
        self.abandoned = None;
        self.calls.clear();
        self.marks = Marks::default();
    }
}
