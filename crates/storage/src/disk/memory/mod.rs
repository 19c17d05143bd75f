//! A directory in memory that can fail like a disk does: for tests and for the simulator.

mod device;
mod file;
mod inode;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{Disk, DiskFile, DiskLock, io_error};
use crate::traits::StorageError;
use device::{Device, is_due};
use file::{MemoryFile, MemoryLock};
use inode::Inode;

/// What a failed fsync leaves in the page cache (Rebello et al., ATC'20). The medium never got the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncFailure {
    /// Pages are clean and show the new data until the next crash; later calls succeed (ext4, XFS).
    KeepsNew,
    /// Pages are clean and show the old data again; later calls succeed (Btrfs).
    RevertsToOld,
    /// Pages stay dirty; a later success would write them.
    StaysDirty,
}

/// Something that the disk lost or changed without a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In which file.
    pub path: String,
    /// Which operation wrote what is damaged: what [`MemoryDisk::operations`] said right after it. A store can know
    /// of the damage only by something that it wrote durably afterwards. 0 for a name that came back: nothing is gone.
    pub operation: u64,
}

#[derive(Clone)]
enum DirOp {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

fn apply(names: &mut BTreeMap<String, u64>, op: &DirOp) {
    match op {
        DirOp::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        DirOp::Unlink(name) => {
            names.remove(name);
        }
        DirOp::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// What would be durable if no sync of the directory had lied; `None` when none has.
    promised_names: Option<BTreeMap<String, u64>>,
    /// Directory changes that are not durable yet, in order; a crash keeps a prefix (a journaling file system).
    journal: Vec<DirOp>,
    inodes: FxHashMap<u64, Inode>,
    next_inode: u64,
    locked: bool,
    device: Device,
    damage: Vec<Damage>,
}

impl State {
    fn drop_unnamed(&mut self) {
        // Open handles keep an inode usable on a real system; the store never needs that across a removal
        // except for reads that are checked again, so data stays until the next crash.
        let State { names, durable_names, inodes, device, .. } = self;
        let named: BTreeSet<u64> = names.values().chain(durable_names.values()).copied().collect();
        inodes.retain(|id, inode| {
            let keep = named.contains(id);
            if !keep {
                device.used -= inode.current.len() as u64;
            }
            keep
        });
    }
}

/// A directory in memory with a page cache, a medium, and faults on demand.
///
/// Clones share the directory. Everything that it decides by chance follows from the seeds that it is given.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

impl MemoryDisk {
    /// An empty directory.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Operations so far that change files or the directory, or sync them.
    pub fn operations(&self) -> u64 {
        self.state.lock().device.operations
    }

    /// Lets `operations` more succeed; then the power is off: that one, perhaps half done, and all later calls fail
    /// until [`crash`](MemoryDisk::crash).
    pub fn power_off_after(&self, operations: u64) {
        let mut state = self.state.lock();
        state.device.power_off_at = Some(state.device.operations + operations);
    }

    /// Lets `operations` more succeed and the one after fail with EIO; later ones succeed.
    pub fn fail_operation_after(&self, operations: u64) {
        let mut state = self.state.lock();
        state.device.fail_at = Some(state.device.operations + operations);
    }

    /// Lets `calls` more fsyncs succeed and the one after fail, once, with that outcome.
    pub fn fail_fsync_after(&self, calls: u64, outcome: FsyncFailure) {
        self.state.lock().device.fsync_failure = Some((calls, outcome));
    }

    /// Whether an fsync that is planned to fail has not come yet.
    pub fn fsync_is_still_to_fail(&self) -> bool {
        self.state.lock().device.fsync_failure.is_some()
    }

    /// The disk is full at so many bytes in all files together; `None` lifts the limit.
    pub fn limit_bytes(&self, limit: Option<u64>) {
        self.state.lock().device.byte_limit = limit;
    }

    /// At most so many files are open at a time; another one, or a sync of the directory, fails with EMFILE. `None`
    /// lifts the limit.
    pub fn limit_open_files(&self, limit: Option<usize>) {
        self.state.lock().device.open_limit = limit;
    }

    /// Files that are open now.
    pub fn open_files(&self) -> usize {
        self.state.lock().device.open_files
    }

    /// Most files that were open at a time so far.
    pub fn most_open_files(&self) -> usize {
        self.state.lock().device.most_open_files
    }

    /// Every new file fails with this error number from now on; `None` ends it.
    pub fn refuse_creation(&self, errno: Option<i32>) {
        self.state.lock().device.refused_creation = errno;
    }

    /// A loss of power may spoil a whole block of this many bytes (a multiple of 512) that was being written, as a device with
    /// large physical blocks does; 512, the default, spoils nothing but what was being written. Stays over losses of power.
    pub fn tear_blocks(&self, bytes: usize) {
        self.state.lock().device.tear = bytes;
    }

    /// Reads return fewer bytes than asked, as they may.
    pub fn short_reads(&self, on: bool) {
        self.state.lock().device.short_reads = on;
    }

    /// Lets `reads` more succeed and the one after fail with EIO, once.
    pub fn fail_read_after(&self, reads: u64) {
        self.state.lock().device.failing_read = Some(reads);
    }

    /// Lets `reads` more succeed; the one after returns one bit that the medium does not hold, once. `None` forgets it.
    pub fn corrupt_read_after(&self, reads: Option<u64>) {
        self.state.lock().device.corrupt_read = reads;
    }

    /// Lets `writes` more succeed; the one after lands at another sector of its file, once, and reports success.
    /// It counts as [`damage`](MemoryDisk::damage).
    pub fn misdirect_write_after(&self, writes: u64) {
        self.state.lock().device.misdirected_write = Some(writes);
    }

    /// Lets `syncs` more of the directory succeed; the one after reports success, and what it should have made
    /// durable is lost with the next loss of power. It counts as [`damage`](MemoryDisk::damage) then.
    pub fn lose_dir_sync_after(&self, syncs: u64) {
        self.state.lock().device.lost_dir_sync = Some(syncs);
    }

    /// What the disk has lost or changed so far without a word, oldest first.
    pub fn damage(&self) -> Vec<Damage> {
        self.state.lock().damage.clone()
    }

    /// Whether the next loss of power takes names that a sync of the directory has promised to keep.
    pub fn has_lost_names(&self) -> bool {
        self.state.lock().promised_names.is_some()
    }

    /// The operation that last wrote the sector of this byte, as [`Damage::operation`] counts; 0 when none did or there is no such file.
    pub fn written_at(&self, name: &str, offset: u64) -> u64 {
        let state = self.state.lock();
        let inode = state.names.get(name).and_then(|id| state.inodes.get(id));
        inode.map_or(0, |inode| inode.written_at(offset as usize))
    }

    /// Sectors so far that a loss of power or a failed write kept from where they belong.
    pub fn torn_sectors(&self) -> u64 {
        self.state.lock().device.torn_sectors
    }

    /// Bytes of all files together.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().device.used
    }

    /// Inverts one bit of a file, in the page cache and on the medium. It counts as [`damage`](MemoryDisk::damage).
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        let path = self.path(name);
        let State { names, inodes, damage, .. } = &mut *self.state.lock();
        let inode = inodes.get_mut(&names[name]).expect("a name has an inode");
        damage.push(Damage { path, operation: inode.written_at(offset as usize) });
        inode.flip_bit(offset as usize, bit);
    }

    /// Bytes of a file as a reader sees them; `None` when there is no such file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let inode = state.names.get(name)?;
        Some(state.inodes[inode].current.clone())
    }

    /// A directory of its own with the same contents, all of it durable and nothing planned to fail.
    pub fn fork(&self) -> MemoryDisk {
        let state = self.state.lock();
        let fork = State {
            names: state.names.clone(),
            durable_names: state.names.clone(),
            inodes: state.inodes.iter().map(|(id, inode)| (*id, inode.fork())).collect(),
            next_inode: state.next_inode,
            device: Device { used: state.device.used, tear: state.device.tear, ..Device::default() },
            ..State::default()
        };
        MemoryDisk { state: Arc::new(Mutex::new(fork)) }
    }

    /// Power comes back: of what was not synced, each sector and a prefix of the directory changes survive by
    /// chance; open handles are dead, locks free, and all faults but the byte limit forgotten.
    pub fn crash(&self, seed: u64) {
        let state = &mut *self.state.lock();
        state.device.random = seed;
        let kept = state.device.random() as usize % (state.journal.len() + 1);
        let journal = std::mem::take(&mut state.journal);
        let mut names = std::mem::take(&mut state.durable_names);
        journal[..kept].iter().for_each(|op| apply(&mut names, op));
        if let Some(mut promised) = state.promised_names.take() {
            journal[..kept].iter().for_each(|op| apply(&mut promised, op));
            for (name, id) in promised.iter().filter(|(name, id)| names.get(*name) != Some(id)) {
                let operation = state.inodes.get(id).map_or(0, Inode::last_written);
                state.damage.push(Damage { path: self.path(name), operation });
            }
            // A name that should be gone: whoever took the file for free may have written over it since.
            for name in names.keys().filter(|name| !promised.contains_key(*name)) {
                state.damage.push(Damage { path: self.path(name), operation: 0 });
            }
        }
        state.names = names.clone();
        state.durable_names = names;
        let mut ids: Vec<u64> = state.inodes.keys().copied().collect();
        ids.sort_unstable();
        let State { inodes, device, .. } = state;
        for id in ids {
            if let Some(inode) = inodes.get_mut(&id) {
                device.used -= inode.current.len() as u64;
                inode.lose_power(device.tear, || {
                    let survives = device.coin();
                    device.torn_sectors += u64::from(!survives);
                    survives
                });
                device.used += inode.current.len() as u64;
            }
        }
        state.drop_unnamed();
        state.device.life += 1;
        state.locked = false;
        state.device.forget_plans();
    }

    fn file(&self, state: &mut State, inode: u64, name: &str) -> Arc<dyn DiskFile> {
        let device = &mut state.device;
        device.open_files += 1;
        device.most_open_files = device.most_open_files.max(device.open_files);
        Arc::new(MemoryFile { disk: self.clone(), inode, life: state.device.life, path: self.path(name) })
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, StorageError> {
        let mut state = self.state.lock();
        state.device.alive("open", name)?;
        state.device.descriptor("open", name)?;
        match state.names.get(name).copied() {
            Some(inode) => Ok(self.file(&mut state, inode, name)),
            None => Err(io_error("open", self.path(name), &io::Error::from_raw_os_error(libc::ENOENT))),
        }
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Arc<dyn DiskFile>, StorageError> {
        let mut state = self.state.lock();
        state.device.operation("create", name)?;
        if state.names.contains_key(name) {
            return Err(io_error("create", self.path(name), &io::Error::from_raw_os_error(libc::EEXIST)));
        }
        state.device.descriptor("create", name)?;
        if let Some(errno) = state.device.refused_creation {
            return Err(io_error("create", self.path(name), &io::Error::from_raw_os_error(errno)));
        }
        state.device.room(bytes, "create", name)?;
        state.device.used += bytes;
        let id = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(id, Inode::zeros(bytes as usize));
        let op = DirOp::Link(name.to_owned(), id);
        apply(&mut state.names, &op);
        state.journal.push(op);
        Ok(self.file(&mut state, id, name))
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        let state = self.state.lock();
        state.device.alive("list", "memory")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.device.operation("remove", name)?;
        let op = DirOp::Unlink(name.to_owned());
        apply(&mut state.names, &op);
        state.journal.push(op);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.device.operation("rename", from)?;
        if !state.names.contains_key(from) {
            return Err(io_error("rename", self.path(from), &io::Error::from_raw_os_error(libc::ENOENT)));
        }
        let op = DirOp::Rename(from.to_owned(), to.to_owned());
        apply(&mut state.names, &op);
        state.journal.push(op);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), StorageError> {
        let state = &mut *self.state.lock();
        state.device.operation("sync directory", "memory")?;
        state.device.descriptor("sync directory", "memory")?;
        let journal = std::mem::take(&mut state.journal);
        if is_due(&mut state.device.lost_dir_sync) && !journal.is_empty() {
            // The names stay as they are until the power goes.
            let promised = state.promised_names.get_or_insert_with(|| state.durable_names.clone());
            journal.iter().for_each(|op| apply(promised, op));
            return Ok(());
        }
        for names in state.promised_names.iter_mut().chain([&mut state.durable_names]) {
            journal.iter().for_each(|op| apply(names, op));
        }
        if journal.iter().any(|op| !matches!(op, DirOp::Link(..))) {
            state.drop_unnamed();
        }
        Ok(())
    }

    fn lock(&self) -> Result<DiskLock, StorageError> {
        let mut state = self.state.lock();
        if state.locked {
            return Err(StorageError::Refused(
                "data directory memory: is used by another owner; drop that one first".to_owned(),
            ));
        }
        state.locked = true;
        Ok(DiskLock::new(MemoryLock { disk: self.clone(), life: state.device.life }))
    }

    fn path(&self, name: &str) -> String {
        format!("memory:{name}")
    }
}
