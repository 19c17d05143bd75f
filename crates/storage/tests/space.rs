//! Space: full disks, freed and recycled files, groups that lag, entries that are large; and reads meanwhile.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{checkpoints, contents, open, tiny};
use ringraft_core::{ChunkBuilder, EntryChunk, HardState, LogOp, Vote};
use ringraft_storage::conformance::sample_chunk;
use ringraft_storage::{
    Disk, GroupKey, GroupOpening, GroupWrite, LogStorage, MemoryDisk, MetaStorage, SegmentLog,
    SegmentLogOptions, StorageError, WriteBatch,
};

fn write(log: &mut SegmentLog, group: GroupKey, ops: Vec<LogOp>) -> Result<(), StorageError> {
    log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] })?;
    model::completed(log)
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

/// Appends entries of 1100 bytes, which leave a quarter of each file, and keeps house until one finds no room; returns the
/// last index.
fn fill(log: &mut SegmentLog, g: GroupKey, mut last: u64) -> u64 {
    loop {
        match write(log, g, vec![LogOp::Append(big_chunk(last + 1, &[1100]))]) {
            Ok(()) => last += 1,
            Err(StorageError::NoRoom(_)) => return last,
            Err(error) => panic!("{error}"),
        }
        log.maintain().unwrap();
    }
}

#[test]
fn a_full_disk_is_told_in_time_loses_nothing_and_goes_on_when_there_is_space() {
    for background in [false, true] {
        let options = SegmentLogOptions { background, ..tiny() };
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &options).unwrap();
        let g = group(&mut log, "g");
        assert_eq!(log.room(), u64::MAX);
        disk.limit_bytes(Some(disk.used_bytes() + (40 << 10)));
        let written = fill(&mut log, g, 0);
        assert!(log.room() < 4 << 10, "{}", log.room());
        // Nothing of the batch that found no room is there, and small ones still fit in the file at hand.
        let before = contents(&mut log).unwrap();
        assert_eq!(before["g"].last(), written);
        write(&mut log, g, vec![LogOp::HardState(HardState { term: 1, vote: Vote::None })]).unwrap();
        // As much as the store says, and not a byte of it twice.
        let room = log.room() as usize;
        write(&mut log, g, vec![LogOp::Append(big_chunk(written + 1, &[room - 72]))]).unwrap();
        assert!(matches!(log.open_group(&"new".parse().unwrap()), Ok(_) | Err(StorageError::NoRoom(_))));
        disk.limit_bytes(None);
        // A thread may be in the middle of a pause.
        let mut last = written + 1;
        while last < written + 400 {
            match write(&mut log, g, vec![LogOp::Append(sample_chunk(last + 1, 1, 5))]) {
                Ok(()) => last += 5,
                Err(StorageError::NoRoom(_)) if background => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
            log.maintain().unwrap();
        }
        assert_eq!(log.room(), u64::MAX);
        drop(log);
        disk.crash(1);
        let mut log = open(&disk, &options).unwrap();
        assert_eq!(contents(&mut log).unwrap()["g"].last(), last);
    }
}

#[test]
fn the_room_that_is_told_is_there() {
    for files in 1..4 {
        let options = SegmentLogOptions { prepared_files: files, ..tiny() };
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &options).unwrap();
        let g = group(&mut log, "g");
        disk.limit_bytes(Some(disk.used_bytes()));
        // The first file is taken; another one is asked for and refused.
        write(&mut log, g, vec![LogOp::Append(big_chunk(1, &[3000]))]).unwrap();
        write(&mut log, g, vec![LogOp::Append(big_chunk(2, &[1000]))]).unwrap();
        log.maintain().unwrap();
        let (mut next, mut told) = (3, log.room());
        assert!(told > 0 && told < (files as u64 + 1) * 4096, "{told}");
        while log.room() > 0 {
            let size = (log.room() as usize % 3400).saturating_sub(100).max(1);
            if write(&mut log, g, vec![LogOp::Append(big_chunk(next, &[size]))]).is_err() {
                break;
            }
            assert!(log.room() < told, "{} of {told}", log.room());
            (told, next) = (log.room(), next + 1);
        }
        assert!(next > 3, "nothing was written");
        assert!(told < 200, "{told} bytes were not to be had");
    }
}

/// On a disk that is full to the last byte the checkpoints that free files have their place, so that a log whose old
/// entries are dropped goes on.
#[test]
fn checkpoints_on_a_full_disk_free_files() {
    for background in [false, true] {
        // Copies would take the last blocks, and with them the place of the truncation.
        let options = SegmentLogOptions { background, rewrite_live_percent: 0, ..tiny() };
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &options).unwrap();
        let g = group(&mut log, "g");
        // Both slots exist by then.
        let mut next = 1;
        for _ in 0..60 {
            write(&mut log, g, vec![LogOp::Append(sample_chunk(next, 1, 8))]).unwrap();
            next += 8;
            log.maintain().unwrap();
        }
        // The thread may be behind: a file is filled from its start, so that its end takes a truncation.
        disk.limit_bytes(Some(disk.used_bytes() + (24 << 10)));
        let last = fill(&mut log, g, next - 1);
        disk.limit_bytes(Some(disk.used_bytes()));
        // No housekeeping: the batch that needs a file does what is needed by itself.
        write(&mut log, g, vec![LogOp::TruncatePrefix { first_kept: last + 1 }]).unwrap();
        let mut next = last + 1;
        while next < last + 3000 {
            match write(&mut log, g, vec![LogOp::Append(sample_chunk(next, 1, 8))]) {
                Ok(()) => next += 8,
                Err(StorageError::NoRoom(_)) if background => std::thread::yield_now(),
                Err(error) => panic!("{next}: {error}"),
            }
            let ops = vec![LogOp::TruncatePrefix { first_kept: next.saturating_sub(8) }];
            match write(&mut log, g, ops) {
                Ok(()) => {}
                Err(StorageError::NoRoom(_)) if background => std::thread::yield_now(),
                Err(error) => panic!("{next}: {error}"),
            }
        }
        let before = contents(&mut log).unwrap();
        drop(log);
        disk.crash(2);
        assert_eq!(contents(&mut open(&disk, &options).unwrap()).unwrap(), before);
    }
}

#[test]
fn a_store_starts_on_a_full_disk_and_without_descriptors_to_spare() {
    for background in [false, true] {
        let options = SegmentLogOptions { background, prepared_files: 3, ..tiny() };
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &options).unwrap();
        let g = group(&mut log, "g");
        write(&mut log, g, vec![LogOp::Append(sample_chunk(1, 1, 5))]).unwrap();
        drop(log);
        disk.limit_bytes(Some(disk.used_bytes()));
        let mut log = open(&disk, &options).unwrap();
        write(&mut log, g, vec![LogOp::Append(sample_chunk(6, 1, 5))]).unwrap();
        assert_eq!(contents(&mut log).unwrap()["g"].last(), 10);
        drop(log);
        disk.limit_bytes(None);
        // One for the file that is written, one for a file that is read, one for the manifest or a directory that is synced.
        disk.limit_open_files(Some(3));
        let mut log = open(&disk, &options).unwrap();
        write(&mut log, g, vec![LogOp::Append(sample_chunk(11, 1, 5))]).unwrap();
        assert_eq!(contents(&mut log).unwrap()["g"].last(), 15);
    }
}

/// However many files it reads.
#[test]
fn a_start_takes_few_descriptors() {
    for few in [3, 4] {
        // Nothing but the stream tells what is in it.
        let options = SegmentLogOptions { checkpoint_bytes: 1 << 20, ..tiny() };
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &options).unwrap();
        let g = group(&mut log, "g");
        for index in 0..30 {
            write(&mut log, g, vec![LogOp::Append(big_chunk(index + 1, &[1100]))]).unwrap();
        }
        drop(log);
        disk.limit_open_files(Some(few));
        let mut log = open(&disk, &options).unwrap();
        write(&mut log, g, vec![LogOp::Append(big_chunk(31, &[1100]))]).unwrap();
        assert_eq!(contents(&mut log).unwrap()["g"].last(), 31, "{few}");
    }
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
            let hard_state = HardState { term: round, vote: Vote::None };
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
    let again = GroupOpening { group: "g".parse().unwrap(), creation: 1 };
    let new = log.open_groups(&[again]).unwrap().pop().unwrap().unwrap().key;
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

/// A group at rest holds the files that its entries stand in; who removes it gets them back, and the tombstone stays.
#[test]
fn a_removed_group_gives_its_space_back() {
    let disk = MemoryDisk::new();
    // Nothing is copied elsewhere: what is freed was freed by the removal.
    let options = SegmentLogOptions { rewrite_live_percent: 0, recycled_files: 0, ..tiny() };
    let mut log = open(&disk, &options).unwrap();
    let (old, busy) = (group(&mut log, "g"), group(&mut log, "busy"));
    for i in 0..20 {
        write(&mut log, old, vec![LogOp::Append(big_chunk(1 + i, &[3000]))]).unwrap();
        log.maintain().unwrap();
    }
    let held = segments(&disk).len();
    assert!(held >= 10, "{held} files");
    log.remove_group(old).unwrap();
    for i in 0..4 {
        write(&mut log, busy, vec![LogOp::Append(big_chunk(1 + i, &[3000]))]).unwrap();
        (0..8).for_each(|_| log.maintain().unwrap());
    }
    assert!(segments(&disk).len() < held / 2, "{} of {held} files", segments(&disk).len());
    drop(log);
    let after = contents(&mut open(&disk, &options).unwrap()).unwrap();
    assert!(after["g"].removed && after["busy"].entries.len() == 4);
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
    let largest = log.largest_entry();
    write(&mut log, g, vec![LogOp::Append(big_chunk(3009, &[largest]))]).unwrap();
    let before = contents(&mut log).unwrap();
    log.submit(&WriteBatch {
        writes: vec![GroupWrite { group: g, ops: vec![LogOp::Append(big_chunk(3010, &[1, largest + 1]))] }],
    })
    .unwrap();
    let refused = log.complete().unwrap();
    assert!(refused[0].reason.to_string().contains("file_bytes"), "{refused:?}");
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

/// A truncation is written with the configuration in force, which an earlier write of its batch may have brought.
#[test]
fn a_batch_that_brings_a_configuration_and_truncates_behind_it_has_the_files_it_needs() {
    let conf: ringraft_core::Configuration = "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083".parse().unwrap();
    let none = ringraft_core::Configuration::default();
    for size in (2800..3700).step_by(16) {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &tiny()).unwrap();
        let g = group(&mut log, "g");
        write(&mut log, g, vec![LogOp::Append(big_chunk(1, &[8]))]).unwrap();
        let conf = EntryChunk::configuration(ringraft_core::LogId::new(2, 1), conf.clone(), none.clone());
        let ops = [
            vec![LogOp::Append(Arc::new(conf))],
            vec![LogOp::TruncatePrefix { first_kept: 2 }, LogOp::TruncatePrefix { first_kept: 3 }],
            vec![LogOp::Append(big_chunk(3, &[size]))],
            vec![LogOp::TruncatePrefix { first_kept: 4 }],
        ];
        let writes = ops.into_iter().map(|ops| GroupWrite { group: g, ops }).collect();
        log.submit(&WriteBatch { writes }).unwrap_or_else(|e| panic!("with {size} bytes: {e}"));
        model::completed(&mut log).unwrap();
        assert_eq!(contents(&mut log).unwrap()["g"].before_first.index, 3);
    }
}
