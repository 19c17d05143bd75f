//! The embedded log store: one stream of runs for all groups of a directory, in files of fixed size.
//!
//! `docs/formats.md` describes the bytes. A batch is one vectored write ([`submit`](LogStorage::submit)) and one
//! fdatasync ([`complete`](LogStorage::complete)); files are written with zeros before they are used and keep their
//! size, so that fdatasync has no metadata to carry.

mod checkpoint;
mod files;
mod format;
mod index;
mod maintain;
mod manifest;
mod options;
mod prepare;
mod reader;
mod recovery;
mod replay;
mod runs;
mod segments;
mod stream;
mod write;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use ringraft_core::{GroupId, HardState};
use rustc_hash::FxHashMap;

pub use options::SegmentLogOptions;
pub use recovery::Expect;

use crate::disk::{Disk, DiskLock, RealDisk, mutants};
use crate::lives::{self, Opening, Tombstones};
use crate::shape::LogShape;
use crate::store_id::StoreId;
use crate::traits::{
    GroupKey, GroupNumber, GroupOpening, Incarnation, LogReader, LogStorage, MetaStorage, OpenedGroup,
    RefusedWrites, StorageError, StoredGroup, WriteBatch,
};
use files::OpenFiles;
use format::{MAX_TEXT, RUN_HEADER, RunHeader, RunKind};
use index::{Group, GroupIndex, Suspicion};
use maintain::Maintenance;
use prepare::Preparer;
use reader::SegmentReader;
use stream::{Stream, run_bound};

/// Groups by number, shared with readers.
type Groups = Arc<RwLock<FxHashMap<u32, Arc<Group>>>>;

/// A batch that was submitted and not completed by the owner yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InFlight {
    No,
    Written,
    /// An operation of the store itself made it durable before the owner asked.
    Durable,
}

/// The segment log of one directory: one ordered stream of runs for all its groups; see [`LogStorage`].
///
/// A batch is one vectored write ([`submit`](LogStorage::submit)) and one fdatasync
/// ([`complete`](LogStorage::complete)). Call [`maintain`](LogStorage::maintain) between batches: without it the
/// store never writes a checkpoint and never gets space back. `docs/formats.md` has the bytes.
///
/// Writes belong to one thread; [`reader`](LogStorage::reader) handles may be used from any. Dropping it does not
/// wait for a submitted batch.
pub struct SegmentLog {
    disk: Arc<dyn Disk>,
    options: SegmentLogOptions,
    stream: Stream,
    groups: Groups,
    /// Whether one of them may have damage.
    suspicion: Suspicion,
    names: FxHashMap<GroupId, GroupKey>,
    tombstones: Tombstones,
    store: StoreId,
    next_number: u32,
    next_incarnation: u32,
    /// Groups of the batch in flight.
    touched: Vec<Arc<Group>>,
    in_flight: InFlight,
    /// Logs of the groups in a batch while it is checked; empty between batches.
    shapes: FxHashMap<GroupKey, LogShape>,
    /// Groups of which nothing is taken any more until they are opened again, with the reason.
    refused: FxHashMap<GroupKey, StorageError>,
    /// Those of the batch in flight.
    refused_now: Vec<RefusedWrites>,
    maintenance: Maintenance,
    poison: Option<String>,
    reader: Arc<SegmentReader>,
    _lock: DiskLock,
}

impl SegmentLog {
    /// Opens the store in `disk`, creating it when the directory has none.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when another owner has the directory or an option is out of range,
    /// [`StorageError::Damaged`] when what was durable cannot be read back, [`StorageError::Io`] else.
    pub fn open(disk: Arc<dyn Disk>, options: SegmentLogOptions) -> Result<SegmentLog, StorageError> {
        SegmentLog::open_expecting(disk, options, Expect::Anything)
    }

    /// As [`open`](SegmentLog::open) by somebody who knows what the directory must hold.
    ///
    /// # Errors
    /// As for [`open`](SegmentLog::open); and [`StorageError::Refused`] for a store where the directory should be blank,
    /// [`StorageError::Damaged`] for a blank directory or another store's where one should be.
    pub fn open_expecting(
        disk: Arc<dyn Disk>,
        options: SegmentLogOptions,
        expect: Expect,
    ) -> Result<SegmentLog, StorageError> {
        options.validate()?;
        let disk = mutants::around(disk);
        let lock = disk.lock()?;
        let files = OpenFiles::new(Arc::clone(&disk), options.open_files);
        let recovered = recovery::recover(&*disk, &files, &options, expect)?;
        let manifest = Arc::clone(&recovered.manifest);
        let store = manifest.get().store;
        let preparer = Preparer::new(Arc::clone(&disk), files, manifest, recovered.next_file, &options)?;
        let mut stream = Stream::new(
            &options,
            preparer,
            recovered.segments,
            recovered.current,
            recovered.position,
            recovered.replayed,
        );
        for (spare, bytes) in recovered.spares {
            stream.give(spare, bytes);
        }
        stream.top_up();
        let names = recovered.groups.values().map(|g| (g.name.clone(), g.key)).collect();
        let groups: Groups = Arc::new(RwLock::new(recovered.groups));
        Ok(SegmentLog {
            reader: Arc::new(SegmentReader::new(Arc::clone(&groups), Arc::clone(&stream.segments))),
            disk,
            options,
            stream,
            groups,
            suspicion: recovered.suspicion,
            names,
            tombstones: recovered.tombstones,
            store,
            next_number: recovered.next_number,
            next_incarnation: recovered.next_incarnation,
            touched: Vec::new(),
            in_flight: InFlight::No,
            shapes: FxHashMap::default(),
            refused: FxHashMap::default(),
            refused_now: Vec::new(),
            maintenance: Maintenance::new(recovered.manifest, recovered.needs, recovered.checkpoint_room),
            poison: None,
            _lock: lock,
        })
    }

    /// Opens the store in the directory at `path` of the operating system; creates both when missing.
    ///
    /// # Errors
    /// As for [`open`](SegmentLog::open).
    pub fn open_dir(path: impl AsRef<Path>, options: SegmentLogOptions) -> Result<SegmentLog, StorageError> {
        SegmentLog::open(Arc::new(RealDisk::new(path)?), options)
    }

    /// The random name of this store, which every file of it repeats.
    pub fn store_id(&self) -> StoreId {
        self.store
    }

    /// Runs `f` unless the store has failed before; latches its failure. Rule P6: pages that a failed sync left behind look clean to the next one.
    fn guard<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, StorageError>) -> Result<T, StorageError> {
        if let Some(reason) = &self.poison {
            return Err(StorageError::Poisoned(reason.clone()));
        }
        let result = f(self);
        if let Err(error) = &result
            && error.is_final()
        {
            tracing::error!(%error, "the log store has stopped; only a new start reads the disk again");
            self.poison = Some(error.to_string());
        }
        result
    }

    fn group(&self, key: GroupKey) -> Result<Arc<Group>, StorageError> {
        find(&self.groups.read(), key).cloned()
    }

    /// Makes everything written so far durable, so that the store can write for itself.
    fn settle(&mut self) -> Result<(), StorageError> {
        if self.in_flight == InFlight::Written {
            self.finish_batch()?;
            self.in_flight = InFlight::Durable;
        }
        Ok(())
    }

    fn finish_batch(&mut self) -> Result<(), StorageError> {
        self.stream.sync()?;
        for group in self.touched.drain(..) {
            group.index.lock().mark_durable();
        }
        Ok(())
    }

    /// What becomes of each group that is to be opened; those that are new are created in one durable write.
    fn open_all(
        &mut self,
        meant: &[GroupOpening],
    ) -> Result<Vec<Result<OpenedGroup, StorageError>>, StorageError> {
        let mut new: Vec<&GroupOpening> = Vec::new();
        let mut first: FxHashMap<&GroupId, u64> = FxHashMap::default();
        let mut verdicts = Vec::with_capacity(meant.len());
        for group in meant {
            // A name that stands there twice is created once.
            let live = self.live(&group.group).map(|found| found.creation);
            let live = live.or_else(|| first.get(&group.group).copied());
            let verdict = lives::opening(group, live, &self.tombstones);
            if let Ok(Opening::New) = verdict {
                new.push(group);
                first.insert(&group.group, group.creation);
            }
            verdicts.push(verdict);
        }
        self.create_groups(&new)?;
        let opened = meant.iter().zip(verdicts).map(|(group, verdict)| {
            verdict?;
            let found = self.live(&group.group).ok_or_else(|| {
                StorageError::Poisoned(format!("group {} was created and is not there", group.group))
            })?;
            self.refused.remove(&found.key);
            let recovered = found.recovered();
            Ok(OpenedGroup { key: found.key, creation: found.creation, recovered })
        });
        Ok(opened.collect())
    }

    /// The life of this name that the store holds.
    fn live(&self, name: &GroupId) -> Option<Arc<Group>> {
        let key = self.names.get(name)?;
        self.groups.read().get(&key.number.0).cloned()
    }

    fn create_groups(&mut self, new: &[&GroupOpening]) -> Result<(), StorageError> {
        if new.is_empty() {
            return Ok(());
        }
        if new.iter().any(|group| group.group.as_str().len() > MAX_TEXT) {
            return Err(StorageError::Refused(format!("a group's name has more than {MAX_TEXT} bytes")));
        }
        let more = u32::try_from(new.len()).ok();
        if more.and_then(|n| self.next_number.max(self.next_incarnation).checked_add(n)).is_none() {
            return Err(StorageError::Refused("the store has used up its group numbers".to_owned()));
        }
        self.settle()?;
        self.begin(new.iter().map(|group| run_bound(0, group.group.as_str().len())))?;
        let mut created = Vec::with_capacity(new.len());
        for GroupOpening { group: name, creation } in new {
            let key = GroupKey {
                number: GroupNumber(self.next_number),
                incarnation: Incarnation(self.next_incarnation),
            };
            self.next_number += 1;
            self.next_incarnation += 1;
            let payload = Bytes::copy_from_slice(name.as_str().as_bytes());
            let header =
                RunHeader { index: *creation, ..control_header(RunKind::GroupCreated, key, 0, &payload) };
            self.stream.push(&header, &[], &payload)?;
            let index = GroupIndex { next_sequence: 1, ..GroupIndex::default() };
            let suspicion = self.suspicion.clone();
            created.push(Group::new(key, name.clone(), *creation, index, suspicion));
        }
        self.stream.finish()?;
        self.stream.sync()?;
        let mut groups = self.groups.write();
        for group in created {
            self.names.insert(group.name.clone(), group.key);
            groups.insert(group.key.number.0, Arc::new(group));
        }
        Ok(())
    }

    /// Starts a batch of runs of these sizes at most; on a full disk with whatever space a checkpoint frees.
    fn begin(&mut self, sizes: impl Iterator<Item = u64> + Clone) -> Result<(), StorageError> {
        match self.stream.begin(self.stream.need(sizes.clone())) {
            Err(StorageError::NoRoom(_)) => {
                self.free_what_can_be()?;
                self.stream.begin(self.stream.need(sizes))
            }
            begun => begun,
        }
    }
}

fn find(groups: &FxHashMap<u32, Arc<Group>>, key: GroupKey) -> Result<&Arc<Group>, StorageError> {
    groups
        .get(&key.number.0)
        .filter(|g| g.key == key)
        .ok_or_else(|| StorageError::Invalid { group: key, what: "the store has no such group".to_owned() })
}

fn control_header(kind: RunKind, key: GroupKey, sequence: u64, payload: &Bytes) -> RunHeader {
    RunHeader { payload: payload.len() as u32, ..RunHeader::control(kind, key, sequence) }
}

impl LogStorage for SegmentLog {
    fn open_groups(
        &mut self,
        groups: &[GroupOpening],
    ) -> Result<Vec<Result<OpenedGroup, StorageError>>, StorageError> {
        self.guard(|log| log.open_all(groups))
    }

    fn remove_group(&mut self, key: GroupKey) -> Result<(), StorageError> {
        self.remove_groups(&[key])
    }

    fn remove_groups(&mut self, keys: &[GroupKey]) -> Result<(), StorageError> {
        self.guard(|log| {
            // A start that finds the end of a group that has ended takes it for damage, and that of the whole store.
            let once: BTreeSet<&GroupKey> = keys.iter().collect();
            let groups = once.into_iter().map(|key| log.group(*key)).collect::<Result<Vec<_>, _>>()?;
            if groups.is_empty() {
                return Ok(());
            }
            log.settle()?;
            log.begin(groups.iter().map(|group| run_bound(0, group.name.as_str().len())))?;
            for group in &groups {
                let name = Bytes::copy_from_slice(group.name.as_str().as_bytes());
                let sequence = group.index.lock().take_sequence();
                let header = RunHeader {
                    index: group.creation,
                    ..control_header(RunKind::GroupRemoved, group.key, sequence, &name)
                };
                log.stream.push(&header, &[], &name)?;
            }
            log.stream.finish()?;
            log.stream.sync()?;
            for group in groups {
                log.groups.write().remove(&group.key.number.0);
                log.names.remove(&group.name);
                lives::bury(&mut log.tombstones, &group.name, group.creation);
                group.index.lock().release_all(&log.stream.segments);
                log.refused.remove(&group.key);
            }
            Ok(())
        })
    }

    fn stored_group(&self, group: &GroupId) -> Option<StoredGroup> {
        if let Some(live) = self.live(group) {
            return Some(StoredGroup { group: group.clone(), creation: live.creation, key: Some(live.key) });
        }
        let creation = *self.tombstones.get(group)?;
        Some(StoredGroup { group: group.clone(), creation, key: None })
    }

    fn stored_groups(&self) -> Vec<StoredGroup> {
        let of_group =
            |g: &Arc<Group>| StoredGroup { group: g.name.clone(), creation: g.creation, key: Some(g.key) };
        let mut all: Vec<_> = self.groups.read().values().map(of_group).collect();
        all.sort_by_key(|stored| stored.key);
        let removed = self.tombstones.iter().filter(|(name, _)| !self.names.contains_key(*name));
        all.extend(removed.map(|(name, creation)| StoredGroup {
            group: name.clone(),
            creation: *creation,
            key: None,
        }));
        all
    }

    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.guard(|log| log.write_batch(batch))
    }

    fn complete(&mut self) -> Result<Vec<RefusedWrites>, StorageError> {
        self.guard(|log| {
            if log.in_flight == InFlight::Written {
                log.finish_batch()?;
            }
            log.in_flight = InFlight::No;
            Ok(std::mem::take(&mut log.refused_now))
        })
    }

    fn room(&self) -> u64 {
        self.stream.room_for_runs()
    }

    fn largest_entry(&self) -> usize {
        self.stream.largest_run() as usize - RUN_HEADER - 4
    }

    fn damaged_groups(&self) -> Vec<(GroupKey, StorageError)> {
        if !self.suspicion.take() {
            return Vec::new();
        }
        let groups = self.groups.read();
        let mut damaged: Vec<_> =
            groups.values().filter_map(|group| Some((group.key, group.known_damage()?))).collect();
        if !damaged.is_empty() {
            self.suspicion.raise();
        }
        damaged.sort_by_key(|(key, _)| *key);
        damaged
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.reader) as Arc<dyn LogReader>
    }

    fn maintain(&mut self) -> Result<(), StorageError> {
        self.guard(SegmentLog::do_maintenance)
    }

    fn vouch(&mut self) -> Result<(), StorageError> {
        self.guard(|log| match log.in_flight {
            InFlight::No => log.stream.vouch(),
            _ => Ok(()),
        })
    }
}

impl MetaStorage for SegmentLog {
    fn hard_state(&self, group: GroupKey) -> Result<HardState, StorageError> {
        if let Some(reason) = &self.poison {
            return Err(StorageError::Poisoned(reason.clone()));
        }
        Ok(self.group(group)?.index.lock().durable_hard_state.clone())
    }
}
