//! Power failures, failed fsyncs and damage, checked against a model: what completed is there, nothing is half there.

mod model;

use model::{Random, Run, StoreModel, contents, open, tiny, work};
use ringraft_core::Vote;
use ringraft_storage::disk::FsyncFailure;
use ringraft_storage::{LogStorage, MemoryDisk, StorageError, WriteBatch};

/// The contents after a restart, which must be those before or after the step that was cut off.
fn check(disk: &MemoryDisk, run: &Run, what: &str) -> StoreModel {
    let mut log = open(disk, &tiny()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found = contents(&mut log).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(
        found == run.before || found == run.after,
        "{what}: {found:#?}\nis neither {:#?}\nnor {:#?}",
        run.before,
        run.after
    );
    found
}

/// Shows rule P1 and more: a prefix of what was written is found. Shows rule P8. Shows rule P9: it is found again.
#[test]
fn power_failure_at_every_operation() {
    for seed in 0..4 {
        let steps = 90;
        let disk = MemoryDisk::new();
        let mut unnoticed = 0;
        let run = work(&disk, &tiny(), &mut Random(seed), StoreModel::new(), steps);
        assert!(run.error.is_none(), "{:?}", run.error);
        for operations in 0..disk.operations() {
            let what = format!("seed {seed}, power off after {operations} operations");
            let disk = MemoryDisk::new();
            let mut random = Random(seed);
            disk.power_off_after(operations);
            let run = work(&disk, &tiny(), &mut random, StoreModel::new(), steps);
            // The last thing that happens may be a file that is prepared: nobody needs it yet.
            unnoticed += u64::from(run.error.is_none());
            drop(run.log);
            let run = Run { log: None, ..run };
            disk.crash(seed * 1_000_003 + operations);

            // The power may fail again while the store recovers.
            disk.power_off_after(random.below(12));
            drop(open(&disk, &tiny()));
            disk.crash(random.next());
            let found = check(&disk, &run, &what);

            // What was found is durable, and the store goes on as if nothing had been.
            disk.crash(random.next());
            let more = work(&disk, &tiny(), &mut random, found, 12);
            assert!(more.error.is_none(), "{what}, afterwards: {:?}", more.error);
            let done = Run { log: None, ..more };
            disk.crash(random.next());
            check(&disk, &done, &format!("{what}, afterwards"));
        }
        assert!(unnoticed < 30, "{unnoticed} losses of power that no step noticed");
    }
}

/// Shows rule P6. Shows rule P9: what a recovery has found stays when the power fails.
#[test]
fn failed_fsync_is_final_and_its_leftovers_are_never_believed() {
    for outcome in [FsyncFailure::KeepsNew, FsyncFailure::RevertsToOld, FsyncFailure::StaysDirty] {
        for calls in 0.. {
            let what = format!("{outcome:?} after {calls} fsyncs");
            let (disk, mut random) = (MemoryDisk::new(), Random(calls));
            disk.fail_fsync_after(calls, outcome);
            let mut run = work(&disk, &tiny(), &mut random, StoreModel::new(), 60);
            if let Some(log) = &mut run.log {
                if run.error.is_none() {
                    if disk.fsync_is_still_to_fail() {
                        break; // the work has fewer fsyncs
                    }
                    run.log = None;
                    check(&disk, &run, &what);
                    continue; // of a file that was only being prepared
                }
                let completed = log.complete().map(drop);
                for result in [log.submit(&WriteBatch::default()), completed, log.maintain()] {
                    assert!(matches!(result, Err(StorageError::Poisoned(_))), "{what}: {result:?}");
                }
            }
            run.log = None;
            // The process restarts and reads what the page cache holds; then the power fails.
            let found = check(&disk, &run, &what);
            disk.crash(calls);
            let mut log = open(&disk, &tiny()).unwrap();
            assert_eq!(contents(&mut log).unwrap(), found, "{what}: a recovered state was lost");
        }
    }
}

#[test]
fn failed_operation_is_final_where_something_of_the_stream_is_in_the_file() {
    let (mut last, mut passed) = (0, 0);
    for operations in 0.. {
        let (disk, mut random) = (MemoryDisk::new(), Random(operations));
        disk.fail_operation_after(operations);
        let mut run = work(&disk, &tiny(), &mut random, StoreModel::new(), 60);
        if operations > 120 && disk.operations() <= operations {
            break; // the work has fewer operations
        }
        match (&mut run.log, &run.error) {
            (Some(log), Some(_)) => {
                assert!(matches!(log.complete(), Err(StorageError::Poisoned(_))));
                last += 1;
            }
            (Some(_), None) => passed += 1,
            (None, _) => {}
        }
        run.log = None;
        let found = check(&disk, &run, &format!("operation {operations}"));
        disk.crash(operations);
        let mut log = open(&disk, &tiny()).unwrap();
        assert_eq!(contents(&mut log).unwrap(), found);
    }
    // A file that is only being prepared is another matter: the next attempt makes another one.
    assert!(last > 20 && passed > 20, "{last} stores stopped, {passed} went on");
}

#[test]
fn without_sync_a_prefix_of_the_batches_survives() {
    let options = ringraft_storage::SegmentLogOptions { sync: false, ..tiny() };
    for seed in 0..150 {
        let (disk, mut random) = (MemoryDisk::new(), Random(seed));
        let mut model = StoreModel::new();
        let mut log = open(&disk, &options).unwrap();
        let mut history = vec![model.clone()];
        for _ in 0..40 {
            let step = model::next_step(&mut random, &model);
            model = model::after(&model, &step);
            model::perform(&mut log, &step).unwrap();
            history.push(model.clone());
        }
        drop(log);
        disk.crash(seed);
        let mut log = open(&disk, &options).unwrap();
        let found = contents(&mut log).unwrap();
        assert!(history.contains(&found), "seed {seed}");
        drop(log);
        let run = work(&disk, &options, &mut random, found, 10);
        assert!(run.error.is_none(), "seed {seed}: {:?}", run.error);
        drop(run.log);
        // A restart of the process alone loses nothing.
        let found = contents(&mut open(&disk, &options).unwrap()).unwrap();
        for name in found.keys().chain(run.after.keys()) {
            assert_eq!(found.get(name), run.after.get(name), "seed {seed}, {name}");
        }
    }
}

#[test]
fn a_flipped_bit_is_reported_or_cut_off_the_very_end() {
    let (mut reported, mut cut, mut harmless, mut withheld, mut attributed) = (0, 0, 0, 0, 0);
    for seed in 0..12 {
        let (disk, mut random) = (MemoryDisk::new(), Random(seed));
        let mut before_last = StoreModel::new();
        let mut model = StoreModel::new();
        let mut log = open(&disk, &tiny()).unwrap();
        for _ in 0..70 {
            let step = model::next_step(&mut random, &model);
            let next = model::after(&model, &step);
            model::perform(&mut log, &step).unwrap();
            if next != model {
                before_last = std::mem::replace(&mut model, next);
            }
        }
        drop(log);
        let names: Vec<String> = ringraft_storage::Disk::list(&disk).unwrap();
        for _ in 0..150 {
            let name = &names[random.below(names.len() as u64) as usize];
            let len = disk.contents(name).unwrap().len() as u64;
            if len == 0 {
                continue;
            }
            let (offset, bit) = (random.below(len), random.next() as u8);
            // Recovery changes files; the next flip starts from the same state again.
            let copy = disk.fork();
            copy.flip_bit(name, offset, bit);
            match open(&copy, &tiny()).and_then(|mut log| contents(&mut log)) {
                Err(StorageError::Damaged { .. }) => reported += 1,
                Err(error) => panic!("{name} at {offset}: {error}"),
                Ok(found) if found == model => harmless += 1,
                Ok(found) if found == before_last => cut += 1,
                // A vote that cannot be read is given to nobody: the group rejoins.
                Ok(found) => {
                    let mut as_if = model.clone();
                    for (name, group) in &found {
                        if group.damaged {
                            as_if.insert(name.clone(), group.clone());
                            attributed += 1;
                        } else if group.hard_state.vote == Vote::Withheld {
                            as_if.get_mut(name).unwrap().hard_state = group.hard_state.clone();
                            withheld += 1;
                        }
                    }
                    assert!(found == as_if, "seed {seed}, {name} at {offset}");
                }
            }
        }
    }
    // Most of a file is the rest of blocks. `damage.rs` has what is rare here.
    let counts = [reported, harmless, cut, attributed];
    assert!(counts.iter().all(|n| *n > 0), "{counts:?} {withheld}");
}
