//! The conformance suite over both stores.

use std::sync::Arc;

use ringraft_storage::conformance::{FullStorage, ReopenableStore, log_storage_suite};
use ringraft_storage::{MemoryDisk, MemoryLogStorage, RealDisk, SegmentLog, SegmentLogOptions};

struct Memory(Option<MemoryLogStorage>);

impl ReopenableStore for Memory {
    fn store(&mut self) -> &mut dyn FullStorage {
        self.0.as_mut().unwrap()
    }

    fn reopen(&mut self) {
        self.0 = self.0.take().map(MemoryLogStorage::reopen);
    }
}

struct Segments {
    disk: MemoryDisk,
    options: SegmentLogOptions,
    log: Option<SegmentLog>,
}

impl ReopenableStore for Segments {
    fn store(&mut self) -> &mut dyn FullStorage {
        self.log.as_mut().unwrap()
    }

    fn reopen(&mut self) {
        self.log = None;
        self.log = Some(SegmentLog::open(Arc::new(self.disk.clone()), self.options.clone()).unwrap());
    }
}

fn segments(options: &SegmentLogOptions) -> Box<dyn ReopenableStore> {
    let mut store = Segments { disk: MemoryDisk::new(), options: options.clone(), log: None };
    store.reopen();
    Box::new(store)
}

#[test]
fn memory_store_conforms() {
    log_storage_suite(&mut || Box::new(Memory(Some(MemoryLogStorage::new()))));
}

#[test]
fn segment_log_conforms() {
    let options =
        SegmentLogOptions { file_bytes: 64 << 10, background: false, ..SegmentLogOptions::default() };
    log_storage_suite(&mut || segments(&options));
}

#[test]
fn segment_log_conforms_with_tiny_files_and_constant_housekeeping() {
    let options = SegmentLogOptions {
        file_bytes: 8 << 10,
        block_bytes: 512,
        checkpoint_bytes: 512,
        rewrite_bytes: 256,
        rewrite_live_percent: 80,
        background: false,
        ..SegmentLogOptions::default()
    };
    log_storage_suite(&mut || segments(&options));
}

#[test]
fn segment_log_conforms_without_sync_and_with_a_thread() {
    let options = SegmentLogOptions {
        file_bytes: 16 << 10,
        sync: false,
        checkpoint_bytes: 4096,
        ..SegmentLogOptions::default()
    };
    log_storage_suite(&mut || segments(&options));
}

struct OnDisk {
    dir: tempfile::TempDir,
    log: Option<SegmentLog>,
}

impl ReopenableStore for OnDisk {
    fn store(&mut self) -> &mut dyn FullStorage {
        self.log.as_mut().unwrap()
    }

    fn reopen(&mut self) {
        self.log = None;
        let options = SegmentLogOptions { file_bytes: 64 << 10, ..SegmentLogOptions::default() };
        self.log =
            Some(SegmentLog::open(Arc::new(RealDisk::new(self.dir.path()).unwrap()), options).unwrap());
    }
}

#[test]
fn segment_log_conforms_on_a_real_disk() {
    log_storage_suite(&mut || {
        let mut store = OnDisk { dir: tempfile::tempdir().unwrap(), log: None };
        store.reopen();
        Box::new(store)
    });
}
