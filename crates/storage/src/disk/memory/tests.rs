use super::*;

#[test]
fn only_synced_data_is_sure_to_survive() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..20 {
        let disk = MemoryDisk::new();
        let file = disk.create("f", 1024).unwrap();
        file.write_at(0, &[1; 512]).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(512, &[2; 512]).unwrap();
        disk.crash(seed);
        assert!(file.len().is_err(), "a handle of an earlier life is dead");
        let bytes = disk.contents("f").unwrap();
        assert_eq!(bytes[..512], [1; 512]);
        if bytes[512] == 2 { kept += 1 } else { lost += 1 }
    }
    assert!(kept > 0 && lost > 0);
}

#[test]
fn a_failed_fsync_is_followed_by_one_that_lies() {
    let disk = MemoryDisk::new();
    let file = disk.create("f", 512).unwrap();
    disk.sync_dir().unwrap();
    file.write_at(0, b"x").unwrap();
    disk.fail_fsync_after(0, FsyncFailure::KeepsNew);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.contents("f").unwrap()[0], b'x');
    disk.crash(1);
    assert_ne!(disk.contents("f").map(|c| c.first().copied()), Some(Some(b'x')));
}

#[test]
fn a_full_disk_says_so() {
    let disk = MemoryDisk::new();
    disk.limit_bytes(Some(1000));
    disk.create("f", 600).unwrap();
    assert!(matches!(disk.create("g", 600), Err(StorageError::Io { kind: crate::IoKind::Full, .. })));
}

#[test]
fn a_lost_sync_of_the_directory_shows_after_power_is_lost() {
    let disk = MemoryDisk::new();
    disk.lose_dir_sync_after(1);
    for name in ["a", "b", "c"] {
        disk.create(name, 512).unwrap().write_at(0, b"x").unwrap();
        disk.open(name).unwrap().sync_data().unwrap();
        disk.sync_dir().unwrap();
    }
    assert_eq!(disk.list().unwrap(), ["a", "b", "c"]);
    assert_eq!(disk.damage(), []);
    disk.crash(3);
    assert_eq!(disk.list().unwrap(), ["a", "c"]);
    assert_eq!(disk.damage().len(), 1);
    assert_eq!(disk.used_bytes(), 1024);
}

#[test]
fn a_name_that_comes_back_is_damage() {
    let disk = MemoryDisk::new();
    let file = disk.create("a", 512).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    // As a file is recycled: the old name is gone before its bytes are.
    disk.lose_dir_sync_after(0);
    disk.rename("a", "b.tmp").unwrap();
    disk.sync_dir().unwrap();
    file.write_at(0, b"b").unwrap();
    file.sync_data().unwrap();
    disk.remove("b.tmp").unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(disk.list().unwrap(), [""; 0]);
    disk.crash(1);
    assert_eq!(disk.contents("a").unwrap()[0], b'b', "the sync of the renaming lied");
    let expected = Damage { path: disk.path("a"), operation: 0 };
    assert_eq!(disk.damage(), [expected]);
}

#[test]
fn a_misdirected_write_lands_elsewhere() {
    let disk = MemoryDisk::new();
    let file = disk.create("f", 8192).unwrap();
    disk.misdirect_write_after(1);
    file.write_at(512, &[1; 512]).unwrap();
    while disk.damage().is_empty() {
        disk.misdirect_write_after(0);
        file.write_at(0, &[2; 512]).unwrap();
    }
    let bytes = disk.contents("f").unwrap();
    assert_ne!(bytes[..512], [2; 512]);
    assert!(bytes.chunks(512).any(|sector| *sector == [2; 512]));
    assert_eq!(disk.damage()[0].operation, disk.operations());
    assert_eq!(disk.written_at("f", 512), 2);
}

#[test]
fn a_read_fails_or_lies_once() {
    let disk = MemoryDisk::new();
    let file = disk.create("f", 512).unwrap();
    let mut buffer = [0; 512];
    disk.fail_read_after(1);
    file.read_exact_at(0, &mut buffer).unwrap();
    assert!(file.read_exact_at(0, &mut buffer).is_err());
    disk.corrupt_read_after(Some(0));
    file.read_exact_at(0, &mut buffer).unwrap();
    assert_eq!(buffer.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    file.read_exact_at(0, &mut buffer).unwrap();
    assert_eq!(buffer, [0; 512]);
}

#[test]
fn what_never_reached_the_medium_was_not_written() {
    let disk = MemoryDisk::new();
    let file = disk.create("f", 512).unwrap();
    disk.sync_dir().unwrap();
    file.write_at(0, &[1; 512]).unwrap();
    for seed in 0.. {
        disk.crash(seed);
        if disk.contents("f").unwrap().is_empty() {
            break;
        }
        assert!(seed < 100, "it always reaches the medium");
    }
    assert_eq!(disk.written_at("f", 0), 0, "there is nothing to damage");
}
