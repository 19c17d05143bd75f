//! Bytes of an earlier life of the tail, and checkpoints of an earlier moment, must never be believed.

mod model;

use std::sync::Arc;

use model::{Random, StoreModel, checkpoints, contents, open, tiny};
use ringraft_core::{ChunkBuilder, LogOp};
use ringraft_storage::{
    GroupKey, GroupWrite, LogStorage, MemoryDisk, SegmentLog, SegmentLogOptions, WriteBatch,
};

const FIRST: &str = "0000000000000001.seg";

fn submit(log: &mut SegmentLog, group: GroupKey, first: u64, payload: &[u8]) {
    let mut builder = ChunkBuilder::new();
    builder.push(payload);
    let ops = vec![LogOp::Append(Arc::new(builder.take(first, 1).unwrap()))];
    log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] }).unwrap();
}

fn entries(disk: &MemoryDisk, options: &SegmentLogOptions) -> Vec<Vec<u8>> {
    let found = contents(&mut open(disk, options).unwrap()).unwrap();
    found["g"].entries.iter().map(|(_, payload)| payload.clone()).collect()
}

fn find(disk: &MemoryDisk, needle: &[u8]) -> u64 {
    let bytes = disk.contents(FIRST).unwrap();
    bytes.windows(needle.len()).position(|w| w == needle).unwrap() as u64
}

#[test]
fn batches_behind_a_cut_do_not_come_back() {
    let options = SegmentLogOptions { sync: false, ..tiny() };
    let disk = MemoryDisk::new();
    let mut log = open(&disk, &options).unwrap();
    let group = log.open_group(&"g".parse().unwrap()).unwrap().0;
    for i in 1..=6u8 {
        submit(&mut log, group, u64::from(i), &[i; 32]);
        model::completed(&mut log).unwrap();
    }
    drop(log);
    // The third batch was torn by a crash, those behind it happened to survive.
    disk.flip_bit(FIRST, find(&disk, &[3; 32]), 0);
    assert_eq!(entries(&disk, &options), [[1; 32], [2; 32]]);
    // A batch of the same shape ends exactly where the stale fourth one starts.
    let mut log = open(&disk, &options).unwrap();
    submit(&mut log, group, 3, &[9; 32]);
    model::completed(&mut log).unwrap();
    drop(log);
    assert_eq!(entries(&disk, &options), [[1; 32], [2; 32], [9; 32]]);
}

#[test]
fn a_new_batch_header_does_not_adopt_the_runs_of_a_torn_batch() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..32 {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, &tiny()).unwrap();
        let group = log.open_group(&"g".parse().unwrap()).unwrap().0;
        submit(&mut log, group, 1, &[1; 784]);
        model::completed(&mut log).unwrap();
        // The run of the second batch goes on in the sector behind its headers.
        submit(&mut log, group, 2, &[2; 800]);
        model::completed(&mut log).unwrap();
        drop(log);
        let header = find(&disk, &[2; 800]) - 128;
        assert_eq!(header % 512, 0, "the layout has changed: choose other sizes");
        disk.flip_bit(FIRST, header + 20, 0);
        let mut log = open(&disk, &tiny()).unwrap();
        submit(&mut log, group, 2, &[3; 800]);
        drop(log);
        disk.crash(seed);
        match entries(&disk, &tiny()).as_slice() {
            [_] => old += 1,
            [_, second] => {
                assert_eq!(second, &[3; 800], "seed {seed}: the torn batch came back");
                new += 1;
            }
            other => panic!("{} entries", other.len()),
        }
    }
    assert!(old > 0 && new > 0);
}

#[test]
fn either_checkpoint_serves_at_any_time() {
    let mut both = 0;
    for seed in 0..6 {
        let (disk, mut random) = (MemoryDisk::new(), Random(seed));
        let mut model = StoreModel::new();
        let mut log = open(&disk, &tiny()).unwrap();
        for _ in 0..150 {
            let step = model::next_step(&mut random, &model);
            model::perform(&mut log, &step).unwrap();
            model = model::after(&model, &step);
            let files = checkpoints(&disk);
            assert!(files.len() <= 2, "{files:?}");
            if files.len() == 2 {
                for name in files {
                    let copy = disk.fork();
                    copy.flip_bit(&name, 33, 0);
                    let found = contents(&mut open(&copy, &tiny()).unwrap()).unwrap();
                    assert!(found == model, "seed {seed}, without {name}");
                    both += 1;
                }
            }
        }
    }
    assert!(both > 500);
}
