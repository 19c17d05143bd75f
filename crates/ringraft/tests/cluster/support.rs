//! What the cluster tests share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringraft::inproc::Network;
use ringraft::{
    ApplyError, CallDone, CallFailure, CallFuture, CompletionSink, Configuration, HostOptions, Iterator,
    LogIndex, Node, NodeOptions, PeerId, RaftError, RaftGroupService, RaftHost, StartMode, StateMachine,
    StoreOptions, TransportOptions,
};

/// How long a test waits for an outcome before it fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What a [`Journal`] has applied.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) entries: Mutex<Vec<(LogIndex, Vec<u8>)>>,
    pub(crate) leader_starts: AtomicU64,
    pub(crate) leader_stops: AtomicU64,
    pub(crate) errors: Mutex<Vec<String>>,
    pub(crate) shutdowns: AtomicU64,
}

/// A state machine that remembers every command, and answers with its position.
pub(crate) struct Journal(pub(crate) Arc<Applied>);

impl StateMachine for Journal {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        let mut entries = self.0.entries.lock();
        while let Some(entry) = iter.next() {
            assert_ne!(entry.data, b"panic", "as asked");
            if entry.data == b"rollback" {
                let status = ringraft::Status::new(ringraft::RaftError::StateMachine, "as asked");
                return iter.set_error_and_rollback(1, status);
            }
            entries.push((entry.index, entry.data.to_vec()));
            if iter.has_done() {
                iter.set_response((entries.len() as u64).to_be_bytes().to_vec());
            }
        }
    }

    fn on_shutdown(&mut self) {
        self.0.shutdowns.fetch_add(1, Ordering::SeqCst);
    }

    fn on_leader_start(&mut self, _term: u64) {
        self.0.leader_starts.fetch_add(1, Ordering::SeqCst);
    }

    fn on_leader_stop(&mut self, _status: &ringraft::Status) {
        self.0.leader_stops.fetch_add(1, Ordering::SeqCst);
    }

    fn on_error(&mut self, status: &ringraft::Status) {
        self.0.errors.lock().push(status.to_string());
    }
}

/// Waits until `check` gives a value; the limit is only there so that a failure ends.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < limit, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Options that elect quickly.
pub(crate) fn quick(conf: &Configuration) -> NodeOptions {
    let mut options = NodeOptions::with_initial_conf(conf.clone());
    options.election_timeout_ms = 200;
    options.raft_options.max_election_delay_ms = 100;
    options
}

/// Hosts in one process, each with one replica of one group.
pub(crate) struct Cluster {
    pub(crate) conf: Configuration,
    pub(crate) members: Vec<Member>,
}

pub(crate) struct Member {
    pub(crate) host: RaftHost,
    pub(crate) node: Node,
    pub(crate) applied: Arc<Applied>,
}

/// Host options over an in-process network and a store in memory.
pub(crate) fn memory_options(network: &Network, endpoint: &str) -> HostOptions {
    let mut options = HostOptions::new(endpoint, StoreOptions::Memory);
    options.transport = TransportOptions::Inproc(network.clone());
    options.start_mode = StartMode::Bootstrap;
    // Members start one after the other and are new.
    options.bootstrap_ask_ms = 0;
    options
}

/// Starts a replica of group "g" on a host of its own.
pub(crate) fn start_member(options: HostOptions, node_options: NodeOptions) -> Member {
    let endpoint = options.endpoint.clone();
    let host = RaftHost::start(options).expect("the host starts");
    let applied = Arc::new(Applied::default());
    let journal = Journal(Arc::clone(&applied));
    let server_id = endpoint.parse().expect("a peer id");
    let node = RaftGroupService::new("g", server_id, node_options, journal).start(&host);
    Member { host, node: node.expect("the group starts"), applied }
}

impl Cluster {
    /// Three hosts in memory; `change` may alter the options of each.
    pub(crate) fn in_memory(
        network: &Network,
        change: impl Fn(&mut HostOptions, &mut NodeOptions),
    ) -> Cluster {
        let conf: Configuration = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3".parse().expect("a configuration");
        let start = |endpoint: String| {
            let (mut host, mut node) = (memory_options(network, &endpoint), quick(&conf));
            change(&mut host, &mut node);
            start_member(host, node)
        };
        let members = conf.peers.iter().map(|peer| start(peer.endpoint())).collect();
        Cluster { conf, members }
    }

    /// The member that leads.
    pub(crate) fn leader(&self) -> &Member {
        leader_of(&self.members)
    }

    /// A cluster of these members, each over an in-process network and a store in memory.
    pub(crate) fn of(network: &Network, conf: &str, change: impl Fn(&mut NodeOptions)) -> Cluster {
        let conf: Configuration = conf.parse().expect("a configuration");
        let start = |peer: &PeerId| {
            let mut node = quick(&conf);
            change(&mut node);
            start_member(memory_options(network, &peer.endpoint()), node)
        };
        let members = conf.peers.iter().chain(&conf.learners).map(start).collect();
        Cluster { conf, members }
    }

    /// Starts a host without members, which waits to be added.
    pub(crate) fn join(&mut self, network: &Network, endpoint: &str) -> PeerId {
        let mut options = memory_options(network, endpoint);
        options.start_mode = StartMode::Rejoin;
        self.members.push(start_member(options, quick(&self.conf)));
        endpoint.parse().expect("a peer id")
    }

    /// The member at an endpoint.
    pub(crate) fn at(&self, peer: &PeerId) -> &Member {
        self.members.iter().find(|m| m.host.endpoint() == peer.endpoint()).expect("a member")
    }

    /// Ends the member's host and forgets it; its store is in memory and lost.
    pub(crate) fn lose(&mut self, peer: &PeerId) {
        let position = self.members.iter().position(|m| m.host.endpoint() == peer.endpoint());
        self.members.remove(position.expect("a member")).host.shutdown();
    }

    /// Those that do not lead.
    pub(crate) fn followers(&self) -> Vec<PeerId> {
        let leader = self.leader().node.server_id().clone();
        self.conf.peers.iter().filter(|peer| **peer != leader).cloned().collect()
    }

    pub(crate) fn shutdown(&self) {
        self.members.iter().for_each(|member| member.host.shutdown());
    }
}

pub(crate) fn leader_of(members: &[Member]) -> &Member {
    eventually("a leader", || {
        members.iter().find(|m| m.node.is_leader() && m.applied.leader_starts.load(Ordering::SeqCst) > 0)
    })
}

/// Has the leader apply so many commands, one after the other, wherever it may be by then.
pub(crate) fn write(members: &[Member], count: usize) {
    for n in 0..count {
        eventually("a write", || leader_of(members).node.propose(format!("{n}")).wait(LIMIT).ok());
    }
}

/// Changes members, once the leader is ready for it, and gives the new ones.
pub(crate) fn change(
    members: &[Member],
    begin: impl Fn(&Node) -> CallFuture,
) -> Result<Configuration, CallFailure> {
    eventually("the change has its outcome", || match begin(&leader_of(members).node).wait(LIMIT) {
        Ok(CallDone::Changed { new, .. }) => Some(Ok(new)),
        Ok(other) => panic!("{other:?}"),
        // The first entry of its term is not committed yet, or another has been elected.
        Err(CallFailure::Failed(status))
            if matches!(status.error, RaftError::Busy | RaftError::NotPermitted) =>
        {
            None
        }
        Err(failure) => Some(Err(failure)),
    })
}

/// The code of a call that has certainly done nothing.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, CallFailure>) -> RaftError {
    match result {
        Err(CallFailure::Failed(status)) => status.error,
        other => panic!("{other:?}"),
    }
}

/// Waits until all members have applied the same entries, `count` at least, and gives them.
pub(crate) fn converge(members: &[Member], count: usize) -> Vec<(LogIndex, Vec<u8>)> {
    eventually("equal state machines", || {
        let first = members[0].applied.entries.lock().clone();
        let equal = members.iter().all(|member| *member.applied.entries.lock() == first);
        (equal && first.len() >= count).then_some(first)
    })
}

/// Outcomes by tag, to see that each comes exactly once.
#[derive(Default)]
pub(crate) struct Outcomes {
    by_tag: Mutex<BTreeMap<u64, Vec<Result<LogIndex, ApplyError>>>>,
    pub(crate) batches: AtomicU64,
}

impl CompletionSink for Outcomes {
    fn complete(&self, tag: u64, outcome: Result<&ringraft::Applied, &ApplyError>) {
        let outcome = outcome.map(|applied| applied.index).map_err(Clone::clone);
        self.by_tag.lock().entry(tag).or_default().push(outcome);
    }

    fn batch_end(&self) {
        self.batches.fetch_add(1, Ordering::SeqCst);
    }
}

impl Outcomes {
    /// Waits until every tag below `count` has its outcome, and gives them; fails when one has two.
    pub(crate) fn each_once(&self, count: u64) -> Vec<Result<LogIndex, ApplyError>> {
        eventually("an outcome for every task", || (self.by_tag.lock().len() as u64 == count).then_some(()));
        let by_tag = self.by_tag.lock();
        assert!(by_tag.values().all(|outcomes| outcomes.len() == 1), "an outcome comes once");
        by_tag.values().map(|outcomes| outcomes[0].clone()).collect()
    }
}
