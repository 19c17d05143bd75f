//! What the state-machine stage holds of a node: entries that were handed on and are not applied, and those that are being read for it.

use std::collections::VecDeque;

use crate::chunk::EntryChunk;
use crate::rules;
use crate::types::LogIndex;

/// Bytes in the state-machine stage, and how many more may go there.
///
/// The entries on their way to a state machine are held by nobody else: neither the store's memory nor the tail bounds them. Counted
/// in entries alone, a start would bring the whole log into memory.
#[derive(Debug)]
pub(super) struct Unapplied {
    /// Last index and size of each chunk that was handed on, oldest first.
    chunks: VecDeque<(LogIndex, usize)>,
    bytes: usize,
    /// What the read that is under way may bring.
    reading: usize,
    /// What the owner lets through until it says something else.
    allowance: usize,
    /// Entries stayed behind for want of allowance.
    wants_allowance: bool,
}

/// What an entry takes in memory beside its payload at most: a chunk of its own.
const BESIDE_PAYLOAD: usize = size_of::<EntryChunk>() + 4;

/// What keeps entries from being handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Nothing: so many bytes may go, and the entry that crosses them.
    Bytes(usize),
    /// The node's own bound: it goes on when the state machine has applied something.
    Applying,
    /// The owner: it goes on when that says so.
    Owner,
}

impl Default for Unapplied {
    fn default() -> Unapplied {
        Unapplied {
            chunks: VecDeque::new(),
            bytes: 0,
            reading: 0,
            allowance: usize::MAX,
            wants_allowance: false,
        }
    }
}

impl Unapplied {
    /// The owner lets through so many bytes from now on, and the entry that crosses them.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.allowance = bytes;
    }

    /// How much may go now, with a bound of `max` bytes for the node. Rule R1: looked at before each chunk, so that one entry at most
    /// crosses the bound; one that is larger than the bound must pass.
    pub(super) fn room(&self, max: usize) -> Room {
        match max.saturating_sub(self.bytes + self.reading) {
            0 => Room::Applying,
            _ if self.allowance == 0 => Room::Owner,
            own => Room::Bytes(own.min(self.allowance)),
        }
    }

    /// A look at what may be handed on begins, or has ended because of the owner.
    pub(super) fn note(&mut self, wants_allowance: bool) {
        self.wants_allowance = wants_allowance;
    }

    /// Whether entries wait for the owner's word, and for nothing else.
    pub(super) fn wants_allowance(&self) -> bool {
        self.wants_allowance
    }

    /// A chunk is handed on.
    pub(super) fn handed_on(&mut self, chunk: &EntryChunk) {
        let bytes = chunk.memory_bytes();
        self.chunks.push_back((chunk.last_index(), bytes));
        self.bytes += bytes;
        self.allowance = self.allowance.saturating_sub(bytes);
    }

    /// A read begins: says how many bytes of payload it may bring, `body` at most, and how many entries. One half of the room is for
    /// payload and the other for what entries take beside it in memory, of which small ones have more. It counts at once: of thousands
    /// of groups each could else have a read under way.
    pub(super) fn read_begins(&mut self, room: usize, body: usize) -> (usize, u64) {
        let bytes = room.min(body.saturating_mul(2));
        self.reading = bytes;
        self.allowance = self.allowance.saturating_sub(bytes);
        ((bytes / 2).max(1), (bytes / 2 / BESIDE_PAYLOAD).max(1) as u64)
    }

    /// The read has ended; what it brought has had its allowance.
    pub(super) fn read_ends(&mut self) {
        self.allowance = self.allowance.saturating_add(std::mem::take(&mut self.reading));
    }

    /// Everything up to `index` is applied. A chunk is let go of when all of it is.
    pub(super) fn applied(&mut self, index: LogIndex) {
        while let Some((_, bytes)) = self.chunks.pop_front_if(|(last, _)| *last <= index) {
            self.bytes -= rules::durability::applied_bytes_given_back(bytes);
        }
        if self.chunks.is_empty() && self.chunks.capacity() > 64 {
            self.chunks = VecDeque::new();
        }
    }

    /// Bytes that were handed on and are not applied, and what a read may bring.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.reading
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::chunk::ChunkKind;

    fn chunk(first: LogIndex, entries: u32, each: u32) -> EntryChunk {
        let ends = (1..=entries).map(|n| n * each).collect();
        let payload = Bytes::from(vec![0; (entries * each) as usize]);
        EntryChunk::from_parts(first, 1, ChunkKind::Data, ends, payload).unwrap()
    }

    #[test]
    fn a_chunk_counts_until_all_of_it_is_applied() {
        let mut unapplied = Unapplied::default();
        let (a, b) = (chunk(1, 3, 100), chunk(4, 1, 50));
        unapplied.handed_on(&a);
        unapplied.handed_on(&b);
        let both = a.memory_bytes() + b.memory_bytes();
        assert_eq!(unapplied.bytes(), both);
        assert_eq!(unapplied.room(both + 7), Room::Bytes(7));
        assert_eq!(unapplied.room(both), Room::Applying);
        unapplied.applied(2);
        assert_eq!(unapplied.bytes(), both, "the state machine still has the chunk");
        unapplied.applied(3);
        assert_eq!(unapplied.bytes(), b.memory_bytes());
        unapplied.applied(4);
        assert_eq!(unapplied.bytes(), 0);
    }

    #[test]
    fn the_owner_allows_less_and_a_read_counts_from_its_begin() {
        let mut unapplied = Unapplied::default();
        unapplied.allow(1000);
        assert_eq!(unapplied.room(5000), Room::Bytes(1000));
        assert_eq!(unapplied.read_begins(600, 10_000), (300, (300 / BESIDE_PAYLOAD) as u64));
        assert_eq!((unapplied.bytes(), unapplied.room(5000)), (600, Room::Bytes(400)));
        assert_eq!(unapplied.room(600), Room::Applying);
        unapplied.read_ends();
        unapplied.handed_on(&chunk(1, 1, 2000));
        assert_eq!(unapplied.room(5000), Room::Owner, "the entry that crosses it has passed");
        unapplied.allow(10);
        assert_eq!(unapplied.room(5000), Room::Bytes(10));
    }
}
