//! Slow stages behind the smallest rings: whoever waits for room is woken by it.

use super::*;

/// Which stage stands still for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Slow {
    Disk,
    StateMachine,
}

/// A stage stands still until somebody opens its gate: late, if the schedule wants, when everything before it is full.
pub(super) fn a_stage_is_slow(slow: Slow, tasks: u64, change: fn(&mut HostOptions)) {
    explore(move || {
        let gate = Arc::new(Gate::default());
        let mut options = tight();
        change(&mut options);
        if slow == Slow::Disk {
            options.store = ScriptedStore::gated(Arc::clone(&gate));
        }
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let machine = Recorder {
            gate: (slow == Slow::StateMachine).then(|| Arc::clone(&gate)),
            ..Recorder::new(&ledger)
        };
        let node = start_with(&host, "g", node_options(ApplyTaskMode::Blocking), machine);
        gate.close();
        let tags = |id: u64| id * 100..id * 100 + tasks;
        let producers = (0..2).map(|id| producer(&node, &ledger, tags(id))).collect();
        let opener = spawn(move || gate.open());
        join(producers);
        ledger.await_outcomes(2 * tasks as usize);
        join(vec![opener]);
        let outcomes = ledger.check((0..2).flat_map(tags));
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        host.shutdown();
    });
}

/// Three entries, of which the last alone may find the state machine's ring full, now and then just before there is room: no
/// event after it wakes the lane.
pub(super) fn the_last_finds_no_room() {
    crate::thread::breakage::steer();
    explore(move || {
        let mut options = tight();
        options.turn_events = 1;
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let machine = Recorder { yields: true, ..Recorder::new(&ledger) };
        let node = start_with(&host, "g", node_options(ApplyTaskMode::Blocking), machine);
        join(vec![producer(&node, &ledger, 0..3)]);
        ledger.await_outcomes(3);
        ledger.check(0..3);
        host.shutdown();
    });
}

#[test]
fn the_last_entry_finds_no_room() {
    the_last_finds_no_room();
}

#[test]
fn a_slow_disk() {
    a_stage_is_slow(Slow::Disk, 8, |_| {});
}

#[test]
fn a_slow_state_machine() {
    a_stage_is_slow(Slow::StateMachine, 8, |_| {});
}

#[test]
fn a_slow_disk_behind_a_lane_that_drives_the_network() {
    a_stage_is_slow(Slow::Disk, 8, |options| options.fuse_net = true);
}

#[test]
fn a_slow_state_machine_behind_a_lane_that_drives_the_network() {
    a_stage_is_slow(Slow::StateMachine, 8, |options| options.fuse_net = true);
}

/// Three producers wait for room in blocking mode, with two lanes that share the later stages.
#[test]
fn producers_of_two_lanes_share_the_later_stages() {
    explore(|| {
        let mut options = tight();
        options.lanes = 2;
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let mode = ApplyTaskMode::Blocking;
        let nodes = [start_group(&host, "g", mode, &ledger), start_group(&host, "h", mode, &ledger)];
        let tags = |id: u64| id * 100..id * 100 + 5;
        join((0..3).map(|id| producer(&nodes[id as usize % 2], &ledger, tags(id))).collect());
        ledger.await_outcomes(15);
        let outcomes = ledger.check((0..3).flat_map(tags));
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        host.shutdown();
    });
}

/// Nothing stays in memory, so that entries are read back for the state machines: three groups want more reads than the read
/// worker's ring takes, and the worker waits for room in the lane's own ring.
fn entries_are_read_back(change: fn(&mut HostOptions)) {
    let total = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&total);
    explore(move || {
        let mut options = tight();
        (options.apply_ring_size, options.turn_events) = (4, 16);
        let reads = Arc::new(Reads::default());
        options.store = ScriptedStore::reading(Arc::clone(&reads));
        change(&mut options);
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let mut node_options = node_options(ApplyTaskMode::Blocking);
        let raft = &mut node_options.raft_options;
        (raft.max_entries_size, raft.max_body_size) = (1, 1);
        (raft.max_unstable_bytes, raft.max_logs_in_memory_bytes) = (1, 0);
        raft.max_unapplied_entries = 1;
        let nodes = ["g", "h", "i", "j"]
            .map(|name| start_with(&host, name, node_options.clone(), Recorder::new(&ledger)));
        let tags = |id: u64| id * 100..id * 100 + 8;
        let producers = (0..).zip(&nodes).map(|(id, node)| {
            let (node, ledger) = (node.clone(), Arc::clone(&ledger));
            spawn(move || {
                let mut tasks = tags(id).map(|tag| ledger.task(tag)).collect();
                assert_eq!(node.apply_batch(&mut tasks), Ok(8));
            })
        });
        join(producers.collect());
        ledger.await_outcomes(32);
        let outcomes = ledger.check((0..4).flat_map(tags));
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(ApplyError::Busy))),
            "{outcomes:?}"
        );
        host.shutdown();
        counter.fetch_add(reads.count.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    assert!(total.load(Ordering::Relaxed) > SCHEDULES, "entries were read back");
}

#[test]
fn reads_find_their_ring_full() {
    entries_are_read_back(|_| {});
}

#[test]
fn reads_of_a_lane_that_drives_the_network_find_their_ring_full() {
    entries_are_read_back(|options| options.fuse_net = true);
}

/// The state machines of one worker stand still, and tasks for them fill their ring. What is asked of the owner is answered all the
/// same, and a group of the other worker, on the same lane, is served.
fn one_worker_stands_still(change: fn(&mut HostOptions)) {
    explore(move || {
        let gate = Arc::new(Gate::default());
        let mut options = tight();
        options.fsm_workers = 2;
        change(&mut options);
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let machine = Recorder { gate: Some(Arc::clone(&gate)), ..Recorder::new(&ledger) };
        let slow = start_with(&host, "slow", node_options(ApplyTaskMode::Blocking), machine);
        let fine = start_group(&host, "fine", ApplyTaskMode::Blocking, &ledger);
        gate.close();
        let flood = producer(&slow, &ledger, 0..12);
        for tag in 100..103 {
            assert!(propose(&fine, tag).is_ok());
            assert!(slow.describe(Duration::MAX).is_ok() && fine.describe(Duration::MAX).is_ok());
        }
        gate.open();
        join(vec![flood]);
        ledger.await_outcomes(12);
        assert!(ledger.check(0..12).iter().all(Result::is_ok));
        host.shutdown();
    });
}

#[test]
fn one_worker_stands_still_and_the_other_goes_on() {
    one_worker_stands_still(|_| {});
}

#[test]
fn one_worker_stands_still_behind_a_lane_that_drives_the_network() {
    one_worker_stands_still(|options| options.fuse_net = true);
}

/// What is asked of the owner is answered while the disk, and with it everything in bulk, stands still.
/// Shows rule R3.
#[test]
fn control_is_answered_while_the_disk_stands_still() {
    explore(|| {
        let gate = Arc::new(Gate::default());
        let mut options = tight();
        options.store = ScriptedStore::gated(Arc::clone(&gate));
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let node = start_group(&host, "g", ApplyTaskMode::Blocking, &ledger);
        gate.close();
        let flood = producer(&node, &ledger, 0..12);
        for _ in 0..4 {
            assert!(node.describe(Duration::MAX).is_ok());
        }
        gate.open();
        join(vec![flood]);
        ledger.await_outcomes(12);
        host.shutdown();
    });
}
