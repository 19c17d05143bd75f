//! Damage that concerns one group, files that hold nothing of the log, and names that errors tell.

mod model;

use model::{completed, contents, open, tiny};
use ringraft_core::LogOp;
use ringraft_storage::conformance::sample_chunk;
use ringraft_storage::{
    Disk, GroupKey, GroupWrite, LogStorage, MemoryDisk, SegmentLog, SegmentLogOptions, StorageError,
    WriteBatch,
};

fn write(log: &mut SegmentLog, group: GroupKey, ops: Vec<LogOp>) {
    log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] }).unwrap();
    completed(log).unwrap();
}

fn append(log: &mut SegmentLog, group: GroupKey, first: u64, count: u64) {
    write(log, group, vec![LogOp::Append(sample_chunk(first, 1, count))]);
}

fn group(log: &mut SegmentLog, name: &str) -> GroupKey {
    log.open_group(&name.parse().unwrap()).unwrap().0
}

fn segments(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".seg")).collect()
}

/// Where the payload of an entry stands, in which file.
fn find(disk: &MemoryDisk, needle: &[u8]) -> (String, u64) {
    segments(disk)
        .into_iter()
        .find_map(|name| {
            let bytes = disk.contents(&name)?;
            let at = bytes.windows(needle.len()).position(|window| window == needle)?;
            Some((name, at as u64))
        })
        .unwrap()
}

/// Writes of a busy group that drive housekeeping over every old file.
fn drive(log: &mut SegmentLog, busy: GroupKey, next: &mut u64, rounds: u64) {
    for _ in 0..rounds {
        append(log, busy, *next, 8);
        *next += 8;
        write(log, busy, vec![LogOp::TruncatePrefix { first_kept: *next - 8 }]);
        log.maintain().unwrap();
    }
}

#[test]
fn a_run_that_housekeeping_cannot_read_concerns_its_group_alone() {
    for rotten in [true, false] {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &tiny()).unwrap();
        let (cold, good, busy) = (group(&mut log, "cold"), group(&mut log, "good"), group(&mut log, "busy"));
        append(&mut log, cold, 1, 20);
        append(&mut log, good, 1, 20);
        let (file, at) = find(&disk, b"7@1;7@1;7@1;");
        if rotten {
            disk.flip_bit(&file, at, 3);
        }
        let mut next = 1;
        drive(&mut log, busy, &mut next, 2);
        if !rotten {
            // The next read is that of housekeeping: nobody else reads here.
            disk.fail_read_after(0);
        }
        let mut damaged = Vec::new();
        for _ in 0..300 {
            drive(&mut log, busy, &mut next, 1);
            let now = log.damaged_groups();
            if damaged.is_empty() || rotten {
                damaged = now;
            }
        }
        // Its file stays, others are emptied and freed. After an error that passed it is emptied, too.
        let files = segments(&disk);
        assert!(files.contains(&file) == rotten && files.len() < 14, "{files:?}");
        assert_eq!(log.damaged_groups().len(), usize::from(rotten));
        assert_eq!(damaged.len(), 1, "{damaged:?}");
        let victim = damaged[0].0;
        let named = if rotten { file.as_str() } else { ".seg" };
        assert!(damaged[0].1.to_string().contains(named), "{}", damaged[0].1);
        let reader = log.reader();
        if rotten {
            assert_eq!(victim, cold);
            let read = reader.read(cold, 1, 20, 1000);
            assert!(matches!(read, Err(StorageError::Damaged { .. })), "{read:?}");
        } else {
            // An error that passed: all of it is still to be had.
            assert_eq!(reader.read(victim, 1, 20, 10_000).unwrap()[0].first_index(), 1);
        }
        assert_eq!(reader.read(good, 1, 20, 10_000).unwrap()[0].first_index(), 1);
        // The damaged group goes on, too: only what is damaged is not to be had.
        append(&mut log, cold, 21, 3);
        assert_eq!(reader.read(cold, 21, 23, 1000).unwrap()[0].first_index(), 21);
        drop(log);
        disk.crash(4);
        // Each life goes through the same.
        let mut log = open(&disk, &tiny()).unwrap();
        drive(&mut log, busy, &mut next, 100);
        assert_eq!(log.damaged_groups().len(), usize::from(rotten));
        // What is dropped is damaged no more, and its file is freed.
        write(&mut log, cold, vec![LogOp::TruncatePrefix { first_kept: 21 }]);
        assert_eq!(log.damaged_groups().len(), 0);
        drive(&mut log, busy, &mut next, 100);
        assert!(!segments(&disk).contains(&file), "{:?}", segments(&disk));
    }
}

/// Shows rule P7: a replica that was stopped by damage and is started again, on the same log and in the same process, is told of it as after
/// a restart: it would vote and count with a log that it cannot give to anybody.
#[test]
fn who_opens_a_group_is_told_of_damage_that_was_found_meanwhile() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let (cold, good) = (group(&mut log, "cold"), group(&mut log, "good"));
    append(&mut log, cold, 1, 20);
    append(&mut log, good, 1, 20);
    append(&mut log, cold, 21, 3);
    assert_eq!(log.damaged_groups().len(), 0);
    let (file, at) = find(&disk, b"7@1;7@1;7@1;");
    disk.flip_bit(&file, at, 3);
    let told = |log: &mut SegmentLog, name: &str| {
        let (_, recovered) = log.open_group(&name.parse().unwrap()).unwrap();
        recovered.damaged.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut log, "cold"), [], "nobody has met it");
    assert!(log.reader().read(cold, 1, 20, 1000).is_err());
    assert_eq!(told(&mut log, "cold"), [(1, 20)]);
    assert_eq!(told(&mut log, "good"), []);
    assert_eq!(log.damaged_groups().len(), 1);
    write(&mut log, cold, vec![LogOp::TruncatePrefix { first_kept: 21 }]);
    assert_eq!(told(&mut log, "cold"), [], "the log holds it no more");
    assert_eq!(log.damaged_groups().len(), 0);
}

/// Shows rule P7: an error that passed, met first, does not hide the damage that is found in its place: its group must stop.
#[test]
fn an_error_that_may_pass_gives_way_to_damage() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let (cold, busy) = (group(&mut log, "cold"), group(&mut log, "busy"));
    append(&mut log, cold, 1, 20);
    let (file, at) = find(&disk, b"7@1;7@1;7@1;");
    let mut next = 1;
    drive(&mut log, busy, &mut next, 2);
    disk.fail_read_after(0);
    while log.damaged_groups().is_empty() {
        drive(&mut log, busy, &mut next, 1);
    }
    assert!(matches!(log.damaged_groups()[..], [(key, StorageError::Io { .. })] if key == cold));
    disk.flip_bit(&file, at, 3);
    assert!(log.reader().read(cold, 1, 20, 1000).is_err());
    let damaged = log.damaged_groups();
    assert!(matches!(damaged[..], [(key, StorageError::Damaged { .. })] if key == cold), "{damaged:?}");
}

/// A store that has used some files, and has two ready behind the one it writes.
fn with_spares(options: &SegmentLogOptions) -> (MemoryDisk, model::StoreModel) {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, options).unwrap();
    let g = group(&mut log, "g");
    for i in 0..20 {
        append(&mut log, g, 1 + i * 40, 40);
        log.maintain().unwrap();
    }
    let found = contents(&mut log).unwrap();
    (disk, found)
}

fn overwrite(disk: &MemoryDisk, name: &str, offset: u64, bytes: &[u8]) {
    let file = disk.open(name).unwrap();
    file.write_at(offset, bytes).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn spare_files_that_are_damaged_do_not_stop_a_start() {
    let options = SegmentLogOptions { checkpoint_bytes: 1 << 20, ..tiny() };
    let (disk, before) = with_spares(&options);
    let names = segments(&disk);
    for (what, harm) in [(
        "a header of something else",
        Box::new(|disk: &MemoryDisk, name: &str| overwrite(disk, name, 0, b"x"))
            as Box<dyn Fn(&MemoryDisk, &str)>,
    )] {
        let disk = disk.fork();
        for spare in &names[names.len() - 2..] {
            harm(&disk, spare);
        }
        let mut log = open(&disk, &options).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(contents(&mut log).unwrap(), before, "{what}");
        let g = group(&mut log, "g");
        for i in 20..40 {
            append(&mut log, g, 1 + i * 40, 40);
            log.maintain().unwrap();
        }
        drop(log);
        disk.crash(1);
        assert_eq!(contents(&mut open(&disk, &options).unwrap()).unwrap()["g"].last(), 1600, "{what}");
    }
}

#[test]
fn a_file_that_may_hold_the_end_of_the_log_stops_a_start() {
    let options = SegmentLogOptions { checkpoint_bytes: 1 << 20, ..tiny() };
    let (disk, before) = with_spares(&options);
    let names = segments(&disk);
    let used = &names[..names.len() - 2];
    let mut later_parts = 0;
    for name in used {
        for (what, bytes) in
            [("a bit", vec![0xff]), ("its header", vec![0; 4096]), ("its start", vec![0; 7168])]
        {
            let disk = disk.fork();
            overwrite(&disk, name, 0, &bytes);
            let error = open(&disk, &options).err().unwrap_or_else(|| panic!("{name} without {what}"));
            assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
            assert_eq!(segments(&disk), names, "nothing was touched");
        }
        // The write of its first part went astray, over the header, and later parts say that it was durable; or it is the only part.
        let disk_astray = disk.fork();
        let first = disk.contents(name).unwrap()[4096..4096 + 512].to_vec();
        overwrite(&disk_astray, name, 0, &first);
        overwrite(&disk_astray, name, 4096, &[0; 512]);
        let error = open(&disk_astray, &options).err().unwrap_or_else(|| panic!("{name}: first part astray"));
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        // The same where nothing of that part is left: only what stands behind it tells.
        overwrite(&disk_astray, name, 0, &[0xff; 512]);
        if disk.contents(name).unwrap().chunks(512).filter(|block| block[..4] == first[..4]).count() > 1 {
            later_parts += 1;
            let error = open(&disk_astray, &options).err().unwrap_or_else(|| panic!("{name}: later parts"));
            assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        }
        let disk = disk.fork();
        disk.open(name).unwrap().set_len(0).unwrap();
        let error = open(&disk, &options).err().unwrap_or_else(|| panic!("{name} empty"));
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
    assert!(later_parts > 0, "some file has several parts");
    // The manifest does not name this one.
    disk.create("0000000000000fff.seg", 0).unwrap();
    assert_eq!(contents(&mut open(&disk, &options).unwrap()).unwrap(), before);
}

#[test]
fn a_stray_file_that_the_log_has_passed_by_is_removed() {
    let options = SegmentLogOptions { checkpoint_bytes: 1 << 20, ..tiny() };
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &options).unwrap();
    let g = group(&mut log, "g");
    append(&mut log, g, 1, 40);
    drop(log);
    // The next start counts on from the highest number.
    disk.create("00000000000000ff.seg", 4096).unwrap();
    overwrite(&disk, "00000000000000ff.seg", 0, b"stray");
    let mut log = open(&disk, &options).unwrap();
    for i in 1..10 {
        append(&mut log, g, 1 + i * 40, 40);
        log.maintain().unwrap();
    }
    drop(log);
    // It came back empty, behind where the log was then and before where it is now.
    disk.create("00000000000000ff.seg", 0).unwrap();
    let mut log = open(&disk, &options).unwrap();
    assert_eq!(contents(&mut log).unwrap()["g"].last(), 400);
    assert!(!segments(&disk).contains(&"00000000000000ff.seg".to_owned()));
}

#[test]
fn errors_name_a_file_as_it_is_called_now() {
    let options = SegmentLogOptions { recycled_files: 4, ..tiny() };
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &options).unwrap();
    let g = group(&mut log, "g");
    let mut next = 1;
    // Recycled files by then.
    drive(&mut log, g, &mut next, 100);
    for _ in 0..40 {
        disk.fail_operation_after(0);
        let ops = vec![LogOp::Append(sample_chunk(next, 1, 8))];
        let error = log.submit(&WriteBatch { writes: vec![GroupWrite { group: g, ops }] }).unwrap_err();
        let StorageError::Io { path, .. } = &error else { panic!("{error}") };
        let name = path.strip_prefix("memory:").unwrap();
        // Neither what it was prepared as, nor what it was before.
        assert!(segments(&disk).contains(&name.to_owned()), "{path} is not there: {:?}", segments(&disk));
        drop(log);
        log = open(&disk, &options).unwrap();
        // The whole of the write may have reached the disk.
        next = log.open_group(&"g".parse().unwrap()).unwrap().1.last_index + 1;
        drive(&mut log, g, &mut next, 3);
    }
}
