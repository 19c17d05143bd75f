//! Every rule that options may break, each with its own words.

use ringraft_core::{InvalidConfiguration, PeerId};

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
    /// The bound must take one full message.
    #[error("max_unapplied_bytes is {bytes}; it must be at least max_body_size ({body})")]
    UnappliedBytes {
        /// The bound in bytes.
        bytes: usize,
        /// The size of one message in bytes.
        body: usize,
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
