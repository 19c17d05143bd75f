//! Directories that an earlier program wrote in format version 1: they are taken over whole, after crashes at every step too, and what is
//! damaged in them is told.

mod model;

use std::sync::Arc;

use model::fixtures::{Told, expected, fixture, told};
use model::{Random, contents, open, tiny, work};
use ringraft_storage::{Disk, SegmentLog, SegmentLogOptions, StorageError};

fn options() -> SegmentLogOptions {
    SegmentLogOptions { prepared_files: 1, recycled_files: 1, ..tiny() }
}

#[test]
fn a_directory_of_version_1_is_taken_over_whole() {
    for name in ["v1/short", "v1/long"] {
        let (disk, expected) = (fixture(name), expected(name));
        assert!(expected.len() > 1 && expected.iter().any(|group| group.entries.len() > 3), "{name}");
        let mut log = open(&disk, &options()).unwrap();
        assert_eq!(told(&mut log), expected, "{name}");
        let members = contents(&mut log).unwrap().remove("members").unwrap();
        let conf = members.configurations[0].conf.to_string();
        assert_eq!(conf, "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083/learner");
        drop(log);
        disk.crash(7);
        let names = disk.list().unwrap();
        assert!(
            names.iter().any(|n| n == "MANIFEST-a") && !names.iter().any(|n| n == "checkpoint-a"),
            "{names:?}"
        );
        assert_eq!(told(&mut open(&disk, &options()).unwrap()), expected, "{name}, opened again");
    }
}

#[test]
fn the_power_goes_at_any_step_of_the_takeover() {
    for name in ["v1/short", "v1/long"] {
        let expected = expected(name);
        let mut finished = false;
        for operations in 0..200 {
            let disk = fixture(name);
            disk.power_off_after(operations);
            finished = open(&disk, &options()).is_ok_and(|log| {
                drop(log);
                true
            });
            disk.crash(operations);
            let mut log =
                open(&disk, &options()).unwrap_or_else(|e| panic!("{name}, cut after {operations}: {e}"));
            assert_eq!(told(&mut log), expected, "{name}, cut after {operations}");
            if finished {
                break;
            }
        }
        assert!(finished, "{name}: a takeover takes fewer operations");
    }
}

#[test]
fn work_goes_on_in_a_directory_that_was_taken_over_until_no_old_file_is_left() {
    let disk = fixture("v1/long");
    let old: Vec<String> = disk.list().unwrap().into_iter().filter(|n| n.ends_with(".seg")).collect();
    let mut log = open(&disk, &options()).unwrap();
    let mut model = contents(&mut log).unwrap();
    drop(log);
    let mut random = Random(5);
    for round in 0..12 {
        let run = work(&disk, &options(), &mut random, model, 60);
        assert!(run.error.is_none(), "round {round}: {:?}", run.error);
        model = run.after;
        drop(run.log);
        disk.crash(round);
        assert_eq!(contents(&mut open(&disk, &options()).unwrap()).unwrap(), model, "round {round}");
    }
    let left: Vec<String> = disk.list().unwrap().into_iter().filter(|n| old.contains(n)).collect();
    assert!(left.len() < old.len(), "none of the old files was emptied: {left:?}");
}

#[test]
fn a_bit_of_an_old_directory_that_is_wrong_never_changes_what_is_read() {
    for name in ["v1/short", "v1/long"] {
        let (whole, expected) = (fixture(name), expected(name));
        let (mut refused, mut same, mut torn) = (0, 0, 0);
        for file in whole.list().unwrap() {
            let bytes = whole.contents(&file).unwrap();
            for at in (0..bytes.len()).step_by(3) {
                if bytes[at] == 0 {
                    continue; // most of a file is empty
                }
                let disk = whole.fork();
                disk.flip_bit(&file, at as u64, (at % 8) as u8);
                match SegmentLog::open(Arc::new(disk.clone()), options()) {
                    Err(StorageError::Damaged { .. } | StorageError::Refused(_)) => refused += 1,
                    Err(error) => panic!("{name}/{file} at {at}: {error}"),
                    Ok(mut log) => match read_back(&mut log) {
                        None => refused += 1,
                        Some(found) if found == expected => same += 1,
                        // Damage to the last batch, for which nothing vouches, passes for a torn write.
                        Some(found) if is_prefix(&found, &expected) => torn += 1,
                        Some(found) => panic!("{name}/{file} at {at}: {found:?}"),
                    },
                }
            }
        }
        assert!(refused > 0 && same > 0, "{name}: {refused} refused, {same} harmless, {torn} torn");
        println!("{name}: {refused} refused, {same} harmless, {torn} passed for a torn last batch");
    }
}

/// What can be read, unless a read says that it is damaged.
fn read_back(log: &mut SegmentLog) -> Option<Vec<Told>> {
    match contents(log) {
        Err(StorageError::Damaged { .. }) => None,
        Err(error) => panic!("{error}"),
        Ok(groups) if groups.values().any(|group| group.damaged) => None,
        Ok(_) => Some(told(log)),
    }
}

/// Whether the last batch is missing and nothing else: it holds the group `members` or its entry.
fn is_prefix(found: &[Told], expected: &[Told]) -> bool {
    let but_members =
        |groups: &[Told]| format!("{:?}", groups.iter().filter(|g| g.name != "members").collect::<Vec<_>>());
    but_members(found) == but_members(expected)
        && found.iter().filter(|g| g.name == "members").all(|group| group.entries.is_empty())
}
