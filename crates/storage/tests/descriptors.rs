//! A log of many files, and few descriptors: alone in its process, because the limit holds for all of it.

mod model;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{completed, contents, tiny};
use ringraft_core::LogOp;
use ringraft_storage::conformance::sample_chunk;
use ringraft_storage::{
    Disk, GroupKey, GroupWrite, IoKind, LogStorage, MemoryDisk, RealDisk, SegmentLog, SegmentLogOptions,
    StorageError, WriteBatch,
};

fn append(log: &mut SegmentLog, group: GroupKey, first: u64) -> Result<(), StorageError> {
    let ops = vec![LogOp::Append(sample_chunk(first, 1, 100))];
    log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] })?;
    completed(log)
}

fn open(disk: &MemoryDisk, options: &SegmentLogOptions) -> (SegmentLog, GroupKey) {
    let mut log = SegmentLog::open(Arc::new(disk.clone()), options.clone()).unwrap();
    let group = log.open_group(&"g".parse().unwrap()).unwrap().0;
    (log, group)
}

#[test]
fn old_files_are_open_while_they_are_read_and_never_more_than_are_set() {
    for open_files in [1, 3, 64] {
        // What is read stays where it is, and every start reads a part of it.
        let options = SegmentLogOptions { open_files, checkpoint_bytes: 100 << 10, ..tiny() };
        let disk = MemoryDisk::new();
        let (mut log, group) = open(&disk, &options);
        for i in 0..200 {
            append(&mut log, group, 1 + i * 100).unwrap();
            log.maintain().unwrap();
        }
        let files = Disk::list(&disk).unwrap().len();
        assert!(files > 100, "{files} files");
        contents(&mut log).unwrap();
        drop(log);
        assert_eq!(disk.open_files(), 0);
        let (mut log, _) = open(&disk, &options);
        contents(&mut log).unwrap();
        // The file that is written, those that are ready, a slot of the checkpoint; one that is being opened.
        let bound = open_files + 1 + options.prepared_files + 1 + 1;
        assert!(disk.most_open_files() <= bound, "{} of {bound}", disk.most_open_files());
    }
}

#[test]
fn many_batches_without_sync_do_not_hold_all_their_files() {
    let options = SegmentLogOptions { sync: false, checkpoint_bytes: u64::MAX, ..tiny() };
    let disk = MemoryDisk::new();
    let (mut log, group) = open(&disk, &options);
    for i in 0..400 {
        append(&mut log, group, 1 + i * 100).unwrap();
    }
    assert!(disk.most_open_files() < 100, "{}", disk.most_open_files());
}

#[test]
fn a_read_that_gets_no_descriptor_fails_alone_and_may_be_tried_again() {
    let options = SegmentLogOptions { open_files: 1, ..tiny() };
    let disk = MemoryDisk::new();
    let (mut log, group) = open(&disk, &options);
    for i in 0..20 {
        append(&mut log, group, 1 + i * 100).unwrap();
    }
    let reader = log.reader();
    disk.limit_open_files(Some(0));
    let read = reader.read(group, 1, 10, 1000);
    assert!(matches!(read, Err(StorageError::Io { kind: IoKind::Descriptors, .. })), "{read:?}");
    // Neither does housekeeping mind, which has no descriptor for anything.
    for _ in 0..10 {
        log.maintain().unwrap();
    }
    assert_eq!(log.damaged_groups().len(), 0);
    log.submit(&WriteBatch::default()).unwrap();
    completed(&mut log).unwrap();
    disk.limit_open_files(None);
    assert_eq!(reader.read(group, 1, 10, 1000).unwrap()[0].first_index(), 1);
    append(&mut log, group, 2001).unwrap();
}

/// With the system's own words: nothing is left for the log for a while, and it goes on when there is.
#[test]
fn descriptors_that_strangers_take_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(dir.path()).unwrap());
    // Two or three writes fill a file.
    let patience = Duration::from_secs(60);
    let options = SegmentLogOptions {
        file_bytes: 16 << 10,
        prepare_patience: patience,
        ..SegmentLogOptions::default()
    };
    let mut log = SegmentLog::open(disk, options).unwrap();
    let group = log.open_group(&"g".parse().unwrap()).unwrap().0;
    limit_descriptors(256);
    let mut next = 1;
    for _ in 0..4 {
        while empty_files(dir.path()) < 2 {
            std::thread::yield_now();
        }
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        assert!(taken.len() > 100);
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let written = &written;
            // They are given back when the files that were ready are full, or nearly so.
            scope.spawn(move || {
                while written.load(Ordering::Relaxed) < 3 {
                    std::thread::yield_now();
                }
                drop(taken);
            });
            for _ in 0..20 {
                append(&mut log, group, next).unwrap();
                next += 100;
                log.maintain().unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    assert_eq!(contents(&mut log).unwrap()["g"].last(), next - 1);
}

/// Segment files that nothing was written to, and which have their final names.
fn empty_files(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let segments = names.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes[4096..4160] == [0; 64])).count()
}

#[allow(unsafe_code)]
fn limit_descriptors(limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the call reads one struct, to which the pointer leads and which outlives it.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}
