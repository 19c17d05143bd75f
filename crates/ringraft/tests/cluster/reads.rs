//! Linearizable reads of every replica (SOFAJRaft's `NodeTest`; the numbers are those of `conformance.md`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringraft::inproc::Network;
use ringraft::{ApplyError, RaftError, ReadOnlyOption};

use crate::support::{Cluster, LIMIT, eventually, write};

const THREE: &str = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";

/// 24, 27
#[test]
fn every_replica_may_be_read() {
    for mode in [ReadOnlyOption::Safe, ReadOnlyOption::LeaseBased] {
        let network = Network::new();
        let conf = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3,127.0.0.1:4/learner";
        let cluster = Cluster::of(&network, conf, |node| node.raft_options.read_only_options = mode);
        write(&cluster.members, 10);
        for member in &cluster.members {
            // A follower that has not heard of its leader yet refuses.
            let index = eventually("a read", || member.node.read_index(mode).wait(LIMIT).ok());
            assert!(index >= 11, "ten commands and the entry of the leader's term: {index}");
            assert!(member.node.last_applied_index() >= index);
            assert_eq!(member.applied.entries.lock().len(), 10);
        }
        cluster.shutdown();
    }
}

/// 26
#[test]
fn a_read_has_its_time() {
    let network = Network::new();
    let cluster = Cluster::of(&network, "127.0.0.1:1", |node| {
        node.initial_conf = THREE.parse().expect("a configuration");
        node.raft_options.read_index_timeout_ms = 50;
    });
    let node = &cluster.members[0].node;
    // There is no leader: refused, or given up in its time.
    match node.read_index(ReadOnlyOption::Safe).wait(LIMIT) {
        Err(ApplyError::NotLeader { leader: None }) => {}
        Err(ApplyError::ReadFailed(status)) => assert_eq!(status.error, RaftError::TimedOut),
        other => panic!("{other:?}"),
    }
    let at_once = node.read_index(ReadOnlyOption::Safe).wait(Duration::ZERO);
    assert!(at_once.is_err(), "{at_once:?}");
    cluster.shutdown();
}

/// 28
#[test]
fn reads_see_what_was_acknowledged_before_them() {
    let network = Network::new();
    let cluster = Cluster::of(&network, THREE, |_| {});
    write(&cluster.members, 1);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let worker = |number: usize| {
        let members: Vec<_> =
            cluster.members.iter().map(|m| (m.node.clone(), Arc::clone(&m.applied))).collect();
        let acknowledged = Arc::clone(&acknowledged);
        std::thread::spawn(move || {
            for n in 0..100 {
                let (node, applied) = &members[(number + n) % 3];
                if let Some((leader, _)) = members.iter().find(|(node, _)| node.is_leader())
                    && let Ok(done) = leader.propose(format!("{number}:{n}")).wait(LIMIT)
                {
                    acknowledged.fetch_max(done.index, Ordering::SeqCst);
                }
                let before = acknowledged.load(Ordering::SeqCst);
                if let Ok(index) = node.read_index(ReadOnlyOption::Safe).wait(LIMIT) {
                    assert!(index >= before, "{before} was acknowledged before the read of {index}");
                    let last = applied.entries.lock().last().map_or(0, |(index, _)| *index);
                    assert!(last >= before, "the state machine has {last}, and {before} was acknowledged");
                }
            }
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    workers.into_iter().for_each(|worker| worker.join().expect("no stale read"));
    assert!(acknowledged.load(Ordering::SeqCst) > 100);
    cluster.shutdown();
}
