//! Settings of a node, with SOFAJRaft's names and defaults, and the rules that they must keep.

use ringraft_core::{Configuration, CoreOptions, GroupId, InvalidConfiguration, PRIORITY_DISABLED, PeerId};

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
/// with snapshots, `readOnlyOptions` and `maxReadIndexLag` with reads.
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
    /// A candidate whose vote round timed out steps down and asks for pre-votes again (true).
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
        }
    }
}

/// Settings of one node (SOFAJRaft's `NodeOptions`).
///
/// Of SOFAJRaft's fields these have no meaning here: the timer and thread-pool switches (`shared*Timer`, `timerPoolSize`,
/// `cliRpcThreadPoolSize`, `raftRpcThreadPoolSize`: the host has a fixed set of threads), `logUri` and `raftMetaUri` (one store
/// a host), `serviceFactory` (see [`StoreOptions`](crate::StoreOptions)), `enableMetrics` (a `metrics` recorder is
/// installed or it is not), `fsm` (given to [`RaftGroupService`](crate::RaftGroupService)). The snapshot fields, `catchupMargin`,
/// `disableCli` and `decayPriorityGap` arrive with what they control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// A follower's patience in milliseconds: 10..=3600000 (1000). Base of heartbeats, lease and step-down.
    pub election_timeout_ms: u64,
    /// Share of the election time-out for which an answered peer counts as alive, in percent: 1..=100 (90).
    pub leader_lease_time_ratio: u64,
    /// Members of the group when its log is empty; every one of them must be started with the same.
    pub initial_conf: Configuration,
    /// How long an AppendEntries may stay unanswered, in milliseconds: 10..=3600000 (SOFAJRaft's
    /// `RpcOptions.rpcDefaultTimeout`; 5000).
    pub rpc_default_timeout_ms: u64,
    /// What happens to a task that finds the apply ring full (non-blocking).
    pub apply_task_mode: ApplyTaskMode,
    /// Election priority; only -1 (disabled) is supported yet (-1).
    pub election_priority: i32,
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
    /// The priority form of election is not there yet.
    #[error("election_priority is {0}; only -1 (disabled) is supported by this version")]
    Priority(i32),
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
        if self.election_priority != PRIORITY_DISABLED {
            return Err(OptionsError::Priority(self.election_priority));
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
        self.validate()
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
            ..CoreOptions::new(group_id, server_id, self.initial_conf.clone())
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
    fn priorities_are_refused_for_now() {
        assert_eq!(broken(|o| o.election_priority = 100), OptionsError::Priority(100));
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
