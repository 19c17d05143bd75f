//! Why a host or a node does not start.

use std::path::PathBuf;

use ringraft_core::{GroupId, InvalidGroupId, PeerId, Status};

use crate::options::OptionsError;

/// Which rule a [`HostOptions`](crate::HostOptions) breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostOptionsError {
    /// Not an address that others can connect to.
    #[error("endpoint {0:?} is not valid; give the ip:port under which the other hosts reach this one")]
    Endpoint(String),
    /// A count that must not be zero or absurd.
    #[error("{name} is {value}; it must be between 1 and {max}")]
    Count {
        /// The field.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The largest that is allowed.
        max: usize,
    },
    /// Rings have a power of two of slots.
    #[error("{name} is {value}; it must be a power of two between 2 and 1048576")]
    RingSize {
        /// The field.
        name: &'static str,
        /// Its value.
        value: usize,
    },
    /// Net loop and lane can share a thread only when there is one lane.
    #[error("fuse_net is on with {0} lanes; turn it off or use one lane")]
    FusedLanes(usize),
    /// Out of range.
    #[error("max_task_bytes is {0}; it must be between 1 and 67108864")]
    TaskBytes(usize),
    /// An entry must fit into one file of the log.
    #[error(
        "max_task_bytes is {task}, which does not fit into a log file of {file} bytes; lower it or raise file_bytes"
    )]
    TaskOverFile {
        /// The largest task in bytes.
        task: usize,
        /// The size of a file in bytes.
        file: u64,
    },
    /// An entry must fit into one frame.
    #[error(
        "max_task_bytes is {task}, which does not fit into a frame of {frame} bytes; lower it or raise net.frame_limits"
    )]
    TaskOverFrame {
        /// The largest task in bytes.
        task: usize,
        /// The largest content of a frame in bytes.
        frame: usize,
    },
    /// A bound or time of the network loop.
    #[error("net: {0}")]
    Net(String),
}

/// Why a host or a group did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The host's options are wrong.
    #[error("host options: {0}")]
    HostOptions(#[from] HostOptionsError),
    /// The node's options are wrong.
    #[error("options of group {group}: {error}")]
    Options {
        /// Which group.
        group: GroupId,
        /// Which rule.
        error: OptionsError,
    },
    /// The group's name is wrong.
    #[error(transparent)]
    GroupId(#[from] InvalidGroupId),
    /// Nothing was ever stored in the directory, and nobody said that this is meant.
    #[error(
        "{dir} holds no data of a member: start with bootstrap if the cluster is being created and this host is one of its first \
         members; start with rejoin if the host joins a cluster that exists, or if its disk was lost"
    )]
    BlankDirectory {
        /// The directory, or "the memory store".
        dir: String,
    },
    /// The directory belongs to another member or cluster, or another process uses it.
    #[error("{dir}: {reason}")]
    ForeignDirectory {
        /// The directory.
        dir: PathBuf,
        /// Whose it is, and what to do.
        reason: String,
    },
    /// The log store cannot be opened or used.
    #[error("log store: {0}")]
    Store(String),
    /// The process may have too few files and connections open.
    #[error("the process may have {limit} files open, the host needs {needed}; raise ulimit -n to {needed}")]
    Descriptors {
        /// The limit, hard or soft, whichever holds.
        limit: u64,
        /// What files and the fewest connections need.
        needed: u64,
    },
    /// The network cannot be used: a port in use, an address that is not ours.
    #[error("network: {0}")]
    Net(String),
    /// A thread cannot be started.
    #[error("cannot start thread {name}: {message}")]
    Thread {
        /// The thread's name.
        name: String,
        /// The system's words.
        message: String,
    },
    /// The group's server id is not an address of this host.
    #[error(
        "server id {server} is not on this host, whose endpoint is {endpoint}; others would look for it elsewhere"
    )]
    WrongEndpoint {
        /// The server id.
        server: PeerId,
        /// The host's endpoint.
        endpoint: String,
    },
    /// One store holds one replica of a group.
    #[error(
        "group {group} is already running on this host as {server}; a store holds one replica of a group"
    )]
    OneReplica {
        /// Which group.
        group: GroupId,
        /// The replica that runs.
        server: PeerId,
    },
    /// The core refused what it was given.
    #[error("group {group}: {status}")]
    Node {
        /// Which group.
        group: GroupId,
        /// Why.
        status: Status,
    },
    /// The host is shutting down or has stopped.
    #[error("the host is shut down")]
    HostStopped,
    /// Called on a thread of the host itself, which would wait for itself.
    #[error(
        "groups cannot be started or stopped on a thread of the host (a state machine, completion or processor)"
    )]
    OwnThread,
}
