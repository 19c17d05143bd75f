//! Progress beside the rings: an owner never sleeps over durable writes or applied entries that it waits for.

use super::*;

/// One task after the other, so that every stage sleeps in between: each wake-up on the way is needed.
pub(super) fn one_after_the_other(change: fn(&mut HostOptions, &mut NodeOptions)) {
    explore(move || {
        let (mut options, mut node_options) = (tight(), node_options(ApplyTaskMode::Blocking));
        change(&mut options, &mut node_options);
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let node = start_with(&host, "g", node_options, Recorder::new(&ledger));
        for tag in 0..3 {
            assert!(propose(&node, tag).is_ok());
        }
        host.shutdown();
        assert_eq!(*ledger.applied.lock(), [0, 1, 2]);
    });
}

#[test]
fn what_is_durable_wakes_a_leader() {
    one_after_the_other(|_, _| {});
}

#[test]
fn what_is_durable_wakes_a_lane_that_drives_the_network() {
    one_after_the_other(|options, _| options.fuse_net = true);
}

/// The state machine may be given two entries at a time, and four come at once: what it has applied must wake the owner, for the
/// rest. What comes meanwhile is refused.
pub(super) fn a_few_entries_at_a_time(change: fn(&mut HostOptions)) {
    explore(move || {
        let (mut options, mut node_options) = (tight(), node_options(ApplyTaskMode::Blocking));
        change(&mut options);
        let raft = &mut node_options.raft_options;
        (raft.max_entries_size, raft.max_unapplied_entries) = (1, 2);
        (options.apply_ring_size, options.turn_events) = (4, 16);
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let node = start_with(&host, "g", node_options, Recorder::new(&ledger));
        let mut tasks = (0..4).map(|tag| ledger.task(tag)).collect();
        assert_eq!(node.apply_batch(&mut tasks), Ok(4));
        join(vec![producer(&node, &ledger, 100..104)]);
        ledger.await_outcomes(8);
        let outcomes = ledger.check((0..4).chain(100..104));
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(ApplyError::Busy))),
            "{outcomes:?}"
        );
        host.shutdown();
    });
}

#[test]
fn what_is_applied_wakes_an_owner_that_holds_entries_back() {
    a_few_entries_at_a_time(|_| {});
}

#[test]
fn what_is_applied_wakes_a_lane_that_drives_the_network() {
    a_few_entries_at_a_time(|options| options.fuse_net = true);
}
