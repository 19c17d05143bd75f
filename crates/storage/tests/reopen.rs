//! A store that is opened again: many times, and with other settings.

mod model;

use std::sync::Arc;

use model::{checkpoints, contents, open, tiny};
use ringraft_core::{ChunkBuilder, Configuration, EntryChunk, HardState, LogId, LogOp, PeerId, Vote};
use ringraft_storage::conformance::sample_chunk;
use ringraft_storage::{
    Disk, GroupKey, GroupWrite, LogStorage, MemoryDisk, SegmentLog, SegmentLogOptions, StorageError,
    WriteBatch,
};

fn write(log: &mut SegmentLog, group: GroupKey, ops: Vec<LogOp>) {
    log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] }).unwrap();
    model::completed(log).unwrap();
}

fn group(log: &mut SegmentLog, name: &str) -> GroupKey {
    log.open_group(&name.parse().unwrap()).unwrap().0
}

#[test]
fn short_runs_of_the_process_do_not_put_the_checkpoint_off_for_ever() {
    let disk = MemoryDisk::new();
    let options = SegmentLogOptions { checkpoint_bytes: 8 << 10, rewrite_live_percent: 0, ..tiny() };
    drop(open(&disk, &options).unwrap());
    let checkpoint_1 = checkpoints(&disk)[0].clone();
    let mut next = 1;
    for _ in 0..20 {
        let mut log = open(&disk, &options).unwrap();
        let g = group(&mut log, "g");
        // Half a checkpoint's worth, nothing of it dead.
        for _ in 0..8 {
            write(&mut log, g, vec![LogOp::Append(sample_chunk(next, 1, 16))]);
            next += 16;
            log.maintain().unwrap();
        }
    }
    assert!(checkpoints(&disk)[0] > checkpoint_1, "every start replays all there ever was");
    assert_eq!(contents(&mut open(&disk, &options).unwrap()).unwrap()["g"].last(), next - 1);
}

#[test]
fn records_that_the_smaller_files_of_today_cannot_hold_stay_where_they_are() {
    let disk = MemoryDisk::new();
    let large = SegmentLogOptions { file_bytes: 64 << 10, ..tiny() };
    let mut log = open(&disk, &large).unwrap();
    let (lag, busy) = (group(&mut log, "lag"), group(&mut log, "busy"));
    let mut builder = ChunkBuilder::new();
    builder.push(&[7; 6000]);
    write(&mut log, lag, vec![LogOp::Append(Arc::new(builder.take(1, 1).unwrap()))]);
    write(&mut log, lag, vec![LogOp::Append(sample_chunk(2, 1, 2))]);
    write(&mut log, busy, vec![LogOp::Append(sample_chunk(1, 1, 2000))]);
    drop(log);

    let mut log = open(&disk, &tiny()).unwrap();
    let mut next = 2001;
    for _ in 0..300 {
        write(&mut log, busy, vec![LogOp::Append(sample_chunk(next, 1, 8))]);
        next += 8;
        write(&mut log, busy, vec![LogOp::TruncatePrefix { first_kept: next - 8 }]);
        log.maintain().unwrap();
    }
    let found = contents(&mut log).unwrap();
    assert_eq!((found["lag"].last(), found["lag"].entries[0].1.len()), (3, 6000));
    let files = disk.list().unwrap().len();
    assert!(files <= 14, "{files} files: those of today must still be freed");
    // Once the large record is gone, its file goes like any other.
    write(&mut log, lag, vec![LogOp::TruncatePrefix { first_kept: 2 }]);
    for _ in 0..100 {
        write(&mut log, busy, vec![LogOp::Append(sample_chunk(next, 1, 8))]);
        next += 8;
        write(&mut log, busy, vec![LogOp::TruncatePrefix { first_kept: next - 8 }]);
        log.maintain().unwrap();
    }
    assert!(!disk.list().unwrap().iter().any(|n| n == "0000000000000001.seg"));
    assert_eq!(contents(&mut log).unwrap()["lag"].entries.len(), 2);
}

#[test]
fn peers_that_could_not_be_read_back_are_refused_before_anything_is_written() {
    let peer = |bytes: usize| PeerId::new(&"a".repeat(bytes - 3), 80);
    let vote = |bytes| LogOp::HardState(HardState { term: 2, vote: Vote::For(peer(bytes)) });
    let conf = |bytes| {
        let conf = Configuration { peers: vec![peer(bytes)], learners: Vec::new() };
        LogOp::Append(Arc::new(EntryChunk::configuration(LogId::new(1, 1), conf, Configuration::default())))
    };
    let options = SegmentLogOptions { file_bytes: 1 << 20, ..tiny() };
    for (bytes, fits) in [(200, true), (20_000, false), (65_536, false), (70_000, false)] {
        for op in [vote(bytes), conf(bytes)] {
            let disk = MemoryDisk::new();
            let mut log = open(&disk, &options).unwrap();
            let g = group(&mut log, "g");
            let batch = WriteBatch { writes: vec![GroupWrite { group: g, ops: vec![op] }] };
            let result = log.submit(&batch).and_then(|()| log.complete());
            match result {
                Ok(refused) if fits => assert!(refused.is_empty(), "{bytes} bytes: {refused:?}"),
                Ok(refused) => {
                    let reason = &refused.first().expect("it is refused").reason;
                    assert!(matches!(reason, StorageError::Invalid { .. }), "{reason}");
                }
                Err(error) => panic!("{bytes} bytes: {error}"),
            }
            // Both slots of the checkpoint come after it.
            for i in 0..3 {
                drop(log);
                log = open(&disk, &options).unwrap();
                let g = group(&mut log, &format!("h{i}"));
                write(&mut log, g, vec![LogOp::Append(sample_chunk(1, 1, 200))]);
                log.maintain().unwrap();
            }
        }
    }
}
