//! One node of a world with everything around it: clock, disk, state machine.

use ringraft_core::{CoreOptions, EntryChunk, LogIndex, LogRead, NodeImpl, PeerId, Time};

use super::network::{Link, Message};
use crate::model_disk::ModelDisk;

/// Settings for the nodes that are added next: the core's options with the core's defaults.
///
/// Group, server id and initial configuration in it are replaced for every node.
pub type Settings = CoreOptions;

/// What happens by itself at a node; everything does unless a script says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Automatic {
    /// Writes become durable at once.
    pub persist: bool,
    /// The state machine applies at once.
    pub apply: bool,
    /// Log reads are answered at once.
    pub read: bool,
}

/// A state machine that remembers what it was given.
#[derive(Clone, Debug, Default)]
pub struct ModelFsm {
    /// Data entries in the order in which they were handed over.
    pub data: Vec<Vec<u8>>,
    /// Last index handed over.
    pub delivered: LogIndex,
    /// Last index reported as applied.
    pub applied: LogIndex,
}

impl ModelFsm {
    /// Takes entries.
    pub fn take(&mut self, chunk: &EntryChunk) {
        if matches!(chunk.kind(), ringraft_core::ChunkKind::Data) {
            self.data.extend((0..chunk.len()).map(|p| chunk.entry(p).to_vec()));
        }
        self.delivered = chunk.last_index();
    }
}

/// A message that waits until a write is durable.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) sequence: u64,
    pub(super) link: Link,
    pub(super) message: Message,
    /// Whether somebody listens at the other end.
    pub(super) queued: bool,
}

/// A node of a world.
pub(super) struct Host {
    pub(super) peer: PeerId,
    /// `None` while it is down.
    pub(super) node: Option<NodeImpl>,
    /// How often it was started.
    pub(super) run: u32,
    pub(super) now: Time,
    pub(super) disk: ModelDisk,
    pub(super) fsm: ModelFsm,
    pub(super) automatic: Automatic,
    /// Last write sequence that was emitted in this run.
    pub(super) written: u64,
    /// Sequence that the node was told to be durable; only where that happens by itself.
    pub(super) reported: u64,
    pub(super) waiting: Vec<Waiting>,
    pub(super) reads: Vec<LogRead>,
    pub(super) settings: Settings,
    pub(super) conf: ringraft_core::Configuration,
}

impl Host {
    /// Forgets what the process held in memory.
    pub(super) fn crash(&mut self) {
        self.node = None;
        self.waiting.clear();
        self.reads.clear();
        self.fsm = ModelFsm::default();
        self.written = 0;
        self.reported = 0;
    }
}
