//! Waiting for a leader and for outcomes: the first write of a new program, futures whose node stops, waits where waiting is forbidden.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use ringraft::inproc::Network;
use ringraft::{
    ApplyError, CallFailure, CliService, Completion, Configuration, HostOptions, Iterator, MembershipChange,
    Node, PeerId, RaftError, RaftGroupService, RaftHost, ReadOnlyOption, StartMode, StateMachine, Status,
    StoreOptions, Task, TransportOptions,
};

use crate::cli_service::service;
use crate::failures::Held;
use crate::support::{
    Cluster, Journal, LIMIT, change, eventually, leader_of, memory_options, quick, refused, start_member,
    write,
};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end; a future that is not woken fails the test.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        if let Poll::Ready(outcome) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return outcome;
        }
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        assert!(!left.is_zero(), "the future was not woken");
        std::thread::park_timeout(left);
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_sole_voter_takes_a_write_when_its_start_returns() {
    let dir = tempfile::tempdir().expect("a directory");
    for start in 0..5 {
        let network = Network::new();
        let mut options = HostOptions::new("127.0.0.1:1", StoreOptions::segment(dir.path()));
        options.transport = TransportOptions::Inproc(network.clone());
        options.start_mode = StartMode::Bootstrap;
        let member = start_member(options, quick(&"127.0.0.1:1".parse().expect("conf")));
        let first = member.node.propose("at once").wait(LIMIT);
        assert!(first.is_ok(), "start {start}: {first:?}");
        member.host.shutdown();
    }
}

#[test]
fn a_leader_is_waited_for_on_every_member() {
    let network = Network::new();
    let cluster = Cluster::of(&network, "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", |_| {});
    let nodes = cluster.members.iter().map(|member| &member.node);
    let blocked: Vec<PeerId> = nodes.clone().map(|n| n.wait_for_leader(LIMIT).expect("elected")).collect();
    let awaited: Vec<PeerId> = nodes.map(|node| block_on(node.leader_elected()).expect("known")).collect();
    for leader in blocked.iter().chain(&awaited) {
        assert!(cluster.conf.peers.contains(leader), "{leader}");
    }
    cluster.shutdown();
}

#[test]
fn a_wait_for_a_leader_ends_with_its_time_and_with_the_node() {
    let network = Network::new();
    // Two of three do not run.
    let conf: Configuration = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3".parse().expect("conf");
    let member = start_member(memory_options(&network, "127.0.0.1:1"), quick(&conf));
    let late = member.node.wait_for_leader(Duration::from_millis(20)).unwrap_err();
    assert_eq!(late.error, RaftError::TimedOut, "{late}");
    let mut before = member.node.leader_elected();
    assert!(poll_once(&mut before).is_pending());
    let group = member.node.group_id().clone();
    assert!(member.host.stop_group(&group).expect("stops"));
    for future in [before, member.node.leader_elected()] {
        let ended = block_on(future).unwrap_err();
        assert_eq!(ended.error, RaftError::NodeShutdown, "{ended}");
    }
    member.host.shutdown();
}

/// A call whose group is gone has an end, blocked for or awaited, and it is certain that nothing was done.
#[test]
fn calls_of_a_stopped_group_end() {
    let network = Network::new();
    let member =
        start_member(memory_options(&network, "127.0.0.1:1"), quick(&"127.0.0.1:1".parse().expect("conf")));
    let node = member.node.clone();
    assert!(member.host.stop_group(node.group_id()).expect("stops"));
    assert_eq!(refused(block_on(node.transfer_leadership_to(None))), RaftError::NodeShutdown);
    assert_eq!(refused(node.transfer_leadership_to(None).wait(LIMIT)), RaftError::NodeShutdown);
    let learners = node.add_learners(vec!["127.0.0.1:2".parse().expect("a peer id")]);
    assert_eq!(refused(block_on(learners)), RaftError::NodeShutdown);
    assert_eq!(block_on(node.propose("late")), Err(ApplyError::Shutdown));
    assert!(matches!(block_on(node.read_index(ReadOnlyOption::Safe)), Err(ApplyError::Shutdown)));
    assert_eq!(node.list_peers(LIMIT).unwrap_err().error, RaftError::NodeShutdown);
    member.host.shutdown();
    assert_eq!(refused(block_on(node.transfer_leadership_to(None))), RaftError::NodeShutdown);
}

/// Reads behind a state machine that stands still, with its worker, on the way there and in the ring before it, end in their time.
#[test]
fn reads_behind_a_state_machine_that_stands_still_end() {
    let network = Network::new();
    let mut options = memory_options(&network, "127.0.0.1:1");
    (options.apply_ring_size, options.fsm_ring_size) = (16, 2);
    let host = RaftHost::start(options).expect("starts");
    let conf: Configuration = "127.0.0.1:1".parse().expect("conf");
    let mut options = quick(&conf);
    options.raft_options.read_index_timeout_ms = 50;
    let gate = Arc::new(Mutex::new(()));
    let service = RaftGroupService::new("g", conf.peers[0].clone(), options, Held(Arc::clone(&gate)));
    let node = service.start(&host).expect("starts");
    node.propose("x").wait(LIMIT).expect("applied");
    let held = gate.lock();
    let proposal = node.propose("y");
    for _ in 0..3 {
        let reads: Vec<_> = (0..64).map(|_| node.read_index(ReadOnlyOption::Safe)).collect();
        for read in reads {
            match block_on(read) {
                // Asked before the state machine had got to the proposal.
                Ok(_) | Err(ApplyError::Busy) => {}
                Err(ApplyError::ReadFailed(status)) => {
                    assert_eq!(status.error, RaftError::TimedOut, "{status}")
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(block_on(node.read_index(ReadOnlyOption::Safe)).is_err());
    drop(held);
    assert!(block_on(proposal).is_ok());
    eventually("a read", || block_on(node.read_index(ReadOnlyOption::Safe)).ok());
    host.shutdown();
}

/// A call that waits when its host goes ends as unknown, whichever moment that is.
#[test]
fn calls_under_way_end_with_their_host() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", |_| {});
    write(&cluster.members, 1);
    let leader = cluster.leader().node.server_id().clone();
    // The newcomer does not run, so that the change waits for it.
    let waiting = cluster.at(&leader).node.add_peer("127.0.0.1:9".parse().expect("a peer id"));
    cluster.lose(&leader);
    let ended = block_on(waiting);
    assert!(matches!(&ended, Err(CallFailure::Unknown(_) | CallFailure::Failed(_))), "{ended:?}");
    cluster.shutdown();
}

/// Shows rule O3.
#[test]
fn an_outcome_is_given_once() {
    let network = Network::new();
    let member =
        start_member(memory_options(&network, "127.0.0.1:1"), quick(&"127.0.0.1:1".parse().expect("conf")));
    let mut proposal = member.node.propose("x");
    assert!(proposal.wait(LIMIT).is_ok());
    let again = block_on(&mut proposal);
    assert!(matches!(&again, Err(ApplyError::Unknown(s)) if s.error == RaftError::Invalid), "{again:?}");
    let mut call = member.node.transfer_leadership_to(Some("127.0.0.1:1".parse().expect("a peer id")));
    assert!(call.wait(LIMIT).is_ok());
    let again = call.wait(LIMIT);
    assert!(matches!(&again, Err(CallFailure::Unknown(s)) if s.error == RaftError::Invalid), "{again:?}");
    member.host.shutdown();
}

/// What a state machine was told when it waited.
struct Waits {
    node: Arc<OnceLock<Node>>,
    cli: CliService,
    told: mpsc::Sender<Vec<Status>>,
}

impl StateMachine for Waits {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        while iter.next().is_some() {}
        let Some(node) = self.node.get() else { return };
        let peer: PeerId = "127.0.0.1:9".parse().expect("a peer id");
        let conf = node.configuration().conf;
        // Each would wait for this very thread, or keep others waiting.
        let told = vec![
            node.propose("never waited for").wait(LIMIT).unwrap_err().status(),
            node.read_index(ReadOnlyOption::Safe).wait(LIMIT).unwrap_err().status(),
            match node.add_peer(peer).wait(LIMIT) {
                Err(CallFailure::Failed(status) | CallFailure::Unknown(status)) => status,
                Ok(done) => panic!("{done:?}"),
            },
            node.list_peers(LIMIT).unwrap_err(),
            node.describe(LIMIT).unwrap_err(),
            Status::new(self.cli.get_leader("g", &conf).unwrap_err().code().expect("a code"), "cli"),
        ];
        // Told once: the proposal above comes here, too.
        let _ = self.told.send(told);
    }
}

#[test]
fn a_state_machine_that_waits_is_refused_at_once() {
    let network = Network::new();
    let host = RaftHost::start(memory_options(&network, "127.0.0.1:1")).expect("starts");
    let conf: Configuration = "127.0.0.1:1".parse().expect("conf");
    let (node, (told, refusals)) = (Arc::new(OnceLock::new()), mpsc::channel());
    let waits = Waits { node: Arc::clone(&node), cli: service(&network), told };
    let started = RaftGroupService::new("g", conf.peers[0].clone(), quick(&conf), waits).start(&host);
    node.set(started.expect("starts")).expect("set once");
    let applied = Mutex::new(node.get().expect("set").propose("wait for yourself"));
    let refusals = refusals.recv_timeout(LIMIT).expect("told");
    for status in &refusals {
        assert_eq!(status.error, RaftError::NotPermitted, "{refusals:?}");
    }
    assert!(applied.lock().wait(LIMIT).is_ok());
    host.shutdown();
}

/// Every replica tells the members with the index that a change can be made conditional on.
#[test]
fn every_replica_tells_the_members_with_their_index() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", |_| {});
    let learner = cluster.join(&network, "127.0.0.1:4");
    assert!(cluster.at(&learner).node.configuration().conf.is_empty(), "it waits to be told");
    write(&cluster.members[..3], 1);
    let voters = cluster.conf.peers.clone();
    change(&cluster.members[..3], |node| node.add_learners(vec![learner.clone()])).expect("added");
    // A new leader begins its term with an entry that names the members once more.
    let known = eventually("all tell the same", || {
        let known = leader_of(&cluster.members).node.configuration();
        cluster.members.iter().all(|member| member.node.configuration() == known).then_some(known)
    });
    assert!(known.id.index > 0 && !known.is_joint(), "{known:?}");
    assert_eq!((&known.conf.peers, &known.conf.learners), (&voters, &vec![learner.clone()]));
    // With the index a change is made only if nobody else was quicker.
    let remove = MembershipChange::RemoveLearners(vec![learner]);
    let conditional = |ahead| {
        eventually("the change has its outcome", || {
            let node = &leader_of(&cluster.members).node;
            let index = node.configuration().id.index + ahead;
            match node.change_members(remove.clone(), Some(index)).wait(LIMIT) {
                Err(CallFailure::Failed(status))
                    if matches!(status.error, RaftError::Busy | RaftError::NotPermitted)
                        || ahead == 0 && status.error == RaftError::Stale =>
                {
                    None
                }
                // The leader was lost; the next one is asked for the same once more.
                Err(CallFailure::Unknown(_)) if ahead == 0 => None,
                outcome => Some(outcome),
            }
        })
    };
    assert_eq!(refused(conditional(1)), RaftError::Stale);
    assert!(conditional(0).is_ok());
    let after = leader_of(&cluster.members).node.configuration();
    assert!(after.id.index > known.id.index && after.conf.learners.is_empty(), "{after:?}");
    cluster.shutdown();
}

/// Nobody has to be asked before the group's own state machine exists: a start elsewhere is not waited for.
#[test]
fn a_start_waits_for_nobody_else() {
    let network = Network::new();
    let conf: Configuration = "127.0.0.1:1,127.0.0.1:2".parse().expect("conf");
    let host = RaftHost::start(memory_options(&network, "127.0.0.1:1")).expect("starts");
    let mut options = quick(&conf);
    // An election would take an hour.
    options.election_timeout_ms = 3_600_000;
    let (sender, started) = mpsc::channel();
    let of_thread = host.clone();
    let server = conf.peers[0].clone();
    std::thread::spawn(move || {
        let service = RaftGroupService::new("g", server, options, Journal(Arc::default()));
        sender.send(service.start(&of_thread)).expect("somebody listens");
    });
    let node = started.recv_timeout(LIMIT).expect("it returns").expect("starts");
    assert_eq!(node.leader_id(), None);
    host.shutdown();
}

/// Shows rule R1: tasks of 16 MiB in all, and room for 1 MiB of them before the lane. Who asked to wait waits and loses none; who did
/// not is told.
#[test]
fn large_tasks_wait_in_bounded_memory() {
    let (network, ledger) = (Network::new(), Arc::new(Mutex::new(Vec::new())));
    let mut options = memory_options(&network, "127.0.0.1:1");
    (options.lanes, options.fsm_workers, options.fuse_net) = (1, 1, false);
    options.max_queued_bytes = 1 << 20;
    let mut node_options = quick(&"127.0.0.1:1".parse().expect("conf"));
    node_options.apply_task_mode = ringraft::ApplyTaskMode::Blocking;
    let member = start_member(options, node_options);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let futures: Vec<_> = (0..16).map(|_| member.node.propose(vec![7; 256 << 10])).collect();
                let mut batch: Vec<_> = (0..16)
                    .map(|_| {
                        let ledger = Arc::clone(&ledger);
                        ringraft::Task::with_closure(vec![7; 256 << 10], move |outcome| {
                            ledger.lock().push(outcome.is_ok());
                        })
                    })
                    .collect();
                assert_eq!(
                    member.node.apply_batch(&mut batch),
                    Ok(16),
                    "they wait for room, and all are taken"
                );
                for mut future in futures {
                    future.wait(LIMIT).expect("applied");
                }
            });
        }
    });
    eventually("every task of the batches is done", || ({ ledger.lock().len() } == 32).then_some(()));
    assert!(ledger.lock().iter().all(|done| *done));
}

/// Shows rule R2: a state machine that stands still, whose callers have taken all the room in bytes that its worker has. A group of
/// another worker on the same lane has its own, for large tasks as well.
#[test]
fn a_worker_that_stands_still_takes_the_bytes_of_no_other() {
    let network = Network::new();
    let mut options = memory_options(&network, "127.0.0.1:1");
    (options.lanes, options.fsm_workers, options.fuse_net) = (1, 2, false);
    (options.fsm_ring_size, options.max_queued_bytes) = (2, 2 << 20);
    let host = RaftHost::start(options).expect("starts");
    let conf: Configuration = "127.0.0.1:1".parse().expect("conf");
    let gate = Arc::new(Mutex::new(()));
    let slow = RaftGroupService::new("slow", conf.peers[0].clone(), quick(&conf), Held(Arc::clone(&gate)));
    let slow = slow.start(&host).expect("starts");
    let other = Journal(Arc::default());
    let other = RaftGroupService::new("other", conf.peers[0].clone(), quick(&conf), other);
    let other = other.start(&host).expect("starts");
    for node in [&slow, &other] {
        eventually("it leads", || node.propose("x").wait(LIMIT).ok());
    }
    let held = gate.lock();
    // Until nothing more is taken: the lane leaves its ring alone, and the room behind it is used up.
    eventually("there is no room", || {
        let refused =
            || slow.apply(Task::new(vec![1; 64 << 10], Completion::none())) == Err(ApplyError::Busy);
        let full = (0..64).filter(|_| refused()).count() == 64;
        std::thread::sleep(Duration::from_millis(20));
        (full && refused()).then_some(())
    });
    for _ in 0..8 {
        other.propose(vec![2; 900 << 10]).wait(LIMIT).expect("it has room of its own");
    }
    drop(held);
    eventually("the slow group goes on", || slow.propose(vec![1; 900 << 10]).wait(LIMIT).ok());
    host.shutdown();
}
