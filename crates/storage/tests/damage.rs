//! What cannot be read back: a torn end is cut, damage is laid at the door of whom it concerns.

mod model;

use std::sync::Arc;

use model::{open, tiny};
use ringraft_core::{ChunkBuilder, HardState, LogOp, RecoveredState, Vote};
use ringraft_storage::{
    Disk, Expect, GroupKey, GroupWrite, LogStorage, MemoryDisk, SegmentLog, SegmentLogOptions, StorageError,
    StoreId, WriteBatch,
};

fn entry(first: u64, payload: &[u8]) -> LogOp {
    let mut builder = ChunkBuilder::new();
    builder.push(payload);
    LogOp::Append(Arc::new(builder.take(first, 1).unwrap()))
}

fn vote(term: u64) -> LogOp {
    LogOp::HardState(HardState { term, vote: Vote::For("candidate:80".parse().unwrap()) })
}

fn write(log: &mut SegmentLog, writes: Vec<(GroupKey, Vec<LogOp>)>) {
    let writes = writes.into_iter().map(|(group, ops)| GroupWrite { group, ops }).collect();
    log.submit(&WriteBatch { writes }).unwrap();
    assert!(log.complete().unwrap().is_empty());
}

fn group(log: &mut SegmentLog, name: &str) -> (GroupKey, RecoveredState) {
    log.open_group(&name.parse().unwrap()).unwrap()
}

/// Flips a bit of the first place where the bytes stand, or of a place near it.
fn spoil(disk: &MemoryDisk, needle: &[u8], before: u64) {
    for name in disk.list().unwrap().iter().filter(|n| n.ends_with(".seg")) {
        let bytes = disk.contents(name).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
            return disk.flip_bit(name, at as u64 - before, 2);
        }
    }
    panic!("nothing to spoil");
}

/// Two groups in one batch, and one more batch behind it that vouches for it.
fn two_groups() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &tiny()).unwrap();
    let (a, b) = (group(&mut log, "a").0, group(&mut log, "b").0);
    write(&mut log, vec![(a, vec![vote(1), entry(1, &[7; 40])]), (b, vec![vote(1), entry(1, &[8; 40])])]);
    write(&mut log, vec![(a, vec![entry(2, &[9; 40])]), (b, vec![entry(2, &[10; 40])])]);
    write(&mut log, vec![(b, vec![vote(2)])]);
    disk
}

/// Shows rule P7.
#[test]
fn a_damaged_entry_is_damage_of_its_group_and_of_that_entry() {
    let disk = two_groups();
    spoil(&disk, &[7; 40], 0);
    let mut log = open(&disk, &tiny()).unwrap();
    let (a, state) = group(&mut log, "a");
    let ranges: Vec<_> = state.damaged.iter().map(|r| (r.first, r.last)).collect();
    assert_eq!((ranges, state.last_index, state.hard_state.term), (vec![(1, 1)], 2, 1));
    let reader = log.reader();
    assert!(matches!(reader.read(a, 1, 1, 100), Err(StorageError::Damaged { .. })));
    assert_eq!(reader.read(a, 2, 2, 100).unwrap()[0].entry(0), [9; 40]);
    let (b, state) = group(&mut log, "b");
    assert_eq!((state.damaged.len(), state.last_index, state.hard_state.term), (0, 2, 2));
    // The store goes on, and what is damaged is remembered when the stream before a checkpoint is read no more.
    for index in 3..200 {
        write(&mut log, vec![(b, vec![entry(index, &[1; 40])])]);
        log.maintain().unwrap();
    }
    drop(log);
    let mut log = open(&disk, &tiny()).unwrap();
    assert_eq!(group(&mut log, "a").1.damaged.len(), 1);
    write(&mut log, vec![(a, vec![LogOp::Reset { before: Default::default(), conf: None }])]);
    drop(log);
    let state = group(&mut open(&disk, &tiny()).unwrap(), "a").1;
    assert!(state.damaged.is_empty() && state.last_index == 0, "a reset makes it whole");
}

#[test]
fn a_damaged_vote_is_given_to_nobody() {
    let disk = two_groups();
    spoil(&disk, b"candidate", 0);
    let mut log = open(&disk, &tiny()).unwrap();
    let (_, state) = group(&mut log, "a");
    assert_eq!(state.hard_state, HardState { term: 1, vote: Vote::Withheld });
    assert!(state.damaged.is_empty() && state.last_index == 2);
    assert_eq!(group(&mut log, "b").1.hard_state.term, 2);
}

#[test]
fn an_operation_whose_header_is_lost_is_missed_by_its_group() {
    let disk = two_groups();
    // The header of the run stands right before its payload.
    spoil(&disk, &[7; 40], 60);
    let mut log = open(&disk, &tiny()).unwrap();
    let (_, state) = group(&mut log, "a");
    assert_eq!(state.damaged.len(), 1, "{state:?}");
    assert_eq!(state.hard_state.vote, Vote::Withheld, "it may have been a vote");
    assert_eq!(group(&mut log, "b").1.hard_state.term, 2);
}

#[test]
fn an_operation_that_nobody_misses_may_be_anybodys() {
    let disk = two_groups();
    // The last operation of its group: nothing behind it shows a gap.
    spoil(&disk, &[9; 40], 60);
    assert!(matches!(open(&disk, &tiny()), Err(StorageError::Damaged { .. })));
}

/// Shows rule P8.
#[test]
fn the_last_batch_is_torn_until_it_is_vouched_for_and_damaged_after_that() {
    for vouched in [false, true] {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &tiny()).unwrap();
        let a = group(&mut log, "a").0;
        write(&mut log, vec![(a, vec![vote(1), entry(1, &[7; 40])])]);
        if vouched {
            log.vouch().unwrap();
            let operations = disk.operations();
            log.vouch().unwrap();
            assert_eq!(disk.operations(), operations, "once is enough");
        }
        drop(log);
        disk.crash(1);
        spoil(&disk, &[7; 40], 0);
        let mut log = open(&disk, &tiny()).unwrap();
        let (_, state) = group(&mut log, "a");
        let found = (state.last_index, state.hard_state.term, state.damaged.len());
        assert_eq!(found, if vouched { (1, 1, 1) } else { (0, 0, 0) }, "vouched: {vouched}");
    }
}

/// Writes other bytes into the header of the run that holds this payload, with a right checksum, as a program would that knows them.
fn rewrite_header(disk: &MemoryDisk, payload: &[u8], change: impl Fn(&mut [u8])) {
    for name in disk.list().unwrap().iter().filter(|n| n.ends_with(".seg")) {
        let bytes = disk.contents(name).unwrap();
        let Some(at) = bytes.windows(payload.len()).position(|w| w == payload) else { continue };
        let mut head = bytes[at - 64..at].to_vec();
        change(&mut head);
        let seed = crc32c::crc32c(&bytes[24..32]);
        let crc = crc32c::crc32c_append(seed, &head[4..]);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        let file = disk.open(name).unwrap();
        file.write_at(at as u64 - 64, &head).unwrap();
        return file.sync_data().unwrap();
    }
    panic!("nothing to rewrite");
}

/// A downgrade: whoever does not know a record must not take it for the end of the log, and cut off what the newer program has acknowledged.
#[test]
fn what_a_newer_program_wrote_stops_an_older_one_and_stays_as_it_is() {
    let changes: [fn(&mut [u8]); 4] =
        [|head| head[4] = 9, |head| head[4] = 127, |head| head[5] |= 0x40, |_| {}];
    for (number, change) in changes.into_iter().enumerate() {
        for vouched in [false, true] {
            let disk = MemoryDisk::new();
            let mut log = open(&disk, &tiny()).unwrap();
            let a = group(&mut log, "a").0;
            write(&mut log, vec![(a, vec![entry(1, &[7; 40])])]);
            if vouched {
                log.vouch().unwrap();
            }
            drop(log);
            disk.crash(1);
            rewrite_header(&disk, &[7; 40], change);
            let all = || disk.list().unwrap().into_iter().map(|name| (disk.contents(&name), name));
            let before: Vec<_> = all().collect();
            let opened = open(&disk, &tiny());
            if number == changes.len() - 1 {
                assert!(opened.is_ok(), "the same bytes again");
                continue;
            }
            let error = opened.err().expect("refused");
            assert!(matches!(error, StorageError::Refused(_)), "{error}");
            assert!(error.to_string().contains("newer program"), "{error}");
            assert_eq!(all().collect::<Vec<_>>(), before, "vouched: {vouched}");
        }
    }
}

#[test]
fn a_vouch_without_room_is_made_up_for() {
    let disk = MemoryDisk::new();
    // No checkpoint, which would vouch as well.
    let options = SegmentLogOptions { checkpoint_bytes: 1 << 20, ..tiny() };
    let mut log = open(&disk, &options).unwrap();
    let a = group(&mut log, "a").0;
    disk.limit_bytes(Some(0));
    // Each batch takes one block: the one that finds no room stands behind a full file.
    let mut index = 1;
    let full = loop {
        let writes = vec![GroupWrite { group: a, ops: vec![entry(index, &[index as u8; 40])] }];
        match log.submit(&WriteBatch { writes }) {
            Ok(()) => assert!(log.complete().unwrap().is_empty()),
            Err(error) => break error,
        }
        index += 1;
    };
    assert!(matches!(full, StorageError::NoRoom(_)), "{full}");
    let operations = disk.operations();
    log.vouch().unwrap();
    assert_eq!(disk.operations(), operations, "there is no file to vouch in");
    disk.limit_bytes(None);
    log.maintain().unwrap();
    log.vouch().unwrap();
    drop(log);
    disk.crash(1);
    spoil(&disk, &[(index - 1) as u8; 40], 0);
    let mut log = open(&disk, &options).unwrap();
    let (_, state) = group(&mut log, "a");
    assert_eq!((state.last_index, state.damaged.len()), (index - 1, 1), "known for damage");
}

#[test]
fn a_vouch_that_is_torn_harms_nothing() {
    for seed in 0..16 {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &tiny()).unwrap();
        let a = group(&mut log, "a").0;
        write(&mut log, vec![(a, vec![vote(1), entry(1, &[7; 40])])]);
        disk.power_off_after(seed % 3);
        let _ = log.vouch();
        drop(log);
        disk.crash(seed);
        let state = group(&mut open(&disk, &tiny()).unwrap(), "a").1;
        assert_eq!((state.last_index, state.hard_state.term), (1, 1));
    }
}

#[test]
fn a_directory_is_what_its_owner_knows_of_it() {
    let disk = MemoryDisk::new();
    let open = |expect| SegmentLog::open_expecting(Arc::new(disk.clone()), tiny(), expect);
    assert!(matches!(open(Expect::Existing(None)), Err(StorageError::Damaged { .. })), "blank");
    let mut log = open(Expect::Blank).unwrap();
    let id = log.store_id();
    drop(log);
    drop(open(Expect::Blank).unwrap()); // made, never used
    log = open(Expect::Existing(Some(id))).unwrap();
    group(&mut log, "a");
    drop(log);
    assert!(matches!(open(Expect::Existing(Some(StoreId([1; 16])))), Err(StorageError::Damaged { .. })));
    let error = open(Expect::Blank).err().unwrap().to_string();
    assert!(error.contains(".seg"), "{error}");
}

#[test]
fn a_creation_that_did_not_finish_is_begun_anew() {
    for operations in 0..40 {
        for seed in 0..4 {
            let disk = MemoryDisk::new();
            disk.power_off_after(operations);
            let made = SegmentLog::open_expecting(Arc::new(disk.clone()), tiny(), Expect::Blank);
            let done = made.is_ok();
            drop(made);
            disk.crash(seed);
            let expect = if done { Expect::Existing(None) } else { Expect::Blank };
            let log = SegmentLog::open_expecting(Arc::new(disk.clone()), tiny(), expect);
            assert!(log.is_ok(), "after {operations} operations: {:?}", log.err());
        }
    }
}

#[test]
fn a_segment_file_of_another_store_is_not_taken_for_its_own() {
    let (disk, other) = (two_groups(), two_groups());
    let name = "0000000000000001.seg";
    let (mine, theirs) = (disk.contents(name).unwrap(), other.contents(name).unwrap());
    assert_ne!(mine, theirs, "another salt and store id");
    disk.open(name).unwrap().write_at(0, &theirs).unwrap();
    assert!(matches!(open(&disk, &tiny()), Err(StorageError::Damaged { .. })));
}
