//! Settings of a node, with SOFAJRaft's names and defaults, and the rules that they must keep.

use ringraft_core::{
    Configuration, CoreOptions, GroupId, InvalidConfiguration, PRIORITY_DISABLED, PeerId, ReadOnlyOption,
};

/// What happens to a task that finds the apply ring full (SOFAJRaft's `ApplyTaskMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyTaskMode {
    /// The caller gets `Busy` at once.
    #[default]
    NonBlocking,
    /// The caller waits for room. On a thread of the host itself (state machines, completions, processors) this is
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
    /// Bytes of applied entries kept in memory for peers that lag (SOFAJRaft's `maxLogsInMemoryBytes`; 1 MiB).
    pub max_logs_in_memory_bytes: usize,
    /// `LeaseBased` has voters keep the promise that leases stand on, and lets a leader answer by its lease the reads that ask for it
    /// (safe). All voters of a group must agree on it; where one does not, lease reads become quorum reads.
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
    /// How long an AppendEntries may stay unanswered, in milliseconds: 10..=3600000 (SOFAJRaft's
    /// `RpcOptions.rpcDefaultTimeout`; 5000).
    pub rpc_default_timeout_ms: u64,
    /// What happens to a task that finds the apply ring full (non-blocking).
    pub apply_task_mode: ApplyTaskMode,
    /// Election priority: -1 takes no part in priority election, 0 is never elected, larger is preferred (-1, which leaves the one in
    /// the server id). Others know it from the configuration, where it must stand too: `ip:port::priority`.
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

/// Which rule a set of options breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The server id stands for nobody.
    #[error("server id {0} stands for nobody; give the ip:port under which the other members reach this one")]
    EmptyServerId(PeerId),
    /// Port 0 cannot be reached.
    #[error("server id {0} has port 0; give the port that the other members connect to")]
    ServerIdPort(PeerId),
    /// Too short or too long.
    #[error("election_timeout_ms is {0}; it must be between 10 and 3600000")]
    ElectionTimeout(u64),
    /// Elections would collide for ever.
    #[error(
        "max_election_delay_ms is {0}; it must be between 1 and 3600000, or elections collide again and again"
    )]
    ElectionDelay(u64),
    /// A follower must hear more than one heartbeat before it loses patience.
    #[error(
        "election_heartbeat_factor is {0}; it must be at least 2, so that one lost heartbeat starts no election"
    )]
    HeartbeatFactor(u64),
    /// The heartbeat period (election time-out over factor, at least 10 ms) must be below the election time-out.
    #[error(
        "the heartbeat period of {heartbeat_ms} ms is not below the election time-out of {election_ms} ms; raise election_timeout_ms"
    )]
    HeartbeatPeriod {
        /// The period in milliseconds.
        heartbeat_ms: u64,
        /// The election time-out in milliseconds.
        election_ms: u64,
    },
    /// A lease longer than the election time-out is no lease.
    #[error("leader_lease_time_ratio is {0}; it must be between 1 and 100 percent")]
    LeaseRatio(u64),
    /// Below what means "disabled".
    #[error(
        "election_priority is {0}; it must be -1 (disabled), 0 (never elected) or more (larger is preferred)"
    )]
    Priority(i32),
    /// The server id says something else.
    #[error("election_priority is {option}, but server id {server} says {}; leave one of them out", server.priority())]
    PriorityConflict {
        /// The option.
        option: i32,
        /// The server id.
        server: PeerId,
    },
    /// Nodes would wait for ever for one of high priority.
    #[error(
        "decay_priority_gap is {0}; it must be at least 10, or nodes wait too long for one of higher priority"
    )]
    DecayPriorityGap(i32),
    /// A new voter cannot be ahead of a leader that goes on writing.
    #[error(
        "catchup_margin is 0; it must be at least 1 entry, or a new voter of a busy group never catches up"
    )]
    CatchupMargin,
    /// Out of range.
    #[error("disk_stall_timeout_ms is {0}; it must be 0 (four election time-outs) or between 10 and 3600000")]
    DiskStallTimeout(u64),
    /// Clocks run at different rates; a lease must leave room for that.
    #[error(
        "read_only_options is LeaseBased with a leader_lease_time_ratio of {0} percent; it must be at most 95: the rest is the margin \
         for clocks that run at different rates"
    )]
    LeaseMargin(u64),
    /// Out of range.
    #[error("read_index_timeout_ms is {0}; it must be between 1 and 3600000")]
    ReadIndexTimeout(u64),
    /// Out of range.
    #[error("max_pending_reads is {0}; it must be between 1 and 16777216")]
    PendingReads(usize),
    /// The initial configuration is wrong in itself.
    #[error("initial_conf: {0}")]
    InitialConf(#[from] InvalidConfiguration),
    /// Out of range.
    #[error("max_entries_size is {0}; it must be between 1 and 65536")]
    MaxEntries(usize),
    /// Zero, or beyond what a frame can carry.
    #[error("max_body_size is {0}; it must be between 1 and 268435456 bytes")]
    MaxBody(usize),
    /// A window of nothing sends nothing.
    #[error("max_replicator_inflight_msgs is {0}; it must be between 1 and 65536")]
    InflightMsgs(usize),
    /// The window must take one full message.
    #[error("max_replicator_inflight_bytes is {bytes}; it must be at least max_body_size ({body})")]
    InflightBytes {
        /// The window in bytes.
        bytes: usize,
        /// The size of one message in bytes.
        body: usize,
    },
    /// The bound must take one full message.
    #[error("max_unstable_entries is {entries}; it must be at least max_entries_size ({message})")]
    UnstableEntries {
        /// The bound.
        entries: u64,
        /// Entries of one message.
        message: usize,
    },
    /// The bound must take one full message.
    #[error("max_unstable_bytes is {bytes}; it must be at least max_body_size ({body})")]
    UnstableBytes {
        /// The bound in bytes.
        bytes: usize,
        /// The size of one message in bytes.
        body: usize,
    },
    /// The bound must take one full message.
    #[error("max_unapplied_entries is {entries}; it must be at least max_entries_size ({message})")]
    UnappliedEntries {
        /// The bound.
        entries: u64,
        /// Entries of one message.
        message: usize,
    },
    /// A receiver closes the connection on a frame over its limit, again and again: replication would never get past it.
    #[error(
        "a message of max_entries_size ({message}) and max_body_size ({body}) may take {bytes} bytes, and frame_limits.content of the \
         host is {frame}; lower them, or raise the limit on every host"
    )]
    BodyOverFrame {
        /// Entries of one message.
        message: usize,
        /// The size of one message in bytes, without its last entry.
        body: usize,
        /// What it may take in all.
        bytes: usize,
        /// The limit in bytes.
        frame: usize,
    },
    /// Out of range.
    #[error("rpc_default_timeout_ms is {0}; it must be between 10 and 3600000")]
    RpcTimeout(u64),
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
            max_tail_bytes: raft.max_logs_in_memory_bytes,
            lease_reads: raft.read_only_options == ReadOnlyOption::LeaseBased,
            read_index_timeout_ms: raft.read_index_timeout_ms,
            max_pending_reads: raft.max_pending_reads,
            max_read_index_lag: raft.max_read_index_lag,
            catchup_margin: self.catchup_margin,
            decay_priority_gap: self.decay_priority_gap,
            disk_stall_timeout_ms: self.disk_stall_timeout_ms,
            ..CoreOptions::new(group_id, self.with_priority(server_id), self.initial_conf.clone())
        }
    }
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
mod tests {
    use super::*;

    fn broken(change: impl FnOnce(&mut NodeOptions)) -> OptionsError {
        let mut options = NodeOptions::default();
        change(&mut options);
        options.validate().unwrap_err()
    }

    #[test]
    fn the_defaults_pass_and_are_the_cores() {
        NodeOptions::default().validate().unwrap();
        let (group, server): (GroupId, PeerId) = ("g".parse().unwrap(), "a:1".parse().unwrap());
        NodeOptions::default().validate_for(&server).unwrap();
        let core = NodeOptions::default().to_core(group.clone(), server.clone());
        let expected = CoreOptions::new(group, server, Configuration::default());
        assert_eq!(format!("{core:?}"), format!("{expected:?}"));
    }

    #[test]
    fn server_ids_must_be_reachable() {
        let options = NodeOptions::default();
        assert!(matches!(options.validate_for(&PeerId::empty()), Err(OptionsError::EmptyServerId(_))));
        assert!(matches!(options.validate_for(&PeerId::new("a", 0)), Err(OptionsError::ServerIdPort(_))));
    }

    #[test]
    fn election_timeouts_have_a_range() {
        assert_eq!(broken(|o| o.election_timeout_ms = 9), OptionsError::ElectionTimeout(9));
        assert_eq!(broken(|o| o.election_timeout_ms = 3_600_001), OptionsError::ElectionTimeout(3_600_001));
    }

    #[test]
    fn election_delay_must_not_be_zero() {
        assert_eq!(broken(|o| o.raft_options.max_election_delay_ms = 0), OptionsError::ElectionDelay(0));
    }

    #[test]
    fn one_lost_heartbeat_must_not_start_an_election() {
        assert_eq!(
            broken(|o| o.raft_options.election_heartbeat_factor = 1),
            OptionsError::HeartbeatFactor(1)
        );
        let expected = OptionsError::HeartbeatPeriod { heartbeat_ms: 10, election_ms: 10 };
        assert_eq!(broken(|o| o.election_timeout_ms = 10), expected);
    }

    #[test]
    fn the_largest_message_passes_a_frame() {
        let mut options = RaftOptions::default();
        assert_eq!(options.validate_frame(4 << 20, 64 << 20), Ok(()));
        options.max_body_size = 64 << 20;
        assert!(matches!(
            options.validate_frame(4 << 20, 64 << 20),
            Err(OptionsError::BodyOverFrame { body, frame, .. }) if body == frame
        ));
    }

    #[test]
    fn the_lease_is_a_share() {
        assert_eq!(broken(|o| o.leader_lease_time_ratio = 0), OptionsError::LeaseRatio(0));
        assert_eq!(broken(|o| o.leader_lease_time_ratio = 101), OptionsError::LeaseRatio(101));
    }

    #[test]
    fn priorities_stand_in_one_place() {
        assert_eq!(broken(|o| o.election_priority = -2), OptionsError::Priority(-2));
        assert_eq!(broken(|o| o.decay_priority_gap = 9), OptionsError::DecayPriorityGap(9));
        let options = NodeOptions { election_priority: 100, ..NodeOptions::default() };
        let (plain, other): (PeerId, PeerId) = ("a:1".parse().unwrap(), "a:1::50".parse().unwrap());
        options.validate_for(&plain).unwrap();
        assert!(matches!(
            options.validate_for(&other),
            Err(OptionsError::PriorityConflict { option: 100, .. })
        ));
        let priority = |options: &NodeOptions, server: &PeerId| {
            options.to_core("g".parse().unwrap(), server.clone()).server_id.priority()
        };
        assert_eq!(priority(&options, &plain), 100);
        assert_eq!(priority(&NodeOptions::default(), &other), 50);
    }

    #[test]
    fn new_voters_and_slow_disks_have_their_bounds() {
        assert_eq!(broken(|o| o.catchup_margin = 0), OptionsError::CatchupMargin);
        assert_eq!(broken(|o| o.disk_stall_timeout_ms = 9), OptionsError::DiskStallTimeout(9));
        assert_eq!(
            broken(|o| o.disk_stall_timeout_ms = 3_600_001),
            OptionsError::DiskStallTimeout(3_600_001)
        );
    }

    #[test]
    fn reads_have_their_bounds() {
        let lease = |o: &mut NodeOptions| {
            o.raft_options.read_only_options = ReadOnlyOption::LeaseBased;
            o.leader_lease_time_ratio = 96;
        };
        assert_eq!(broken(lease), OptionsError::LeaseMargin(96));
        assert_eq!(broken(|o| o.raft_options.read_index_timeout_ms = 0), OptionsError::ReadIndexTimeout(0));
        assert_eq!(broken(|o| o.raft_options.max_pending_reads = 0), OptionsError::PendingReads(0));
    }

    #[test]
    fn what_is_set_reaches_the_core() {
        let mut options = NodeOptions {
            catchup_margin: 7,
            decay_priority_gap: 20,
            disk_stall_timeout_ms: 900,
            ..NodeOptions::default()
        };
        options.raft_options.read_only_options = ReadOnlyOption::LeaseBased;
        options.raft_options.max_read_index_lag = Some(5);
        options.raft_options.read_index_timeout_ms = 300;
        options.raft_options.max_pending_reads = 6;
        options.validate().unwrap();
        let core = options.to_core("g".parse().unwrap(), "a:1".parse().unwrap());
        assert_eq!((core.catchup_margin, core.decay_priority_gap, core.disk_stall_ms()), (7, 20, 900));
        assert_eq!((core.lease_reads, core.max_read_index_lag), (true, Some(5)));
        assert_eq!((core.read_index_timeout_ms, core.max_pending_reads), (300, 6));
    }

    #[test]
    fn the_initial_configuration_is_checked() {
        let peer: PeerId = "a:1".parse().unwrap();
        let twice = Configuration::of_peers(vec![peer.clone(), peer]);
        assert!(matches!(broken(|o| o.initial_conf = twice), OptionsError::InitialConf(_)));
    }

    #[test]
    fn rpc_timeouts_have_a_range() {
        assert_eq!(broken(|o| o.rpc_default_timeout_ms = 9), OptionsError::RpcTimeout(9));
    }

    #[test]
    fn message_sizes_have_a_range() {
        assert_eq!(broken(|o| o.raft_options.max_entries_size = 0), OptionsError::MaxEntries(0));
        assert_eq!(broken(|o| o.raft_options.max_body_size = 0), OptionsError::MaxBody(0));
        assert_eq!(
            broken(|o| o.raft_options.max_replicator_inflight_msgs = 0),
            OptionsError::InflightMsgs(0)
        );
    }

    #[test]
    fn bounds_take_one_full_message() {
        assert!(matches!(
            broken(|o| o.raft_options.max_replicator_inflight_bytes = 1),
            OptionsError::InflightBytes { bytes: 1, .. }
        ));
        assert!(matches!(
            broken(|o| o.raft_options.max_unstable_entries = 1),
            OptionsError::UnstableEntries { entries: 1, .. }
        ));
        assert!(matches!(
            broken(|o| o.raft_options.max_unstable_bytes = 1),
            OptionsError::UnstableBytes { bytes: 1, .. }
        ));
        assert!(matches!(
            broken(|o| o.raft_options.max_unapplied_entries = 1),
            OptionsError::UnappliedEntries { entries: 1, .. }
        ));
    }
}
