//! What a record stream amounts to when it is replayed: hard state and entries.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringraft_core::{
    ChunkKind, ConfigurationEntry, EntryChunk, HardState, LogId, LogIndex, LogOp, RecoveredState, Term,
};

/// One entry of a [`LogImage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEntry {
    /// Term in which it was created.
    pub term: Term,
    /// What it is.
    pub kind: ChunkKind,
    /// Its payload.
    pub data: Bytes,
    /// Hash over this entry and everything before it: equal chains mean equal logs up to here.
    pub chain: u64,
}

/// A log as a replay of its operations leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogImage {
    hard_state: HardState,
    before_first: LogId,
    before_first_chain: u64,
    conf_at_start: Option<ConfigurationEntry>,
    promised_ms: u64,
    member_removed: LogId,
    entries: Vec<LoggedEntry>,
}

impl LogImage {
    /// A log with this hard state and one data entry for each of `terms`, named after index and term.
    pub fn preset(hard_state: HardState, terms: &[Term]) -> LogImage {
        let mut image = LogImage { hard_state, ..LogImage::default() };
        for term in terms {
            let data = format!("{}.{term}", image.last_index() + 1);
            image.push(*term, ChunkKind::Data, Bytes::from(data));
        }
        image
    }

    /// Term and vote.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// The longest promise to help no candidate that was written down, in milliseconds.
    pub fn promised_ms(&self) -> u64 {
        self.promised_ms
    }

    /// The committed configuration that no longer names the node, as it was written down; 0/0 for none.
    pub fn member_removed(&self) -> LogId {
        self.member_removed
    }

    /// First index of the log.
    pub fn first_index(&self) -> LogIndex {
        self.before_first.index + 1
    }

    /// Last index of the log.
    pub fn last_index(&self) -> LogIndex {
        self.before_first.index + self.entries.len() as u64
    }

    /// The entry at `index`, when the log has it.
    pub fn entry(&self, index: LogIndex) -> Option<&LoggedEntry> {
        let position = index.checked_sub(self.first_index())?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// Every entry with its index, in order.
    pub fn entries(&self) -> impl Iterator<Item = (LogIndex, &LoggedEntry)> {
        (self.first_index()..).zip(&self.entries)
    }

    /// Every entry from `first` on with its index, in order.
    pub fn entries_from(&self, first: LogIndex) -> impl Iterator<Item = (LogIndex, &LoggedEntry)> {
        let skip = first.saturating_sub(self.first_index()) as usize;
        (self.first_index() + skip as u64..).zip(self.entries.iter().skip(skip))
    }

    /// Every entry before `end` with its index, the last first.
    pub fn entries_until(&self, end: LogIndex) -> impl Iterator<Item = (LogIndex, &LoggedEntry)> {
        let keep = (end.saturating_sub(self.first_index()) as usize).min(self.entries.len());
        let first = self.first_index();
        self.entries[..keep].iter().enumerate().rev().map(move |(at, entry)| (first + at as u64, entry))
    }

    /// Hash over the log up to `index`; `None` when it does not reach there.
    pub fn chain_at(&self, index: LogIndex) -> Option<u64> {
        if index == self.before_first.index {
            return Some(self.before_first_chain);
        }
        self.entry(index).map(|e| e.chain)
    }

    /// Replays one operation.
    ///
    /// # Panics
    /// When the operation does not fit the log: the node that emitted it is broken.
    pub fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::HardState(hard_state) => self.hard_state = hard_state.clone(),
            LogOp::TruncateSuffix { from } => {
                assert!(*from >= self.first_index(), "truncation from {from} reaches below the log");
                self.entries.truncate((*from - self.first_index()) as usize);
            }
            LogOp::Append(chunk) => {
                assert_eq!(chunk.first_index(), self.last_index() + 1, "an append leaves a hole");
                let mut start = 0;
                for end in chunk.ends() {
                    let data = chunk.payload().slice(start..*end as usize);
                    start = *end as usize;
                    self.push(chunk.term(), chunk.kind().clone(), data);
                }
            }
            LogOp::TruncatePrefix { first_kept } => {
                let drop = (*first_kept).saturating_sub(self.first_index()) as usize;
                let drop = drop.min(self.entries.len());
                if let Some(last) = drop.checked_sub(1).and_then(|i| self.entries.get(i)) {
                    self.before_first_chain = last.chain;
                    self.before_first = LogId::new(self.before_first.index + drop as u64, last.term);
                    let kept = self.before_first.index;
                    let in_force = self.recover().configurations.into_iter().rfind(|c| c.id.index <= kept);
                    self.conf_at_start = in_force.or(self.conf_at_start.take());
                    self.entries.drain(..drop);
                }
            }
            LogOp::Reset { before, conf } => {
                self.entries.clear();
                self.before_first = *before;
                // What went before is known by its last entry alone.
                self.before_first_chain = mix(before.index, &before.term.to_le_bytes());
                self.conf_at_start = conf.as_deref().cloned();
            }
            LogOp::Promise { ms } => self.promised_ms = self.promised_ms.max(*ms),
            LogOp::MemberRemoved { at } => self.member_removed = *at,
        }
    }

    fn push(&mut self, term: Term, kind: ChunkKind, data: Bytes) {
        let before = self.entries.last().map_or(self.before_first_chain, |e| e.chain);
        let mut chain = mix(before ^ 0xCBF2_9CE4_8422_2325, &term.to_le_bytes());
        match &kind {
            ChunkKind::Data => chain = mix(chain, b"d"),
            ChunkKind::NoOp => chain = mix(chain, b"n"),
            ChunkKind::Configuration { conf, old_conf } => {
                chain = mix(chain, format!("c{conf}|{old_conf}").as_bytes());
            }
        }
        chain = mix(chain, &data);
        self.entries.push(LoggedEntry { term, kind, data, chain });
    }

    /// What a store tells a node that is opened over this log.
    pub fn recover(&self) -> RecoveredState {
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        let mut configurations = Vec::new();
        for (index, entry) in self.entries() {
            if terms.last().is_none_or(|t| t.1 != entry.term) {
                terms.push((index, entry.term));
            }
            if let ChunkKind::Configuration { conf, old_conf } = &entry.kind {
                let id = LogId::new(index, entry.term);
                let (conf, old_conf) = (conf.clone(), old_conf.clone());
                configurations.push(ConfigurationEntry { id, conf, old_conf });
            }
        }
        RecoveredState {
            hard_state: self.hard_state.clone(),
            before_first: self.before_first,
            last_index: self.last_index(),
            terms,
            configurations,
            conf_at_start: self.conf_at_start.clone(),
            promised_ms: self.promised_ms,
            member_removed: self.member_removed,
            damaged: Vec::new(),
        }
    }

    /// Entries `from..=to` as chunks, about `max_bytes` of payload, at least one entry when there is any.
    pub fn read(&self, from: LogIndex, to: LogIndex, max_bytes: usize) -> Vec<Arc<EntryChunk>> {
        let mut chunks = Vec::new();
        let (mut next, mut bytes) = (from, 0);
        while next <= to && bytes < max_bytes {
            let Some(first) = self.entry(next) else { break };
            let (start, mut ends, mut payload) = (next, Vec::new(), BytesMut::new());
            while let Some(entry) = self.entry(next).filter(|_| next <= to && bytes < max_bytes) {
                let alone = matches!(entry.kind, ChunkKind::Configuration { .. }) && next != start;
                if entry.term != first.term || entry.kind != first.kind || alone {
                    break;
                }
                payload.extend_from_slice(&entry.data);
                ends.push(payload.len() as u32);
                bytes += entry.data.len();
                next += 1;
            }
            match EntryChunk::from_parts(start, first.term, first.kind.clone(), ends, payload.freeze()) {
                Ok(chunk) => chunks.push(Arc::new(chunk)),
                Err(error) => unreachable!("parts of a replayed log make a chunk: {error}"),
            }
        }
        chunks
    }
}

/// Folds bytes into a hash, eight at a time, and how many there were.
fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    let fold = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        (product as u64) ^ (product >> 64) as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    hash = fold(hash, u64::from_le_bytes(last));
    fold(hash, bytes.len() as u64 ^ 0xA24B_AED4_963E_E407)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_chains_mean_equal_logs() {
        let a = LogImage::preset(HardState::default(), &[1, 1, 2]);
        let b = LogImage::preset(HardState::default(), &[1, 1, 3]);
        assert_eq!(a.chain_at(2), b.chain_at(2));
        assert_ne!(a.chain_at(3), b.chain_at(3));
        assert_eq!(a.chain_at(4), None);
    }

    #[test]
    fn what_is_read_replays_to_the_same_log() {
        let a = LogImage::preset(HardState::default(), &[1, 1, 2, 4]);
        let mut b = LogImage::default();
        a.read(1, 4, 1000).into_iter().for_each(|chunk| b.apply(&LogOp::Append(chunk)));
        assert_eq!(a, b);
        assert_eq!(a.read(2, 4, 1).iter().map(|c| c.len()).sum::<usize>(), 1, "at least one entry");
    }

    #[test]
    fn a_prefix_goes_and_the_chain_stays() {
        let mut a = LogImage::preset(HardState::default(), &[1, 1, 2, 4]);
        let chain = a.chain_at(3);
        a.apply(&LogOp::TruncatePrefix { first_kept: 4 });
        assert_eq!((a.first_index(), a.last_index(), a.chain_at(3)), (4, 4, chain));
        assert_eq!(a.recover().before_first, LogId::new(3, 2));
    }
}
