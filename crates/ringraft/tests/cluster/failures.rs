use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use ringraft::inproc::Network;
use ringraft::{
    ApplyError, ApplyTaskMode, Completion, HostOptions, Iterator, Node, NodeOptions, NodeState, RaftError,
    RaftGroupService, RaftHost, SinkId, StateMachine, StoreOptions, Task,
};
use ringraft_storage::{
    GroupKey, GroupOpening, LogReader, LogStorage, MemoryLogStorage, OpenedGroup, RefusedWrites,
    StorageError, StoredGroup, WriteBatch,
};

use crate::support::{
    Applied, Cluster, Journal, LIMIT, Outcomes, eventually, memory_options, quick, start_member, write,
};

/// A group of one voter, which leads at once.
fn alone(change: impl Fn(&mut HostOptions, &mut NodeOptions)) -> crate::support::Member {
    let network = Network::new();
    let mut host = memory_options(&network, "127.0.0.1:1");
    let mut node = quick(&"127.0.0.1:1".parse().expect("conf"));
    change(&mut host, &mut node);
    let member = start_member(host, node);
    eventually("leads", || (member.applied.leader_starts.load(Ordering::SeqCst) > 0).then_some(()));
    member
}

fn second_group(host: &RaftHost, name: &str) -> (Node, Arc<Applied>) {
    let applied = Arc::new(Applied::default());
    let conf = host.endpoint().parse().expect("conf");
    let server_id = host.endpoint().parse().expect("peer");
    let service = RaftGroupService::new(name, server_id, quick(&conf), Journal(applied.clone()));
    let node = service.start(host).expect("starts");
    eventually("leads", || node.is_leader().then_some(()));
    (node, applied)
}

/// Shows rule X1.
#[test]
fn a_panic_in_on_apply_stops_its_group_only() {
    let member = alone(|_, _| {});
    let (other, other_applied) = second_group(&member.host, "h");
    member.node.propose("fine").wait(LIMIT).expect("applied");
    let outcome = member.node.propose("panic").wait(LIMIT);
    assert!(
        matches!(&outcome, Err(ApplyError::Unknown(status)) if status.error == RaftError::StateMachine),
        "{outcome:?}"
    );
    eventually("error state", || (member.node.state() == NodeState::Error).then_some(()));
    let error = member.node.last_error().expect("says why");
    assert!(error.to_string().contains("as asked"), "{error}");
    let refused = member.node.propose("more").wait(LIMIT);
    assert!(matches!(refused, Err(ApplyError::Failed(_))), "{refused:?}");
    assert_eq!(member.node.last_applied_index(), 2, "the configuration and one command");
    assert!(member.applied.errors.lock().is_empty(), "a state machine that panicked is not called again");

    other.propose("works").wait(LIMIT).expect("the other group goes on");
    assert_eq!(other_applied.entries.lock().len(), 1);

    // The group can be opened again without a new process.
    struct Calm(Arc<AtomicU64>);
    impl StateMachine for Calm {
        fn on_apply(&mut self, iter: &mut Iterator<'_>) {
            while let Some(entries) = iter.next_chunk() {
                self.0.fetch_add(entries.count() as u64, Ordering::SeqCst);
            }
        }
    }
    assert!(member.host.stop_group(member.node.group_id()).expect("stops"));
    assert_eq!(member.applied.shutdowns.load(Ordering::SeqCst), 0);
    let count = Arc::new(AtomicU64::new(0));
    let options = quick(&"127.0.0.1:1".parse().expect("conf"));
    let server_id = member.node.server_id().clone();
    let again = RaftGroupService::new("g", server_id, options, Calm(count.clone())).start(&member.host);
    let again = again.expect("starts again");
    eventually("leads", || again.is_leader().then_some(()));
    again.propose("new").wait(LIMIT).expect("applied");
    assert_eq!(count.load(Ordering::SeqCst), 3, "the log was applied again");
    member.host.shutdown();
}

#[test]
fn a_state_machine_may_give_up() {
    let member = alone(|_, _| {});
    let outcomes = Arc::new(Outcomes::default());
    let sink = SinkId::register(outcomes.clone());
    let data = ["a", "b", "rollback", "c"];
    let mut tasks: Vec<Task> =
        data.iter().zip(0..).map(|(data, tag)| Task::new(*data, Completion::sink(sink, tag))).collect();
    member.node.apply_batch(&mut tasks).expect("published");
    let outcomes = outcomes.each_once(4);
    assert_eq!(outcomes[..2], [Ok(2), Ok(3)]);
    let gave_up = |outcome: &Result<u64, ApplyError>| {
        matches!(outcome, Err(ApplyError::Unknown(status)) if status.error == RaftError::StateMachine)
            || matches!(outcome, Err(ApplyError::Failed(_)))
    };
    assert!(outcomes[2..].iter().all(gave_up), "{outcomes:?}");
    eventually("error state", || (member.node.state() == NodeState::Error).then_some(()));
    assert_eq!(member.node.last_applied_index(), 3);
    eventually("on_error", || (member.applied.errors.lock().len() == 1).then_some(()));
    member.host.shutdown();
    assert_eq!(member.applied.shutdowns.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panic_in_a_completion_reaches_nobody_else() {
    let member = alone(|_, _| {});
    let outcomes = Arc::new(Outcomes::default());
    let sink = SinkId::register(outcomes.clone());
    let mut tasks = vec![
        Task::new("a", Completion::sink(sink, 0)),
        Task::with_closure("b", |_| panic!("as asked")),
        Task::new("c", Completion::sink(sink, 1)),
    ];
    member.node.apply_batch(&mut tasks).expect("published");
    assert_eq!(outcomes.each_once(2), [Ok(2), Ok(4)]);
    eventually("the group stops", || (member.node.state() == NodeState::Error).then_some(()));
    member.host.shutdown();
}

/// Shows rule R1: `Busy`.
#[test]
fn a_full_ring_refuses_and_every_task_has_one_outcome() {
    let member = alone(|host, _| host.apply_ring_size = 2);
    let outcomes = Arc::new(Outcomes::default());
    let sink = SinkId::register(outcomes.clone());
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (node, refused) = (member.node.clone(), &refused);
            scope.spawn(move || {
                for n in 0..5000 {
                    let task = Task::new("t", Completion::sink(sink, thread * 5000 + n));
                    if node.apply(task) == Err(ApplyError::Busy) {
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let outcomes = outcomes.each_once(10_000);
    let busy = outcomes.iter().filter(|outcome| **outcome == Err(ApplyError::Busy)).count() as u64;
    assert_eq!(busy, refused.load(Ordering::SeqCst));
    let applied = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(applied as u64 + busy, 10_000);
    assert_eq!(member.applied.entries.lock().len(), applied);
    member.host.shutdown();
}

/// Shows rule R1: whoever asked to wait.
#[test]
fn blocking_callers_wait_for_room() {
    let member = alone(|host, node| {
        host.apply_ring_size = 2;
        node.apply_task_mode = ApplyTaskMode::Blocking;
    });
    let outcomes = Arc::new(Outcomes::default());
    let sink = SinkId::register(outcomes.clone());
    let mut tasks: Vec<Task> = (0..1000).map(|tag| Task::new("t", Completion::sink(sink, tag))).collect();
    let rest = tasks.split_off(500);
    assert_eq!(member.node.apply_batch(&mut tasks), Ok(500));
    for task in rest {
        member.node.apply(task).expect("waits for room");
    }
    assert!(outcomes.each_once(1000).iter().all(Result::is_ok));
    member.host.shutdown();
}

/// The smallest rings and turns, and a state machine that does not keep up: everything still gets through.
#[test]
fn full_stages_hold_the_owner_back_but_do_not_stop_it() {
    struct Slow(Arc<Applied>);
    impl StateMachine for Slow {
        fn on_apply(&mut self, iter: &mut Iterator<'_>) {
            std::thread::sleep(std::time::Duration::from_micros(300));
            Journal(self.0.clone()).on_apply(iter);
        }
    }
    for fuse_net in [true, false] {
        let network = Network::new();
        let mut options = memory_options(&network, "127.0.0.1:1");
        (options.fuse_net, options.lanes, options.turn_events) = (fuse_net, 1, 1);
        (options.apply_ring_size, options.disk_ring_size, options.fsm_ring_size) = (4, 2, 2);
        let host = RaftHost::start(options).expect("starts");
        let applied = Arc::new(Applied::default());
        let mut node_options = quick(&"127.0.0.1:1".parse().expect("conf"));
        node_options.apply_task_mode = ApplyTaskMode::Blocking;
        let peer = "127.0.0.1:1".parse().expect("peer");
        let node = RaftGroupService::new("g", peer, node_options, Slow(applied.clone())).start(&host);
        let node = node.expect("starts");
        eventually("leads", || node.is_leader().then_some(()));
        let outcomes = Arc::new(Outcomes::default());
        let sink = SinkId::register(outcomes.clone());
        for tag in 0..2000 {
            node.apply(Task::new("t", Completion::sink(sink, tag))).expect("waits for room");
        }
        assert!(outcomes.each_once(2000).iter().all(Result::is_ok));
        host.shutdown();
    }
}

/// Waits in `on_apply` while the lock is held.
pub(crate) struct Held(pub(crate) Arc<Mutex<()>>);

impl StateMachine for Held {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        drop(self.0.lock());
        while iter.next().is_some() {}
    }
}

/// The state machines of one group stand still on every host, and its callers fill whatever takes their tasks. A group of another
/// worker, on the same lane, is served, and the owner answers for both.
#[test]
fn a_state_machine_that_stands_still_stops_nobody_else() {
    for (lanes, fuse_net) in [(1, true), (1, false), (2, false)] {
        let network = Network::new();
        let cluster = Cluster::in_memory(&network, |host, _| {
            (host.lanes, host.fuse_net, host.fsm_workers) = (lanes, fuse_net, 2);
            (host.apply_ring_size, host.disk_ring_size, host.fsm_ring_size) = (16, 4, 2);
        });
        let gate = Arc::new(Mutex::new(()));
        // The second group of a lane is pinned to the second worker: with two lanes the one in between takes the other lane's place.
        let names: &[&str] = if lanes == 1 { &["slow"] } else { &["between", "slow"] };
        let slow: Vec<Node> = cluster
            .members
            .iter()
            .map(|member| {
                let start = |name: &&str| {
                    let machine = Held(Arc::clone(&gate));
                    let options = quick(&cluster.conf);
                    let server = member.node.server_id().clone();
                    RaftGroupService::new(*name, server, options, machine)
                        .start(&member.host)
                        .expect("starts")
                };
                names.iter().map(start).next_back().expect("one at least")
            })
            .collect();
        let leader = || eventually("the slow group leads", || slow.iter().find(|node| node.is_leader()));
        write(&cluster.members, 1);
        leader().propose("x").wait(LIMIT).expect("applied");
        let held = gate.lock();
        // Until nothing more is taken: the ring stays full.
        eventually("the ring is full", || {
            let refused = || leader().apply(Task::new("x", Completion::none())) == Err(ApplyError::Busy);
            let full = (0..64).filter(|_| refused()).count() == 64;
            std::thread::sleep(std::time::Duration::from_millis(20));
            (full && refused()).then_some(())
        });
        write(&cluster.members, 20);
        for node in slow.iter().chain(cluster.members.iter().map(|member| &member.node)) {
            node.describe(LIMIT).expect("the owner answers");
        }
        eventually("members are told", || leader().list_peers(LIMIT).ok());
        drop(held);
        eventually("the slow group goes on", || leader().propose("y").wait(LIMIT).ok());
        cluster.shutdown();
    }
}

/// A store in memory that fails when told to.
#[derive(Default)]
pub(crate) struct Failing {
    pub(crate) inner: MemoryLogStorage,
    pub(crate) fail: Arc<AtomicBool>,
    /// The disk is full.
    pub(crate) full: Arc<AtomicBool>,
    /// Writes for which there is space all the same.
    pub(crate) spared: Arc<AtomicU64>,
    /// Writes that were turned away because of that.
    pub(crate) turned_away: Arc<AtomicU64>,
    /// The writes of group `g` break a rule.
    pub(crate) spoil: Arc<AtomicBool>,
}

impl LogStorage for Failing {
    fn open_groups(
        &mut self,
        groups: &[GroupOpening],
    ) -> Result<Vec<Result<OpenedGroup, StorageError>>, StorageError> {
        self.inner.open_groups(groups)
    }

    fn remove_group(&mut self, group: GroupKey) -> Result<(), StorageError> {
        self.inner.remove_group(group)
    }

    fn stored_groups(&self) -> Vec<StoredGroup> {
        self.inner.stored_groups()
    }

    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        if self.fail.load(Ordering::SeqCst) {
            return Err(StorageError::Poisoned("the disk is gone".into()));
        }
        let spare = |left: u64| left.checked_sub(1);
        let spared = || self.spared.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spare).is_ok();
        if self.full.load(Ordering::SeqCst) && !spared() {
            self.turned_away.fetch_add(1, Ordering::SeqCst);
            return Err(StorageError::NoRoom("for a while".into()));
        }
        let mut batch = batch.clone();
        let spoilt = self.groups().into_iter().find(|(name, _)| name.as_str() == "g");
        if self.spoil.load(Ordering::SeqCst) {
            for write in
                batch.writes.iter_mut().filter(|w| spoilt.as_ref().is_some_and(|(_, g)| w.group == *g))
            {
                write.ops.push(ringraft_core::LogOp::TruncateSuffix { from: 0 });
            }
        }
        self.inner.submit(&batch)
    }

    fn complete(&mut self) -> Result<Vec<RefusedWrites>, StorageError> {
        self.inner.complete()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.inner.reader()
    }
}

#[test]
fn nothing_is_acknowledged_after_the_store_has_failed() {
    let fail = Arc::new(AtomicBool::new(false));
    let network = Network::new();
    let mut options = memory_options(&network, "127.0.0.1:1");
    let storage = Box::new(Failing { fail: fail.clone(), ..Failing::default() });
    options.store = StoreOptions::Custom { storage, blank: true };
    let member = start_member(options, quick(&"127.0.0.1:1".parse().expect("conf")));
    let (other, _) = second_group(&member.host, "h");
    member.node.propose("fine").wait(LIMIT).expect("applied");
    let (told, heard) = std::sync::mpsc::channel();
    member.host.on_store_failed(move |status| told.send(status.clone()).expect("somebody listens"));
    assert_eq!(member.host.store_error(), None);
    fail.store(true, Ordering::SeqCst);
    let outcome = member.node.propose("lost").wait(LIMIT);
    assert!(matches!(&outcome, Err(ApplyError::Unknown(_))), "{outcome:?}");
    for node in [&member.node, &other] {
        eventually("every group of the store stops", || (node.state() == NodeState::Error).then_some(()));
        let refused = node.propose("more").wait(LIMIT);
        assert!(
            matches!(&refused, Err(ApplyError::Failed(s)) if s.message.contains("the disk is gone")),
            "{refused:?}"
        );
    }
    let status = heard.recv_timeout(LIMIT).expect("the host tells of the end of its store");
    assert!(status.message.contains("the disk is gone"), "{status}");
    assert_eq!(member.host.store_error(), Some(status));
    assert_eq!(member.applied.entries.lock().len(), 1);
    eventually("on_error", || (member.applied.errors.lock().len() == 1).then_some(()));
    member.host.shutdown();
}

#[test]
fn a_group_whose_write_the_store_refuses_stops_alone() {
    let spoil = Arc::new(AtomicBool::new(false));
    let network = Network::new();
    let mut options = memory_options(&network, "127.0.0.1:1");
    let storage = Box::new(Failing { spoil: spoil.clone(), ..Failing::default() });
    options.store = StoreOptions::Custom { storage, blank: true };
    let member = start_member(options, quick(&"127.0.0.1:1".parse().expect("conf")));
    let (other, _) = second_group(&member.host, "h");
    eventually("leads", || member.node.is_leader().then_some(()));
    member.node.propose("fine").wait(LIMIT).expect("applied");
    spoil.store(true, Ordering::SeqCst);
    let outcome = member.node.propose("lost").wait(LIMIT);
    assert!(matches!(&outcome, Err(ApplyError::Unknown(_))), "{outcome:?}");
    eventually("the group stops", || (member.node.state() == NodeState::Error).then_some(()));
    let refused = member.node.propose("more").wait(LIMIT);
    assert!(
        matches!(&refused, Err(ApplyError::Failed(s)) if s.message.contains("refuses the group's writes")),
        "{refused:?}"
    );
    assert_eq!(member.applied.entries.lock().len(), 1);
    eventually("on_error", || (member.applied.errors.lock().len() == 1).then_some(()));
    for _ in 0..20 {
        other.propose("goes on").wait(LIMIT).expect("the other group is not concerned");
    }
    // A new life of the group begins from what was stored.
    spoil.store(false, Ordering::SeqCst);
    let group = member.node.group_id().clone();
    assert!(member.host.stop_group(&group).expect("stops"));
    let (again, _) = second_group(&member.host, "g");
    again.propose("again").wait(LIMIT).expect("applied");
    member.host.shutdown();
}

#[test]
fn a_write_that_finds_the_disk_full_is_done_when_there_is_space() {
    for shut_down in [false, true] {
        let (full, turned_away) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let network = Network::new();
        let mut options = memory_options(&network, "127.0.0.1:1");
        let storage =
            Box::new(Failing { full: full.clone(), turned_away: turned_away.clone(), ..Failing::default() });
        options.store = StoreOptions::Custom { storage, blank: true };
        let mut node_options = quick(&"127.0.0.1:1".parse().expect("conf"));
        // A leader whose disk stands still for long would step down.
        node_options.disk_stall_timeout_ms = 3_600_000;
        let member = start_member(options, node_options);
        eventually("leads", || member.node.is_leader().then_some(()));
        member.node.propose("fine").wait(LIMIT).expect("applied");
        full.store(true, Ordering::SeqCst);
        let mut waits = member.node.propose("waits");
        eventually("it was tried twice", || (turned_away.load(Ordering::SeqCst) > 1).then_some(()));
        assert_eq!(member.applied.entries.lock().len(), 1);
        if !shut_down {
            full.store(false, Ordering::SeqCst);
            waits.wait(LIMIT).expect("done without a restart");
            member.node.propose("and on").wait(LIMIT).expect("applied");
        }
        // A host whose disk is full can end, too.
        member.host.shutdown();
        assert_eq!(member.applied.entries.lock().len(), if shut_down { 1 } else { 3 });
    }
}

/// Shows rule R1: a disk that is much slower than its lane. However long that lasts, what was taken and has no outcome stays bounded: a
/// write makes room for about as much as it held.
#[test]
fn a_slow_disk_holds_back_what_is_taken_in() {
    let (full, spared) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut options = memory_options(&Network::new(), "127.0.0.1:1");
    let storage = Box::new(Failing { full: full.clone(), spared: spared.clone(), ..Failing::default() });
    options.store = StoreOptions::Custom { storage, blank: true };
    (options.lanes, options.fsm_workers, options.fuse_net, options.disk_ring_size) = (1, 1, false, 16);
    (options.max_queued_bytes, options.max_write_bytes) = (1 << 20, 64 << 10);
    let mut node_options = quick(&"127.0.0.1:1".parse().expect("conf"));
    node_options.disk_stall_timeout_ms = 3_600_000;
    let member = start_member(options, node_options);
    eventually("leads", || member.node.is_leader().then_some(()));
    member.node.propose("fine").wait(LIMIT).expect("applied");
    full.store(true, Ordering::SeqCst);
    let (done, mut taken) = (Arc::new(AtomicU64::new(0)), 0);
    for _ in 0..24 {
        spared.store(1, Ordering::SeqCst);
        eventually("nothing more is taken", || {
            let before = taken;
            for _ in 0..64 {
                let of_task = Arc::clone(&done);
                let task = Task::with_closure(vec![1; 64 << 10], move |outcome| {
                    of_task.fetch_add(u64::from(outcome.is_ok()), Ordering::SeqCst);
                });
                taken += u64::from(member.node.apply(task).is_ok());
                let open = taken - done.load(Ordering::SeqCst);
                assert!(
                    open <= 384,
                    "the turns in the ring and a few more; {open} of {taken} tasks are open"
                );
            }
            (taken == before && spared.load(Ordering::SeqCst) == 0).then_some(())
        });
    }
    full.store(false, Ordering::SeqCst);
    eventually("all are applied", || (done.load(Ordering::SeqCst) == taken).then_some(()));
    member.host.shutdown();
}

#[test]
fn the_host_does_not_wait_for_itself() {
    struct Curious {
        host: RaftHost,
        seen: Arc<AtomicU64>,
    }
    impl StateMachine for Curious {
        fn on_apply(&mut self, iter: &mut Iterator<'_>) {
            while iter.next().is_some() {
                let node = self.host.nodes().pop().expect("runs");
                assert!(node.describe(LIMIT).is_err());
                assert!(self.host.stop_group(node.group_id()).is_err());
                self.host.shutdown();
                self.seen.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    let network = Network::new();
    let host = RaftHost::start(memory_options(&network, "127.0.0.1:1")).expect("starts");
    let seen = Arc::new(AtomicU64::new(0));
    let machine = Curious { host: host.clone(), seen: seen.clone() };
    let peer = "127.0.0.1:1".parse().expect("peer");
    let options = quick(&"127.0.0.1:1".parse().expect("conf"));
    let node = RaftGroupService::new("g", peer, options, machine).start(&host).expect("starts");
    eventually("leads", || node.is_leader().then_some(()));
    let outcome = node.propose("x").wait(LIMIT);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    host.shutdown();
}
