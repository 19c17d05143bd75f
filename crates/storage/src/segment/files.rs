//! Descriptors of segment files that are only read: opened when they are wanted, a bounded number at a time.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::format::segment_name;
use crate::disk::{Disk, DiskFile};
use crate::traits::{IoKind, StorageError};

/// Files that are open for reading, those used last. Files that are written are held open by who writes them.
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By number, with when it was last used.
    files: FxHashMap<u64, (Arc<dyn DiskFile>, u64)>,
    uses: u64,
}

impl OpenFiles {
    /// Keeps at most `limit` files open, at least one, and beside them one for each read that is under way.
    pub(crate) fn new(disk: Arc<dyn Disk>, limit: usize) -> Arc<OpenFiles> {
        Arc::new(OpenFiles { disk, limit: limit.max(1), table: Mutex::default() })
    }

    /// The segment file of this number, opened when it is not open.
    pub(crate) fn get(&self, number: u64) -> Result<Arc<dyn DiskFile>, StorageError> {
        if let Some(file) = self.table.lock().find(number) {
            return Ok(file);
        }
        // Without the lock: whoever writes must not wait for a disk that is slow to open a file for a reader.
        let file = match self.disk.open(&segment_name(number)) {
            // Those that are only kept in case may be what is missing.
            Err(StorageError::Io { kind: IoKind::Descriptors, .. }) => {
                self.close();
                self.disk.open(&segment_name(number))
            }
            opened => opened,
        }?;
        self.keep(number, Arc::clone(&file));
        Ok(file)
    }

    /// Takes in a file that is open anyhow and may be read soon.
    pub(crate) fn keep(&self, number: u64, file: Arc<dyn DiskFile>) {
        let table = &mut *self.table.lock();
        table.uses += 1;
        table.insert(number, file, self.limit);
    }

    /// Closes a file.
    pub(crate) fn forget(&self, number: u64) {
        self.table.lock().files.remove(&number);
    }

    /// Closes every file that is only kept in case: somebody else needs a descriptor.
    pub(crate) fn close(&self) {
        self.table.lock().files.clear();
    }

    /// How to name a segment file to a person.
    pub(crate) fn path(&self, number: u64) -> String {
        self.disk.path(&segment_name(number))
    }
}

impl Table {
    fn find(&mut self, number: u64) -> Option<Arc<dyn DiskFile>> {
        self.uses += 1;
        let (file, used) = self.files.get_mut(&number)?;
        *used = self.uses;
        Some(Arc::clone(file))
    }

    fn insert(&mut self, number: u64, file: Arc<dyn DiskFile>, limit: usize) {
        self.files.insert(number, (file, self.uses));
        while self.files.len() > limit {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number);
            let Some(oldest) = oldest else { return };
            self.files.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn the_files_used_last_stay_open() {
        let disk = MemoryDisk::new();
        for number in 1..=4 {
            disk.create(&segment_name(number), 512).unwrap();
        }
        let files = OpenFiles::new(Arc::new(disk.clone()), 2);
        for number in [1, 2, 1, 3] {
            files.get(number).unwrap();
        }
        assert_eq!(disk.open_files(), 2);
        disk.limit_open_files(Some(2));
        files.get(1).unwrap();
        files.get(3).unwrap();
        assert_eq!(disk.open_files(), 2, "neither was opened again");
        // The place of another one is given up when there is no other.
        files.get(4).unwrap();
        assert_eq!(disk.open_files(), 1);
        files.forget(4);
        assert_eq!(disk.open_files(), 0);
        disk.limit_open_files(Some(0));
        let failed = files.get(4).err().unwrap();
        assert!(matches!(failed, StorageError::Io { kind: IoKind::Descriptors, .. }), "{failed}");
        disk.limit_open_files(None);
        files.get(4).unwrap();
    }
}
