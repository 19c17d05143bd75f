//! Files that are made ready ahead: whatever goes wrong with one that nobody uses yet is tried again with another.

mod model;

use std::time::{Duration, Instant};

use model::{Random, StoreModel, completed, contents, open, tiny};
use ringraft_core::LogOp;
use ringraft_storage::conformance::sample_chunk;
use ringraft_storage::{
    Disk, GroupKey, GroupWrite, IoKind, LogStorage, MemoryDisk, SegmentLog, SegmentLogOptions, StorageError,
    WriteBatch,
};

/// Long enough for anything that comes at all.
const LIMIT: Duration = Duration::from_secs(60);

/// Entries in each write of these tests: about a quarter of a file.
const STEP: u64 = 60;

fn append(log: &mut SegmentLog, group: GroupKey, first: u64) -> Result<(), StorageError> {
    let ops = vec![LogOp::Append(sample_chunk(first, 1, STEP))];
    log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] })?;
    completed(log)
}

fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happens() {
        assert!(start.elapsed() < LIMIT, "{what} does not happen");
        std::thread::yield_now();
    }
}

fn files(disk: &MemoryDisk) -> usize {
    disk.list().unwrap().iter().filter(|name| name.ends_with(".seg")).count()
}

/// How many files the copy of the manifest names that is written last.
fn named(disk: &MemoryDisk) -> usize {
    disk.contents("MANIFEST-b")
        .map_or(0, |bytes| u32::from_le_bytes(bytes[44..48].try_into().unwrap()) as usize)
}

/// A store with one group, whose files ahead are ready.
fn ready(disk: &MemoryDisk, options: &SegmentLogOptions) -> (SegmentLog, GroupKey) {
    let mut log = open(disk, options).unwrap();
    let group = log.open_group(&"g".parse().unwrap()).unwrap().0;
    // The last step of making a file ready names it in the second copy of the manifest and closes that copy; before, the thread holds
    // descriptors that a limit would count in.
    let wanted = 1 + options.prepared_files;
    eventually("all files are ready", || {
        files(disk) == wanted && named(disk) == wanted && disk.open_files() == wanted
    });
    (log, group)
}

const TROUBLES: [(&str, IoKind); 4] = [
    ("EMFILE", IoKind::Descriptors),
    ("ENOSPC", IoKind::Full),
    ("EIO", IoKind::Other),
    ("EACCES", IoKind::Permission),
];

/// No file can be made from now on.
fn begin(disk: &MemoryDisk, trouble: &str) {
    match trouble {
        "EMFILE" => disk.limit_open_files(Some(disk.open_files())),
        "ENOSPC" => disk.limit_bytes(Some(disk.used_bytes())),
        "EIO" => disk.refuse_creation(Some(libc::EIO)),
        _ => disk.refuse_creation(Some(libc::EACCES)),
    }
}

fn end(disk: &MemoryDisk) {
    disk.limit_open_files(None);
    disk.limit_bytes(None);
    disk.refuse_creation(None);
}

/// Without rewriting and checkpoints: nothing but preparing needs the disk's help.
fn quiet() -> SegmentLogOptions {
    SegmentLogOptions { checkpoint_bytes: u64::MAX, rewrite_live_percent: 0, ..tiny() }
}

#[test]
fn a_trouble_that_is_over_before_the_file_is_needed_is_none() {
    for background in [false, true] {
        for (trouble, _) in TROUBLES {
            let options = SegmentLogOptions { background, ..quiet() };
            let disk = MemoryDisk::new();
            let (mut log, group) = ready(&disk, &options);
            begin(&disk, trouble);
            let mut next = 1;
            // The first of two files ahead is taken, and another one is asked for and refused.
            for _ in 0..5 {
                append(&mut log, group, next).unwrap_or_else(|error| panic!("{trouble}: {error}"));
                next += STEP;
            }
            let before = disk.operations();
            eventually("an attempt", || {
                log.maintain().unwrap_or_else(|error| panic!("{trouble}: {error}"));
                disk.operations() > before + 2
            });
            assert_eq!(files(&disk), 3, "{trouble}: the test does not do what it says");
            end(&disk);
            for _ in 0..30 {
                eventually("room", || match append(&mut log, group, next) {
                    Ok(()) => true,
                    // The thread may be in the middle of a pause.
                    Err(StorageError::NoRoom(_)) if background => false,
                    Err(error) => panic!("{trouble}: {error}"),
                });
                next += STEP;
                log.maintain().unwrap();
            }
            let before = contents(&mut log).unwrap();
            assert_eq!(before["g"].last(), next - 1);
            drop(log);
            disk.crash(1);
            assert_eq!(contents(&mut open(&disk, &options).unwrap()).unwrap(), before, "{trouble}");
        }
    }
}

#[test]
fn a_trouble_that_stays_counts_when_the_file_is_needed() {
    for background in [false, true] {
        for (trouble, kind) in TROUBLES {
            let patience = Duration::from_millis(20);
            let options = SegmentLogOptions { background, prepare_patience: patience, ..quiet() };
            let disk = MemoryDisk::new();
            let (mut log, group) = ready(&disk, &options);
            begin(&disk, trouble);
            let mut next = 1;
            let error = loop {
                match append(&mut log, group, next) {
                    Ok(()) => next += STEP,
                    Err(error) => break error,
                }
                log.maintain().unwrap_or_else(|error| panic!("{trouble}: {error}"));
            };
            assert!(next > 8 * STEP, "{trouble}: both files that were ready are used first");
            if kind == IoKind::Full {
                assert!(matches!(error, StorageError::NoRoom(_)), "{error}");
            } else {
                assert!(matches!(error, StorageError::Io { kind: k, .. } if k == kind), "{trouble}: {error}");
                let later = append(&mut log, group, next);
                assert!(matches!(later, Err(StorageError::Poisoned(_))), "{trouble}: {later:?}");
            }
            drop(log);
            end(&disk);
            // Nothing of the write that failed is there, and nothing of the files that were not made.
            let mut log = open(&disk, &options).unwrap();
            assert_eq!(contents(&mut log).unwrap()["g"].last(), next - 1, "{trouble}");
            assert!(disk.list().unwrap().iter().all(|name| !name.ends_with(".tmp")) || background);
        }
    }
}

#[test]
fn a_write_waits_for_a_file_while_none_can_be_made() {
    let options = SegmentLogOptions { background: true, prepare_patience: LIMIT, ..quiet() };
    for (trouble, _) in TROUBLES.into_iter().filter(|(_, kind)| *kind != IoKind::Full) {
        let disk = MemoryDisk::new();
        let (mut log, group) = ready(&disk, &options);
        begin(&disk, trouble);
        std::thread::scope(|scope| {
            let before = disk.operations();
            let disk = &disk;
            // The files that are ready are full by then, and several attempts were made.
            scope.spawn(move || {
                eventually("attempts", || disk.operations() > before + 20);
                end(disk);
            });
            for i in 0..16 {
                append(&mut log, group, 1 + i * STEP).unwrap_or_else(|error| panic!("{trouble}: {error}"));
            }
        });
        assert_eq!(contents(&mut log).unwrap()["g"].last(), 16 * STEP);
    }
}

#[test]
fn an_error_at_any_operation_of_preparing_costs_that_file_alone() {
    let mut recycled = 0;
    for operations in 0.. {
        let options = SegmentLogOptions { recycled_files: 2, ..tiny() };
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &options).unwrap();
        let group = log.open_group(&"g".parse().unwrap()).unwrap().0;
        let mut next = 1;
        let mut cycle = |log: &mut SegmentLog| {
            // Each time some files are freed, recycled and used again.
            for _ in 0..8 {
                append(log, group, next).unwrap();
                next += STEP;
            }
            let ops = vec![LogOp::TruncatePrefix { first_kept: next }];
            log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] }).unwrap();
            completed(log).unwrap();
            for _ in 0..3 {
                log.maintain().unwrap();
            }
            next
        };
        cycle(&mut log);
        cycle(&mut log);
        // All files ahead are taken; the next call of housekeeping makes two.
        drop(log);
        let mut log = open(&disk, &SegmentLogOptions { prepared_files: 1, ..options.clone() }).unwrap();
        for _ in 0..5 {
            let ops = vec![LogOp::Append(sample_chunk(next, 1, STEP))];
            log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] }).unwrap();
            completed(&mut log).unwrap();
            next += STEP;
        }
        let before = (disk.operations(), disk.list().unwrap());
        disk.fail_operation_after(operations);
        match log.maintain() {
            // A checkpoint, and its name in directory and manifest; the files that are prepared are none of these.
            Err(error) if of_a_checkpoint(&error.to_string()) => continue,
            result => result.unwrap_or_else(|error| panic!("operation {operations}: {error}")),
        }
        if disk.operations() <= before.0 + operations {
            break;
        }
        recycled += usize::from(disk.list().unwrap().len() < before.1.len());
        let found = contents(&mut log).unwrap();
        drop(log);
        disk.crash(operations);
        assert_eq!(contents(&mut open(&disk, &options).unwrap()).unwrap(), found, "operation {operations}");
        assert!(operations < 100, "housekeeping ends");
    }
    assert!(recycled > 0, "no file was recycled");
}

fn of_a_checkpoint(error: &str) -> bool {
    !error.contains(".seg")
        && ["checkpoint", ".ckpt", "MANIFEST", "sync directory"].iter().any(|what| error.contains(what))
}

/// Random work on a disk that is too small for it. A step that finds no room has done nothing.
fn work_without_room(disk: &MemoryDisk, random: &mut Random, steps: usize) -> (model::Run, u32) {
    let mut refused = 0;
    let mut before = StoreModel::new();
    let mut log = match open(disk, &tiny()) {
        Ok(log) => log,
        Err(error) => {
            let (before, after) = (before.clone(), before);
            return (model::Run { before, after, error: Some(error), log: None }, 0);
        }
    };
    for _ in 0..steps {
        let step = model::next_step(random, &before);
        let next = model::after(&before, &step);
        match model::perform(&mut log, &step) {
            Ok(()) => before = next,
            Err(StorageError::NoRoom(_)) => refused += 1,
            Err(error) => {
                return (model::Run { before, after: next, error: Some(error), log: Some(log) }, refused);
            }
        }
    }
    (model::Run { after: before.clone(), before, error: None, log: Some(log) }, refused)
}

#[test]
fn power_failure_or_an_error_at_every_operation_on_a_full_disk() {
    for error in [false, true] {
        let mut refused = 0;
        for operations in 0.. {
            let disk = MemoryDisk::new();
            // Both copies of the manifest, room for checkpoints, and one to four files.
            disk.limit_bytes(Some((128 + 16 + 12 + operations % 4 * 8) << 10));
            if error {
                disk.fail_operation_after(operations);
            } else {
                disk.power_off_after(operations);
            }
            let (run, more) = work_without_room(&disk, &mut Random(7), 80);
            refused += more;
            let over = disk.operations() <= operations;
            drop(run.log);
            if over {
                break;
            }
            disk.limit_bytes(None);
            if !error {
                disk.crash(operations);
            }
            let mut log = open(&disk, &tiny()).unwrap_or_else(|e| panic!("operation {operations}: {e}"));
            let found = contents(&mut log).unwrap_or_else(|e| panic!("operation {operations}: {e}"));
            assert!(found == run.before || found == run.after, "operation {operations}, error {error}");
            drop(log);
            disk.crash(operations + 1);
            assert_eq!(
                contents(&mut open(&disk, &tiny()).unwrap()).unwrap(),
                found,
                "operation {operations}"
            );
        }
        assert!(refused > 100, "the disk was not full: {refused}");
    }
}
