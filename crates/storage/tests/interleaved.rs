//! Many groups that write by turns: what a read of one of them costs.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::tiny;
use ringraft_core::LogOp;
use ringraft_storage::conformance::sample_chunk;
use ringraft_storage::disk::DiskLock;
use ringraft_storage::{
    Disk, DiskFile, GroupKey, GroupOpening, GroupWrite, LogStorage, MemoryDisk, SegmentLog,
    SegmentLogOptions, StorageError, WriteBatch,
};

/// A disk that counts the bytes that are read.
struct Counting {
    disk: MemoryDisk,
    read: Arc<AtomicU64>,
}

struct CountingFile {
    file: Arc<dyn DiskFile>,
    read: Arc<AtomicU64>,
}

impl Counting {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountingFile { file, read: Arc::clone(&self.read) })
    }
}

impl Disk for Counting {
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, StorageError> {
        Ok(self.wrap(self.disk.open(name)?))
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Arc<dyn DiskFile>, StorageError> {
        Ok(self.wrap(self.disk.create(name, bytes)?))
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        self.disk.list()
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self) -> Result<(), StorageError> {
        self.disk.sync_dir()
    }

    fn lock(&self) -> Result<DiskLock, StorageError> {
        self.disk.lock()
    }

    fn path(&self, name: &str) -> String {
        self.disk.path(name)
    }
}

impl DiskFile for CountingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        let n = self.file.read_at(offset, buf)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    fn write_vectored_at(&self, offset: u64, parts: &mut [std::io::IoSlice<'_>]) -> Result<(), StorageError> {
        self.file.write_vectored_at(offset, parts)
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        self.file.sync_data()
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

/// Bytes of a run of one entry of `sample_chunk`, with its header, at most.
const RUN: u64 = 128;

/// Opens a store with `groups` groups that write one entry each in turn, `turns` times.
fn filled(disk: Counting, groups: usize, turns: u64, per_batch: usize) -> (SegmentLog, Vec<GroupKey>) {
    let options = SegmentLogOptions { file_bytes: 4 << 20, checkpoint_bytes: 4 << 20, ..tiny() };
    let mut log = SegmentLog::open(Arc::new(disk), options).unwrap();
    let openings: Vec<GroupOpening> =
        (0..groups).map(|n| GroupOpening { group: format!("g{n}").parse().unwrap(), creation: 0 }).collect();
    let keys: Vec<GroupKey> =
        log.open_groups(&openings).unwrap().into_iter().map(|opened| opened.unwrap().key).collect();
    for turn in 1..=turns {
        for keys in keys.chunks(per_batch) {
            let write = |key: &GroupKey| GroupWrite {
                group: *key,
                ops: vec![LogOp::Append(sample_chunk(turn, 1, 1))],
            };
            log.submit(&WriteBatch { writes: keys.iter().map(write).collect() }).unwrap();
            model::completed(&mut log).unwrap();
        }
        log.maintain().unwrap();
    }
    (log, keys)
}

#[test]
fn a_read_costs_at_most_64_kib_beyond_the_runs_that_it_returns() {
    // Runs of one group far from each other, and near enough for it to be worth reading what stands between.
    for (groups, turns, per_batch) in [(10_000, 12, 500), (40, 400, 40), (3, 400, 1)] {
        let read = Arc::new(AtomicU64::new(0));
        let disk = Counting { disk: MemoryDisk::new(), read: Arc::clone(&read) };
        let (log, keys) = filled(disk, groups, turns, per_batch);
        let reader = log.reader();
        for key in keys.iter().step_by(groups / 3) {
            for from in [1, turns / 2, turns] {
                let before = read.load(Ordering::Relaxed);
                let chunks = reader.read(*key, from, turns, 1 << 20).unwrap();
                let entries: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
                assert_eq!(entries, turns - from + 1);
                let cost = read.load(Ordering::Relaxed) - before;
                assert!(
                    cost <= entries * RUN + (64 << 10),
                    "{groups} groups: {cost} bytes were read for {entries} entries"
                );
            }
        }
    }
}
