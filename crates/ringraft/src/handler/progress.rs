//! How far the later stages are, told to the owners: the newest value a group, which coalesces and cannot overflow.

use std::fmt;
use std::sync::Arc;

use ringraft_core::{LogIndex, Mutant, Status};

use crate::handler::GroupHandle;
use crate::thread::sync::{AtomicBool, AtomicU64, Mutex, Ordering, fence};

/// How far the disk and the state machine are with one group.
#[derive(Debug, Default)]
pub struct GroupProgress {
    /// Number of the last durable write.
    stable: AtomicU64,
    /// Index of the last applied entry.
    applied: AtomicU64,
    /// The owner waits for the disk.
    urgent: AtomicBool,
    /// The owner waits for the state machine: it may not be given more before it has applied what it has.
    awaits_apply: AtomicBool,
    /// Applied index at which the owner was woken last.
    woken_at: AtomicU64,
    /// The group stands in its board's list.
    listed: AtomicBool,
    /// Why the state machine failed, or the store refuses the group's writes.
    error: Mutex<Option<Status>>,
    failed: AtomicBool,
}

impl GroupProgress {
    /// It stands in its board's list no more: whoever has news puts it there again.
    fn was_taken(&self) {
        if !Mutant::K6ProgressIsToldOnce.is_active() {
            self.listed.swap(false, Ordering::AcqRel);
        }
    }

    /// Number of the last durable write, and index of the last applied entry.
    pub fn values(&self) -> (u64, LogIndex) {
        (self.stable.load(Ordering::Acquire), self.applied.load(Ordering::Acquire))
    }

    /// The owner says whether it waits for the disk, and for the state machine. It looks at the board once more before it
    /// sleeps.
    pub(crate) fn set_urgent(&self, disk: bool, state_machine: bool) {
        #[cfg(shuttle)]
        let (disk, state_machine) = {
            use crate::thread::breakage::{Breakage, is};
            (disk && !is(Breakage::UrgentFlag), state_machine && !is(Breakage::AwaitsApplyFlag))
        };
        for (flag, value) in [(&self.urgent, disk), (&self.awaits_apply, state_machine)] {
            if flag.load(Ordering::Relaxed) != value {
                flag.store(value, Ordering::SeqCst);
            }
        }
        if disk || state_machine {
            // Together with the fences of `ProgressBoard`: either the reporter sees the flag, or the owner sees the mark.
            fence(Ordering::SeqCst);
        }
    }

    /// Why the group failed in a later stage, the first time this is asked.
    pub fn take_error(&self) -> Option<Status> {
        if !self.failed.load(Ordering::Acquire) {
            return None;
        }
        self.failed.store(false, Ordering::Relaxed);
        self.error.lock().take()
    }
}

/// Applied entries after which a sleeping owner is woken.
const APPLIED_PER_WAKE: u64 = 512;

/// One a lane: which of its groups have progress to look at.
#[derive(Default)]
pub struct ProgressBoard {
    dirty: Mutex<Dirty>,
    /// Something is on the board.
    marked: AtomicBool,
    /// Groups of the lane wait until others have applied what they were given.
    starved: AtomicBool,
}

#[derive(Default)]
struct Dirty {
    groups: Vec<(GroupHandle, Arc<GroupProgress>)>,
    store_error: Option<Status>,
}

impl ProgressBoard {
    /// An empty board.
    pub fn new() -> ProgressBoard {
        ProgressBoard::default()
    }

    /// The group's writes are durable up to `sequence`. Says whether the owner waits for it and must be woken; otherwise it will
    /// look at the board in good time by itself. Rule R6: a newer value replaces the one before, so that no report needs room.
    #[must_use]
    pub fn stable(&self, handle: GroupHandle, progress: &Arc<GroupProgress>, sequence: u64) -> bool {
        progress.stable.fetch_max(sequence, Ordering::Release);
        self.list(handle, progress);
        fence(Ordering::SeqCst);
        progress.urgent.load(Ordering::Relaxed)
    }

    /// The group's entries are applied up to `index`. Says whether the owner must be woken, as for
    /// [`stable`](ProgressBoard::stable): when it holds entries back until then, else now and then for the sake of memory.
    #[must_use]
    pub fn applied(&self, handle: GroupHandle, progress: &Arc<GroupProgress>, index: LogIndex) -> bool {
        progress.applied.fetch_max(index, Ordering::Release);
        self.list(handle, progress);
        // Only the group's worker writes it.
        let due = index >= progress.woken_at.load(Ordering::Relaxed).saturating_add(APPLIED_PER_WAKE);
        if due {
            progress.woken_at.store(index, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        due || progress.awaits_apply.load(Ordering::Relaxed) || self.starved.load(Ordering::Relaxed)
    }

    /// The owner says whether groups of its lane wait until others have applied what they were given: whichever applies something
    /// wakes it then. It looks at the board once more before it sleeps. Call it at the end of a turn.
    pub fn set_starved(&self, starved: bool) {
        if self.starved.load(Ordering::Relaxed) != starved {
            self.starved.store(starved, Ordering::SeqCst);
            // As in `GroupProgress::set_urgent`.
            fence(Ordering::SeqCst);
        }
    }

    /// The group has failed in a later stage: its state machine, or its writes, which the store refuses. The owner must be woken.
    pub fn group_failed(&self, handle: GroupHandle, progress: &Arc<GroupProgress>, status: Status) {
        progress.error.lock().get_or_insert(status);
        progress.failed.store(true, Ordering::Release);
        self.list(handle, progress);
    }

    /// The log store has failed: nothing is durable any more. The owner must be woken.
    pub fn store_failed(&self, status: Status) {
        self.dirty.lock().store_error.get_or_insert(status);
        self.marked.store(true, Ordering::Release);
    }

    fn list(&self, handle: GroupHandle, progress: &Arc<GroupProgress>) {
        // The lock first: who finds the group listed, by another stage, may wake the owner and must then know that it stands in
        // the list and that the board is marked. The owner would find nothing otherwise, and sleep again.
        let mut dirty = self.dirty.lock();
        // The owner takes the group from the list before it reads the values, so that a value is never missed.
        if !progress.listed.swap(true, Ordering::AcqRel) {
            dirty.groups.push((handle, Arc::clone(progress)));
            self.marked.store(true, Ordering::Release);
        }
    }

    /// Whether there is anything to take. Cheap.
    pub fn is_marked(&self) -> bool {
        self.marked.load(Ordering::Acquire)
    }

    /// Takes the groups with progress, in the order in which they reported, and the store's failure.
    pub fn take(&self, into: &mut Vec<(GroupHandle, Arc<GroupProgress>)>) -> Option<Status> {
        if !self.is_marked() {
            return None;
        }
        let mut dirty = self.dirty.lock();
        self.marked.store(false, Ordering::Relaxed);
        into.append(&mut dirty.groups);
        let error = dirty.store_error.take();
        drop(dirty);
        for (_, progress) in into.iter() {
            progress.was_taken();
        }
        error
    }
}

impl fmt::Debug for ProgressBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressBoard").field("marked", &self.is_marked()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows rule R6.
    #[test]
    fn progress_coalesces_to_the_newest_value() {
        let (board, progress) = (ProgressBoard::new(), Arc::new(GroupProgress::default()));
        let handle = GroupHandle { lane: 0, slot: 3, generation: 1 };
        assert!(!board.stable(handle, &progress, 5), "nobody waits");
        progress.set_urgent(true, false);
        assert!(board.stable(handle, &progress, 4), "the owner waits");
        assert!(!board.applied(handle, &progress, 9));
        assert!(board.applied(handle, &progress, 9 + APPLIED_PER_WAKE));
        let mut taken = Vec::new();
        assert_eq!(board.take(&mut taken), None);
        assert_eq!(taken.len(), 1, "one entry a group, however often it reports");
        assert_eq!(taken[0].1.values(), (5, 9 + APPLIED_PER_WAKE));
        taken.clear();
        board.take(&mut taken);
        assert!(taken.is_empty());
        let _ = board.stable(handle, &progress, 6);
        board.take(&mut taken);
        assert_eq!(taken.len(), 1, "a group that was taken can be listed again");
    }

    /// Disk and state machine report at once: when a report has returned, and with it the order to wake the owner, the owner
    /// finds the group on the board.
    #[test]
    fn what_was_reported_is_on_the_board() {
        let (board, progress) = (ProgressBoard::new(), Arc::new(GroupProgress::default()));
        let handle = GroupHandle { lane: 0, slot: 3, generation: 1 };
        let stop = AtomicBool::new(false);
        let missed = std::thread::scope(|scope| {
            scope.spawn(|| {
                for index in 1.. {
                    let _ = board.applied(handle, &progress, index);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let mut taken = Vec::new();
            let mut missed = 0;
            for sequence in 1..=300_000 {
                // So that the other's report is now before this one, now in the midst of it.
                for _ in 0..sequence % 32 {
                    std::hint::spin_loop();
                }
                let _ = board.stable(handle, &progress, sequence);
                taken.clear();
                board.take(&mut taken);
                missed += usize::from(taken.is_empty());
            }
            stop.store(true, Ordering::Relaxed);
            missed
        });
        assert_eq!(missed, 0, "reports that the owner would have slept over");
    }

    #[test]
    fn errors_are_taken_once() {
        let (board, progress) = (ProgressBoard::new(), Arc::new(GroupProgress::default()));
        let handle = GroupHandle { lane: 0, slot: 0, generation: 1 };
        let status = |text: &str| Status::new(ringraft_core::RaftError::Io, text);
        board.group_failed(handle, &progress, status("first"));
        board.group_failed(handle, &progress, status("second"));
        board.store_failed(status("disk"));
        let mut taken = Vec::new();
        assert_eq!(board.take(&mut taken), Some(status("disk")));
        assert_eq!(taken[0].1.take_error(), Some(status("first")));
        assert_eq!(taken[0].1.take_error(), None);
    }
}
