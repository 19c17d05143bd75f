//! A node's state for people and status pages (SOFAJRaft's `describe`).

use std::fmt;

use crate::node::{NodeImpl, NodeState};
use crate::peer::PeerId;
use crate::replicator::ReplicatorState;
use crate::status::Status;
use crate::types::{GroupId, LogId, LogIndex, Term, Time};
use crate::vote::Vote;

/// A snapshot of a node's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDescription {
    /// The group.
    pub group_id: GroupId,
    /// Creation number of the group; 0 for none, and from the core, which knows none: who runs the node adds it.
    pub creation: u64,
    /// The replica.
    pub server_id: PeerId,
    /// Role or life state.
    pub state: NodeState,
    /// Current term.
    pub term: Term,
    /// Whom it voted for in this term.
    pub vote: Vote,
    /// The leader, when known.
    pub leader_id: Option<PeerId>,
    /// First index of the log.
    pub first_index: LogIndex,
    /// Last accepted entry.
    pub last_log_id: LogId,
    /// Last durable index.
    pub stable_index: LogIndex,
    /// Commit index.
    pub committed_index: LogIndex,
    /// Last applied index.
    pub applied_index: LogIndex,
    /// Configuration in force, as text; `new | old` while joint.
    pub configuration: String,
    /// The disk was lost, and the node has not caught up since.
    pub rejoining: bool,
    /// The committed configuration that no longer names the node, when it knows of one.
    pub removed_at: Option<LogId>,
    /// How far a change of the members is; only on the leader that carries it out.
    pub change: Option<String>,
    /// Reads that wait.
    pub pending_reads: usize,
    /// Entries kept in memory.
    pub tail_entries: u64,
    /// Bytes kept in memory.
    pub tail_bytes: usize,
    /// Why the node failed.
    pub last_error: Option<Status>,
    /// One line a peer; empty unless leader.
    pub replicators: Vec<ReplicatorDescription>,
}

/// A leader's view of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicatorDescription {
    /// The peer.
    pub peer: PeerId,
    /// `Probe`, `Replicate` or `Snapshot`; with `, blocked` while pausing after an error.
    pub state: String,
    /// First index that was not sent.
    pub next_index: LogIndex,
    /// Last index that the peer holds durably.
    pub match_index: LogIndex,
    /// Unanswered requests.
    pub inflights: usize,
    /// Errors since the last answer.
    pub consecutive_errors: u32,
    /// It has lost its disk and not caught up since: it counts in no quorum.
    pub rejoining: bool,
}

/// The members as their leader sees them (SOFAJRaft's `listPeers`, `listAlivePeers`, `listLearners`, `listAliveLearners`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Voters; the new ones while members are being changed.
    pub peers: Vec<PeerId>,
    /// Learners.
    pub learners: Vec<PeerId>,
    /// Members that have answered something that was sent within the leader's lease, and the leader itself.
    pub alive: Vec<PeerId>,
}

impl Members {
    /// Voters that answer.
    pub fn alive_peers(&self) -> impl Iterator<Item = &PeerId> {
        self.peers.iter().filter(|peer| self.alive.contains(peer))
    }

    /// Learners that answer.
    pub fn alive_learners(&self) -> impl Iterator<Item = &PeerId> {
        self.learners.iter().filter(|peer| self.alive.contains(peer))
    }
}

impl NodeImpl {
    /// On a leader: peers that have lost their disks and not caught up since, as far as it knows. They count in no quorum.
    pub fn rejoining_peers(&self) -> impl Iterator<Item = &PeerId> {
        self.role.replicators().iter().filter(|r| r.rejoining.is_some()).map(|r| &r.peer)
    }

    /// Who the members are, and who of them answers.
    ///
    /// # Errors
    /// `EPERM` unless this node leads: nobody else knows.
    pub fn members(&self, now: Time) -> Result<Members, Status> {
        if !self.role.leads() {
            return Err(self.not_leader());
        }
        let conf = &self.configuration().conf;
        let lease = self.options.lease_micros();
        let alive = |peer: &&PeerId| {
            **peer == self.options.server_id
                || self.role.replicators().get(peer).is_some_and(|r| {
                    r.acknowledged.is_some() && now.since(r.last_rpc_send_timestamp) <= lease
                })
        };
        Ok(Members {
            peers: conf.peers.clone(),
            learners: conf.learners.clone(),
            alive: conf.peers.iter().chain(&conf.learners).filter(alive).cloned().collect(),
        })
    }

    /// The node's state at this moment.
    pub fn describe(&self) -> NodeDescription {
        let conf = self.configuration();
        let configuration = if conf.is_joint() {
            format!("{} | {}", conf.conf, conf.old_conf)
        } else {
            conf.conf.to_string()
        };
        let replicators = self.role.replicators().iter().map(|r| {
            let state = match r.state() {
                ReplicatorState::Probe => "Probe",
                ReplicatorState::Replicate => "Replicate",
                ReplicatorState::Snapshot => "Snapshot",
            };
            ReplicatorDescription {
                peer: r.peer.clone(),
                state: format!("{state}{}", if r.is_blocked() { ", blocked" } else { "" }),
                next_index: r.next_index,
                match_index: r.match_index,
                inflights: r.inflight_count(),
                consecutive_errors: r.consecutive_errors,
                rejoining: r.rejoining.is_some(),
            }
        });
        NodeDescription {
            group_id: self.options.group_id.clone(),
            creation: 0,
            server_id: self.options.server_id.clone(),
            state: self.state(),
            term: self.term(),
            vote: self.hard_state.vote.clone(),
            leader_id: self.leader_id().cloned(),
            first_index: self.log.first_index(),
            last_log_id: self.log.last_id(),
            stable_index: self.log.stable_index(),
            committed_index: self.committed_index(),
            applied_index: self.applied,
            configuration,
            rejoining: self.rejoining,
            removed_at: self.removed_at(),
            change: self.role.leadership().and_then(|leader| leader.change.describe()),
            pending_reads: self.reads.len(),
            tail_entries: self.log.tail_entries(),
            tail_bytes: self.log.tail_bytes(),
            last_error: self.last_error.clone(),
            replicators: replicators.collect(),
        }
    }
}

impl fmt::Display for NodeDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |peer: &Option<PeerId>| peer.as_ref().map_or("-".to_owned(), ToString::to_string);
        writeln!(
            f,
            "{} {} {} term={} vote={} leader={}",
            self.group_id,
            self.server_id,
            self.state,
            self.term,
            self.vote,
            name(&self.leader_id)
        )?;
        writeln!(
            f,
            "  log {}..={} stable={} committed={} applied={} memory={}/{}B",
            self.first_index,
            self.last_log_id,
            self.stable_index,
            self.committed_index,
            self.applied_index,
            self.tail_entries,
            self.tail_bytes
        )?;
        write!(f, "  conf {}", self.configuration)?;
        if self.creation > 0 {
            write!(f, "\n  creation number {}", self.creation)?;
        }
        if self.rejoining {
            write!(f, "\n  rejoining: neither votes nor counts")?;
        }
        if let Some(at) = self.removed_at {
            write!(f, "\n  removed at {at}: no member any more, asks for no votes")?;
        }
        if let Some(change) = &self.change {
            write!(f, "\n  change {change}")?;
        }
        if self.pending_reads > 0 {
            write!(f, "\n  reads {}", self.pending_reads)?;
        }
        for r in &self.replicators {
            write!(
                f,
                "\n  peer {} {} next={} match={} inflight={} errors={}",
                r.peer, r.state, r.next_index, r.match_index, r.inflights, r.consecutive_errors
            )?;
            if r.rejoining {
                write!(f, " rejoining")?;
            }
        }
        if let Some(error) = &self.last_error {
            write!(f, "\n  error {error}")?;
        }
        Ok(())
    }
}
