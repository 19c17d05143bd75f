//! Faults while the store recovers from an earlier fault: what recovery relies on must be durable, absence included.

mod model;

use std::sync::Arc;

use model::{contents, open, tiny};
use ringraft_core::{ChunkBuilder, LogOp};
use ringraft_storage::disk::FsyncFailure;
use ringraft_storage::{
    GroupKey, GroupWrite, LogStorage, MemoryDisk, SegmentLog, SegmentLogOptions, WriteBatch,
};

/// Files behind the end are kept for later, as by default.
fn options() -> SegmentLogOptions {
    SegmentLogOptions { prepared_files: 1, recycled_files: 4, ..tiny() }
}

fn batch(group: GroupKey, first: u64, payloads: &[&[u8]]) -> WriteBatch {
    let ops = payloads.iter().enumerate().map(|(i, payload)| {
        let mut builder = ChunkBuilder::new();
        builder.push(payload);
        LogOp::Append(Arc::new(builder.take(first + i as u64, 1).unwrap()))
    });
    WriteBatch { writes: vec![GroupWrite { group, ops: ops.collect() }] }
}

fn group(log: &mut SegmentLog) -> GroupKey {
    log.open_group(&"g".parse().unwrap()).unwrap().0
}

fn entries(disk: &MemoryDisk) -> Vec<Vec<u8>> {
    let found = contents(&mut open(disk, &options()).unwrap()).unwrap();
    found["g"].entries.iter().map(|(_, payload)| payload.clone()).collect()
}

/// A batch of two parts was torn in the first one while the second one survived, the recovery after that fails to
/// overwrite the second one for good, and the power fails once more after the store went on.
#[test]
fn the_second_part_of_a_torn_batch_stays_dead_when_the_first_recovery_failed() {
    let mut torn = 0;
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        // A file stands ready behind those of the batch, as with a thread that prepares them.
        let ahead = SegmentLogOptions { prepared_files: 3, ..options() };
        let mut log = open(&disk, &ahead).unwrap();
        let g = group(&mut log);
        log.submit(&batch(g, 1, &[&[1; 32]])).unwrap();
        model::completed(&mut log).unwrap();
        // Written, never synced.
        log.submit(&batch(g, 2, &[&[2; 3000], &[3; 600]])).unwrap();
        drop(log);
        disk.crash(seed);
        for calls in 0..8 {
            let disk = disk.fork();
            disk.fail_fsync_after(calls, FsyncFailure::KeepsNew);
            let failed = SegmentLog::open(Arc::new(disk.clone()), options()).is_err();
            if !failed {
                break;
            }
            let mut log = open(&disk, &options()).unwrap();
            let g = group(&mut log);
            let (_, state) = log.open_group(&"g".parse().unwrap()).unwrap();
            if state.last_index != 1 {
                continue; // the whole batch survived
            }
            torn += 1;
            log.submit(&batch(g, 2, &[&[9; 32]])).unwrap();
            model::completed(&mut log).unwrap();
            drop(log);
            disk.crash(seed + 1);
            assert_eq!(entries(&disk), [[1; 32], [9; 32]], "seed {seed}, after {calls} fsyncs");
        }
    }
    assert!(torn > 100, "{torn} torn batches");
}
