//! Ends: of a host whose rings are full, of a group among writes, of what was never used.

use super::*;

/// Three producers fill the rings of two groups while the host ends: each task has one outcome, each thread an end.
fn stop_while_full(mode: ApplyTaskMode, change: fn(&mut HostOptions)) {
    explore(move || {
        let mut options = tight();
        change(&mut options);
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let nodes = [start_group(&host, "g", mode, &ledger), start_group(&host, "h", mode, &ledger)];
        let producers =
            (0..3).map(|id| producer(&nodes[id as usize % 2], &ledger, id * 100..id * 100 + 5)).collect();
        host.shutdown();
        join(producers);
        ledger.check((0..3).flat_map(|id| id * 100..id * 100 + 5));
        assert_eq!(*ledger.shutdowns.lock(), 2, "each state machine was told");
        assert!(nodes.iter().all(|node| node.apply(ledger.task(1000)) == Err(ApplyError::Shutdown)));
    });
}

#[test]
fn a_host_ends_while_producers_wait_for_room() {
    stop_while_full(ApplyTaskMode::Blocking, |_| {});
}

#[test]
fn a_host_ends_while_producers_are_refused() {
    stop_while_full(ApplyTaskMode::NonBlocking, |_| {});
}

#[test]
fn a_host_of_two_lanes_and_two_workers_ends_while_full() {
    stop_while_full(ApplyTaskMode::Blocking, |options| (options.lanes, options.fsm_workers) = (2, 2));
}

#[test]
fn a_lane_that_drives_the_network_ends_while_full() {
    stop_while_full(ApplyTaskMode::Blocking, |options| options.fuse_net = true);
}

/// Two callers end the host at once, a third drops its handle.
#[test]
fn a_host_ends_once_however_many_ask() {
    explore(|| {
        let (host, ledger) =
            (RaftHost::start(tight()).expect("the host starts"), Arc::new(Ledger::default()));
        let node = start_group(&host, "g", ApplyTaskMode::Blocking, &ledger);
        let producer = producer(&node, &ledger, 0..3);
        let others = [host.clone(), host.clone()].map(|host| spawn(move || host.shutdown()));
        drop(host);
        join(others.into_iter().chain([producer]).collect());
        ledger.check(0..3);
        assert_eq!(*ledger.shutdowns.lock(), 1);
    });
}

#[test]
fn a_host_without_groups_ends() {
    explore(|| {
        for fuse_net in [false, true] {
            let mut options = tight();
            options.fuse_net = fuse_net;
            drop(RaftHost::start(options).expect("the host starts"));
        }
    });
}

/// A group ends and begins again among its writes; whoever applies to the first life learns it.
#[test]
fn a_group_ends_among_its_writes() {
    explore(|| {
        let (host, ledger) =
            (RaftHost::start(tight()).expect("the host starts"), Arc::new(Ledger::default()));
        let node = start_group(&host, "g", ApplyTaskMode::Blocking, &ledger);
        let producers = vec![producer(&node, &ledger, 0..4), producer(&node, &ledger, 100..104)];
        let group = "g".parse().expect("a name");
        assert!(host.stop_group(&group).expect("not a thread of the host"));
        assert_eq!(*ledger.shutdowns.lock(), 1, "the state machine is gone when the group is");
        join(producers);
        // The last tasks are refused by the worker that now applies those of the next life.
        let again = Arc::new(Ledger::default());
        let node = start_group(&host, "g", ApplyTaskMode::Blocking, &again);
        assert!(propose(&node, LAST).is_ok());
        ledger.check((0..4).chain(100..104));
        host.shutdown();
    });
}
