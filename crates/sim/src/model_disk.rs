//! A disk as the core's contract sees it: an ordered list of writes, of which a prefix is durable.

use std::collections::VecDeque;

use ringraft_core::LogOp;

use crate::log_image::LogImage;

/// One node's disk. What is written is in flight until it is synced; a crash may lose what is in flight.
#[derive(Clone, Debug, Default)]
pub struct ModelDisk {
    stable: LogImage,
    accepted: LogImage,
    in_flight: VecDeque<(u64, Vec<LogOp>)>,
    synced_sequence: u64,
    failed: bool,
}

impl ModelDisk {
    /// A disk that holds this log durably.
    pub fn with(image: LogImage) -> ModelDisk {
        ModelDisk { stable: image.clone(), accepted: image, ..ModelDisk::default() }
    }

    /// What survives any crash.
    pub fn stable(&self) -> &LogImage {
        &self.stable
    }

    /// The log with everything that was written, durable or not.
    pub fn accepted(&self) -> &LogImage {
        &self.accepted
    }

    /// Writes that are not durable yet, oldest first.
    pub fn in_flight(&self) -> impl Iterator<Item = u64> {
        self.in_flight.iter().map(|w| w.0)
    }

    /// Sequence up to which every write of this run is durable.
    pub fn synced_sequence(&self) -> u64 {
        self.synced_sequence
    }

    /// Whether a write failed: nothing becomes durable any more in this run.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Takes a write; it is in flight.
    pub fn write(&mut self, sequence: u64, ops: Vec<LogOp>) {
        ops.iter().for_each(|op| self.accepted.apply(op));
        self.in_flight.push_back((sequence, ops));
    }

    /// Makes the `count` oldest writes in flight durable. Gives the newest sequence that is durable now, or `None`
    /// when nothing was in flight or the disk has failed.
    pub fn sync(&mut self, count: usize) -> Option<u64> {
        if self.failed {
            return None;
        }
        let count = count.min(self.in_flight.len());
        for (sequence, ops) in self.in_flight.drain(..count) {
            ops.iter().for_each(|op| self.stable.apply(op));
            self.synced_sequence = sequence;
        }
        (count > 0).then_some(self.synced_sequence)
    }

    /// Everything in flight fails; the disk accepts nothing more.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// The process is gone: of what was in flight the `kept` oldest writes reached the platter, the rest is lost.
    /// What is there afterwards is durable, and a new run begins.
    pub fn reopen(&mut self, kept: usize) {
        let kept = kept.min(self.in_flight.len());
        for (_, ops) in self.in_flight.drain(..kept) {
            ops.iter().for_each(|op| self.stable.apply(op));
        }
        *self = ModelDisk::with(std::mem::take(&mut self.stable));
    }
}
