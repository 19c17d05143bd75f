//! A log store in memory: the same rules as the segment log, nothing durable. For tests and benches.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use ringraft_core::{
    ChunkKind, ConfigurationEntry, EntryChunk, GroupId, HardState, LogId, LogIndex, LogOp, RecoveredState,
    Term,
};
use rustc_hash::FxHashMap;

use crate::lives::{self, Opening, Tombstones};
use crate::shape::LogShape;
use crate::traits::{
    GroupKey, GroupNumber, GroupOpening, Incarnation, LogReader, LogStorage, MetaStorage, OpenedGroup,
    RefusedWrites, StorageError, StoredGroup, WriteBatch,
};

#[derive(Default)]
struct MemoryGroup {
    /// Which creation of its name it is; 0 for none.
    creation: u64,
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

    /// Carries out an operation that was checked.
    fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::HardState(state) => self.hard_state = state.clone(),
            LogOp::Append(chunk) => self.chunks.push_back(Arc::clone(chunk)),
            LogOp::TruncateSuffix { from } => {
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
                    return;
                };
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
    tombstones: Tombstones,
    created: u32,
}

impl Contents {
    /// Opens a group, or creates it.
    fn open(&mut self, meant: &GroupOpening) -> Result<OpenedGroup, StorageError> {
        let live = self.names.get(&meant.group).copied();
        let found = live.and_then(|key| Some((key, self.group(key)?)));
        match lives::opening(meant, found.map(|(_, group)| group.creation), &self.tombstones)? {
            Opening::Existing => {
                let (key, group) = found.ok_or_else(|| {
                    StorageError::Poisoned(format!("group {} is there and has no state", meant.group))
                })?;
                Ok(OpenedGroup { key, creation: group.creation, recovered: group.recovered() })
            }
            Opening::New => {
                let number = self.created.checked_add(1).ok_or_else(|| {
                    StorageError::Refused("the store has used up its group numbers".to_owned())
                })?;
                self.created = number;
                let key = GroupKey { number: GroupNumber(number), incarnation: Incarnation(number) };
                let creation = meant.creation;
                let group = MemoryGroup { creation, ..MemoryGroup::default() };
                self.names.insert(meant.group.clone(), key);
                self.groups.insert(number, (meant.group.clone(), key, group));
                Ok(OpenedGroup { key, creation, recovered: RecoveredState::default() })
            }
        }
    }

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
    /// Groups of which nothing is taken any more until they are opened again, with the reason.
    refused: FxHashMap<GroupKey, StorageError>,
    /// Those of the batch in flight.
    refused_now: Vec<RefusedWrites>,
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
        MemoryLogStorage { shared: self.shared, ..MemoryLogStorage::default() }
    }

    /// Checks and carries out the writes of one group.
    fn write(contents: &mut Contents, key: GroupKey, ops: &[LogOp]) -> Result<(), StorageError> {
        let group = contents.groups.get_mut(&key.number.0).filter(|(_, found, _)| *found == key);
        let (_, _, group) = group.ok_or_else(|| unknown(key))?;
        let mut shape = LogShape::new(group.before_first, group.last_id());
        for op in ops {
            shape
                .check(op, |index| group.term_at(index))
                .map_err(|what| StorageError::Invalid { group: key, what })?;
        }
        ops.iter().for_each(|op| group.apply(op));
        Ok(())
    }
}

fn unknown(group: GroupKey) -> StorageError {
    StorageError::Invalid { group, what: "the store has no such group".to_owned() }
}

impl LogStorage for MemoryLogStorage {
    fn open_groups(
        &mut self,
        groups: &[GroupOpening],
    ) -> Result<Vec<Result<OpenedGroup, StorageError>>, StorageError> {
        let mut contents = self.shared.contents.write();
        let opened = groups.iter().map(|meant| {
            let opened = contents.open(meant)?;
            self.refused.remove(&opened.key);
            Ok(opened)
        });
        Ok(opened.collect())
    }

    fn remove_group(&mut self, key: GroupKey) -> Result<(), StorageError> {
        let mut contents = self.shared.contents.write();
        if contents.group(key).is_none() {
            return Err(unknown(key));
        }
        if let Some((name, _, group)) = contents.groups.remove(&key.number.0) {
            contents.names.remove(&name);
            lives::bury(&mut contents.tombstones, &name, group.creation);
        }
        self.refused.remove(&key);
        Ok(())
    }

    fn stored_group(&self, group: &GroupId) -> Option<StoredGroup> {
        let contents = self.shared.contents.read();
        let live = contents.names.get(group).and_then(|key| Some((*key, contents.group(*key)?.creation)));
        let (key, creation) = match live {
            Some((key, creation)) => (Some(key), creation),
            None => (None, *contents.tombstones.get(group)?),
        };
        Some(StoredGroup { group: group.clone(), creation, key })
    }

    fn stored_groups(&self) -> Vec<StoredGroup> {
        let contents = self.shared.contents.read();
        let mut all: Vec<_> = contents
            .groups
            .values()
            .map(|(name, key, group)| StoredGroup {
                group: name.clone(),
                creation: group.creation,
                key: Some(*key),
            })
            .collect();
        all.sort_by_key(|stored| stored.key);
        let removed = contents.tombstones.iter().filter(|(name, _)| !contents.names.contains_key(*name));
        all.extend(removed.map(|(name, creation)| StoredGroup {
            group: name.clone(),
            creation: *creation,
            key: None,
        }));
        all
    }

    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        if self.in_flight.is_some() {
            return Err(StorageError::Refused(
                "a batch was submitted before the one before it was completed; complete it first".to_owned(),
            ));
        }
        let mut contents = self.shared.contents.write();
        let mut written = Vec::with_capacity(batch.writes.len());
        for write in &batch.writes {
            let verdict = match self.refused.get(&write.group) {
                Some(reason) => Err(reason.clone()),
                None => MemoryLogStorage::write(&mut contents, write.group, &write.ops),
            };
            match verdict {
                Ok(()) => written.push(write.group),
                Err(reason) => {
                    self.refused.entry(write.group).or_insert_with(|| reason.clone());
                    if self.refused_now.iter().all(|refused| refused.group != write.group) {
                        self.refused_now.push(RefusedWrites { group: write.group, reason });
                    }
                }
            }
        }
        self.in_flight = Some(written);
        Ok(())
    }

    fn complete(&mut self) -> Result<Vec<RefusedWrites>, StorageError> {
        let mut contents = self.shared.contents.write();
        for key in self.in_flight.take().unwrap_or_default() {
            if let Some((_, _, group)) = contents.groups.get_mut(&key.number.0) {
                group.durable_last = group.last_id().index;
                if group.durable_hard_state != group.hard_state {
                    group.durable_hard_state = group.hard_state.clone();
                }
            }
        }
        Ok(std::mem::take(&mut self.refused_now))
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.shared) as Arc<dyn LogReader>
    }
}

impl MetaStorage for MemoryLogStorage {
    fn hard_state(&self, key: GroupKey) -> Result<HardState, StorageError> {
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
