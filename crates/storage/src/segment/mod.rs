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
mod stream;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use ringraft_core::{GroupId, HardState, RecoveredState};
use rustc_hash::{FxHashMap, FxHashSet};

pub use options::SegmentLogOptions;
pub use recovery::Expect;

use crate::disk::{Disk, DiskLock, RealDisk, mutants};
use crate::shape::LogShape;
use crate::store_id::StoreId;
use crate::traits::{
    GroupKey, GroupNumber, Incarnation, LogReader, LogStorage, MetaStorage, RefusedWrites, StorageError,
    WriteBatch,
};
use files::OpenFiles;
use format::{MAX_TEXT, RUN_HEADER, RunHeader, RunKind};
use index::{Group, GroupIndex};
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
    names: FxHashMap<GroupId, GroupKey>,
    /// Names of removed groups and the highest creation number that each had.
    tombstones: BTreeMap<GroupId, u64>,
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
            reader: Arc::new(SegmentReader::new(Arc::clone(&groups))),
            disk,
            options,
            stream,
            groups,
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

    /// As [`open_group`](LogStorage::open_group) for many groups: those that are new are created in one durable
    /// write.
    ///
    /// # Errors
    /// As for [`open_group`](LogStorage::open_group).
    pub fn open_groups(
        &mut self,
        groups: &[GroupId],
    ) -> Result<Vec<(GroupKey, RecoveredState)>, StorageError> {
        self.guard(|log| {
            let mut seen = FxHashSet::default();
            let mut new: Vec<&GroupId> =
                groups.iter().filter(|name| !log.names.contains_key(*name)).collect();
            new.retain(|name| seen.insert(*name));
            log.create_groups(&new)?;
            let table = Arc::clone(&log.groups);
            let table = table.read();
            let mut opened = Vec::with_capacity(groups.len());
            for name in groups {
                let key = log.names[name];
                log.refused.remove(&key);
                let recovered = table.get(&key.number.0).map(|g| g.index.lock().recovered());
                opened.push((key, recovered.unwrap_or_default()));
            }
            Ok(opened)
        })
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

    fn create_groups(&mut self, names: &[&GroupId]) -> Result<(), StorageError> {
        if names.is_empty() {
            return Ok(());
        }
        if names.iter().any(|name| name.as_str().len() > MAX_TEXT) {
            return Err(StorageError::Refused(format!("a group's name has more than {MAX_TEXT} bytes")));
        }
        let more = u32::try_from(names.len()).ok();
        if more.and_then(|n| self.next_number.max(self.next_incarnation).checked_add(n)).is_none() {
            return Err(StorageError::Refused("the store has used up its group numbers".to_owned()));
        }
        self.settle()?;
        self.begin(names.iter().map(|n| run_bound(0, n.as_str().len())))?;
        let mut created = Vec::with_capacity(names.len());
        for name in names {
            let key = GroupKey {
                number: GroupNumber(self.next_number),
                incarnation: Incarnation(self.next_incarnation),
            };
            self.next_number += 1;
            self.next_incarnation += 1;
            let payload = Bytes::copy_from_slice(name.as_str().as_bytes());
            let header = control_header(RunKind::GroupCreated, key, 0, &payload);
            self.stream.push(&header, &[], &payload)?;
            let index = GroupIndex { next_sequence: 1, ..GroupIndex::default() };
            created.push(Group::new(key, (*name).clone(), 0, index));
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
    fn open_group(&mut self, group: &GroupId) -> Result<(GroupKey, RecoveredState), StorageError> {
        let mut opened = self.open_groups(std::slice::from_ref(group))?;
        opened.pop().ok_or_else(|| StorageError::Poisoned("a group was not opened".to_owned()))
    }

    fn remove_group(&mut self, key: GroupKey) -> Result<(), StorageError> {
        self.guard(|log| {
            let group = log.group(key)?;
            log.settle()?;
            let name = Bytes::copy_from_slice(group.name.as_str().as_bytes());
            log.begin(std::iter::once(run_bound(0, name.len())))?;
            let sequence = group.index.lock().take_sequence();
            let header = RunHeader {
                index: group.creation,
                ..control_header(RunKind::GroupRemoved, key, sequence, &name)
            };
            log.stream.push(&header, &[], &name)?;
            log.stream.finish()?;
            log.stream.sync()?;
            log.groups.write().remove(&key.number.0);
            log.names.remove(&group.name);
            let highest = log.tombstones.entry(group.name.clone()).or_default();
            *highest = group.creation.max(*highest);
            group.index.lock().release_all();
            log.refused.remove(&key);
            Ok(())
        })
    }

    fn groups(&self) -> Vec<(GroupId, GroupKey)> {
        let mut all: Vec<_> = self.names.iter().map(|(name, key)| (name.clone(), *key)).collect();
        all.sort_by_key(|(_, key)| *key);
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
        let groups = self.groups.read();
        let mut damaged: Vec<_> =
            groups.values().filter_map(|group| Some((group.key, group.known_damage()?))).collect();
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
