//! Space: full disks, freed and recycled files, groups that lag, entries that are large; and reads meanwhile.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{checkpoints, contents, open, tiny};
use ringraft_core::{ChunkBuilder, EntryChunk, HardState, LogOp};
use ringraft_storage::conformance::sample_chunk;
use ringraft_storage::{
    Disk, GroupKey, GroupWrite, LogStorage, MemoryDisk, MetaStorage, SegmentLog, SegmentLogOptions,
    StorageError, WriteBatch,
};

fn write(log: &mut SegmentLog, group: GroupKey, ops: Vec<LogOp>) -> Result<(), StorageError> {
    log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] })?;
    log.complete()
}

fn group(log: &mut SegmentLog, name: &str) -> GroupKey {
    log.open_group(&name.parse().unwrap()).unwrap().0
}

fn segments(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|n| n.ends_with(".seg")).collect()
}

fn big_chunk(first: u64, sizes: &[usize]) -> Arc<EntryChunk> {
    let mut builder = ChunkBuilder::new();
    for (i, size) in sizes.iter().enumerate() {
        builder.push(&vec![(i as u8).wrapping_add(1); *size]);
    }
    Arc::new(builder.take(first, 1).unwrap())
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let g = group(&mut log, "g");
    disk.limit_bytes(Some(20 << 10));
    let mut written = 0;
    let error = loop {
        let step = write(&mut log, g, vec![LogOp::Append(sample_chunk(written + 1, 1, 5))])
            .map(|()| written += 5)
            .and_then(|()| log.maintain());
        if let Err(error) = step {
            break error;
        }
    };
    assert!(matches!(error, StorageError::Io { full: true, .. }), "{error}");
    assert!(matches!(log.submit(&WriteBatch::default()), Err(StorageError::Poisoned(_))));
    drop(log);
    disk.limit_bytes(None);
    let mut log = open(&disk, &tiny()).unwrap();
    let last = contents(&mut log).unwrap()["g"].last();
    assert!(last >= written && last <= written + 5, "{last} of {written}");
}

#[test]
fn a_group_that_lags_does_not_pin_the_stream() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let (lag, busy) = (group(&mut log, "lag"), group(&mut log, "busy"));
    write(&mut log, lag, vec![LogOp::Append(sample_chunk(1, 1, 10))]).unwrap();
    let mut next = 1;
    let mut most = 0;
    for round in 0..400 {
        write(&mut log, busy, vec![LogOp::Append(sample_chunk(next, 1, 8))]).unwrap();
        next += 8;
        write(&mut log, busy, vec![LogOp::TruncatePrefix { first_kept: next - 8 }]).unwrap();
        if round % 50 == 0 {
            let hard_state = HardState { term: round, voted_for: None };
            write(&mut log, lag, vec![LogOp::HardState(hard_state)]).unwrap();
        }
        log.maintain().unwrap();
        most = most.max(segments(&disk).len());
    }
    assert!(most <= 12, "{most} files for a few hundred live bytes");
    let newest = segments(&disk).pop().unwrap();
    assert!(newest > format!("{:016x}", 20), "files were not rolled: {newest}");
    let before = contents(&mut log).unwrap();
    assert_eq!(before["lag"].entries.len(), 10);
    drop(log);
    disk.crash(3);
    let mut log = open(&disk, &tiny()).unwrap();
    assert_eq!(contents(&mut log).unwrap(), before);
    assert_eq!(log.hard_state(lag).unwrap().term, 350);
    write(&mut log, lag, vec![LogOp::TruncateSuffix { from: 4 }]).unwrap();
    write(&mut log, lag, vec![LogOp::Append(sample_chunk(4, 9, 1))]).unwrap();
    for _ in 0..50 {
        log.maintain().unwrap();
    }
    drop(log);
    let lag = &contents(&mut open(&disk, &tiny()).unwrap()).unwrap()["lag"];
    assert_eq!((lag.entries.len(), lag.entries[3].0), (4, 9), "a rewrite overrode newer entries");
}

#[test]
fn a_removed_group_is_not_revived_by_a_rewrite() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let (old, busy) = (group(&mut log, "g"), group(&mut log, "busy"));
    write(&mut log, old, vec![LogOp::Append(sample_chunk(1, 1, 20))]).unwrap();
    for i in 0..40 {
        write(&mut log, busy, vec![LogOp::Append(sample_chunk(1 + i * 8, 1, 8))]).unwrap();
        log.maintain().unwrap();
    }
    log.remove_group(old).unwrap();
    let new = group(&mut log, "g");
    write(&mut log, new, vec![LogOp::Append(sample_chunk(1, 7, 2))]).unwrap();
    write(&mut log, busy, vec![LogOp::TruncatePrefix { first_kept: 300 }]).unwrap();
    for _ in 0..30 {
        log.maintain().unwrap();
    }
    let before = contents(&mut log).unwrap();
    assert_eq!(before["g"].entries.len(), 2);
    drop(log);
    assert_eq!(contents(&mut open(&disk, &tiny()).unwrap()).unwrap(), before);
}

#[test]
fn chunks_larger_than_a_file_are_split_and_single_entries_refused() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let g = group(&mut log, "g");
    write(&mut log, g, vec![LogOp::Append(big_chunk(1, &[10, 3000, 2000, 1, 1, 3400, 500, 900]))]).unwrap();
    write(&mut log, g, vec![LogOp::Append(big_chunk(9, &[7; 3000]))]).unwrap();
    let before = contents(&mut log).unwrap();
    assert_eq!(before["g"].entries[5].1, vec![6; 3400]);
    assert_eq!(before["g"].last(), 3008);
    drop(log);
    disk.crash(1);
    let mut log = open(&disk, &tiny()).unwrap();
    assert_eq!(contents(&mut log).unwrap(), before);
    let error = write(&mut log, g, vec![LogOp::Append(big_chunk(3009, &[5000]))]).unwrap_err();
    assert!(error.to_string().contains("file_bytes"), "{error}");
    drop(log);
    assert_eq!(contents(&mut open(&disk, &tiny()).unwrap()).unwrap(), before);
}

#[test]
fn files_and_slots_that_are_missing_or_broken() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let g = group(&mut log, "g");
    for i in 0..60 {
        write(&mut log, g, vec![LogOp::Append(sample_chunk(1 + i * 8, 1, 8))]).unwrap();
        log.maintain().unwrap();
    }
    let before = contents(&mut log).unwrap();
    drop(log);
    for name in checkpoints(&disk) {
        let copy = disk.fork();
        copy.flip_bit(&name, 60, 1);
        assert_eq!(contents(&mut open(&copy, &tiny()).unwrap()).unwrap(), before, "the other one serves");
    }
    let broken = disk.fork();
    checkpoints(&disk).iter().for_each(|name| broken.flip_bit(name, 80, 1));
    assert!(matches!(open(&broken, &tiny()), Err(StorageError::Damaged { .. })));
    // Without any one of the files that the manifest names the store does not start: the newest, in which nothing may stand yet, included.
    let mut needed = 0;
    for name in segments(&disk) {
        let copy = disk.fork();
        copy.remove(&name).unwrap();
        match open(&copy, &tiny()) {
            Err(StorageError::Damaged { path, what, .. }) => {
                needed += 1;
                assert!(path.contains(&name) && what.contains("missing"), "{path}: {what}");
            }
            Err(error) => panic!("{name}: {error}"),
            Ok(mut log) => assert_eq!(contents(&mut log).unwrap(), before, "{name}"),
        }
    }
    assert!(needed >= 3, "{needed}");
    // Nor without the list itself, both copies of it, or any other of its files.
    for missing in [&["MANIFEST-a", "MANIFEST-b"][..], &["seg"], &["seg", "ckpt"], &["ckpt"]] {
        let copy = disk.fork();
        for name in disk.list().unwrap() {
            if missing.iter().any(|end| name.ends_with(end)) {
                copy.remove(&name).unwrap();
            }
        }
        let error = open(&copy, &tiny()).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("damaged")), "without {missing:?}");
    }
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let options = SegmentLogOptions { file_bytes: 64 << 10, ..SegmentLogOptions::default() };
    let log = SegmentLog::open_dir(dir.path(), options.clone()).unwrap();
    let error = SegmentLog::open_dir(dir.path(), options.clone()).err().unwrap();
    assert!(matches!(error, StorageError::Refused(_)), "{error}");
    drop(log);
    SegmentLog::open_dir(dir.path(), options).unwrap();
}

#[test]
fn short_reads_are_completed() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let g = group(&mut log, "g");
    write(&mut log, g, vec![LogOp::Append(sample_chunk(1, 1, 100))]).unwrap();
    let before = contents(&mut log).unwrap();
    disk.short_reads(true);
    assert_eq!(contents(&mut log).unwrap(), before);
    drop(log);
    assert_eq!(contents(&mut open(&disk, &tiny()).unwrap()).unwrap(), before);
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_see_only_whole_entries_while_files_are_recycled_under_them() {
    let options = SegmentLogOptions { background: true, ..tiny() };
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &options).unwrap();
    let (g, lag) = (group(&mut log, "g"), group(&mut log, "lag"));
    write(&mut log, lag, vec![LogOp::Append(sample_chunk(1, 1, 30))]).unwrap();
    let done = AtomicBool::new(false);
    let reader = log.reader();
    std::thread::scope(|scope| {
        for (group, may_go) in [(g, true), (lag, false)] {
            let (reader, done) = (&reader, &done);
            scope.spawn(move || {
                let mut from = 1;
                while !done.load(Ordering::Relaxed) {
                    match reader.read(group, from, from + 40, 400) {
                        Ok(chunks) => {
                            for c in &chunks {
                                let expected = sample_chunk(c.first_index(), c.term(), c.len() as u64);
                                assert_eq!(**c, *expected);
                            }
                            from = chunks[chunks.len() - 1].last_index() + 1;
                        }
                        Err(StorageError::Compacted { .. }) if may_go => from += 20,
                        Err(StorageError::NotFound { .. }) if may_go => std::thread::yield_now(),
                        Err(StorageError::NotFound { .. }) => from = 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        // Readers end also when the owner fails.
        let _stop = Stop(&done);
        let mut next = 1;
        for _ in 0..3000 {
            write(&mut log, g, vec![LogOp::Append(sample_chunk(next, 1, 7))]).unwrap();
            next += 7;
            if next % 5 == 0 {
                write(
                    &mut log,
                    g,
                    vec![LogOp::TruncatePrefix { first_kept: next.saturating_sub(20).max(1) }],
                )
                .unwrap();
            }
            log.maintain().unwrap();
        }
    });
    let before = contents(&mut log).unwrap();
    drop(log);
    assert_eq!(contents(&mut open(&disk, &options).unwrap()).unwrap(), before);
}
