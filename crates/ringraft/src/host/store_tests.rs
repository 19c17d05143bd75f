//! How directories are made, recognised, and refused.

use ringraft_core::GroupId;
use ringraft_storage::disk::MemoryDisk;
use ringraft_storage::{GroupWrite, WriteBatch};

use super::*;

const SMALL: fn() -> SegmentLogOptions =
    || SegmentLogOptions { file_bytes: 64 << 10, background: false, ..SegmentLogOptions::default() };

fn host(mode: StartMode) -> HostOptions {
    let mut host = HostOptions::new("127.0.0.1:80", StoreOptions::Memory);
    host.start_mode = mode;
    host.initial_cluster_id = Some("computed".to_owned());
    host
}

fn open(disk: &MemoryDisk, host: &HostOptions) -> Result<Opened, StartError> {
    Directory { dir: Path::new("/data"), disk: Arc::new(disk.clone()), host }.open(SMALL())
}

fn identity(disk: &MemoryDisk) -> Identity {
    Identity::read(disk).unwrap().expect("an identity")
}

/// Has a store remember something.
fn write(opened: Opened) {
    let mut storage = opened.storage;
    let (group, _) = storage.open_group(&"g".parse::<GroupId>().unwrap()).unwrap();
    let chunk = ringraft_core::EntryChunk::no_op(ringraft_core::LogId::new(1, 1));
    let ops = vec![ringraft_core::LogOp::Append(Arc::new(chunk))];
    storage.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] }).unwrap();
    storage.complete().unwrap();
}

/// The copy of a disk without some of its files.
fn without(disk: &MemoryDisk, gone: impl Fn(&str) -> bool) -> MemoryDisk {
    let copy = disk.fork();
    for name in copy.list().unwrap().iter().filter(|name| gone(name)) {
        copy.remove(name).unwrap();
    }
    copy.sync_dir().unwrap();
    copy
}

#[test]
fn a_directory_remembers_how_it_began_and_refuses_flags_that_do_not_fit() {
    let founder = MemoryDisk::new();
    assert!(matches!(open(&founder, &host(StartMode::Existing)), Err(StartError::BlankDirectory { .. })));
    assert!(founder.list().unwrap().is_empty(), "a refusal leaves nothing behind");
    let opened = open(&founder, &host(StartMode::Bootstrap)).unwrap();
    assert!(!opened.rejoined);
    assert_eq!(opened.membership.cluster_id, "computed");
    drop(opened);
    for mode in [StartMode::Existing, StartMode::Bootstrap] {
        let opened = open(&founder, &host(mode)).unwrap();
        assert!(!opened.rejoined && opened.membership.cluster_id == "computed", "{mode:?}");
    }
    assert!(matches!(open(&founder, &host(StartMode::Rejoin)), Err(StartError::NotBlank { .. })));

    let joiner = MemoryDisk::new();
    let opened = open(&joiner, &host(StartMode::Rejoin)).unwrap();
    assert!(opened.rejoined);
    assert_eq!(opened.membership.cluster_id, "", "it is told by its first leader");
    drop(opened);
    assert!(open(&joiner, &host(StartMode::Existing)).unwrap().rejoined);
    assert!(matches!(open(&joiner, &host(StartMode::Bootstrap)), Err(StartError::BeganAsRejoin { .. })));
    assert!(matches!(open(&joiner, &host(StartMode::Rejoin)), Err(StartError::NotBlank { .. })));
}

#[test]
fn an_identity_without_its_store_is_damage() {
    let disk = MemoryDisk::new();
    write(open(&disk, &host(StartMode::Bootstrap)).unwrap());
    for gone in [
        (|name: &str| name != "IDENTITY") as fn(&str) -> bool,
        |name| name.ends_with(".seg"),
        |name| name.ends_with(".ckpt"),
        |name| name.starts_with("MANIFEST-"),
        |name| name.ends_with(".seg") || name.ends_with(".ckpt"),
    ] {
        let copy = without(&disk, gone);
        for mode in [StartMode::Existing, StartMode::Bootstrap] {
            let error = open(&copy, &host(mode)).err().expect("refused");
            assert!(matches!(error, StartError::Damaged { .. }), "{mode:?}: {error}");
        }
        assert!(matches!(open(&copy, &host(StartMode::Rejoin)), Err(StartError::NotBlank { .. })));
    }
}

#[test]
fn a_store_without_its_identity_is_refused_and_named() {
    let disk = MemoryDisk::new();
    write(open(&disk, &host(StartMode::Bootstrap)).unwrap());
    let copy = without(&disk, |name| name == "IDENTITY");
    for mode in [StartMode::Existing, StartMode::Bootstrap, StartMode::Rejoin] {
        let error = open(&copy, &host(mode)).err().expect("refused");
        let StartError::IdentityMissing { files, .. } = &error else { panic!("{mode:?}: {error}") };
        assert!(files.contains(".seg") || files.contains("MANIFEST-a"), "{files}");
    }
}

#[test]
fn what_a_failed_first_start_leaves_does_not_block_the_corrected_one() {
    let mut steps = 0;
    for operations in 0.. {
        let disk = MemoryDisk::new();
        disk.power_off_after(operations);
        let done = open(&disk, &host(StartMode::Bootstrap)).is_ok();
        disk.crash(operations);
        let found = Identity::read(&disk).unwrap();
        assert!(found.is_some() || !done, "a start that succeeded has its identity");
        // Under another name, as after a correction of the configuration; where it began, it began whole.
        let mut corrected = host(StartMode::Bootstrap);
        if found.is_none() {
            corrected.endpoint = "127.0.0.1:81".to_owned();
        }
        drop(
            open(&disk, &corrected).unwrap_or_else(|error| panic!("after {operations} operations: {error}")),
        );
        disk.crash(1);
        corrected.start_mode = StartMode::Existing;
        drop(
            open(&disk, &corrected).unwrap_or_else(|error| panic!("after {operations} operations: {error}")),
        );
        steps += 1;
        if done {
            break;
        }
    }
    assert!(steps > 10, "{steps} points of failure");
}

#[test]
fn the_cluster_id_that_is_given_must_be_the_one_that_is_known() {
    let disk = MemoryDisk::new();
    let mut given = host(StartMode::Bootstrap);
    given.cluster_id = Some("given".to_owned());
    assert_eq!(open(&disk, &given).unwrap().membership.cluster_id, "given");
    given.cluster_id = Some("other".to_owned());
    let error = open(&disk, &given).err().expect("refused");
    assert!(
        matches!(&error, StartError::OtherClusterId { known, given, .. } if known == "given" && given == "other")
    );
    assert_eq!(open(&disk, &host(StartMode::Existing)).unwrap().membership.cluster_id, "given");

    let joiner = MemoryDisk::new();
    let mut membership = open(&joiner, &host(StartMode::Rejoin)).unwrap().membership;
    membership.place.as_mut().expect("a place").remember_cluster("learnt").unwrap();
    joiner.crash(3);
    assert_eq!(open(&joiner, &host(StartMode::Existing)).unwrap().membership.cluster_id, "learnt");
}

#[test]
fn facts_stay_as_they_were() {
    let disk = MemoryDisk::new();
    let fact = |host: &mut HostOptions, value: &str| {
        host.facts.insert("atomic.total_slots".to_owned(), value.to_owned());
    };
    // A directory that remembers nothing yet, as one that was taken over, gets them.
    drop(open(&disk, &host(StartMode::Bootstrap)).unwrap());
    let mut two = host(StartMode::Existing);
    fact(&mut two, "2");
    drop(open(&disk, &two).unwrap());
    disk.crash(1);
    assert_eq!(identity(&disk).facts.get("atomic.total_slots").map(String::as_str), Some("2"));
    let mut four = host(StartMode::Existing);
    fact(&mut four, "4");
    let error = open(&disk, &four).err().expect("refused").to_string();
    assert!(error.contains("total_slots = 2") && error.contains('4'), "{error}");
    drop(open(&disk, &two).unwrap());
}

#[test]
fn a_directory_of_version_1_is_taken_over_and_keeps_how_it_began() {
    let disk = MemoryDisk::new();
    write(open(&disk, &host(StartMode::Rejoin)).unwrap());
    // As a program before identities of version 2 left it.
    let old = without(&disk, |name| name == "IDENTITY");
    let (version, kind) = ([1, 0, 0, 0], [2, 0, 0, 0]);
    let mut bytes =
        [&b"RRIDENTI"[..], &version, &kind, &[12, 0], b"127.0.0.1:80", &[8, 0], b"ringraft"].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let file = old.create("IDENTITY", 0).unwrap();
    file.write_at(0, &bytes).unwrap();
    file.sync_data().unwrap();
    old.sync_dir().unwrap();

    let opened = open(&old, &host(StartMode::Existing)).unwrap();
    assert!(opened.rejoined);
    let new = identity(&old);
    assert!(new.taken_over && new.creation == CreationKind::Rejoin);
    assert_eq!(new.store, identity(&disk).store);
    assert_eq!(new.cluster_id, "", "it is not computed late");
}

/// Shows rule P10.
#[test]
fn another_servers_directory_is_refused() {
    let disk = MemoryDisk::new();
    drop(open(&disk, &host(StartMode::Bootstrap)).unwrap());
    let mut other = host(StartMode::Existing);
    other.endpoint = "127.0.0.1:81".to_owned();
    assert!(matches!(open(&disk, &other), Err(StartError::OtherOwner { .. })));
    let opened = open(&disk, &host(StartMode::Existing)).unwrap();
    assert!(
        matches!(open(&disk, &host(StartMode::Existing)), Err(StartError::ForeignDirectory { .. })),
        "in use"
    );
    drop(opened);
}

/// Which numbers had been given when the disk was lost is said once, and only of a disk that was lost.
#[test]
fn a_directory_remembers_which_groups_were_before_it() {
    let after = |mode, last| HostOptions { rejoined_after: last, ..host(mode) };
    let disk = MemoryDisk::new();
    let refused = open(&disk, &after(StartMode::Bootstrap, Some(5)));
    assert!(matches!(refused, Err(StartError::NotRejoined { .. })));
    assert!(disk.list().unwrap().is_empty(), "a refusal leaves nothing behind");
    drop(open(&disk, &after(StartMode::Rejoin, None)).unwrap());
    // It may be said later: whatever was given until then rejoins.
    for last in [Some(5), Some(5), None] {
        let opened = open(&disk, &after(StartMode::Existing, last)).unwrap();
        assert_eq!((opened.rejoined, opened.rejoined_after), (true, Some(5)));
    }
    for last in [4, 6] {
        let refusal = open(&disk, &after(StartMode::Existing, Some(last))).map(drop).unwrap_err();
        let text = refusal.to_string();
        assert!(
            matches!(refusal, StartError::OtherFact { .. }) && text.contains("rejoined_after = 5"),
            "{text}"
        );
    }
    let founder = MemoryDisk::new();
    drop(open(&founder, &host(StartMode::Bootstrap)).unwrap());
    let refused = open(&founder, &after(StartMode::Existing, Some(5)));
    assert!(matches!(refused, Err(StartError::NotRejoined { .. })));
}
