//! A directory in memory that can fail like a disk does: for tests and for the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock, io_error};
use crate::traits::StorageError;

/// Bytes that reach the medium together or not at all.
const SECTOR: usize = 512;

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

#[derive(Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Inode {
    fn sector(bytes: &[u8], sector: usize) -> &[u8] {
        let start = (sector * SECTOR).min(bytes.len());
        &bytes[start..(start + SECTOR).min(bytes.len())]
    }

    fn copy_sector(from: &[u8], to: &mut Vec<u8>, sector: usize) {
        let data = Inode::sector(from, sector);
        let start = sector * SECTOR;
        if data.is_empty() {
            return;
        }
        if to.len() < start + data.len() {
            to.resize(start + data.len(), 0);
        }
        to[start..start + data.len()].copy_from_slice(data);
    }

    fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            Inode::copy_sector(&self.current, &mut self.durable, sector);
        }
    }
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
    /// Directory changes that are not durable yet, in order; a crash keeps a prefix (a journaling file system).
    journal: Vec<DirOp>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Goes up at every crash: handles and locks of an earlier life are dead.
    life: u64,
    locked: bool,
    operations: u64,
    power_off_at: Option<u64>,
    off: bool,
    fail_at: Option<u64>,
    fsync_failure: Option<(u64, FsyncFailure)>,
    byte_limit: Option<u64>,
    short_reads: bool,
    random: u64,
}

impl State {
    fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.random() & 1 == 1
    }

    /// Counts an operation that changes something; `Err` when it is one that was chosen to fail.
    fn operation(&mut self, what: &'static str, path: &str) -> Result<(), StorageError> {
        self.alive(what, path)?;
        let number = self.operations;
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| number >= at) {
            self.off = true;
        }
        if self.fail_at == Some(number) || self.off {
            return Err(io_error(what, path, &io::Error::from_raw_os_error(libc::EIO)));
        }
        Ok(())
    }

    fn alive(&self, what: &'static str, path: &str) -> Result<(), StorageError> {
        if self.off {
            return Err(io_error(what, path, &io::Error::from_raw_os_error(libc::EIO)));
        }
        Ok(())
    }

    /// Whether `more` bytes fit under the limit.
    fn room(&self, more: u64, what: &'static str, path: &str) -> Result<(), StorageError> {
        let used: u64 = self.inodes.values().map(|i| i.current.len() as u64).sum();
        if self.byte_limit.is_some_and(|limit| used + more > limit) {
            return Err(io_error(what, path, &io::Error::from_raw_os_error(libc::ENOSPC)));
        }
        Ok(())
    }

    fn drop_unnamed(&mut self) {
        // Open handles keep an inode usable on a real system; the store never needs that across a removal
        // except for reads that are checked again, so data stays until the next crash.
        let State { names, durable_names, inodes, .. } = self;
        inodes.retain(|id, _| names.values().chain(durable_names.values()).any(|n| n == id));
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
        self.state.lock().operations
    }

    /// Lets `operations` more succeed; then the power is off: that one, perhaps half done, and all later calls fail
    /// until [`crash`](MemoryDisk::crash).
    pub fn power_off_after(&self, operations: u64) {
        let mut state = self.state.lock();
        state.power_off_at = Some(state.operations + operations);
    }

    /// Lets `operations` more succeed and the one after fail with EIO; later ones succeed.
    pub fn fail_operation_after(&self, operations: u64) {
        let mut state = self.state.lock();
        state.fail_at = Some(state.operations + operations);
    }

    /// Lets `calls` more fsyncs succeed and the one after fail, once, with that outcome.
    pub fn fail_fsync_after(&self, calls: u64, outcome: FsyncFailure) {
        self.state.lock().fsync_failure = Some((calls, outcome));
    }

    /// The disk is full at so many bytes in all files together; `None` lifts the limit.
    pub fn limit_bytes(&self, limit: Option<u64>) {
        self.state.lock().byte_limit = limit;
    }

    /// Reads return fewer bytes than asked, as they may.
    pub fn short_reads(&self, on: bool) {
        self.state.lock().short_reads = on;
    }

    /// Inverts one bit of a file, in the page cache and on the medium.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        let mut state = self.state.lock();
        let inode = state.names[name];
        let inode = state.inodes.get_mut(&inode).expect("a name has an inode");
        let at = offset as usize;
        inode.current[at] ^= 1 << (bit % 8);
        if let Some(byte) = inode.durable.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
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
        let copy = |inode: &Inode| Inode {
            current: inode.current.clone(),
            durable: inode.current.clone(),
            dirty: BTreeSet::new(),
        };
        let fork = State {
            names: state.names.clone(),
            durable_names: state.names.clone(),
            inodes: state.inodes.iter().map(|(id, inode)| (*id, copy(inode))).collect(),
            next_inode: state.next_inode,
            ..State::default()
        };
        MemoryDisk { state: Arc::new(Mutex::new(fork)) }
    }

    /// Power comes back: of what was not synced, each sector and a prefix of the directory changes survive by
    /// chance; open handles are dead, locks free, and all faults but the byte limit forgotten.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state.lock();
        state.random = seed;
        let kept = state.random() as usize % (state.journal.len() + 1);
        let journal = std::mem::take(&mut state.journal);
        let mut names = std::mem::take(&mut state.durable_names);
        journal[..kept].iter().for_each(|op| apply(&mut names, op));
        state.names = names.clone();
        state.durable_names = names;
        let ids: Vec<u64> = state.inodes.keys().copied().collect();
        for id in ids {
            let mut inode = state.inodes.remove(&id).unwrap_or_default();
            for sector in std::mem::take(&mut inode.dirty) {
                if state.coin() {
                    Inode::copy_sector(&inode.current, &mut inode.durable, sector);
                }
            }
            inode.current = inode.durable.clone();
            state.inodes.insert(id, inode);
        }
        state.drop_unnamed();
        state.life += 1;
        state.locked = false;
        state.off = false;
        state.power_off_at = None;
        state.fail_at = None;
        state.fsync_failure = None;
        state.short_reads = false;
    }

    fn file(&self, state: &State, inode: u64, name: &str) -> Arc<dyn DiskFile> {
        Arc::new(MemoryFile { disk: self.clone(), inode, life: state.life, path: self.path(name) })
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, StorageError> {
        let state = self.state.lock();
        state.alive("open", name)?;
        match state.names.get(name) {
            Some(&inode) => Ok(self.file(&state, inode, name)),
            None => Err(io_error("open", self.path(name), &io::Error::from_raw_os_error(libc::ENOENT))),
        }
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Arc<dyn DiskFile>, StorageError> {
        let mut state = self.state.lock();
        state.operation("create", name)?;
        if state.names.contains_key(name) {
            return Err(io_error("create", self.path(name), &io::Error::from_raw_os_error(libc::EEXIST)));
        }
        state.room(bytes, "create", name)?;
        let id = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(id, Inode { current: vec![0; bytes as usize], ..Inode::default() });
        let op = DirOp::Link(name.to_owned(), id);
        apply(&mut state.names, &op);
        state.journal.push(op);
        Ok(self.file(&state, id, name))
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        let state = self.state.lock();
        state.alive("list", "memory")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.operation("remove", name)?;
        let op = DirOp::Unlink(name.to_owned());
        apply(&mut state.names, &op);
        state.journal.push(op);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.operation("rename", from)?;
        if !state.names.contains_key(from) {
            return Err(io_error("rename", self.path(from), &io::Error::from_raw_os_error(libc::ENOENT)));
        }
        let op = DirOp::Rename(from.to_owned(), to.to_owned());
        apply(&mut state.names, &op);
        state.journal.push(op);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.operation("sync directory", "memory")?;
        let journal = std::mem::take(&mut state.journal);
        journal.iter().for_each(|op| apply(&mut state.durable_names, op));
        state.drop_unnamed();
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
        Ok(DiskLock::new(MemoryLock { disk: self.clone(), life: state.life }))
    }

    fn path(&self, name: &str) -> String {
        format!("memory:{name}")
    }
}

struct MemoryLock {
    disk: MemoryDisk,
    life: u64,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.life == self.life {
            state.locked = false;
        }
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    life: u64,
    path: String,
}

impl MemoryFile {
    fn failed(&self, operation: &'static str, errno: i32) -> StorageError {
        io_error(operation, &self.path, &io::Error::from_raw_os_error(errno))
    }

    /// Runs `f` on the file's inode unless the handle belongs to an earlier life.
    fn with<T>(
        &self,
        operation: &'static str,
        f: impl FnOnce(&mut State, &mut Inode) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut state = self.disk.state.lock();
        if state.life != self.life {
            return Err(self.failed(operation, libc::EBADF));
        }
        let mut inode =
            state.inodes.remove(&self.inode).ok_or_else(|| self.failed(operation, libc::ESTALE))?;
        let result = f(&mut state, &mut inode);
        state.inodes.insert(self.inode, inode);
        result
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        self.with("read", |state, inode| {
            state.alive("read", &self.path)?;
            let start = (offset as usize).min(inode.current.len());
            let mut n = buf.len().min(inode.current.len() - start);
            if state.short_reads && n > 1 {
                n = 1 + state.random() as usize % n;
            }
            buf[..n].copy_from_slice(&inode.current[start..start + n]);
            Ok(n)
        })
    }

    fn write_vectored_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> Result<(), StorageError> {
        self.with("write", |state, inode| {
            let verdict = state.operation("write", &self.path);
            let (start, bytes) = (offset as usize, parts.iter().map(|p| p.len()).sum::<usize>());
            if verdict.is_ok() && start + bytes > inode.current.len() {
                // `with` took the inode out of the table: count it here.
                let growth = (start + bytes) as u64;
                state.room(growth, "write", &self.path)?;
                inode.current.resize(start + bytes, 0);
            }
            let data: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
            for sector in start / SECTOR..(start + bytes).div_ceil(SECTOR) {
                // A failed write may have done any part of its work.
                if verdict.is_err() && state.coin() {
                    continue;
                }
                let from = start.max(sector * SECTOR);
                let to = (start + bytes).min((sector + 1) * SECTOR).min(inode.current.len());
                if from < to {
                    inode.current[from..to].copy_from_slice(&data[from - start..to - start]);
                    inode.dirty.insert(sector);
                }
            }
            verdict
        })
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        self.with("fdatasync", |state, inode| {
            state.operation("fdatasync", &self.path)?;
            match state.fsync_failure {
                Some((0, outcome)) => {
                    state.fsync_failure = None;
                    if outcome == FsyncFailure::RevertsToOld {
                        inode.current = inode.durable.clone();
                    }
                    if outcome != FsyncFailure::StaysDirty {
                        inode.dirty.clear();
                    }
                    return Err(self.failed("fdatasync", libc::EIO));
                }
                Some((calls, outcome)) => state.fsync_failure = Some((calls - 1, outcome)),
                None => {}
            }
            inode.sync();
            Ok(())
        })
    }

    fn len(&self) -> Result<u64, StorageError> {
        self.with("stat", |_, inode| Ok(inode.current.len() as u64))
    }

    fn set_len(&self, bytes: u64) -> Result<(), StorageError> {
        self.with("resize", |state, inode| {
            state.operation("resize", &self.path)?;
            if bytes as usize > inode.current.len() {
                state.room(bytes, "resize", &self.path)?;
            }
            inode.current.resize(bytes as usize, 0);
            Ok(())
        })
    }

    fn path(&self) -> String {
        self.path.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_synced_data_is_sure_to_survive() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..20 {
            let disk = MemoryDisk::new();
            let file = disk.create("f", 1024).unwrap();
            file.write_at(0, &[1; 512]).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir().unwrap();
            file.write_at(512, &[2; 512]).unwrap();
            disk.crash(seed);
            assert!(file.len().is_err(), "a handle of an earlier life is dead");
            let bytes = disk.contents("f").unwrap();
            assert_eq!(bytes[..512], [1; 512]);
            if bytes[512] == 2 { kept += 1 } else { lost += 1 }
        }
        assert!(kept > 0 && lost > 0);
    }

    #[test]
    fn a_failed_fsync_is_followed_by_one_that_lies() {
        let disk = MemoryDisk::new();
        let file = disk.create("f", 512).unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, b"x").unwrap();
        disk.fail_fsync_after(0, FsyncFailure::KeepsNew);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.contents("f").unwrap()[0], b'x');
        disk.crash(1);
        assert_ne!(disk.contents("f").map(|c| c.first().copied()), Some(Some(b'x')));
    }

    #[test]
    fn a_full_disk_says_so() {
        let disk = MemoryDisk::new();
        disk.limit_bytes(Some(1000));
        disk.create("f", 600).unwrap();
        assert!(matches!(disk.create("g", 600), Err(StorageError::Io { full: true, .. })));
    }
}
