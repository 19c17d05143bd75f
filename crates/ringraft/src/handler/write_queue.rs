//! Which writes share the next durable one.
//!
//! What one durable write takes is a bound on how long everybody else waits for the disk: an answer to a vote must not wait until
//! hundreds of MiB of other groups are written. So a batch is capped, and groups whose write holds a term or a vote go first.

use std::collections::VecDeque;
use std::fmt;

use ringraft_core::{LogOp, Mutant};
use ringraft_storage::{GroupKey, GroupNumber};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::handler::DiskWrite;

/// How many durable writes may wait here, beside the ring: enough to choose from, and for the disk never to wait for a lane.
const WRITES_AHEAD: usize = 4;
/// Writes of lanes that may wait here, whatever they have in bytes.
const MOST_WRITES: usize = 1 << 16;

/// Writes that wait for the disk. Between groups their order is that of [`take`](WriteQueue::take); within a group it is the one in
/// which they came.
#[derive(Default)]
pub struct WriteQueue {
    waiting: VecDeque<DiskWrite>,
    bytes: usize,
}

impl WriteQueue {
    /// Nothing waits.
    pub fn new() -> WriteQueue {
        WriteQueue::default()
    }

    /// Adds the writes of a turn of a lane, oldest first.
    pub fn push(&mut self, writes: Vec<DiskWrite>) {
        self.bytes += writes.iter().map(|write| write.bytes).sum::<usize>();
        if self.waiting.is_empty() {
            // The list itself, so that no write is moved on its way when the disk keeps up.
            self.waiting = VecDeque::from(writes);
        } else {
            self.waiting.extend(writes);
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many writes wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether more shall be added, where a durable write takes `max_bytes`. Else it is left in the ring, which fills, so that lanes take
    /// nothing more in: what waits for a slow disk is bounded in bytes. Rule R1.
    pub fn has_room(&self, max_bytes: usize) -> bool {
        self.bytes < max_bytes.saturating_mul(WRITES_AHEAD) && self.len() < MOST_WRITES
    }

    /// Takes all writes of these groups, oldest first.
    pub fn take_groups(&mut self, groups: &FxHashSet<GroupKey>) -> Vec<DiskWrite> {
        let (taken, left): (VecDeque<DiskWrite>, VecDeque<DiskWrite>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|write| groups.contains(&write.key));
        self.waiting = left;
        self.bytes -= taken.iter().map(|write| write.bytes).sum::<usize>();
        taken.into()
    }

    /// Takes what the next durable write shall hold: everything, when that has at most `max_bytes`. Else first the writes with a
    /// term or a vote, each with all that its group has waiting before it, as far as together they have half of `max_bytes` at most;
    /// then the others, oldest first, until the next would not fit. The oldest is always taken, so that nobody waits for ever and a large one passes.
    pub fn take(&mut self, max_bytes: usize, into: &mut Vec<DiskWrite>) {
        if self.bytes <= max_bytes {
            self.bytes = 0;
            into.append(&mut Vec::from(std::mem::take(&mut self.waiting)));
            return;
        }
        let mut bytes = self.take_votes(max_bytes / 2, into);
        let mut oldest = true;
        while let Some(next) = self.waiting.pop_front_if(|next| oldest || bytes + next.bytes <= max_bytes) {
            bytes += next.bytes;
            oldest = false;
            into.push(next);
        }
        self.bytes -= bytes;
    }

    /// Takes writes with a term or a vote and what their groups wrote before, and says how many bytes all that has. A vote that does not
    /// fit stays where it is, with what waits behind the last one of its group that did.
    fn take_votes(&mut self, max_bytes: usize, into: &mut Vec<DiskWrite>) -> usize {
        let up_to = self.votes_within(max_bytes);
        if up_to.is_empty() {
            return 0;
        }
        let mut bytes = 0;
        for (place, write) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let vote = up_to.get(&write.key.number);
            if vote.is_some_and(|vote| place <= *vote) && goes_along(votes(&write)) {
                bytes += write.bytes;
                into.push(write);
            } else {
                self.waiting.push_back(write);
            }
        }
        bytes
    }

    /// Of each group with a vote that may go first: the place of the last such write. Oldest votes first.
    fn votes_within(&self, max_bytes: usize) -> FxHashMap<GroupNumber, usize> {
        let (mut up_to, mut behind) = (FxHashMap::default(), FxHashMap::<GroupNumber, usize>::default());
        let mut bytes = 0;
        // Most batches hold no vote, and cost one look at their operations.
        if !self.waiting.iter().any(votes) {
            return up_to;
        }
        for (place, write) in self.waiting.iter().enumerate() {
            let group = write.key.number;
            let behind = behind.entry(group).or_default();
            if goes_along(votes(write)) {
                *behind += write.bytes;
            }
            if votes(write) && bytes + *behind <= max_bytes {
                bytes += std::mem::take(behind);
                up_to.insert(group, place);
            }
        }
        up_to
    }
}

/// Whether the write holds a term or a vote.
fn votes(write: &DiskWrite) -> bool {
    write.ops.iter().any(|op| matches!(op, LogOp::HardState(_)))
}

/// Rule P1: a term or a vote is replayed behind the entries that were accepted before it, and its completion vouches for them. It
/// overtakes other groups; what its own group wrote before goes along, in its order.
fn goes_along(votes: bool) -> bool {
    votes || !Mutant::J1VoteOvertakesItsGroup.is_active()
}

impl fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteQueue").field("writes", &self.waiting.len()).field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use ringraft_core::{HardState, Vote};
    use ringraft_storage::Incarnation;

    use super::*;
    use crate::handler::GroupHandle;

    fn write(group: u32, sequence: u64, bytes: usize, votes: bool) -> DiskWrite {
        let vote = LogOp::HardState(HardState { term: sequence, vote: Vote::None });
        DiskWrite {
            handle: GroupHandle { lane: 0, slot: group, generation: 1 },
            key: GroupKey { number: GroupNumber(group), incarnation: Incarnation(1) },
            progress: Arc::default(),
            sequence,
            ops: if votes { vec![vote] } else { Vec::new() },
            bytes,
            sends: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn taken(queue: &mut WriteQueue, max_bytes: usize) -> Vec<(u32, u64)> {
        let mut into = Vec::new();
        queue.take(max_bytes, &mut into);
        into.iter().map(|write| (write.key.number.0, write.sequence)).collect()
    }

    #[test]
    fn what_fits_goes_at_once_and_in_its_order() {
        let mut queue = WriteQueue::new();
        queue.push(vec![write(1, 1, 40, false), write(2, 1, 20, true), write(1, 2, 40, false)]);
        assert_eq!(taken(&mut queue, 100), [(1, 1), (2, 1), (1, 2)]);
        assert!(queue.is_empty());
    }

    /// Shows rule P1: a vote overtakes other groups and not its own.
    #[test]
    fn votes_go_first_but_not_before_their_own_group() {
        let mut queue = WriteQueue::new();
        queue.push(vec![write(1, 1, 60, false), write(2, 1, 60, false), write(1, 2, 1, true)]);
        queue.push(vec![write(3, 1, 1, true), write(3, 2, 1, true)]);
        assert_eq!(taken(&mut queue, 100), [(3, 1), (3, 2), (1, 1)], "what its group wrote is too much");
        assert_eq!(taken(&mut queue, 60), [(1, 2), (2, 1)], "its group is first now");
        assert!(queue.is_empty());
    }

    /// A vote behind a small entry of its own group is as quick as any other, whatever others have waiting.
    #[test]
    fn a_vote_takes_along_what_its_group_wrote_before() {
        let mut queue = WriteQueue::new();
        queue.push((0..1000).map(|group| write(group + 10, 1, 1 << 20, false)).collect());
        queue.push(vec![write(1, 1, 200, false), write(1, 2, 40, true), write(2, 1, 5, false)]);
        queue.push(vec![write(1, 3, 200, false), write(1, 4, 40, true), write(1, 5, 10, false)]);
        assert_eq!(taken(&mut queue, 8 << 20)[..5], [(1, 1), (1, 2), (1, 3), (1, 4), (10, 1)]);
        assert_eq!(queue.len(), 1006 - 11);
    }

    /// Of several votes of a group those go first that fit.
    #[test]
    fn a_vote_that_does_not_fit_keeps_no_earlier_one() {
        let mut queue = WriteQueue::new();
        queue.push(vec![write(9, 1, 60, false), write(1, 1, 10, false), write(1, 2, 1, true)]);
        queue.push(vec![write(1, 3, 60, false), write(1, 4, 1, true), write(2, 1, 1, true)]);
        assert_eq!(taken(&mut queue, 100), [(1, 1), (1, 2), (2, 1), (9, 1)]);
        assert_eq!(taken(&mut queue, 100), [(1, 3), (1, 4)]);
    }

    /// Shows rule R1: a disk that is slower than its lanes holds them back, by bytes and by number, and until it has caught up.
    #[test]
    fn what_waits_for_a_slow_disk_is_bounded() {
        let mut queue = WriteQueue::new();
        queue.push(vec![write(1, 1, 200, false), write(2, 1, 199, false)]);
        assert!(queue.has_room(100));
        queue.push(vec![write(3, 1, 1, false)]);
        assert!(!queue.has_room(100) && queue.has_room(101));
        assert_eq!(taken(&mut queue, 100), [(1, 1)]);
        assert!(queue.has_room(100), "what was written waits no more");
        queue.push((0..MOST_WRITES as u32).map(|group| write(group, 2, 0, false)).collect());
        assert!(!queue.has_room(100), "small ones need memory, too");
        assert_eq!(taken(&mut queue, 1 << 20).len(), MOST_WRITES + 2);
        assert!(queue.has_room(100));
    }

    #[test]
    fn a_large_write_passes_alone_and_the_oldest_is_never_passed_over_twice() {
        let mut queue = WriteQueue::new();
        queue.push(vec![write(1, 1, 10, false), write(2, 1, 1000, false), write(3, 1, 10, false)]);
        assert_eq!(taken(&mut queue, 100), [(1, 1)]);
        queue.push(vec![write(4, 1, 60, true), write(5, 1, 40, true)]);
        assert_eq!(taken(&mut queue, 100), [(5, 1), (2, 1)], "votes have half of the write");
        assert_eq!(taken(&mut queue, 100), [(3, 1), (4, 1)]);
    }

    /// Whatever comes and whatever the cap: each write leaves once, those of a group in their order, and a batch keeps to the cap but for
    /// its last write.
    #[test]
    fn order_within_groups_and_the_cap_hold_for_any_sequence() {
        let mut state = 7_u64;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let (mut queue, cap) = (WriteQueue::new(), 1 + below(300) as usize);
            let (mut pushed, mut left) = (BTreeMap::<u32, u64>::new(), BTreeMap::<u32, u64>::new());
            for round in 0..20 {
                if round < 10 {
                    let turn = (0..below(12)).map(|_| {
                        let group = below(5) as u32;
                        let sequence = pushed.entry(group).or_default();
                        *sequence += 1;
                        write(group, *sequence, below(80) as usize, below(4) == 0)
                    });
                    queue.push(turn.collect());
                }
                let waits = !queue.is_empty();
                let mut batch = Vec::new();
                queue.take(if round == 19 { usize::MAX } else { cap }, &mut batch);
                assert_eq!(waits, !batch.is_empty(), "every batch gets on");
                let before_last: usize = batch.iter().rev().skip(1).map(|write| write.bytes).sum();
                assert!(round == 19 || before_last <= cap, "{before_last} of {cap}");
                for write in batch {
                    let last = left.entry(write.key.number.0).or_default();
                    assert_eq!(write.sequence, *last + 1, "group {}", write.key.number.0);
                    *last = write.sequence;
                }
            }
            assert_eq!((queue.len(), queue.bytes), (0, 0));
            assert_eq!(pushed, left);
        }
    }
}
