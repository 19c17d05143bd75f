//! The unit of the pipeline: consecutive entries of one group and term, shared by every stage.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use crate::peer::Configuration;
use crate::types::{LogId, LogIndex, Term};

/// What the entries of a chunk are (SOFAJRaft's `EntryType`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// Commands for the state machine.
    Data,
    /// Placeholder entries without effect.
    NoOp,
    /// One configuration; such a chunk has exactly one entry, with no payload.
    Configuration {
        /// The new configuration.
        conf: Configuration,
        /// The configuration that is being left; empty unless joint.
        old_conf: Configuration,
    },
}

/// Consecutive entries of one group, one term and one kind, with one contiguous payload.
///
/// The in-memory log, the disk stage, all replicators and the state-machine stage share a chunk through an
/// `Arc`: one reference count a batch, no allocation an entry. A chunk never changes after it is built.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryChunk {
    first_index: LogIndex,
    term: Term,
    kind: ChunkKind,
    /// `ends[i]` is where the payload of entry i ends in `payload`; never decreasing.
    ends: Vec<u32>,
    payload: Bytes,
    checksum: PayloadChecksum,
}

/// The CRC-32C of a payload, once somebody has computed it: bit 32 says that the lower half is one. It follows from the payload, so that
/// it takes no part in comparisons, and two threads that compute it at once store the same number.
#[derive(Default)]
struct PayloadChecksum(AtomicU64);

impl Clone for PayloadChecksum {
    fn clone(&self) -> PayloadChecksum {
        PayloadChecksum(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for PayloadChecksum {
    fn eq(&self, _: &PayloadChecksum) -> bool {
        true
    }
}

impl Eq for PayloadChecksum {}

/// Why parts do not make an [`EntryChunk`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChunk {
    /// A chunk carries at least one entry.
    #[error("a chunk of entries must not be empty")]
    Empty,
    /// The ends do not ascend, or the last is not the payload's length.
    #[error("entry lengths do not match a payload of {payload} bytes")]
    Lengths {
        /// Bytes of payload given.
        payload: usize,
    },
    /// A configuration chunk has more than one entry, a payload, or no voter.
    #[error("a configuration entry stands alone, has voters and no payload")]
    Configuration,
    /// Indexes start at 1 and must not overflow.
    #[error("first index {0} is out of range")]
    Index(LogIndex),
}

impl EntryChunk {
    /// Builds a chunk from its parts, checking that they fit together.
    ///
    /// # Errors
    /// [`InvalidChunk`] says which rule is broken. Parts may come from a peer or a disk.
    pub fn from_parts(
        first_index: LogIndex,
        term: Term,
        kind: ChunkKind,
        ends: Vec<u32>,
        payload: Bytes,
    ) -> Result<EntryChunk, InvalidChunk> {
        let last = *ends.last().ok_or(InvalidChunk::Empty)?;
        if last as usize != payload.len() || ends.windows(2).any(|w| w[0] > w[1]) {
            return Err(InvalidChunk::Lengths { payload: payload.len() });
        }
        if first_index == 0 || first_index.checked_add(ends.len() as u64).is_none() {
            return Err(InvalidChunk::Index(first_index));
        }
        if let ChunkKind::Configuration { conf, .. } = &kind
            && (ends.len() != 1 || !payload.is_empty() || conf.peers.is_empty())
        {
            return Err(InvalidChunk::Configuration);
        }
        Ok(EntryChunk { first_index, term, kind, ends, payload, checksum: PayloadChecksum::default() })
    }

    /// A chunk of one entry that changes nothing.
    pub fn no_op(id: LogId) -> EntryChunk {
        debug_assert!(id.index > 0);
        EntryChunk::without_payload(id, ChunkKind::NoOp)
    }

    /// A chunk of one configuration entry.
    pub fn configuration(id: LogId, conf: Configuration, old_conf: Configuration) -> EntryChunk {
        debug_assert!(id.index > 0 && !conf.peers.is_empty());
        EntryChunk::without_payload(id, ChunkKind::Configuration { conf, old_conf })
    }

    fn without_payload(id: LogId, kind: ChunkKind) -> EntryChunk {
        EntryChunk {
            first_index: id.index,
            term: id.term,
            kind,
            ends: vec![0],
            payload: Bytes::new(),
            checksum: PayloadChecksum::default(),
        }
    }

    /// Index of the first entry.
    pub fn first_index(&self) -> LogIndex {
        self.first_index
    }

    /// Index of the last entry.
    pub fn last_index(&self) -> LogIndex {
        self.first_index + self.ends.len() as u64 - 1
    }

    /// The term of every entry in the chunk.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Index and term of the last entry.
    pub fn last_id(&self) -> LogId {
        LogId::new(self.last_index(), self.term)
    }

    /// What the entries are.
    pub fn kind(&self) -> &ChunkKind {
        &self.kind
    }

    /// Number of entries, at least 1.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Payload of all entries, one after the other.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The CRC-32C of [`payload`](Self::payload). `compute` is called the first time only: senders to several peers, and the log, share
    /// what one of them has computed. It must compute CRC-32C (Castagnoli, from 0) of the bytes that it gets, or return what is known to be it.
    pub fn payload_crc(&self, compute: impl FnOnce(&[u8]) -> u32) -> u32 {
        let known = self.checksum.0.load(Ordering::Relaxed);
        if known != 0 {
            return known as u32;
        }
        let crc = compute(&self.payload);
        self.checksum.0.store(1 << 32 | u64::from(crc), Ordering::Relaxed);
        crc
    }

    /// Where each entry's payload ends within [`payload`](Self::payload).
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Payload of the entry at `position` (0 is the first).
    ///
    /// # Panics
    /// When `position` is not below [`len`](Self::len).
    pub fn entry(&self, position: usize) -> &[u8] {
        let start = if position == 0 { 0 } else { self.ends[position - 1] as usize };
        &self.payload[start..self.ends[position] as usize]
    }

    /// Bytes that the chunk holds in memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.payload.len() + self.ends.len() * 4 + std::mem::size_of::<EntryChunk>()
    }

    /// The part with indexes `from..=to`, sharing the payload; `None` when nothing is left.
    pub fn slice(&self, from: LogIndex, to: LogIndex) -> Option<EntryChunk> {
        let (from, to) = (from.max(self.first_index), to.min(self.last_index()));
        if from > to {
            return None;
        }
        let (a, b) = ((from - self.first_index) as usize, (to - self.first_index) as usize);
        let start = if a == 0 { 0 } else { self.ends[a - 1] };
        Some(EntryChunk {
            first_index: from,
            term: self.term,
            kind: self.kind.clone(),
            ends: self.ends[a..=b].iter().map(|e| e - start).collect(),
            payload: self.payload.slice(start as usize..self.ends[b] as usize),
            checksum: PayloadChecksum::default(),
        })
    }

    /// Like [`slice`](Self::slice), without copying when the whole chunk is meant.
    pub fn share(self: &Arc<Self>, from: LogIndex, to: LogIndex) -> Option<Arc<EntryChunk>> {
        if from <= self.first_index && to >= self.last_index() {
            return Some(Arc::clone(self));
        }
        self.slice(from, to).map(Arc::new)
    }
}

impl fmt::Debug for EntryChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            ChunkKind::Data => "data",
            ChunkKind::NoOp => "no-op",
            ChunkKind::Configuration { .. } => "conf",
        };
        write!(
            f,
            "[{}..={}]@{} {kind} {}B",
            self.first_index,
            self.last_index(),
            self.term,
            self.payload.len()
        )
    }
}

/// Proposals on their way into one chunk: payloads in the order in which they were taken from the ring.
///
/// Index and term are not known yet; the leader gives them when it appends.
#[derive(Default)]
pub struct ChunkBuilder {
    ends: Vec<u32>,
    payload: BytesMut,
    /// A large payload that stands alone and is not copied.
    alone: Option<Bytes>,
}

impl ChunkBuilder {
    /// An empty builder.
    pub fn new() -> ChunkBuilder {
        ChunkBuilder::default()
    }

    /// A builder with one large entry, whose payload is shared instead of copied; nothing can be added to it.
    ///
    /// # Panics
    /// When the payload is 4 GiB or more; callers bound payloads far below that.
    pub fn alone(data: Bytes) -> ChunkBuilder {
        let end = u32::try_from(data.len()).expect("a payload stays far below 4 GiB");
        ChunkBuilder { ends: vec![end], payload: BytesMut::new(), alone: Some(data) }
    }

    /// Entries added so far.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of payload added so far.
    pub fn payload_len(&self) -> usize {
        self.alone.as_ref().map_or(self.payload.len(), Bytes::len)
    }

    /// Adds one entry; its payload is copied, so that a small payload never pins a large buffer.
    ///
    /// # Panics
    /// When the chunk's payload would exceed 4 GiB; callers bound chunks far below that.
    pub fn push(&mut self, data: &[u8]) {
        debug_assert!(self.alone.is_none(), "a large entry stands alone");
        self.payload.extend_from_slice(data);
        self.ends.push(u32::try_from(self.payload.len()).expect("a chunk stays far below 4 GiB"));
    }

    /// Takes what was added as a data chunk starting at `first_index`; `None` when nothing was added.
    pub fn take(&mut self, first_index: LogIndex, term: Term) -> Option<EntryChunk> {
        if self.ends.is_empty() {
            return None;
        }
        let ends = std::mem::take(&mut self.ends);
        let payload = self.alone.take().unwrap_or_else(|| std::mem::take(&mut self.payload).freeze());
        let checksum = PayloadChecksum::default();
        Some(EntryChunk { first_index, term, kind: ChunkKind::Data, ends, payload, checksum })
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.payload.clear();
        self.alone = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first: LogIndex, payloads: &[&str]) -> EntryChunk {
        let mut builder = ChunkBuilder::new();
        payloads.iter().for_each(|p| builder.push(p.as_bytes()));
        builder.take(first, 3).unwrap()
    }

    #[test]
    fn entries_are_found_by_position() {
        let c = chunk(7, &["a", "", "ccc"]);
        assert_eq!((c.first_index(), c.last_index(), c.len()), (7, 9, 3));
        assert_eq!([c.entry(0), c.entry(1), c.entry(2)], [&b"a"[..], b"", b"ccc"]);
    }

    #[test]
    fn a_slice_is_the_chunk_of_its_entries() {
        let c = chunk(7, &["a", "bb", "ccc", "dddd"]);
        assert_eq!(c.slice(8, 9).unwrap(), chunk(8, &["bb", "ccc"]));
        assert_eq!(c.slice(0, 99).unwrap(), c);
        assert!(c.slice(11, 20).is_none() && c.slice(1, 6).is_none());
    }

    #[test]
    fn a_checksum_is_computed_once_and_belongs_to_the_payload() {
        let c = chunk(7, &["a", "bb"]);
        assert_eq!(c.payload_crc(|payload| payload.len() as u32), 3);
        assert_eq!(c.payload_crc(|_| unreachable!("it is known")), 3);
        assert_eq!(c.clone().payload_crc(|_| unreachable!("a copy knows it")), 3);
        assert_eq!(
            c.slice(8, 8).unwrap().payload_crc(|payload| payload.len() as u32),
            2,
            "a part has another"
        );
        assert_eq!(chunk(7, &["a", "bb"]), c, "it takes no part in comparisons");
        // 0 is a checksum like any other.
        let zero = chunk(1, &["x"]);
        assert_eq!(zero.payload_crc(|_| 0), 0);
        assert_eq!(zero.payload_crc(|_| unreachable!("it is known")), 0);
    }

    #[test]
    fn hostile_parts_are_refused() {
        let make = |first, ends: Vec<u32>, payload: &'static [u8]| {
            EntryChunk::from_parts(first, 1, ChunkKind::Data, ends, Bytes::from_static(payload))
        };
        assert_eq!(make(1, vec![], b""), Err(InvalidChunk::Empty));
        assert!(make(1, vec![2, 1], b"x").is_err());
        assert!(make(1, vec![1], b"xy").is_err());
        assert!(make(0, vec![1], b"x").is_err());
        assert!(make(u64::MAX, vec![1], b"x").is_err());
        assert!(make(1, vec![1, 1], b"x").is_ok());
    }
}
