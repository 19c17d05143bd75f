//! Settings of a node, with SOFAJRaft's names and defaults, and the rules that they must keep.

mod error;

use std::hash::{DefaultHasher, Hash, Hasher};

use ringraft_core::{Configuration, CoreOptions, GroupId, PRIORITY_DISABLED, PeerId, ReadOnlyOption};

pub use error::OptionsError;

/// What happens to a task that finds the apply ring full (SOFAJRaft's `ApplyTaskMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyTaskMode {
    /// The caller gets `Busy` at once.
    #[default]
    NonBlocking,
    /// The caller waits for room in the ring; the bounds of the group behind it refuse with `Busy` all the same
    /// ([`Node::apply`](crate::Node::apply)). On a thread of the host itself (state machines, completions, processors) this is
    /// [`NonBlocking`](ApplyTaskMode::NonBlocking) all the same: waiting there could wait for itself.
    Blocking,
}

/// Settings of one group's pipeline (SOFAJRaft's `RaftOptions`).
///
/// Of SOFAJRaft's fields these have no meaning here: `applyBatch`, `disruptorBufferSize`, `maxAppendBufferSize` and
/// `disruptorPublishEventWaitTimeoutSecs` (rings and batches belong to the host: [`HostOptions`](crate::HostOptions));
/// `sync` and `syncMeta` (always durable), `replicatorPipeline` (always on), `openStatistics` (no RocksDB),
/// `enableLogEntryChecksum` (the store always checks), `startupOldStorage`, `fileCheckHole`. `maxByteCountPerRpc` arrives
/// with snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftOptions {
    /// Entries in one AppendEntries at most: 1..=65536 (1024).
    pub max_entries_size: usize,
    /// Bytes of payload after which an AppendEntries takes no further entry, at least 1 (512 KiB). One large entry may
    /// exceed it.
    pub max_body_size: usize,
    /// Random spread on top of election and vote time-outs, in milliseconds, at least 1 (1000).
    pub max_election_delay_ms: u64,
    /// Heartbeats an election time-out, at least 2 (10).
    pub election_heartbeat_factor: u64,
    /// Unanswered AppendEntries per peer at most, at least 1 (256).
    pub max_replicator_inflight_msgs: usize,
    /// Unanswered payload bytes per peer at most, at least [`max_body_size`](RaftOptions::max_body_size) (16 MiB).
    pub max_replicator_inflight_bytes: usize,
    /// A candidate whose vote round timed out steps down and asks for pre-votes again (true). When off it campaigns again at once, unless
    /// somebody has refused its vote.
    pub step_down_when_vote_timedout: bool,
    /// Entries that may wait for the disk before tasks are refused as busy, at least
    /// [`max_entries_size`](RaftOptions::max_entries_size) (65536).
    pub max_unstable_entries: u64,
    /// Bytes that may wait for the disk, at least [`max_body_size`](RaftOptions::max_body_size) (64 MiB).
    pub max_unstable_bytes: usize,
    /// Entries that may be committed and not applied before tasks are refused as busy, at least
    /// [`max_entries_size`](RaftOptions::max_entries_size) (262144).
    pub max_unapplied_entries: u64,
    /// Bytes that may be handed to the state machine and not applied, at least [`max_body_size`](RaftOptions::max_body_size) (64 MiB).
    /// Committed entries beyond it wait in the log, on disk, so that a long log is applied again in bounded memory. The entry that
    /// crosses the bound still goes. All groups of a state-machine worker share
    /// [`HostOptions::max_unapplied_bytes`](crate::HostOptions::max_unapplied_bytes) beside it.
    pub max_unapplied_bytes: usize,
    /// Bytes of applied entries kept in memory for peers that lag (SOFAJRaft's `maxLogsInMemoryBytes`; 1 MiB).
    pub max_logs_in_memory_bytes: usize,
    /// `LeaseBased` has voters keep the promise that leases stand on, and lets a leader answer by its lease the reads that ask for it
    /// (safe). All voters of a group must agree on it; where one does not, lease reads become quorum reads. A voter keeps the longest promise
    /// that it ever gave at each of its starts, whatever this says by then.
    pub read_only_options: ReadOnlyOption,
    /// A follower whose state machine is more entries behind than this refuses reads at once (off).
    pub max_read_index_lag: Option<u64>,
    /// How long a read may wait for its quorum, its leader and the log, in milliseconds: 1..=3600000 (SOFAJRaft's
    /// `jraft.read-index.timeout`; 2000).
    pub read_index_timeout_ms: u64,
    /// Reads that may wait at most before they are refused as busy: 1..=16777216 (65536).
    pub max_pending_reads: usize,
}

impl Default for RaftOptions {
    fn default() -> RaftOptions {
        RaftOptions {
            max_entries_size: 1024,
            max_body_size: 512 * 1024,
            max_election_delay_ms: 1000,
            election_heartbeat_factor: 10,
            max_replicator_inflight_msgs: 256,
            max_replicator_inflight_bytes: 16 << 20,
            step_down_when_vote_timedout: true,
            max_unstable_entries: 65_536,
            max_unstable_bytes: 64 << 20,
            max_unapplied_entries: 262_144,
            max_unapplied_bytes: 64 << 20,
            max_logs_in_memory_bytes: 1 << 20,
            read_only_options: ReadOnlyOption::Safe,
            max_read_index_lag: None,
            read_index_timeout_ms: 2000,
            max_pending_reads: 65_536,
        }
    }
}

/// Settings of one node (SOFAJRaft's `NodeOptions`).
///
/// Of SOFAJRaft's fields these have no meaning here: the timer and thread-pool switches (`shared*Timer`, `timerPoolSize`,
/// `cliRpcThreadPoolSize`, `raftRpcThreadPoolSize`: the host has a fixed set of threads), `logUri` and `raftMetaUri` (one store
/// a host), `serviceFactory` (see [`StoreOptions`](crate::StoreOptions)), `enableMetrics` (a `metrics` recorder is
/// installed or it is not), `fsm` (given to [`RaftGroupService`](crate::RaftGroupService)). The snapshot fields arrive with snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// A follower's patience in milliseconds: 10..=3600000 (1000). Base of heartbeats, lease and step-down.
    pub election_timeout_ms: u64,
    /// Share of the election time-out for which an answered peer counts as alive, in percent: 1..=100 (90).
    pub leader_lease_time_ratio: u64,
    /// Members of the group when its log is empty; every one of them must be started with the same. Empty means that this replica is
    /// not one of the first: it waits until a leader adds it. On a store that was taken into use with
    /// [`StartMode::Rejoin`](crate::StartMode::Rejoin) it counts as empty.
    pub initial_conf: Configuration,
    /// Which creation of the group's name is meant: a number from whoever creates groups, higher for each, and the same at every member. A
    /// name whose group was removed from this host starts only with a higher one, and peers with another are not heard. 0 where groups
    /// are not numbered, and so in groups with Java members: then whatever the store holds under the name is meant (0).
    pub creation: u64,
    /// How long an AppendEntries may stay unanswered, in milliseconds: 10..=3600000 (SOFAJRaft's
    /// `RpcOptions.rpcDefaultTimeout`; 5000).
    pub rpc_default_timeout_ms: u64,
    /// What happens to a task that finds the apply ring full (non-blocking).
    pub apply_task_mode: ApplyTaskMode,
    /// Election priority: -1 takes no part in priority election, 0 is never elected, larger is preferred (-1, which leaves the one in
    /// the server id). Others know it from the configuration, where it must stand too: `ip:port::priority`. What the configuration in
    /// force says of this member goes before this option, so that a change of the peers can change it.
    pub election_priority: i32,
    /// Least step by which a node lowers the priority that it waits for, after two election time-outs without a leader: at least
    /// 10 (10).
    pub decay_priority_gap: i32,
    /// How close to the end of the log a new voter must be before it gets its vote, in entries, at least 1 (1000).
    pub catchup_margin: u64,
    /// A leader whose oldest write is under way for longer hands over, and no node campaigns, in milliseconds: 10..=3600000, or 0
    /// for four election time-outs (0).
    pub disk_stall_timeout_ms: u64,
    /// Refuse every request of a [`CliService`](crate::CliService) (false).
    pub disable_cli: bool,
    /// The group's pipeline.
    pub raft_options: RaftOptions,
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        NodeOptions {
            election_timeout_ms: 1000,
            leader_lease_time_ratio: 90,
            initial_conf: Configuration::default(),
            creation: 0,
            rpc_default_timeout_ms: 5000,
            apply_task_mode: ApplyTaskMode::NonBlocking,
            election_priority: PRIORITY_DISABLED,
            decay_priority_gap: 10,
            catchup_margin: 1000,
            disk_stall_timeout_ms: 0,
            disable_cli: false,
            raft_options: RaftOptions::default(),
        }
    }
}

const MAX_BODY: usize = 256 << 20;
/// What an entry takes in a message beside its payload, at most: tags, lengths, term, type, checksum.
const ENTRY_META: usize = 48;
const HOUR_MS: u64 = 3_600_000;

impl NodeOptions {
    /// Options with this initial configuration and the defaults otherwise.
    pub fn with_initial_conf(initial_conf: Configuration) -> NodeOptions {
        NodeOptions { initial_conf, ..NodeOptions::default() }
    }

    /// Heartbeat period in milliseconds: the election time-out over the factor, at least 10.
    pub fn heartbeat_ms(&self) -> u64 {
        (self.election_timeout_ms / self.raft_options.election_heartbeat_factor.max(1)).max(10)
    }

    /// Checks every rule; SOFAJRaft's defaults pass.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let raft = &self.raft_options;
        if !(10..=HOUR_MS).contains(&self.election_timeout_ms) {
            return Err(OptionsError::ElectionTimeout(self.election_timeout_ms));
        }
        if !(1..=HOUR_MS).contains(&raft.max_election_delay_ms) {
            return Err(OptionsError::ElectionDelay(raft.max_election_delay_ms));
        }
        if raft.election_heartbeat_factor < 2 {
            return Err(OptionsError::HeartbeatFactor(raft.election_heartbeat_factor));
        }
        let (heartbeat_ms, election_ms) = (self.heartbeat_ms(), self.election_timeout_ms);
        if heartbeat_ms >= election_ms {
            return Err(OptionsError::HeartbeatPeriod { heartbeat_ms, election_ms });
        }
        if !(1..=100).contains(&self.leader_lease_time_ratio) {
            return Err(OptionsError::LeaseRatio(self.leader_lease_time_ratio));
        }
        if self.election_priority < PRIORITY_DISABLED {
            return Err(OptionsError::Priority(self.election_priority));
        }
        if self.decay_priority_gap < 10 {
            return Err(OptionsError::DecayPriorityGap(self.decay_priority_gap));
        }
        if self.catchup_margin == 0 {
            return Err(OptionsError::CatchupMargin);
        }
        if self.disk_stall_timeout_ms != 0 && !(10..=HOUR_MS).contains(&self.disk_stall_timeout_ms) {
            return Err(OptionsError::DiskStallTimeout(self.disk_stall_timeout_ms));
        }
        if raft.read_only_options == ReadOnlyOption::LeaseBased && self.leader_lease_time_ratio > 95 {
            return Err(OptionsError::LeaseMargin(self.leader_lease_time_ratio));
        }
        if !self.initial_conf.is_empty() {
            self.initial_conf.validate()?;
        }
        if !(10..=HOUR_MS).contains(&self.rpc_default_timeout_ms) {
            return Err(OptionsError::RpcTimeout(self.rpc_default_timeout_ms));
        }
        raft.validate()
    }

    /// As [`validate`](NodeOptions::validate), with the rules for the server id.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate_for(&self, server_id: &PeerId) -> Result<(), OptionsError> {
        if server_id.is_empty() || server_id.ip().is_empty() {
            return Err(OptionsError::EmptyServerId(server_id.clone()));
        }
        if server_id.port() == 0 {
            return Err(OptionsError::ServerIdPort(server_id.clone()));
        }
        let (option, of_id) = (self.election_priority, server_id.priority());
        if option != PRIORITY_DISABLED && of_id != PRIORITY_DISABLED && option != of_id {
            return Err(OptionsError::PriorityConflict { option, server: server_id.clone() });
        }
        self.validate()
    }

    /// The server id with the priority that these options give it.
    pub(crate) fn with_priority(&self, server_id: PeerId) -> PeerId {
        match self.election_priority {
            PRIORITY_DISABLED => server_id,
            priority => server_id.with_priority(priority),
        }
    }

    /// What the core must know.
    pub fn to_core(&self, group_id: GroupId, server_id: PeerId) -> CoreOptions {
        let raft = &self.raft_options;
        CoreOptions {
            election_timeout_ms: self.election_timeout_ms,
            max_election_delay_ms: raft.max_election_delay_ms,
            election_heartbeat_factor: raft.election_heartbeat_factor,
            leader_lease_time_ratio: self.leader_lease_time_ratio,
            step_down_when_vote_timedout: raft.step_down_when_vote_timedout,
            max_entries_size: raft.max_entries_size,
            max_body_size: raft.max_body_size,
            max_replicator_inflight_msgs: raft.max_replicator_inflight_msgs,
            max_replicator_inflight_bytes: raft.max_replicator_inflight_bytes,
            rpc_default_timeout_ms: self.rpc_default_timeout_ms,
            max_unstable_entries: raft.max_unstable_entries,
            max_unstable_bytes: raft.max_unstable_bytes,
            max_unapplied_entries: raft.max_unapplied_entries,
            max_unapplied_bytes: raft.max_unapplied_bytes,
            max_tail_bytes: raft.max_logs_in_memory_bytes,
            lease_reads: raft.read_only_options == ReadOnlyOption::LeaseBased,
            read_index_timeout_ms: raft.read_index_timeout_ms,
            max_pending_reads: raft.max_pending_reads,
            max_read_index_lag: raft.max_read_index_lag,
            catchup_margin: self.catchup_margin,
            decay_priority_gap: self.decay_priority_gap,
            disk_stall_timeout_ms: self.disk_stall_timeout_ms,
            successor: successor(&group_id),
            ..CoreOptions::new(group_id, self.with_priority(server_id), self.initial_conf.clone())
        }
    }
}

/// A number that differs from group to group, so that a host which stops gives its groups to different peers and not all to one.
fn successor(group_id: &GroupId) -> u64 {
    let mut hasher = DefaultHasher::new();
    group_id.as_str().hash(&mut hasher);
    hasher.finish()
}

impl RaftOptions {
    /// Checks that the largest message passes the frames of a host whose tasks have at most `task` bytes. The entry that crosses
    /// `max_body_size` still goes along.
    pub(crate) fn validate_frame(&self, task: usize, frame: usize) -> Result<(), OptionsError> {
        let (message, body) = (self.max_entries_size, self.max_body_size);
        let bytes = body + task + message * ENTRY_META;
        if bytes > frame {
            return Err(OptionsError::BodyOverFrame { message, body, bytes, frame });
        }
        Ok(())
    }

    /// Checks every rule; SOFAJRaft's defaults pass.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let (message, body) = (self.max_entries_size, self.max_body_size);
        if !(1..=65_536).contains(&message) {
            return Err(OptionsError::MaxEntries(message));
        }
        if !(1..=MAX_BODY).contains(&body) {
            return Err(OptionsError::MaxBody(body));
        }
        if !(1..=65_536).contains(&self.max_replicator_inflight_msgs) {
            return Err(OptionsError::InflightMsgs(self.max_replicator_inflight_msgs));
        }
        if self.max_replicator_inflight_bytes < body {
            return Err(OptionsError::InflightBytes { bytes: self.max_replicator_inflight_bytes, body });
        }
        if self.max_unstable_entries < message as u64 {
            return Err(OptionsError::UnstableEntries { entries: self.max_unstable_entries, message });
        }
        if self.max_unstable_bytes < body {
            return Err(OptionsError::UnstableBytes { bytes: self.max_unstable_bytes, body });
        }
        if self.max_unapplied_entries < message as u64 {
            return Err(OptionsError::UnappliedEntries { entries: self.max_unapplied_entries, message });
        }
        if self.max_unapplied_bytes < body {
            return Err(OptionsError::UnappliedBytes { bytes: self.max_unapplied_bytes, body });
        }
        if !(1..=HOUR_MS).contains(&self.read_index_timeout_ms) {
            return Err(OptionsError::ReadIndexTimeout(self.read_index_timeout_ms));
        }
        if !(1..=1 << 24).contains(&self.max_pending_reads) {
            return Err(OptionsError::PendingReads(self.max_pending_reads));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
