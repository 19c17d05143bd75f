//! Three hosts in one process: election, replication, failures of users' code, overload, shutdown.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringraft::inproc::Network;
use ringraft::{Applied, ApplyError, ApplyTaskMode, Completion, CompletionSink, NodeState, RaftError, Task};
use support::{Cluster, converge, eventually, leader_of, memory_options, quick, start_member};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn three_hosts_elect_and_replicate_in_order() {
    let cluster = Cluster::in_memory(&Network::new(), |_, _| {});
    let leader = cluster.leader();
    let mut futures: Vec<_> =
        (0..10_000_u64).map(|n| leader.node.propose(n.to_be_bytes().to_vec())).collect();
    let mut last = 0;
    for (position, future) in futures.iter_mut().enumerate() {
        let applied = future.wait(LIMIT).expect("applied");
        assert!(applied.index > last, "outcomes follow the log");
        assert_eq!(applied.response.as_ref(), (position as u64 + 1).to_be_bytes(), "the answer to this task");
        last = applied.index;
    }
    let entries = converge(&cluster.members, 10_000);
    let expected: Vec<Vec<u8>> = (0..10_000_u64).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(entries.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), expected);
    for member in &cluster.members {
        assert_eq!(member.node.leader_id().as_ref(), Some(leader.node.server_id()));
        let described = member.node.describe(LIMIT).expect("the owner answers");
        assert_eq!(described.configuration, cluster.conf.to_string());
    }
    cluster.shutdown();
    cluster.shutdown();
    for member in &cluster.members {
        assert_eq!(member.applied.shutdowns.load(Ordering::SeqCst), 1);
        assert_eq!(member.node.state(), NodeState::Shutdown);
        assert_eq!(member.node.propose("late").wait(LIMIT), Err(ApplyError::Shutdown));
        assert!(member.node.describe(LIMIT).is_err());
    }
}
