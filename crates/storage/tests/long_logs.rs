//! Logs of many runs, which the index keeps in several elements: cut, moved and found again after losses of power and from the older
//! checkpoint.

mod model;

use model::{Random, Step, StoreModel, after, contents, open, perform, tiny};
use ringraft_core::{ChunkBuilder, LogId, LogOp};
use ringraft_storage::{Disk, LogStorage, MemoryDisk, SegmentLog, SegmentLogOptions};
use std::sync::Arc;

const GROUPS: [&str; 3] = ["a", "b", "c"];

/// Mostly appends of a run each; cuts are few and mostly small.
fn op(random: &mut Random, first: u64, last: LogId) -> LogOp {
    let len = last.index + 1 - first;
    match random.below(250) {
        0 if len > 0 => {
            let most = if random.below(4) == 0 { len } else { len.min(40) };
            LogOp::TruncateSuffix { from: last.index - random.below(most) }
        }
        1..=2 => {
            let kept = match random.below(8) {
                0 => random.below(4).min(len), // in the last run, or nothing
                1 => random.below(len + 1),
                _ => len - random.below(30).min(len),
            };
            LogOp::TruncatePrefix { first_kept: last.index + 1 - kept }
        }
        3 if random.below(20) == 0 => {
            LogOp::Reset { before: LogId::new(random.below(last.index + 50), last.term + 1), conf: None }
        }
        _ => {
            let mut builder = ChunkBuilder::new();
            for _ in 0..[1, 1, 1, 4][random.below(4) as usize] {
                let size = if random.below(80) == 0 { 1500 } else { random.below(30) };
                builder.push(&vec![random.next() as u8; size as usize]);
            }
            let term = (last.term + u64::from(random.below(40) == 0)).max(1);
            LogOp::Append(Arc::new(builder.take(last.index + 1, term).unwrap()))
        }
    }
}

/// The next step and what it leaves.
fn step(random: &mut Random, model: &StoreModel) -> (Step, StoreModel) {
    let missing = GROUPS.iter().find(|name| !model.contains_key(**name));
    if let Some(name) = missing {
        let step = Step::Open((*name).to_owned(), 1);
        let left = after(model, &step);
        return (step, left);
    }
    if random.below(5) == 0 {
        return (Step::Maintain, model.clone());
    }
    let mut left = model.clone();
    let mut writes = Vec::new();
    for _ in 0..4 + random.below(12) {
        let name = GROUPS[random.below(3) as usize].to_owned();
        let group = &left[&name];
        let term = group.entries.last().map_or(group.before_first.term, |entry| entry.0);
        let op = op(random, group.before_first.index + 1, LogId::new(group.last(), term));
        let one = Step::Write(vec![(name.clone(), vec![op.clone()])]);
        let group = after(&StoreModel::from([(name.clone(), group.clone())]), &one);
        left.extend(group);
        writes.push((name, vec![op]));
    }
    (Step::Write(writes), left)
}

/// Entries from anywhere are those of the model.
fn probe(log: &SegmentLog, model: &StoreModel, random: &mut Random) {
    let reader = log.reader();
    for (name, key) in log.groups() {
        let group = &model[name.as_str()];
        for _ in 0..20.min(group.entries.len()) {
            let skip = random.below(group.entries.len() as u64);
            let from = group.before_first.index + 1 + skip;
            let to = group.last().min(from + random.below(300));
            let chunks = reader.read(key, from, to, 1 << 20).unwrap();
            assert_eq!(chunks.first().map(|chunk| chunk.first_index()), Some(from));
            let read = chunks
                .iter()
                .flat_map(|chunk| (0..chunk.len()).map(|i| (chunk.term(), chunk.entry(i).to_vec())));
            let expected = &group.entries[skip as usize..=(to - group.before_first.index - 1) as usize];
            assert!(read.eq(expected.iter().cloned()), "{name}: {from}..={to}");
        }
    }
}

/// Spoils the newest checkpoint, when there is one before it.
fn spoil_checkpoint(disk: &MemoryDisk) {
    let mut names: Vec<String> = disk.list().unwrap().into_iter().filter(|n| n.ends_with(".ckpt")).collect();
    names.sort();
    if let [.., _, newest] = names.as_slice() {
        disk.flip_bit(newest, 80, 1);
    }
}

#[test]
fn a_log_of_many_runs_is_the_same_after_each_start() {
    let mut longest = 0;
    for seed in 0..6 {
        let mut random = Random(seed);
        let options = SegmentLogOptions {
            file_bytes: [8 << 10, 16 << 10, 64 << 10][seed as usize % 3],
            checkpoint_bytes: [1 << 10, 32 << 10][seed as usize % 2],
            rewrite_live_percent: [80, 40, 0][seed as usize % 3],
            rewrite_bytes: 4 << 10,
            ..tiny()
        };
        let (disk, mut model) = (MemoryDisk::new(), StoreModel::new());
        for life in 0..4 {
            let what = format!("seed {seed}, life {life}");
            let mut log = open(&disk, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
            let power_fails = life % 2 == 1;
            if power_fails {
                disk.power_off_after(100 + random.below(500));
            }
            let mut cut_off = None;
            for _ in 0..200 {
                let (step, left) = step(&mut random, &model);
                match perform(&mut log, &step) {
                    Ok(()) => model = left,
                    Err(error) => {
                        assert!(power_fails, "{what}: {error}");
                        cut_off = Some(left);
                        break;
                    }
                }
            }
            if !power_fails {
                probe(&log, &model, &mut random);
            }
            longest = longest.max(model.values().map(|group| group.entries.len()).max().unwrap_or(0));
            drop(log);
            disk.crash(random.next());
            if life == 2 {
                spoil_checkpoint(&disk);
            }
            let found = contents(&mut open(&disk, &options).unwrap()).unwrap();
            assert!(found == model || Some(&found) == cut_off.as_ref(), "{what}");
            model = found;
        }
    }
    assert!(longest > 600, "the longest log had {longest} entries: no index was long");
}
