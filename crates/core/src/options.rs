//! What a node must be told at start.

use std::fmt;

use crate::effects::HardState;
use crate::peer::{Configuration, ConfigurationEntry, PeerId};
use crate::rules;
use crate::types::{GroupId, LogId, LogIndex, Term};

/// Settings of one node. Names and defaults are SOFAJRaft's (`NodeOptions`, `RaftOptions`) where it has them.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// The group.
    pub group_id: GroupId,
    /// This replica, as it stands in the configuration.
    pub server_id: PeerId,
    /// A blank disk is that of a member which lost its own, or of one that was never there: no vote and no count in a quorum
    /// until it has caught up with what a quorum of the others confirmed (false). Without meaning once the disk holds anything.
    pub rejoin: bool,
    /// Members when the log holds no configuration yet.
    pub initial_conf: Configuration,
    /// A follower's patience, in milliseconds (1000).
    pub election_timeout_ms: u64,
    /// Random spread on top of election and vote time-outs, in milliseconds (1000).
    pub max_election_delay_ms: u64,
    /// Heartbeats an election time-out (10).
    pub election_heartbeat_factor: u64,
    /// Share of the election time-out for which an answered peer counts as alive, in percent (90).
    pub leader_lease_time_ratio: u64,
    /// Voters give the promise that lease reads stand on, and a leader may answer reads by its lease (false). Where a voter does
    /// not, lease reads become quorum reads; one with a shorter election time-out makes the lease as much shorter.
    pub lease_reads: bool,
    /// How long a read may wait for its quorum, its leader and the log, in milliseconds (2000).
    pub read_index_timeout_ms: u64,
    /// Reads that may wait at most (65536); beyond it they are refused as busy.
    pub max_pending_reads: usize,
    /// A follower whose state machine is more entries behind than this refuses reads at once (off).
    pub max_read_index_lag: Option<u64>,
    /// How close to the end of the log a new voter must be before it gets its vote, in entries (1000).
    pub catchup_margin: u64,
    /// Least step by which a node lowers the priority that it waits for, after two election time-outs without a leader (10).
    pub decay_priority_gap: i32,
    /// A leader whose oldest write is under way for longer hands over, and no node campaigns, in milliseconds; 0 means four
    /// election time-outs (0).
    pub disk_stall_timeout_ms: u64,
    /// A candidate whose vote round timed out steps down and asks for pre-votes again (true). When off it campaigns again at once, unless
    /// somebody has refused its vote.
    pub step_down_when_vote_timedout: bool,
    /// Entries in one AppendEntries at most (1024).
    pub max_entries_size: usize,
    /// Payload bytes of one AppendEntries after which no entry is added (512 KiB).
    pub max_body_size: usize,
    /// Payload bytes that the log store takes in one entry (no bound). A request with a larger one is refused before it moves anything: who
    /// wrote it down would lose the group to it.
    pub max_entry_bytes: usize,
    /// Unanswered AppendEntries per peer at most (256).
    pub max_replicator_inflight_msgs: usize,
    /// Unanswered payload bytes per peer at most (16 MiB).
    pub max_replicator_inflight_bytes: usize,
    /// How long an AppendEntries or probe may stay unanswered, in milliseconds (5000).
    pub rpc_default_timeout_ms: u64,
    /// Entries that may wait for the disk (65536); beyond it proposals and appends are refused as busy.
    pub max_unstable_entries: u64,
    /// Bytes that may wait for the disk (64 MiB).
    pub max_unstable_bytes: usize,
    /// Entries that may be committed but not applied (262144); beyond it proposals are refused as busy.
    pub max_unapplied_entries: u64,
    /// Bytes that may be handed to the state machine and not applied (64 MiB); committed entries beyond it wait in the log. The entry that
    /// crosses the bound still goes.
    pub max_unapplied_bytes: usize,
    /// Bytes of applied entries kept in memory for peers that lag (1 MiB); nothing is kept when no peer lags.
    pub max_tail_bytes: usize,
    /// Which of the peers that are equally fit gets the leadership that this node gives away unasked (0, the last in the order of the
    /// members; 1 the first, and so on round). A host that gives each of its groups another number spreads them when it stops.
    pub successor: u64,
}

impl CoreOptions {
    /// Settings with the defaults in parentheses above.
    pub fn new(group_id: GroupId, server_id: PeerId, initial_conf: Configuration) -> CoreOptions {
        CoreOptions {
            group_id,
            server_id,
            initial_conf,
            rejoin: false,
            election_timeout_ms: 1000,
            max_election_delay_ms: 1000,
            election_heartbeat_factor: 10,
            leader_lease_time_ratio: 90,
            lease_reads: false,
            read_index_timeout_ms: 2000,
            max_pending_reads: 65_536,
            max_read_index_lag: None,
            catchup_margin: 1000,
            decay_priority_gap: 10,
            disk_stall_timeout_ms: 0,
            step_down_when_vote_timedout: true,
            max_entries_size: 1024,
            max_body_size: 512 * 1024,
            max_entry_bytes: usize::MAX,
            max_replicator_inflight_msgs: 256,
            max_replicator_inflight_bytes: 16 << 20,
            rpc_default_timeout_ms: 5000,
            max_unstable_entries: 65_536,
            max_unstable_bytes: 64 << 20,
            max_unapplied_entries: 262_144,
            max_unapplied_bytes: 64 << 20,
            max_tail_bytes: 1 << 20,
            successor: 0,
        }
    }

    /// Checks what the node could not work with: a bound of zero would stop it, or send it round for ever.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let positive = [
            ("election_timeout_ms", self.election_timeout_ms),
            ("max_election_delay_ms", self.max_election_delay_ms),
            ("election_heartbeat_factor", self.election_heartbeat_factor),
            ("leader_lease_time_ratio", self.leader_lease_time_ratio),
            ("rpc_default_timeout_ms", self.rpc_default_timeout_ms),
            ("read_index_timeout_ms", self.read_index_timeout_ms),
            ("max_pending_reads", self.max_pending_reads as u64),
            ("max_entries_size", self.max_entries_size as u64),
            ("max_body_size", self.max_body_size as u64),
            ("max_replicator_inflight_msgs", self.max_replicator_inflight_msgs as u64),
            ("max_replicator_inflight_bytes", self.max_replicator_inflight_bytes as u64),
            ("max_unstable_entries", self.max_unstable_entries),
            ("max_unstable_bytes", self.max_unstable_bytes as u64),
            ("max_unapplied_entries", self.max_unapplied_entries),
            ("max_unapplied_bytes", self.max_unapplied_bytes as u64),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("group {}: {name} is 0, it must be at least 1", self.group_id));
        }
        if self.lease_reads && self.leader_lease_time_ratio > 95 {
            return Err(format!(
                "group {}: lease reads need a leader_lease_time_ratio of at most 95 percent, it is {}: the rest is the margin \
                 for clocks that run at different rates",
                self.group_id, self.leader_lease_time_ratio
            ));
        }
        Ok(())
    }

    /// How long a write may be under way before the disk counts as stalled, in milliseconds.
    pub fn disk_stall_ms(&self) -> u64 {
        match self.disk_stall_timeout_ms {
            0 => self.election_timeout_ms.saturating_mul(4),
            timeout => timeout,
        }
    }

    /// How long a configuration that a leader has logged may stay uncommitted before who asked for it is told, in milliseconds: an election
    /// time-out to get to the members, and what a disk may take that is not stalled.
    pub(crate) fn change_step_ms(&self) -> u64 {
        self.election_timeout_ms.saturating_add(self.disk_stall_ms())
    }

    /// For how long after a message was sent its answer proves that the peer is there, in microseconds.
    pub(crate) fn lease_micros(&self) -> u64 {
        // A percentage of milliseconds: times 1000, over 100.
        self.election_timeout_ms * 10 * self.leader_lease_time_ratio
    }

    /// For how long after a message was sent the leader may rely on the promise of `promised_ms` in its answer, in microseconds.
    pub(crate) fn lease_by_promise(&self, promised_ms: u64) -> u64 {
        let share = promised_ms.saturating_mul(10).saturating_mul(self.leader_lease_time_ratio);
        rules::reads::lease_by_promise(self.lease_micros(), share)
    }

    /// How long a heartbeat may stay unanswered before the next one goes out, in milliseconds: half the election time-out.
    pub(crate) fn heartbeat_timeout_ms(&self) -> u64 {
        self.election_timeout_ms / 2
    }

    /// Heartbeat period in milliseconds: the election time-out over the factor, at least 10.
    pub fn heartbeat_ms(&self) -> u64 {
        (self.election_timeout_ms / self.election_heartbeat_factor.max(1)).max(10)
    }
}

/// What the log store knows of a group when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredState {
    /// Term and vote.
    pub hard_state: HardState,
    /// The entry before the first: 0/0, or the last one that a snapshot covers.
    pub before_first: LogId,
    /// Last durable index; `before_first.index` when the log is empty.
    pub last_index: LogIndex,
    /// First index of each stretch of equal terms, ascending in both; covers every entry of the log.
    pub terms: Vec<(LogIndex, Term)>,
    /// Every configuration entry of the log, ascending.
    pub configurations: Vec<ConfigurationEntry>,
    /// The configuration in force at `before_first`, when an entry that is gone set it.
    pub conf_at_start: Option<ConfigurationEntry>,
    /// The largest promise to vote for nobody that the node ever gave, in milliseconds; 0 for none.
    pub promised_ms: u64,
    /// The committed configuration that no longer names the node, as it learned of it; 0/0 for none.
    pub member_removed: LogId,
    /// Entries that the disk has damaged, with the reason. The node must not take part until its log is dropped or repaired.
    pub damaged: Vec<DamagedRange>,
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            LogIndex::MAX => write!(f, "the log from entry {} on", self.first)?,
            last => write!(f, "entries {}..={last}", self.first)?,
        }
        write!(f, " cannot be read back: {}", self.what)
    }
}

/// Entries of a group that cannot be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// First damaged index.
    pub first: LogIndex,
    /// Last damaged index.
    pub last: LogIndex,
    /// What is wrong, and in which file.
    pub what: String,
}
