//! Settings of a host: its threads, its store, its network, its bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ringraft_net::NetLoopOptions;
use ringraft_net::inproc::Network;
use ringraft_proto::MAX_CLUSTER_ID;
use ringraft_storage::{LogStorage, SegmentLogOptions};

use crate::error::HostOptionsError;
use crate::handler::LaneLimits;
use crate::rpc::user::UserProcessor;
use crate::rpc::{Place, UserProcessors};

/// Names of facts that the library keeps for itself begin so.
pub(crate) const OWN_FACTS: &str = "ringraft.";

/// What surrounds the largest task in a file of the log or in a frame, generously.
const RECORD_ROOM: usize = 64 * 1024;

/// Least part of a lane, or of a worker of a lane, in a bound in bytes that they share.
const LEAST_PART: usize = 1 << 20;

/// What a host may do with a store in which nothing was ever stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartMode {
    /// Refuse: the member has lived before, and a blank store means that its memory is lost.
    #[default]
    Existing,
    /// Take it into use: the member is new. On a store that began so it is the same as
    /// [`Existing`](StartMode::Existing); one that began by rejoin is refused. See [`HostOptions::bootstrap_ask_ms`] for what happens
    /// when the cluster is not new.
    Bootstrap,
    /// Take it into use as that of a member that has no memory: every group on it begins without members, whatever its
    /// [`initial_conf`](crate::NodeOptions::initial_conf) says, and waits until a leader replicates to it. For hosts that join existing
    /// groups, and for members whose disk was lost: such a replica votes for nobody and counts in no quorum until it holds what a
    /// quorum of the others has committed since. A store that is not blank is refused: it remembers how it began, and later starts need
    /// no mode.
    Rejoin,
}

/// Where the log lives.
pub enum StoreOptions {
    /// In memory: gone with the host. Only for tests and benches.
    Memory,
    /// The segment log in a directory of its own, created if needed.
    Segment {
        /// The directory.
        dir: PathBuf,
        /// Sizes of its files and the like.
        options: SegmentLogOptions,
    },
    /// A store of the caller's. It must keep the rules of [`LogStorage`].
    Custom {
        /// The store.
        storage: Box<dyn LogStorage>,
        /// Whether nothing was ever stored in it.
        blank: bool,
    },
}

impl StoreOptions {
    /// The segment log in `dir`, with its defaults.
    pub fn segment(dir: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions::Segment { dir: dir.into(), options: SegmentLogOptions::default() }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreOptions::Memory => f.write_str("Memory"),
            StoreOptions::Segment { dir, .. } => f.debug_struct("Segment").field("dir", dir).finish(),
            StoreOptions::Custom { blank, .. } => f.debug_struct("Custom").field("blank", blank).finish(),
        }
    }
}

/// How hosts reach each other.
#[derive(Clone, Debug)]
pub enum TransportOptions {
    /// TCP.
    Tcp {
        /// Where to listen; `None` means at the host's endpoint, which must then be `ip:port` in digits.
        listen: Option<SocketAddr>,
    },
    /// Between the hosts of this process, without sockets: for tests and benches.
    Inproc(Network),
}

/// Settings of a [`RaftHost`](crate::RaftHost). The numbers of threads, rings and files depend on these alone, never on the
/// number of groups.
#[derive(Debug)]
pub struct HostOptions {
    /// `ip:port` under which the other hosts reach this one. The server id of every group on it must start so.
    pub endpoint: String,
    /// Name of the cluster; a data directory remembers it, so that one of another cluster is refused ("ringraft").
    pub cluster: String,
    /// Id of the cluster, 1..=255 bytes. A data directory remembers it, and every message carries it: a request that means another cluster is
    /// refused. `None`: what the directory remembers; where it remembers none, that of the first leader that a group here accepts
    /// (none).
    pub cluster_id: Option<String>,
    /// What a store that is bootstrapped takes for `cluster_id` when that is not given; never looked at again. All first members must
    /// have the same; [`derive_cluster_id`](crate::derive_cluster_id) computes one (none: requests then name no cluster).
    pub initial_cluster_id: Option<String>,
    /// Refuse requests that name no cluster: those of Java nodes, of earlier programs, and of clients that were not told (off).
    pub require_cluster_id: bool,
    /// What a data directory shall remember and never see changed, by name, such as `atomic.total_slots`. A start with another value is
    /// refused; a name that the directory does not know yet is added (none).
    pub facts: BTreeMap<String, String>,
    /// How long a group that has no memory, on a store that was bootstrapped, asks its peers of the initial configuration whether they have
    /// committed entries of it, in milliseconds. Where one has, the group begins as after [`Rejoin`](StartMode::Rejoin): its memory is
    /// lost. Peers that are silent or blank stop nobody. 0 means not to ask (2000).
    pub bootstrap_ask_ms: u64,
    /// In a directory that begins, or began, by [`Rejoin`](StartMode::Rejoin): the highest creation number that any group had been given
    /// when its disk was lost. A group with a higher [`creation`](crate::NodeOptions::creation) is new and begins with its
    /// [`initial_conf`](crate::NodeOptions::initial_conf); all others wait for a leader. The directory remembers the number, later starts
    /// need not give it, and may not give another. Too low a number is unsafe: a group that has voted here would vote again. `None`, and
    /// nothing remembered: no group is new (none).
    pub rejoined_after: Option<u64>,
    /// What to do with a blank store (refuse).
    pub start_mode: StartMode,
    /// Where the log lives.
    pub store: StoreOptions,
    /// How hosts reach each other.
    pub transport: TransportOptions,
    /// Owner threads: 1..=256 (half of the cores, at least 1). Each group is pinned to one.
    pub lanes: usize,
    /// Threads that run state machines and completions: 1..=256 (half of the cores, at least 1). Each group is pinned to one.
    pub fsm_workers: usize,
    /// Threads that read old entries from the store for peers that lag: 1..=64 (1).
    pub read_workers: usize,
    /// Run the network loop on the owner thread: saves a hop a message where cores are few; needs `lanes == 1` (on when there
    /// is one lane).
    pub fuse_net: bool,
    /// Slots of each lane's apply rings together, which are one for each state-machine worker (of 1024 slots at least, where this
    /// allows it), of its ring for entries and of that for control; a power of two: 2..=1048576 (16384, SOFAJRaft's
    /// `disruptorBufferSize`).
    pub apply_ring_size: usize,
    /// Slots of the disk ring, a power of two (256). A slot takes all writes of one turn of one lane.
    pub disk_ring_size: usize,
    /// Slots of each state-machine ring, a power of two (256). A slot takes all events of one turn of one lane.
    pub fsm_ring_size: usize,
    /// Entries of leaders, and as many tasks and reads, that an owner takes from its rings before it hands on what came out of them:
    /// 1..=1048576 (4096). Control is all taken.
    pub turn_events: usize,
    /// A call of [`on_apply`](crate::StateMachine::on_apply) that takes longer than so many milliseconds is told in the log, because the other
    /// groups of its worker wait for it; at most one line in ten seconds and worker. 0 means never (1000).
    pub slow_apply_ms: u64,
    /// Bytes of one task at most: 1..=67108864 (4 MiB).
    pub max_task_bytes: usize,
    /// Bytes of entries that each state-machine worker may have been given and not applied, of all its groups together, in equal parts for
    /// the lanes: at least 1 MiB for each lane (128 MiB). What does not fit waits in the log; its groups get it in turn. It bounds what a
    /// start takes to apply the logs again.
    pub max_unapplied_bytes: usize,
    /// Bytes of tasks that wait before the lanes, in their apply rings and the backlogs of groups, in equal parts for the state-machine workers
    /// of each lane: at least 1 MiB for each (256 MiB, or that). Beyond its group's part callers get [`Busy`](crate::ApplyError::Busy), or wait. Tasks below 1 KiB are not counted: the slots
    /// of the rings bound them. One task crosses the bound. As many bytes of entries may wait there in requests of leaders, in equal parts for the
    /// lanes; then their connections are not read.
    pub max_queued_bytes: usize,
    /// Bytes of log that all groups together keep in memory when it is durable already, for peers that lag and for state machines, in equal parts
    /// for the lanes: at least 1 MiB for each (256 MiB). Beyond it whoever has kept it for longest lets go, and reads it from the store
    /// when it is needed. Each group keeps [`max_logs_in_memory_bytes`](crate::RaftOptions::max_logs_in_memory_bytes) for peers at most.
    pub max_tail_bytes: usize,
    /// Bytes that one durable write takes, of all groups together: 65536..=1073741824 (8 MiB). More waits for the next, in which groups
    /// with a term or a vote to write go first: it bounds how long an election waits for entries of others. One larger write of a group
    /// passes.
    pub max_write_bytes: usize,
    /// Bounds and times of the network loop.
    pub net: NetLoopOptions,
    /// Processors that are there from the first connection on.
    pub(crate) users: UserProcessors,
}

impl HostOptions {
    /// Options with the defaults in parentheses above, over TCP at `endpoint`.
    pub fn new(endpoint: impl Into<String>, store: StoreOptions) -> HostOptions {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let half = (cores / 2).clamp(1, 256);
        HostOptions {
            endpoint: endpoint.into(),
            cluster: "ringraft".to_owned(),
            cluster_id: None,
            initial_cluster_id: None,
            require_cluster_id: false,
            facts: BTreeMap::new(),
            bootstrap_ask_ms: 2000,
            rejoined_after: None,
            start_mode: StartMode::Existing,
            store,
            transport: TransportOptions::Tcp { listen: None },
            lanes: half,
            fsm_workers: half,
            read_workers: 1,
            fuse_net: half == 1,
            apply_ring_size: 16_384,
            disk_ring_size: 256,
            fsm_ring_size: 256,
            turn_events: 4096,
            slow_apply_ms: 1000,
            max_task_bytes: 4 << 20,
            max_unapplied_bytes: 128 << 20,
            max_queued_bytes: (half * half * LEAST_PART).max(256 << 20),
            max_tail_bytes: 256 << 20,
            max_write_bytes: 8 << 20,
            net: NetLoopOptions::default(),
            users: UserProcessors::default(),
        }
    }

    /// Has requests of `class` handled by `processor` from the first connection on, which may come before
    /// [`RaftHost::start`](crate::RaftHost::start) returns. Else the same as
    /// [`RaftHost::register_user_processor`](crate::RaftHost::register_user_processor).
    pub fn register_user_processor(&mut self, class: &str, processor: Arc<dyn UserProcessor>) {
        self.users.register(class, processor, Place::Network);
    }

    /// As [`register_user_processor`](HostOptions::register_user_processor), on the thread of
    /// [`RaftHost::register_user_processor_on_worker`](crate::RaftHost::register_user_processor_on_worker).
    pub fn register_user_processor_on_worker(&mut self, class: &str, processor: Arc<dyn UserProcessor>) {
        self.users.register(class, processor, Place::Worker);
    }

    /// The bounds of each lane.
    pub(crate) fn lane_limits(&self) -> LaneLimits {
        LaneLimits {
            worker_bytes: self.max_unapplied_bytes / self.lanes,
            tail_bytes: self.max_tail_bytes / self.lanes,
            ..LaneLimits::for_turns_of(self.turn_events / self.fsm_workers)
        }
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), HostOptionsError> {
        let host_and_port = self.endpoint.rsplit_once(':').map(|(ip, port)| (ip, port.parse::<u16>()));
        if !matches!(host_and_port, Some((ip, Ok(port))) if !ip.is_empty() && port > 0) {
            return Err(HostOptionsError::Endpoint(self.endpoint.clone()));
        }
        if is_unspecified(&self.endpoint) {
            return Err(HostOptionsError::Unspecified(self.endpoint.clone()));
        }
        if matches!(self.transport, TransportOptions::Tcp { listen: None })
            && self.endpoint.parse::<SocketAddr>().is_err()
        {
            return Err(HostOptionsError::Name(self.endpoint.clone()));
        }
        for (name, id) in [("cluster_id", &self.cluster_id), ("initial_cluster_id", &self.initial_cluster_id)]
        {
            if let Some(id) = id.as_deref().filter(|id| !(1..=MAX_CLUSTER_ID).contains(&id.len())) {
                return Err(HostOptionsError::ClusterId { name, bytes: id.len() });
            }
        }
        let bad = |(name, value): &(&String, &String)| {
            !(1..=255).contains(&name.len())
                || name.starts_with(OWN_FACTS)
                || value.len() > usize::from(u16::MAX)
        };
        if let Some((name, _)) = self.facts.iter().find(bad) {
            return Err(HostOptionsError::Fact(name.clone()));
        }
        for (name, value, max) in [
            ("lanes", self.lanes, 256),
            ("fsm_workers", self.fsm_workers, 256),
            ("read_workers", self.read_workers, 64),
            ("turn_events", self.turn_events, 1 << 20),
        ] {
            if !(1..=max).contains(&value) {
                return Err(HostOptionsError::Count { name, value, max });
            }
        }
        for (name, value) in [
            ("apply_ring_size", self.apply_ring_size),
            ("disk_ring_size", self.disk_ring_size),
            ("fsm_ring_size", self.fsm_ring_size),
        ] {
            if !(2..=1 << 20).contains(&value) || !value.is_power_of_two() {
                return Err(HostOptionsError::RingSize { name, value });
            }
        }
        if self.fuse_net && self.lanes != 1 {
            return Err(HostOptionsError::FusedLanes(self.lanes));
        }
        for (name, bytes, parts) in [
            ("max_unapplied_bytes", self.max_unapplied_bytes, self.lanes),
            ("max_queued_bytes", self.max_queued_bytes, self.lanes * self.fsm_workers),
            ("max_tail_bytes", self.max_tail_bytes, self.lanes),
        ] {
            if bytes / parts < LEAST_PART {
                let least = parts * LEAST_PART;
                return Err(HostOptionsError::HostBytes { name, bytes, least, parts });
            }
        }
        if !(64 << 10..=1 << 30).contains(&self.max_write_bytes) {
            return Err(HostOptionsError::WriteBytes(self.max_write_bytes));
        }
        if !(1..=64 << 20).contains(&self.max_task_bytes) {
            return Err(HostOptionsError::TaskBytes(self.max_task_bytes));
        }
        if let StoreOptions::Segment { options, .. } = &self.store
            && (self.max_task_bytes + RECORD_ROOM) as u64 > options.file_bytes
        {
            let (task, file) = (self.max_task_bytes, options.file_bytes);
            return Err(HostOptionsError::TaskOverFile { task, file });
        }
        let frame = self.net.frame_limits.content;
        if self.max_task_bytes + RECORD_ROOM > frame {
            return Err(HostOptionsError::TaskOverFrame { task: self.max_task_bytes, frame });
        }
        self.net.validate().map_err(|error| HostOptionsError::Net(error.to_string()))?;
        Ok(())
    }
}

/// Whether an endpoint is `0.0.0.0:port` or its like: an address to listen at, and none to connect to.
fn is_unspecified(endpoint: &str) -> bool {
    let Some((host, _)) = endpoint.rsplit_once(':') else { return false };
    let ip: Result<IpAddr, _> = host.trim_start_matches('[').trim_end_matches(']').parse();
    ip.is_ok_and(|ip| ip.to_canonical().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(change: impl FnOnce(&mut HostOptions)) -> HostOptionsError {
        let mut options = HostOptions::new("127.0.0.1:8081", StoreOptions::Memory);
        change(&mut options);
        options.validate().unwrap_err()
    }

    #[test]
    fn the_defaults_pass() {
        HostOptions::new("127.0.0.1:8081", StoreOptions::Memory).validate().unwrap();
    }

    #[test]
    fn endpoints_must_be_reachable() {
        for bad in ["", "host", ":80", "host:0", "host:x"] {
            assert_eq!(broken(|o| o.endpoint = bad.into()), HostOptionsError::Endpoint(bad.into()));
        }
    }

    #[test]
    fn an_endpoint_is_an_address_that_others_can_connect_to() {
        for bad in ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80"] {
            assert_eq!(broken(|o| o.endpoint = bad.into()), HostOptionsError::Unspecified(bad.into()));
        }
        assert_eq!(broken(|o| o.endpoint = "host:80".into()), HostOptionsError::Name("host:80".into()));
        let mut named = HostOptions::new("host:80", StoreOptions::Memory);
        named.transport = TransportOptions::Tcp { listen: Some(([0, 0, 0, 0], 80).into()) };
        named.validate().unwrap();
        HostOptions::new("[::1]:80", StoreOptions::Memory).validate().unwrap();
    }

    #[test]
    fn counts_have_a_range() {
        assert!(matches!(broken(|o| o.lanes = 0), HostOptionsError::Count { name: "lanes", .. }));
        assert!(matches!(
            broken(|o| o.fsm_workers = 257),
            HostOptionsError::Count { name: "fsm_workers", .. }
        ));
        assert!(matches!(
            broken(|o| o.read_workers = 0),
            HostOptionsError::Count { name: "read_workers", .. }
        ));
        assert!(matches!(broken(|o| o.turn_events = 0), HostOptionsError::Count { name: "turn_events", .. }));
    }

    #[test]
    fn every_lane_has_a_part_of_the_bytes() {
        let few = broken(|o| (o.lanes, o.fuse_net, o.max_unapplied_bytes) = (4, false, (4 << 20) - 1));
        let (name, least) = ("max_unapplied_bytes", 4 << 20);
        assert_eq!(few, HostOptionsError::HostBytes { name, bytes: least - 1, least, parts: 4 });
        // A task waits for one worker of one lane.
        let few = broken(|o| {
            (o.lanes, o.fuse_net, o.fsm_workers) = (4, false, 3);
            o.max_queued_bytes = (12 << 20) - 1;
        });
        let (name, least) = ("max_queued_bytes", 12 << 20);
        assert_eq!(few, HostOptionsError::HostBytes { name, bytes: least - 1, least, parts: 12 });
    }

    #[test]
    fn rings_are_powers_of_two() {
        for bad in [0, 1, 3, 1 << 21] {
            assert!(matches!(broken(|o| o.apply_ring_size = bad), HostOptionsError::RingSize { .. }));
        }
        assert!(matches!(
            broken(|o| o.disk_ring_size = 3),
            HostOptionsError::RingSize { name: "disk_ring_size", .. }
        ));
        assert!(matches!(
            broken(|o| o.fsm_ring_size = 3),
            HostOptionsError::RingSize { name: "fsm_ring_size", .. }
        ));
    }

    #[test]
    fn only_one_lane_can_carry_the_network() {
        let change = |o: &mut HostOptions| (o.lanes, o.fuse_net) = (2, true);
        assert_eq!(broken(change), HostOptionsError::FusedLanes(2));
    }

    #[test]
    fn ids_and_facts_are_short_texts() {
        for (id, bytes) in [("", 0), (&*"x".repeat(256), 256)] {
            let name = "cluster_id";
            assert_eq!(
                broken(|o| o.cluster_id = Some(id.into())),
                HostOptionsError::ClusterId { name, bytes }
            );
            let name = "initial_cluster_id";
            let error = broken(|o| o.initial_cluster_id = Some(id.into()));
            assert_eq!(error, HostOptionsError::ClusterId { name, bytes });
        }
        let error = broken(|o| drop(o.facts.insert(String::new(), String::new())));
        assert_eq!(error, HostOptionsError::Fact(String::new()));
    }

    #[test]
    fn tasks_have_a_bound() {
        assert_eq!(broken(|o| o.max_task_bytes = 0), HostOptionsError::TaskBytes(0));
        assert_eq!(broken(|o| o.max_write_bytes = 1), HostOptionsError::WriteBytes(1));
        let small_files = SegmentLogOptions { file_bytes: 1 << 20, ..SegmentLogOptions::default() };
        let store = StoreOptions::Segment { dir: "nowhere".into(), options: small_files };
        assert!(matches!(broken(|o| o.store = store), HostOptionsError::TaskOverFile { .. }));
        assert!(matches!(
            broken(|o| o.net.frame_limits.content = 1 << 20),
            HostOptionsError::TaskOverFrame { .. }
        ));
    }
}
