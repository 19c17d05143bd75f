//! Bugs of other stores that amount to a disk which does less than it says: put around a good disk, so that the code
//! that orders writes and syncs reads as if there were none. `ringraft_core::mutants` lists them.

use std::io::IoSlice;
use std::sync::Arc;

use parking_lot::Mutex;
use ringraft_core::Mutant;

use super::{Disk, DiskFile, DiskLock};
use crate::traits::StorageError;

/// The disk itself, unless a mutant that is a disk's behaviour is active.
pub(crate) fn around(disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
    let behaviours = [
        Mutant::H1SyncErrorIsIgnored,
        Mutant::H3CheckpointIsNotSynced,
        Mutant::H3NewFileIsNotSynced,
        Mutant::H3NewFileWithoutDirectorySync,
        Mutant::H4NothingIsSynced,
        Mutant::H6OnlyTheLastFileIsSynced,
        Mutant::H9WriteErrorIsIgnored,
    ];
    if behaviours.iter().any(|mutant| mutant.is_active()) {
        Arc::new(MutantDisk { disk, state: Arc::default() })
    } else {
        disk
    }
}

#[derive(Default)]
struct State {
    /// A file got its final name, and the directory was not synced since.
    named: bool,
    /// The segment file that was written last.
    written: String,
}

struct MutantDisk {
    disk: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
}

struct MutantFile {
    file: Arc<dyn DiskFile>,
    /// As it was opened: the store opens a file again after it has renamed it.
    name: String,
    state: Arc<Mutex<State>>,
}

fn is_checkpoint(name: &str) -> bool {
    name.starts_with("checkpoint") || name.ends_with(".ckpt")
}

fn is_segment(name: &str) -> bool {
    name.ends_with(".seg")
}

impl MutantDisk {
    fn wrap(&self, file: Arc<dyn DiskFile>, name: &str) -> Arc<dyn DiskFile> {
        Arc::new(MutantFile { file, name: name.to_owned(), state: Arc::clone(&self.state) })
    }
}

impl Disk for MutantDisk {
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, StorageError> {
        Ok(self.wrap(self.disk.open(name)?, name))
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Arc<dyn DiskFile>, StorageError> {
        Ok(self.wrap(self.disk.create(name, bytes)?, name))
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        self.disk.list()
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        self.disk.rename(from, to)?;
        self.state.lock().named |= is_segment(to);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), StorageError> {
        let named = std::mem::take(&mut self.state.lock().named);
        if named && Mutant::H3NewFileWithoutDirectorySync.is_active() {
            return Ok(());
        }
        self.disk.sync_dir()
    }

    fn lock(&self) -> Result<DiskLock, StorageError> {
        self.disk.lock()
    }

    fn path(&self, name: &str) -> String {
        self.disk.path(name)
    }
}

impl MutantFile {
    fn skips_sync(&self) -> bool {
        let name = &self.name;
        let segment = is_segment(name);
        Mutant::H3CheckpointIsNotSynced.is_active() && is_checkpoint(name)
            || Mutant::H3NewFileIsNotSynced.is_active() && name.ends_with(".seg.tmp")
            || Mutant::H4NothingIsSynced.is_active() && segment
            || Mutant::H6OnlyTheLastFileIsSynced.is_active() && segment && self.state.lock().written != *name
    }
}

impl DiskFile for MutantFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        self.file.read_at(offset, buf)
    }

    fn write_vectored_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> Result<(), StorageError> {
        let ignored = Mutant::H9WriteErrorIsIgnored.is_active() && is_segment(&self.name);
        if is_segment(&self.name) {
            self.name.clone_into(&mut self.state.lock().written);
        }
        let written = self.file.write_vectored_at(offset, parts);
        if ignored { Ok(()) } else { written }
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        if self.skips_sync() {
            return Ok(());
        }
        let ignored = Mutant::H1SyncErrorIsIgnored.is_active() && is_segment(&self.name);
        let synced = self.file.sync_data();
        if ignored { Ok(()) } else { synced }
    }

    fn len(&self) -> Result<u64, StorageError> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> Result<(), StorageError> {
        self.file.set_len(bytes)
    }

    fn path(&self) -> String {
        self.file.path()
    }
}
