//! A file-size limit of the operating system; alone in its process, because the limit holds for all of it.

use std::sync::Arc;

use ringraft_core::LogOp;
use ringraft_storage::conformance::sample_chunk;
use ringraft_storage::{
    GroupWrite, IoKind, LogStorage, RealDisk, SegmentLog, SegmentLogOptions, StorageError, WriteBatch,
};

#[allow(unsafe_code)]
fn limit_files_to(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: both calls only take values and a pointer to a struct that outlives them; ignoring the signal is what
    // the store asks of its process.
    unsafe {
        assert_ne!(libc::signal(libc::SIGXFSZ, libc::SIG_IGN), libc::SIG_ERR);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

#[test]
fn a_file_size_limit_is_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(dir.path()).unwrap());
    let small = SegmentLogOptions { file_bytes: 32 << 10, background: false, ..SegmentLogOptions::default() };
    let mut log = SegmentLog::open(disk.clone(), small.clone()).unwrap();
    let (group, _) = log.open_group(&"g".parse().unwrap()).unwrap();
    let append = |log: &mut SegmentLog, first| {
        let ops = vec![LogOp::Append(sample_chunk(first, 1, 100))];
        log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] })?;
        log.complete().map(drop)
    };
    append(&mut log, 1).unwrap();
    limit_files_to(16 << 10);
    let mut next = 101;
    let error = loop {
        match append(&mut log, next) {
            Ok(()) => next += 100,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Io { kind: IoKind::Full, .. }), "{error}");
    assert!(matches!(append(&mut log, next), Err(StorageError::Poisoned(_))));
    drop(log);
    limit_files_to(libc::RLIM_INFINITY);
    let mut log = SegmentLog::open(disk, small).unwrap();
    let (_, state) = log.open_group(&"g".parse().unwrap()).unwrap();
    assert_eq!(state.last_index, next - 1, "exactly what was acknowledged");
}
