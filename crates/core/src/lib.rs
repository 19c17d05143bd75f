//! The raft state machine of ringraft, sans I/O: no thread, no clock, no socket, no file, no lock, no async.
//!
//! [`NodeImpl`] takes [`Input`]s and emits [`Effects`]. Time and randomness are arguments, so that the same
//! object runs under production threads and under a deterministic simulator.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod ballot;
mod ballot_box;
mod chunk;
mod effects;
mod electorate;
mod invariants;
mod log_manager;
mod marks;
mod message;
pub mod mutants;
mod node;
mod options;
mod peer;
mod random;
mod replicator;
mod replicator_group;
mod rules;
mod stage;
mod status;
mod timer;
mod transitions;
mod types;
mod vote;

pub use chunk::{ChunkBuilder, ChunkKind, EntryChunk, InvalidChunk};
pub use effects::{
    CallDone, CallFailure, CallOutcome, CallToken, Effects, FsmEvent, HardState, Input, LogOp, LogRead,
    MembershipChange, Reply, ReplyToken, Send, Ticket,
};
pub use marks::{Mark, Marks};
pub use message::{
    AppendEntriesRequest, AppendEntriesResponse, AppendKind, ConflictHint, Extensions, RaftRequest,
    RaftResponse, ReadIndexRequest, ReadIndexResponse, ReadOnlyOption, RequestVoteRequest,
    RequestVoteResponse, TimeoutNowRequest, TimeoutNowResponse,
};
pub use mutants::Mutant;
pub use node::{
    Members, NodeDescription, NodeImpl, NodeState, ProposeError, Proposed, ReplicatorDescription,
};
pub use options::{CoreOptions, DamagedRange, RecoveredState};
pub use peer::{
    Configuration, ConfigurationEntry, InvalidConfiguration, InvalidPeerId, PRIORITY_DISABLED, PeerId,
};
pub use status::{RaftError, Status};
pub use types::{GroupId, InvalidGroupId, LogId, LogIndex, Term, Time};
pub use vote::Vote;
