//! What raft nodes say to each other, as plain values. Their wire form lives in the `proto` crate.

use std::sync::Arc;

use crate::chunk::EntryChunk;
use crate::status::Status;
use crate::types::{LogId, LogIndex, Term};

/// A request from one replica of a group to another.
///
/// Group, sender (`server_id`) and receiver (`peer_id`) travel in the envelope around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftRequest {
    /// Pre-vote or vote; SOFAJRaft uses one message for both.
    RequestVote(RequestVoteRequest),
    /// Heartbeat, probe or entries.
    AppendEntries(AppendEntriesRequest),
    /// Leadership transfer: campaign at once, without pre-vote.
    TimeoutNow(TimeoutNowRequest),
    /// Asks a leader up to where to apply before reading.
    ReadIndex(ReadIndexRequest),
}

impl RaftRequest {
    /// The term that the sender is in, or would be in; 0 for a request that belongs to no term.
    pub fn term(&self) -> Term {
        match self {
            RaftRequest::RequestVote(r) => r.term,
            RaftRequest::AppendEntries(r) => r.term,
            RaftRequest::TimeoutNow(r) => r.term,
            RaftRequest::ReadIndex(_) => 0,
        }
    }
}

/// The answer to a [`RaftRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftResponse {
    /// To [`RaftRequest::RequestVote`].
    RequestVote(RequestVoteResponse),
    /// To [`RaftRequest::AppendEntries`].
    AppendEntries(AppendEntriesResponse),
    /// To [`RaftRequest::TimeoutNow`].
    TimeoutNow(TimeoutNowResponse),
    /// To [`RaftRequest::ReadIndex`].
    ReadIndex(ReadIndexResponse),
    /// Any request may be answered with an error instead (`ErrorResponse` on the wire).
    Error(Status),
}

impl RaftResponse {
    /// The term that the responder is in; `None` for an error and for an answer that belongs to no term.
    pub fn term(&self) -> Option<Term> {
        match self {
            RaftResponse::RequestVote(r) => Some(r.term),
            RaftResponse::AppendEntries(r) => Some(r.term),
            RaftResponse::TimeoutNow(r) => Some(r.term),
            RaftResponse::ReadIndex(_) | RaftResponse::Error(_) => None,
        }
    }
}

/// Asks for a vote (`jraft.RequestVoteRequest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVoteRequest {
    /// The term of the election; for a pre-vote the term that the sender *would* use.
    pub term: Term,
    /// Last entry of the sender's log.
    pub last_log: LogId,
    /// Whether this only asks if a vote would be granted.
    pub pre_vote: bool,
    /// The leader itself has asked the sender to campaign: promises to that leader do not bind (thesis §6.4.1, §3.10). An
    /// extension of ringraft, which Java nodes ignore.
    pub transfer: bool,
    /// Extensions that the sender understands in the answer. Java peers ignore them.
    pub extensions: Extensions,
    /// Index of the sender's configuration; 0 for the one that it started with. Travels with [`Extensions::REMOVAL`] only.
    pub conf_index: LogIndex,
}

/// Answers a [`RequestVoteRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVoteResponse {
    /// The responder's term.
    pub term: Term,
    /// Whether the vote (or pre-vote) is given.
    pub granted: bool,
    /// In a pre-vote that a leader refuses: the committed configuration that no longer names the asker, newer than the one that the
    /// asker goes by. Only to peers that announced [`Extensions::REMOVAL`].
    pub removed: Option<LogId>,
}

/// The three shapes of AppendEntries; on the wire only the presence of `data` and of entries tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendKind {
    /// No entries, no `data` field. Answered at once.
    Heartbeat,
    /// No entries, an empty `data` field: asks whether the logs match at `prev_log`.
    Probe,
    /// At least one entry.
    Entries,
}

/// Replicates entries, probes or keeps leadership alive (`jraft.AppendEntriesRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntriesRequest {
    /// Which of the three shapes this is; `Entries` exactly when `entries` is not empty.
    pub kind: AppendKind,
    /// The leader's term.
    pub term: Term,
    /// The entry before the first of `entries`; 0/0 for the start of the log.
    pub prev_log: LogId,
    /// The leader's commit index.
    pub committed_index: LogIndex,
    /// Entries from `prev_log.index + 1` on, contiguous, terms never decreasing.
    pub entries: Vec<Arc<EntryChunk>>,
    /// Extensions that the sender understands in the answer; empty towards and from Java peers' eyes.
    pub extensions: Extensions,
    /// The receiver, whose disk was lost, has caught up with what a quorum of the others confirmed since: from now on it votes and
    /// counts again. Repeats the number with which it said that it is [rejoining](AppendEntriesResponse::rejoining); else 0.
    pub rejoined: u64,
    /// For how long the sender wants the receiver to vote for nobody, in milliseconds from the arrival; 0 for not at all. Only
    /// with [`Extensions::PROMISE`].
    pub promise_wanted: u64,
}

impl AppendEntriesRequest {
    /// Index of the last entry that this message proves to match when it is accepted.
    pub fn last_verified(&self) -> LogIndex {
        self.entries.last().map_or(self.prev_log.index, |c| c.last_index())
    }

    /// Number of entries.
    pub fn entry_count(&self) -> usize {
        self.entries.iter().map(|c| c.len()).sum()
    }

    /// Bytes of entry payload.
    pub fn payload_bytes(&self) -> usize {
        self.entries.iter().map(|c| c.payload().len()).sum()
    }
}

/// Protocol extensions that a ringraft peer announces; Java peers neither send nor read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions(pub u64);

impl Extensions {
    /// No extension.
    pub const NONE: Extensions = Extensions(0);
    /// A rejected append may carry a [`ConflictHint`].
    pub const CONFLICT_HINT: Extensions = Extensions(1);
    /// The sender takes answers of a receiver that has lost its disk for what they are, see
    /// [`AppendEntriesResponse::rejoining`].
    pub const REJOIN: Extensions = Extensions(4);
    /// The sender understands [`AppendEntriesResponse::promised`]. The bit below that of rejoining, 2, belongs to earlier programs,
    /// whose promise did not say for how long it holds; it is neither asked for nor given any more.
    pub const PROMISE: Extensions = Extensions(8);
    /// The sender of a pre-vote understands [`RequestVoteResponse::removed`].
    pub const REMOVAL: Extensions = Extensions(32);

    /// These extensions and those.
    #[must_use]
    pub const fn with(self, other: Extensions) -> Extensions {
        Extensions(self.0 | other.0)
    }

    /// Whether every extension of `other` is announced.
    pub fn contains(self, other: Extensions) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Answers an [`AppendEntriesRequest`] (`jraft.AppendEntriesResponse`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendEntriesResponse {
    /// The responder's term; on success exactly the request's term.
    pub term: Term,
    /// Whether the logs match and the entries are durable.
    pub success: bool,
    /// Last index of the responder's log, for heartbeats, probes and mismatches. Not a promise of durability.
    pub last_log_index: Option<LogIndex>,
    /// Where the leader should probe next; only to peers that announced it.
    pub conflict: Option<ConflictHint>,
    /// For how long from the arrival of this request the responder votes for nobody, unless this leader hands over, in
    /// milliseconds: at most what was wanted, and at most its own election time-out. 0 for no promise. Only to peers that announced
    /// [`Extensions::PROMISE`]. What lease reads stand on.
    pub promised: u64,
    /// Not 0: the responder began on a blank disk under an identity that may have voted and acknowledged before, and its answer
    /// counts in no quorum. Another number in each life of its process. Only to peers that announced [`Extensions::REJOIN`].
    pub rejoining: u64,
    /// Extensions that the responder understands: it is no Java node. Only to peers that announced some.
    pub extensions: Extensions,
}

/// What a follower holds where the leader's previous entry should be (Raft §5.3, last paragraphs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConflictHint {
    /// Term of the follower's entry at `prev_log.index`; 0 when its log ends before.
    pub term: Term,
    /// First index of that term in the follower's log, or one past the end of a log that is too short.
    pub first_index: LogIndex,
}

/// Tells a follower to campaign at once (`jraft.TimeoutNowRequest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutNowRequest {
    /// The leader's term; the receiver must be in it.
    pub term: Term,
}

/// Answers a [`TimeoutNowRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutNowResponse {
    /// The responder's term, one higher than the request's when it campaigns.
    pub term: Term,
    /// Whether it campaigns.
    pub success: bool,
}

/// How a leader makes sure that it still leads before it lets a read pass (SOFAJRaft's `ReadOnlyOption`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadOnlyOption {
    /// A quorum answers a message that was sent after the read arrived (thesis §6.4).
    #[default]
    Safe,
    /// A quorum has promised to elect nobody else for a while (thesis §6.4.1). Rests on clocks that run at about the same rate;
    /// where no lease is held it becomes [`ReadOnlyOption::Safe`].
    LeaseBased,
}

/// Asks a leader up to where to apply before reading (`jraft.ReadIndexRequest`). It belongs to no term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndexRequest {
    /// How the leader shall make sure that it leads.
    pub mode: ReadOnlyOption,
}

/// Answers a [`RaftRequest::ReadIndex`] (`jraft.ReadIndexResponse`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndexResponse {
    /// Whoever has applied up to here reads what was acknowledged before the question was asked.
    pub index: LogIndex,
}
