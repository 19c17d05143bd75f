//! What the disk stage asks of its store between writes, and what it makes of the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use ringraft::inproc::Network;
use ringraft::{NodeState, RaftGroupService, StoreOptions};
use ringraft_storage::{
    GroupKey, GroupOpening, LogReader, LogStorage, MemoryLogStorage, OpenedGroup, RefusedWrites,
    StorageError, StoredGroup, WriteBatch,
};

use crate::support::{Journal, LIMIT, Member, eventually, memory_options, quick, start_member};

/// What the store was asked that bears on durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Written,
    Vouched,
}

/// A store in memory that is watched, and that finds damage when told to.
#[derive(Default)]
struct Watched {
    inner: MemoryLogStorage,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Housekeeping has found that a record of group `g` cannot be read back.
    damaged: Arc<AtomicBool>,
    /// Times that somebody asked for damage.
    looked: Arc<AtomicU64>,
}

impl LogStorage for Watched {
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
        self.inner.submit(batch)
    }

    fn complete(&mut self) -> Result<Vec<RefusedWrites>, StorageError> {
        self.asked.lock().push(Asked::Written);
        self.inner.complete()
    }

    fn damaged_groups(&self) -> Vec<(GroupKey, StorageError)> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        let found = self.groups().into_iter().find(|(name, _)| name.as_str() == "g");
        let of_group = |(_, key)| {
            let what = "group g, entries 1..=1: a run's checksum does not match".to_owned();
            // The error of a disk may pass; it comes first, and stops nobody.
            let passing = StorageError::Io {
                operation: "read",
                path: "1.seg".to_owned(),
                message: "EIO".to_owned(),
                kind: ringraft_storage::IoKind::Other,
            };
            let damaged = StorageError::Damaged { path: "1.seg".to_owned(), offset: 7, what };
            (key, if self.damaged.load(Ordering::SeqCst) { damaged } else { passing })
        };
        found.map(of_group).into_iter().collect()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.inner.reader()
    }

    fn vouch(&mut self) -> Result<(), StorageError> {
        self.asked.lock().push(Asked::Vouched);
        Ok(())
    }
}

fn alone(storage: Watched) -> Member {
    let mut options = memory_options(&Network::new(), "127.0.0.1:1");
    options.store = StoreOptions::Custom { storage: Box::new(storage), blank: true };
    let member = start_member(options, quick(&"127.0.0.1:1".parse().expect("conf")));
    eventually("leads", || member.node.is_leader().then_some(()));
    member
}

/// Shows rule P7: a replica that is known to have lost an entry stops, at rest too, and nobody beside it.
#[test]
fn damage_that_housekeeping_finds_stops_its_group_and_no_other() {
    let storage = Watched::default();
    let (damaged, looked) = (Arc::clone(&storage.damaged), Arc::clone(&storage.looked));
    let member = alone(storage);
    let beside = RaftGroupService::new(
        "h",
        member.node.server_id().clone(),
        quick(&"127.0.0.1:1".parse().expect("conf")),
        Journal(Arc::default()),
    );
    let beside = beside.start(&member.host).expect("starts");
    member.node.propose("fine").wait(LIMIT).expect("applied");
    let beside_writes = || beside.propose("goes on").wait(LIMIT).expect("the other group is not concerned");
    // Housekeeping goes on for a while after each write.
    beside_writes();
    let before = looked.load(Ordering::SeqCst);
    eventually("the store is asked", || (looked.load(Ordering::SeqCst) > before).then_some(()));
    assert_eq!(member.node.state(), NodeState::Leader, "an error that may pass stops nobody");
    damaged.store(true, Ordering::SeqCst);
    beside_writes();
    let error = eventually("the group stops though nobody writes to it", || member.node.last_error());
    assert!(error.message.contains("checksum") && error.message.contains("rejoin"), "{error}");
    assert_eq!(member.node.state(), NodeState::Error);
    beside_writes();
    assert_eq!(beside.state(), NodeState::Leader);
    // It is started again on the same log, of which this store says nothing when it is opened: what it was told once is forgotten.
    assert!(member.host.stop_group(&"g".parse().expect("a group")).expect("stops"));
    let again = RaftGroupService::new(
        "g",
        member.node.server_id().clone(),
        quick(&"127.0.0.1:1".parse().expect("conf")),
        Journal(Arc::default()),
    );
    let again = again.start(&member.host).expect("starts");
    eventually("it stops again", || again.last_error());
    beside_writes();
    member.host.shutdown();
}

/// What nothing vouches for passes for a torn write: an idle host's last batch would stay such for hours.
#[test]
fn a_host_vouches_for_its_last_write_at_rest_and_at_its_end() {
    let storage = Watched::default();
    let asked = Arc::clone(&storage.asked);
    let member = alone(storage);
    member.node.propose("one").wait(LIMIT).expect("applied");
    eventually("the last write is vouched for", || {
        (asked.lock().last() == Some(&Asked::Vouched)).then_some(())
    });
    let before = asked.lock().len();
    member.node.propose("two").wait(LIMIT).expect("applied");
    member.host.shutdown();
    let asked = asked.lock();
    assert!(asked[before..].contains(&Asked::Written));
    assert_eq!(asked.last(), Some(&Asked::Vouched), "{:?}", &asked[before..]);
}
