//! Groups that are stopped and removed while writes wait for room on the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ringraft::inproc::Network;
use ringraft::{ApplyError, Configuration, GroupId, Node, NodeOptions, RaftHost, StartError, StoreOptions};

use crate::failures::Failing;
use crate::support::{Applied, Journal, LIMIT, eventually, memory_options, quick};

const ALONE: &str = "127.0.0.1:1";

fn id(name: &str) -> GroupId {
    name.parse().expect("a group")
}

/// Starts a group whose leader waits for its disk for as long as it takes.
fn begin(host: &RaftHost, name: &str, creation: u64) -> Node {
    let conf: Configuration = ALONE.parse().expect("a configuration");
    let options = NodeOptions { disk_stall_timeout_ms: 3_600_000, creation, ..quick(&conf) };
    let journal = Box::new(Journal(Arc::<Applied>::default()));
    let node = host.start_group(id(name), ALONE.parse().expect("a peer"), options, journal).expect("started");
    node.propose("fine").wait(LIMIT).expect("applied");
    node
}

/// Somebody stops, removes and drops groups to make room: that must not stand behind the writes that wait for it, neither in the disk stage
/// nor in a lane whose ring is full. The groups beside them go on as soon as there is room, and nothing of what was accepted is lost.
#[test]
fn a_full_disk_holds_up_no_removal() {
    let (full, turned_away) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut options = memory_options(&Network::new(), ALONE);
    let storage =
        Box::new(Failing { full: full.clone(), turned_away: turned_away.clone(), ..Failing::default() });
    options.store = StoreOptions::Custom { storage, blank: true };
    (options.lanes, options.fsm_workers, options.fuse_net, options.disk_ring_size) = (1, 1, false, 2);
    let host = RaftHost::start(options).expect("a host");
    let [gone, stopped, dropped, stays] =
        ["gone", "stopped", "dropped", "stays"].map(|name| begin(&host, name, 5));
    full.store(true, Ordering::SeqCst);
    let waiting = gone.propose("waits");
    eventually("it was tried twice", || (turned_away.load(Ordering::SeqCst) > 1).then_some(()));
    // The batch that waits, two slots of the ring, and what the lane cannot hand on.
    let before = stays.last_log_index();
    let mut held: Vec<_> = Vec::new();
    eventually("the lane takes no more", || {
        let taken = stays.last_log_index();
        held.push(stays.propose(held.len().to_string()));
        std::thread::sleep(std::time::Duration::from_millis(20));
        (taken >= before + 3 && stays.last_log_index() == taken).then_some(())
    });
    assert!(host.stop_group(&id("stopped")).expect("stops"));
    assert!(matches!(host.remove_group(&id("gone"), 4), Err(StartError::OtherLife { .. })));
    assert!(host.remove_group(&id("gone"), 5).expect("removed"));
    let outcome = { waiting }.wait(LIMIT);
    assert!(matches!(outcome, Err(ApplyError::Unknown(_))), "{outcome:?}");
    assert!(matches!(host.rejoin_group(&id("dropped"), 4), Err(StartError::OtherLife { .. })));
    assert!(host.node(&id("dropped")).is_some(), "the life that was not meant runs");
    let told = host.rejoin_group(&id("dropped"), 5);
    assert!(
        matches!(told, Err(StartError::Store(_))),
        "the mark must be written, and there is no room: {told:?}"
    );
    let stored = host.stored_groups().expect("the store answers");
    assert_eq!(stored.iter().filter(|stored| stored.key.is_none()).count(), 1, "{stored:?}");
    assert!(full.load(Ordering::SeqCst) && host.store_error().is_none());
    drop((stopped, dropped));

    full.store(false, Ordering::SeqCst);
    for mut future in held {
        future.wait(LIMIT).expect("done when there is room");
    }
    begin(&host, "stopped", 5);
    begin(&host, "dropped", 5);
    assert_eq!(
        begin(&host, "gone", 6).last_log_index(),
        2,
        "a blank one: its leader's entry and one command"
    );
    host.shutdown();
}
