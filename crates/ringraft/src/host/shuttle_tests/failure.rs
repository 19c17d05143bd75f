//! Failures: of a state machine, of a node's step, of the store. Who is not touched goes on.

use super::*;
use crate::handler::{Control, FsmGroup, GroupNames, GroupProgress, OpenGroup};
use crate::node::NodeShared;
use crate::pipeline::DiskEvent;
use crate::status::NodeStatus;
use crate::task::promise::promise;

#[test]
fn a_panic_in_a_state_machine_stops_its_group_only() {
    explore(|| {
        let (host, ledger) =
            (RaftHost::start(tight()).expect("the host starts"), Arc::new(Ledger::default()));
        let mode = ApplyTaskMode::Blocking;
        let machine = Recorder { panics_at: Some(2), ..Recorder::new(&ledger) };
        let broken = start_with(&host, "broken", node_options(mode), machine);
        let fine = start_group(&host, "fine", mode, &ledger);
        join(vec![producer(&broken, &ledger, 0..6), producer(&fine, &ledger, 100..104)]);
        // Behind all others of the group: their outcomes are there.
        assert!(propose(&broken, LAST).is_err());
        let outcomes = ledger.check(0..6);
        assert!(
            outcomes[2..].iter().all(Result::is_err),
            "nothing is answered from the panic on: {outcomes:?}"
        );
        ledger.await_outcomes(10);
        assert!(ledger.check(100..104).iter().all(Result::is_ok));
        assert!(broken.last_error().is_some() && fine.last_error().is_none());
        host.shutdown();
    });
}

/// The store fails after some writes: nothing is acknowledged from then on, and whoever waits is told.
#[test]
fn a_store_that_fails_stops_every_group() {
    explore(|| {
        let mut options = tight();
        options.store = ScriptedStore::failing_after(8);
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let mode = ApplyTaskMode::Blocking;
        let nodes = [start_group(&host, "g", mode, &ledger), start_group(&host, "h", mode, &ledger)];
        join((0..2).map(|id| producer(&nodes[id as usize], &ledger, id * 100..id * 100 + 6)).collect());
        // A write after many others: by now the store has failed, or this is the one that it fails with.
        for node in &nodes {
            let mut last = Ok(Default::default());
            while last.is_ok() {
                last = propose(node, LAST);
            }
            assert!(last.is_err());
        }
        ledger.check((0..6).chain(100..106));
        assert!(nodes.iter().all(|node| node.last_error().is_some()));
        host.shutdown();
    });
}

/// As `RaftHost::start_group`, with the progress at hand, through which a bug of the core can be played.
fn start_by_hand(host: &RaftHost, name: &str, ledger: &Arc<Ledger>) -> (Node, Arc<GroupProgress>) {
    let inner = &*host.0;
    let (group_id, server_id): (ringraft_core::GroupId, ringraft_core::PeerId) =
        (name.parse().expect("a name"), ENDPOINT.parse().expect("a peer"));
    let (answer, opened) = promise();
    let groups = vec![GroupOpening { group: group_id.clone(), creation: 0 }];
    inner.disk.publish(DiskEvent::Open { groups, answer }).expect("the disk runs");
    let opened = opened.wait(None).expect("answered").expect("the store works").pop();
    let OpenedGroup { key, recovered, .. } = opened.expect("an answer").expect("opened");
    let names = GroupNames::new(group_id.clone(), server_id.clone(), 0);
    let (progress, status) = (Arc::new(GroupProgress::default()), Arc::new(NodeStatus::default()));
    let machine = Recorder::new(ledger);
    let leads = Arc::clone(&machine.leads);
    let fsm = FsmGroup::new(names.clone(), Box::new(machine), progress.clone(), status.clone(), 0);
    let options = node_options(ApplyTaskMode::Blocking);
    let open = OpenGroup {
        names,
        key,
        options: options.to_core(group_id.clone(), server_id.clone()),
        recovered,
        seed: 7,
        worker: 0,
        progress: progress.clone(),
        status: status.clone(),
        fsm: Box::new(fsm),
    };
    let handle = inner
        .control(0, |answer| Control::Open { group: Box::new(open), answer })
        .and_then(|answer| answer.wait(None))
        .expect("answered")
        .expect("started");
    let shared = NodeShared {
        group_id,
        server_id,
        handle,
        apply_task_mode: options.apply_task_mode,
        max_task_bytes: inner.max_task_bytes,
        creation: 0,
        disable_cli: options.disable_cli,
        read_index_timeout_ms: 2000,
        status,
        credit: Arc::clone(&inner.lanes[0].0.credit[0]),
        control: inner.lanes[0].0.control.clone(),
    };
    leads.pass();
    (Node::new(Arc::new(shared), inner.lanes[0].0.tasks[0].clone()), progress)
}

/// A debug assertion of the core stands for any bug in it. It speaks through the panic hook, once a schedule.
#[test]
fn a_panic_in_a_step_stops_its_group_only() {
    explore(|| {
        let (host, ledger) =
            (RaftHost::start(tight()).expect("the host starts"), Arc::new(Ledger::default()));
        let (broken, progress) = start_by_hand(&host, "broken", &ledger);
        let fine = start_group(&host, "fine", ApplyTaskMode::Blocking, &ledger);
        let producers = vec![producer(&broken, &ledger, 0..4), producer(&fine, &ledger, 100..104)];
        let (_, lane) = &host.0.lanes[0];
        // Applied beyond what was handed over.
        let _ = lane.board.applied(broken.handle(), &progress, 1_000_000);
        lane.wake();
        join(producers);
        // A turn that looked at the board just before still takes tasks.
        yield_until(|| broken.last_error().is_some());
        assert!(propose(&broken, LAST).is_err());
        ledger.check(0..4);
        ledger.await_outcomes(8);
        assert!(ledger.check(100..104).iter().all(Result::is_ok));
        assert!(broken.last_error().is_some() && fine.last_error().is_none());
        host.shutdown();
    });
}
