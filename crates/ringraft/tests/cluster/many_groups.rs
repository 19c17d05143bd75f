//! Many groups that are started and removed at once: what that asks of the disk.

use std::sync::Arc;

use ringraft::inproc::Network;
use ringraft::{GroupId, GroupStart, NodeOptions, RaftHost, StoreOptions};
use ringraft_storage::{MemoryDisk, SegmentLog, SegmentLogOptions};

use crate::support::{Applied, Journal, LIMIT, eventually, memory_options, quick};

const ALONE: &str = "127.0.0.1:1";
const MANY: u64 = 1000;

fn id(n: u64) -> GroupId {
    format!("g{n}").parse().expect("a group")
}

fn start(n: u64, creation: u64) -> GroupStart {
    let conf = ALONE.parse().expect("a configuration");
    GroupStart {
        group_id: id(n),
        server_id: ALONE.parse().expect("a peer id"),
        options: NodeOptions { creation, ..quick(&conf) },
        state_machine: Box::new(Journal(Arc::<Applied>::default())),
    }
}

/// Groups that start together elect themselves together, and those that are removed together share one durable write: the disk is asked
/// for a few operations, not for some for each group.
#[test]
fn many_groups_share_the_writes_of_their_beginning_and_end() {
    let disk = MemoryDisk::new();
    let store = SegmentLog::open(Arc::new(disk.clone()), SegmentLogOptions::default()).expect("a store");
    let mut options = memory_options(&Network::new(), ALONE);
    options.store = StoreOptions::Custom { storage: Box::new(store), blank: true };
    let host = RaftHost::start(options).expect("a host");
    let before = disk.operations();
    for node in host.start_groups((0..MANY).map(|n| start(n, 1)).collect()) {
        let node = node.expect("started");
        assert!(node.is_leader() || node.wait_for_leader(LIMIT).is_ok());
    }
    let started = disk.operations() - before;
    assert!(started < MANY, "{started} operations for {MANY} groups");
    host.node(&id(7)).expect("it runs").propose("x").wait(LIMIT).expect("applied");

    let meant: Vec<(GroupId, u64)> =
        (0..MANY).map(|n| (id(n), 1)).chain([(id(7), 2), (id(MANY), 1)]).collect();
    let before = disk.operations();
    let mut outcomes = host.remove_groups(&meant).into_iter();
    let removed = disk.operations() - before;
    assert!(removed < MANY / 4, "{removed} operations for the end of {MANY} groups");
    assert!(outcomes.by_ref().take(MANY as usize).all(|removed| removed.is_ok_and(|there| there)));
    assert!(outcomes.next().is_some_and(|twice| twice.is_err()), "somebody else removes it");
    assert!(matches!(outcomes.next(), Some(Ok(false))), "it was never there");
    let stored = host.stored_groups().expect("the store answers");
    assert_eq!(stored.iter().filter(|stored| stored.key.is_none()).count() as u64, MANY);
    assert!(host.nodes().is_empty());

    let again = host.start_groups((0..10).map(|n| start(n, 2)).collect());
    again.into_iter().for_each(|node| drop(node.expect("a later life")));
    eventually("it serves", || host.node(&id(3))?.propose("y").wait(LIMIT).ok());
    host.shutdown();
}
