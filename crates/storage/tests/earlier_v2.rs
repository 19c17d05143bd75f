//! Directories of version 2 that earlier programs wrote, whose checkpoints name every run in full.

mod model;

use model::fixtures::{expected, fixture, told};
use model::{Random, checkpoints, contents, open, tiny, work};

const NAMES: [&str; 2] = ["v2/short", "v2/long"];

#[test]
fn a_directory_of_an_earlier_program_is_opened_whole() {
    for name in NAMES {
        let (disk, expected) = (fixture(name), expected(name));
        assert!(expected.iter().any(|group| group.entries.len() > 3), "{name}");
        let mut log = open(&disk, &tiny()).unwrap();
        assert_eq!(told(&mut log), expected, "{name}");
        drop(log);
        disk.crash(3);
        assert_eq!(told(&mut open(&disk, &tiny()).unwrap()), expected, "{name}, opened again");
        // Either of its checkpoints is enough.
        for checkpoint in checkpoints(&fixture(name)) {
            let disk = fixture(name);
            disk.flip_bit(&checkpoint, 80, 1);
            assert_eq!(told(&mut open(&disk, &tiny()).unwrap()), expected, "{name} without {checkpoint}");
        }
    }
}

#[test]
fn work_goes_on_in_it_wherever_the_power_goes() {
    for name in NAMES {
        let disk = fixture(name);
        let model = contents(&mut open(&disk, &tiny()).unwrap()).unwrap();
        for operations in 0..60 {
            let disk = fixture(name);
            let mut random = Random(operations);
            disk.power_off_after(operations);
            let run = work(&disk, &tiny(), &mut random, model.clone(), 20);
            drop(run.log);
            disk.crash(operations);
            let mut log = open(&disk, &tiny()).unwrap_or_else(|e| panic!("{name}, {operations}: {e}"));
            let found = contents(&mut log).unwrap();
            assert!(found == run.before || found == run.after, "{name}, cut after {operations}");
            drop(log);
            let run = work(&disk, &tiny(), &mut random, found, 60);
            assert!(run.error.is_none(), "{name}, {operations}: {:?}", run.error);
            drop(run.log);
            disk.crash(operations);
            assert_eq!(
                contents(&mut open(&disk, &tiny()).unwrap()).unwrap(),
                run.after,
                "{name}, {operations}"
            );
        }
    }
}
