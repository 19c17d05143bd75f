//! Memory for the ends of all logs of a lane: each group keeps some entries for peers that lag and for a slow state machine, and
//! thousands of groups keep thousands of times as much.

use std::collections::VecDeque;

use crate::handler::{GroupHandle, LogEntryAndClosureHandler};

/// What the groups of a lane keep in memory.
#[derive(Default)]
pub(super) struct Tails {
    bytes: usize,
    /// Groups that keep something, each once: who has kept it for longest is first.
    line: VecDeque<GroupHandle>,
    /// About how many of them are gone.
    gone: usize,
}

/// Groups that let go in one turn at most: what is not durable stays, so that it may be that none has anything to give.
const MOST_A_TURN: usize = 1024;

impl Tails {
    /// What a group keeps was `before` and is `after`; `listed` says whether it stands in line, and does so afterwards if it keeps
    /// anything.
    pub(super) fn count(&mut self, handle: GroupHandle, before: usize, after: usize, listed: &mut bool) {
        debug_assert!(self.bytes >= before, "each group gives back what it was counted with");
        self.bytes = self.bytes + after - before;
        if after > 0 && !std::mem::replace(listed, true) {
            self.line.push_back(handle);
        }
    }

    /// A group that was counted with so many bytes is gone; its place in line, if it has one, goes when there are many like it.
    pub(super) fn ended(&mut self, bytes: usize, listed: bool) {
        self.bytes -= bytes;
        self.gone += usize::from(listed);
    }
}

impl LogEntryAndClosureHandler {
    /// Bytes of log that the lane's groups keep in memory; for simulations.
    pub fn tail_bytes(&self) -> usize {
        self.tails.bytes
    }

    /// Has groups let go of what is durable, those first that have kept it for longest, until all of them together keep no more than
    /// the limit. It is read from the store when it is needed. Entries that are not durable stay, within each group's own bound.
    pub(super) fn shrink_tails(&mut self) {
        let (slots, tails) = (&self.slots, &mut self.tails);
        if tails.gone > 64 + tails.line.len() / 2 {
            tails.gone = 0;
            tails.line.retain(|handle| {
                slots
                    .get(handle.slot as usize)
                    .is_some_and(|slot| slot.generation == handle.generation && slot.group.is_some())
            });
        }
        for _ in 0..self.tails.line.len().min(MOST_A_TURN) {
            if self.tails.bytes <= self.limits.tail_bytes {
                return;
            }
            let Some(handle) = self.tails.line.pop_front() else { return };
            if let Some(group) = self.group(handle) {
                group.let_go_of_tail();
                self.count_tail(handle);
            }
        }
    }

    /// Counts what the group keeps after a step.
    pub(super) fn count_tail(&mut self, handle: GroupHandle) {
        let Some(group) = self.slots[handle.slot as usize].group.as_deref_mut() else { return };
        let (before, after) = group.count_tail();
        if before != after || after > 0 && !group.tail_listed {
            self.tails.count(handle, before, after, &mut group.tail_listed);
        }
    }
}
