//! A log store in memory: the same rules as the segment log, nothing durable. For tests and benches.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use ringraft_core::{
    ChunkKind, ConfigurationEntry, EntryChunk, GroupId, HardState, LogId, LogIndex, LogOp, RecoveredState,
    Term,
};
use rustc_hash::FxHashMap;

use crate::traits::{
    GroupKey, GroupNumber, Incarnation, LogReader, LogStorage, MetaStorage, StorageError, WriteBatch,
};

#[derive(Default)]
struct MemoryGroup {
    chunks: VecDeque<Arc<EntryChunk>>,
    before_first: LogId,
    conf_at_start: Option<ConfigurationEntry>,
    hard_state: HardState,
    promised_ms: u64,
    member_removed: LogId,
    /// Last index and hard state of the last completed batch.
    durable_last: LogIndex,
    durable_hard_state: HardState,
}

impl MemoryGroup {
    fn last_id(&self) -> LogId {
        self.chunks.back().map_or(self.before_first, |c| c.last_id())
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.before_first.index {
            return Some(self.before_first.term);
        }
        let at = self.chunks.partition_point(|c| c.last_index() < index);
        self.chunks.get(at).filter(|c| c.first_index() <= index).map(|c| c.term())
    }

    fn apply(&mut self, op: &LogOp) -> Result<(), String> {
        match op {
            LogOp::HardState(state) => self.hard_state = state.clone(),
            LogOp::Append(chunk) => {
                let last = self.last_id();
                if chunk.first_index() != last.index + 1 {
                    return Err(format!("append at {} after last index {}", chunk.first_index(), last.index));
                }
                if chunk.term() < last.term {
                    return Err(format!(
                        "append of term {} after an entry of term {}",
                        chunk.term(),
                        last.term
                    ));
                }
                self.chunks.push_back(Arc::clone(chunk));
            }
            LogOp::TruncateSuffix { from } => {
                if *from <= self.before_first.index {
                    return Err(format!("suffix truncation at {from} reaches below the first index"));
                }
                while let Some(chunk) = self.chunks.pop_back() {
                    if let Some(kept) = chunk.share(0, from - 1) {
                        self.chunks.push_back(kept);
                        break;
                    }
                }
                self.durable_last = self.durable_last.min(self.last_id().index);
            }
            LogOp::TruncatePrefix { first_kept } => {
                let Some(before) = first_kept.checked_sub(1).filter(|b| *b > self.before_first.index) else {
                    return Ok(());
                };
                let last = self.last_id().index;
                if before > last {
                    return Err(format!("prefix truncation at {first_kept} reaches beyond last index {last}"));
                }
                let term = self.term_at(before).unwrap_or(0);
                let in_force = self.recovered().configurations.into_iter().rfind(|c| c.id.index <= before);
                self.conf_at_start = in_force.or(self.conf_at_start.take());
                while let Some(chunk) = self.chunks.pop_front() {
                    if let Some(kept) = chunk.share(*first_kept, u64::MAX) {
                        self.chunks.push_front(kept);
                        break;
                    }
                }
                self.before_first = LogId::new(before, term);
                self.durable_last = self.durable_last.max(before);
            }
            LogOp::Reset { before, conf } => {
                self.chunks.clear();
                self.before_first = *before;
                self.conf_at_start = conf.as_deref().cloned();
                self.durable_last = before.index;
            }
            LogOp::Promise { ms } => self.promised_ms = self.promised_ms.max(*ms),
            LogOp::MemberRemoved { at } => self.member_removed = *at,
        }
        Ok(())
    }

    fn recovered(&self) -> RecoveredState {
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        let mut configurations = Vec::new();
        for chunk in &self.chunks {
            if terms.last().is_none_or(|(_, term)| *term != chunk.term()) {
                terms.push((chunk.first_index(), chunk.term()));
            }
            if let ChunkKind::Configuration { conf, old_conf } = chunk.kind() {
                configurations.push(ConfigurationEntry {
                    id: chunk.last_id(),
                    conf: conf.clone(),
                    old_conf: old_conf.clone(),
                });
            }
        }
        RecoveredState {
            hard_state: self.hard_state.clone(),
            before_first: self.before_first,
            last_index: self.last_id().index,
            terms,
            configurations,
            conf_at_start: self.conf_at_start.clone(),
            promised_ms: self.promised_ms,
            member_removed: self.member_removed,
            damaged: Vec::new(),
        }
    }
}

#[derive(Default)]
struct Contents {
    groups: FxHashMap<u32, (GroupId, GroupKey, MemoryGroup)>,
    names: FxHashMap<GroupId, GroupKey>,
    created: u32,
}

impl Contents {
    fn group(&self, key: GroupKey) -> Option<&MemoryGroup> {
        self.groups.get(&key.number.0).filter(|(_, k, _)| *k == key).map(|(_, _, group)| group)
    }
}

/// The reader's half, shared with the owner.
#[derive(Default)]
struct Shared {
    contents: RwLock<Contents>,
}

/// Log and meta storage in memory; see [`LogStorage`]. Clones are not possible, but
/// [`reopen`](MemoryLogStorage::reopen) gives a store with the same contents, as after a restart.
#[derive(Default)]
pub struct MemoryLogStorage {
    shared: Arc<Shared>,
    /// Groups of the batch in flight.
    in_flight: Option<Vec<GroupKey>>,
    poison: Option<String>,
}

impl MemoryLogStorage {
    /// An empty store.
    pub fn new() -> MemoryLogStorage {
        MemoryLogStorage::default()
    }

    /// The store as it would be found after a restart of the process. A batch that was submitted and not
    /// completed is kept.
    pub fn reopen(self) -> MemoryLogStorage {
        for (_, _, group) in self.shared.contents.write().groups.values_mut() {
            group.durable_last = group.last_id().index;
            group.durable_hard_state = group.hard_state.clone();
        }
        MemoryLogStorage { shared: self.shared, in_flight: None, poison: None }
    }

    fn guard<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, StorageError>) -> Result<T, StorageError> {
        if let Some(reason) = &self.poison {
            return Err(StorageError::Poisoned(reason.clone()));
        }
        let result = f(self);
        if let Err(error) = &result {
            self.poison = Some(error.to_string());
        }
        result
    }
}

fn unknown(group: GroupKey) -> StorageError {
    StorageError::Invalid { group, what: "the store has no such group".to_owned() }
}

impl LogStorage for MemoryLogStorage {
    fn open_group(&mut self, group: &GroupId) -> Result<(GroupKey, RecoveredState), StorageError> {
        self.guard(|store| {
            let mut contents = store.shared.contents.write();
            let contents = &mut *contents;
            if let Some(key) = contents.names.get(group) {
                let state = contents.group(*key).map(MemoryGroup::recovered);
                return Ok((*key, state.unwrap_or_default()));
            }
            contents.created = contents
                .created
                .checked_add(1)
                .ok_or_else(|| StorageError::Refused("the store has used up its group numbers".to_owned()))?;
            let number = contents.created;
            let key = GroupKey { number: GroupNumber(number), incarnation: Incarnation(number) };
            contents.names.insert(group.clone(), key);
            contents.groups.insert(number, (group.clone(), key, MemoryGroup::default()));
            Ok((key, RecoveredState::default()))
        })
    }

    fn remove_group(&mut self, key: GroupKey) -> Result<(), StorageError> {
        self.guard(|store| {
            let mut contents = store.shared.contents.write();
            if contents.group(key).is_none() {
                return Err(unknown(key));
            }
            if let Some((name, ..)) = contents.groups.remove(&key.number.0) {
                contents.names.remove(&name);
            }
            Ok(())
        })
    }

    fn groups(&self) -> Vec<(GroupId, GroupKey)> {
        let contents = self.shared.contents.read();
        let mut all: Vec<_> = contents.names.iter().map(|(name, key)| (name.clone(), *key)).collect();
        all.sort_by_key(|(_, key)| *key);
        all
    }

    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.guard(|store| {
            if store.in_flight.is_some() {
                return Err(StorageError::Refused(
                    "a batch was submitted before the one before it was completed; complete it first"
                        .to_owned(),
                ));
            }
            let mut contents = store.shared.contents.write();
            for write in &batch.writes {
                let key = write.group;
                let (_, found, group) = contents.groups.get_mut(&key.number.0).ok_or_else(|| unknown(key))?;
                if *found != key {
                    return Err(unknown(key));
                }
                for op in &write.ops {
                    group.apply(op).map_err(|what| StorageError::Invalid { group: key, what })?;
                }
            }
            store.in_flight = Some(batch.writes.iter().map(|w| w.group).collect());
            Ok(())
        })
    }

    fn complete(&mut self) -> Result<(), StorageError> {
        self.guard(|store| {
            let mut contents = store.shared.contents.write();
            for key in store.in_flight.take().unwrap_or_default() {
                if let Some((_, _, group)) = contents.groups.get_mut(&key.number.0) {
                    group.durable_last = group.last_id().index;
                    if group.durable_hard_state != group.hard_state {
                        group.durable_hard_state = group.hard_state.clone();
                    }
                }
            }
            Ok(())
        })
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.shared) as Arc<dyn LogReader>
    }
}

impl MetaStorage for MemoryLogStorage {
    fn hard_state(&self, key: GroupKey) -> Result<HardState, StorageError> {
        if let Some(reason) = &self.poison {
            return Err(StorageError::Poisoned(reason.clone()));
        }
        let contents = self.shared.contents.read();
        contents.group(key).map(|g| g.durable_hard_state.clone()).ok_or_else(|| unknown(key))
    }
}

impl LogReader for Shared {
    fn read(
        &self,
        key: GroupKey,
        from: LogIndex,
        to: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Arc<EntryChunk>>, StorageError> {
        let contents = self.contents.read();
        let group = contents.group(key).ok_or(StorageError::NotFound { group: key, index: from })?;
        if from <= group.before_first.index {
            return Err(StorageError::Compacted { group: key, index: from });
        }
        let to = to.min(group.durable_last);
        if from > to {
            return Err(StorageError::NotFound { group: key, index: from });
        }
        let (mut out, mut room) = (Vec::new(), max_bytes);
        for at in group.chunks.partition_point(|c| c.last_index() < from).. {
            let Some(chunk) = group.chunks.get(at).and_then(|c| c.share(from, to)) else { break };
            let mut n = 0;
            while n < chunk.len() && (chunk.entry(n).len() <= room || (n == 0 && out.is_empty())) {
                room = room.saturating_sub(chunk.entry(n).len());
                n += 1;
            }
            let whole = n == chunk.len();
            if n > 0 {
                out.extend(chunk.share(0, chunk.first_index() + n as u64 - 1));
            }
            if !whole {
                break;
            }
        }
        Ok(out)
    }
}
