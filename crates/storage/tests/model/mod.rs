//! A model of a log store, and random work for both.
#![allow(dead_code)] // each test binary uses a part of it

pub(crate) mod fixtures;

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_core::{
    ChunkBuilder, ChunkKind, Configuration, ConfigurationEntry, EntryChunk, HardState, LogId, LogOp, Vote,
};
use ringraft_storage::{
    GroupKey, GroupOpening, GroupWrite, LogStorage, MemoryDisk, SegmentLog, SegmentLogOptions, StorageError,
    StoredGroup, WriteBatch,
};

/// Deterministic random numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What a group should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupModel {
    /// Which creation of its name it is.
    pub(crate) creation: u64,
    /// Nothing but the tombstone is left.
    pub(crate) removed: bool,
    pub(crate) before_first: LogId,
    pub(crate) entries: Vec<(u64, Vec<u8>)>,
    pub(crate) hard_state: HardState,
    pub(crate) promised_ms: u64,
    pub(crate) member_removed: LogId,
    /// The configuration in force at `before_first`, and those in the log.
    pub(crate) conf_at_start: Option<ConfigurationEntry>,
    pub(crate) configurations: Vec<ConfigurationEntry>,
    /// Whether the store says that something of the group cannot be read back.
    pub(crate) damaged: bool,
}

impl GroupModel {
    pub(crate) fn last(&self) -> u64 {
        self.before_first.index + self.entries.len() as u64
    }

    fn last_term(&self) -> u64 {
        self.entries.last().map_or(self.before_first.term, |e| e.0)
    }

    fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::HardState(state) => self.hard_state = state.clone(),
            LogOp::Append(chunk) => {
                assert_eq!(chunk.first_index(), self.last() + 1);
                if let ChunkKind::Configuration { conf, old_conf } = chunk.kind() {
                    let (conf, old_conf) = (conf.clone(), old_conf.clone());
                    self.configurations.push(ConfigurationEntry { id: chunk.last_id(), conf, old_conf });
                }
                self.entries.extend((0..chunk.len()).map(|i| (chunk.term(), chunk.entry(i).to_vec())));
            }
            LogOp::TruncateSuffix { from } => {
                self.entries.truncate((from - 1 - self.before_first.index) as usize);
                self.configurations.retain(|c| c.id.index < *from);
            }
            LogOp::TruncatePrefix { first_kept } => {
                let before = first_kept - 1;
                if before <= self.before_first.index {
                    return;
                }
                let drop = (before - self.before_first.index) as usize;
                let term = drop.checked_sub(1).and_then(|i| self.entries.get(i)).map_or(0, |e| e.0);
                self.entries.drain(..drop.min(self.entries.len()));
                self.before_first = LogId::new(before, term);
                let kept = self.configurations.partition_point(|c| c.id.index <= before);
                self.conf_at_start =
                    self.configurations.drain(..kept).next_back().or(self.conf_at_start.take());
            }
            LogOp::Reset { before, conf } => {
                self.entries.clear();
                self.configurations.clear();
                self.before_first = *before;
                self.conf_at_start = conf.as_deref().cloned();
            }
            LogOp::Promise { ms } => self.promised_ms = self.promised_ms.max(*ms),
            LogOp::MemberRemoved { at } => self.member_removed = *at,
        }
    }
}

/// What a whole store should hold.
pub(crate) type StoreModel = BTreeMap<String, GroupModel>;

/// One step of work, made from the model alone.
#[derive(Debug)]
pub(crate) enum Step {
    /// A life that is there, or one more.
    Open(String, u64),
    Remove(String),
    Write(Vec<(String, Vec<LogOp>)>),
    Maintain,
}

fn chunk(random: &mut Random, first: u64, term: u64) -> Arc<EntryChunk> {
    let mut builder = ChunkBuilder::new();
    let (count, equal) = (1 + random.below(6), random.below(2) == 0);
    for _ in 0..count {
        let size = match (equal, random.below(30)) {
            (true, _) => 16,
            (false, 0) => 1500,
            (false, _) => random.below(40) as usize,
        };
        let byte = random.next() as u8;
        builder.push(&vec![byte; size]);
    }
    Arc::new(builder.take(first, term).unwrap())
}

fn members(random: &mut Random) -> Configuration {
    format!("127.0.0.1:{},127.0.0.1:2/learner", 100 + random.below(9)).parse().unwrap()
}

fn configuration(random: &mut Random, first: u64, term: u64) -> Arc<EntryChunk> {
    let (conf, old_conf) = (members(random), Configuration::default());
    let kind = ChunkKind::Configuration { conf, old_conf };
    Arc::new(EntryChunk::from_parts(first, term.max(1), kind, vec![0], bytes::Bytes::new()).unwrap())
}

fn ops(random: &mut Random, group: &GroupModel, lagging: bool) -> Vec<LogOp> {
    let mut state = group.clone();
    let mut ops = Vec::new();
    for _ in 0..1 + random.below(3) {
        let op = match random.below(15) {
            0..=1 => LogOp::HardState(HardState {
                term: state.hard_state.term + random.below(2),
                vote: match random.below(2) {
                    0 => Vote::For("127.0.0.1:8081:1:100".parse().unwrap()),
                    _ => Vote::None,
                },
            }),
            2 if !state.entries.is_empty() => {
                let from = state.before_first.index + 1 + random.below(state.entries.len() as u64);
                LogOp::TruncateSuffix { from }
            }
            3..=5 if !state.entries.is_empty() && !lagging => {
                let first_kept = state.before_first.index + 1 + random.below(state.entries.len() as u64 + 1);
                LogOp::TruncatePrefix { first_kept }
            }
            6 => LogOp::Promise { ms: 500 + random.below(1000) },
            7 => LogOp::MemberRemoved { at: LogId::new(random.below(3), random.below(3)) },
            8 => LogOp::Append(configuration(random, state.last() + 1, state.last_term())),
            9 if !lagging && random.below(4) == 0 => {
                let before =
                    LogId::new(state.last() + random.below(100), state.last_term() + random.below(2));
                let conf = (random.below(2) == 0).then(|| {
                    let conf = members(random);
                    Box::new(ConfigurationEntry { id: before, conf, old_conf: Configuration::default() })
                });
                LogOp::Reset { before, conf }
            }
            _ => {
                let term = state.last_term() + random.below(2);
                LogOp::Append(chunk(random, state.last() + 1, term))
            }
        };
        state.apply(&op);
        ops.push(op);
    }
    ops
}

/// Whether the model holds a life of the name.
pub(crate) fn lives(model: &StoreModel, name: &str) -> bool {
    model.get(name).is_some_and(|group| !group.removed)
}

fn open_step(model: &StoreModel, name: String) -> Step {
    let known = model.get(&name).map_or(1, |group| group.creation + u64::from(group.removed));
    Step::Open(name, known)
}

/// The next step for a store that holds `model`.
pub(crate) fn next_step(random: &mut Random, model: &StoreModel) -> Step {
    let name = format!("g{}", random.below(4));
    match random.below(20) {
        0 if lives(model, &name) && name != "g0" => Step::Remove(name),
        0..=1 => open_step(model, name),
        2..=6 => Step::Maintain,
        _ if !model.keys().any(|name| lives(model, name)) => open_step(model, name),
        _ => {
            let names: Vec<&String> = model.keys().filter(|name| lives(model, name)).collect();
            let mut after = model.clone();
            let mut writes = Vec::new();
            for _ in 0..1 + random.below(3) {
                let name = names[random.below(names.len() as u64) as usize];
                let group = after.get_mut(name).unwrap();
                // The first group appends little and is never compacted much: it lags.
                let lagging = name == "g0" && random.below(8) > 0;
                if lagging && random.below(3) > 0 {
                    continue;
                }
                let ops = ops(random, group, lagging);
                ops.iter().for_each(|op| group.apply(op));
                writes.push((name.clone(), ops));
            }
            Step::Write(writes)
        }
    }
}

/// The model after the step.
pub(crate) fn after(model: &StoreModel, step: &Step) -> StoreModel {
    let mut model = model.clone();
    match step {
        Step::Open(name, creation) => {
            if !lives(&model, name) {
                let new = GroupModel { creation: *creation, ..GroupModel::default() };
                model.insert(name.clone(), new);
            }
        }
        Step::Remove(name) => {
            if let Some(group) = model.get_mut(name) {
                let creation = group.creation;
                *group = GroupModel { creation, removed: true, ..GroupModel::default() };
            }
        }
        Step::Write(writes) => {
            for (name, ops) in writes {
                let group = model.get_mut(name).unwrap();
                ops.iter().for_each(|op| group.apply(op));
            }
        }
        Step::Maintain => {}
    }
    model
}

fn key_of(log: &SegmentLog, name: &str) -> GroupKey {
    log.groups().into_iter().find(|(n, _)| n.as_str() == name).unwrap().1
}

/// Completes a batch that breaks no rule.
pub(crate) fn completed(log: &mut SegmentLog) -> Result<(), StorageError> {
    let refused = log.complete()?;
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}

/// Does the step on the store.
pub(crate) fn perform(log: &mut SegmentLog, step: &Step) -> Result<(), StorageError> {
    match step {
        Step::Open(name, creation) => {
            let opening = GroupOpening { group: name.parse().unwrap(), creation: *creation };
            let opened = log.open_groups(&[opening])?.pop().unwrap();
            assert_eq!(opened.unwrap().creation, *creation);
            Ok(())
        }
        Step::Remove(name) => log.remove_group(key_of(log, name)),
        Step::Write(writes) => {
            let writes = writes
                .iter()
                .map(|(name, ops)| GroupWrite { group: key_of(log, name), ops: ops.clone() })
                .collect();
            log.submit(&WriteBatch { writes })?;
            completed(log)
        }
        Step::Maintain => log.maintain(),
    }
}

/// What the store holds, read entry by entry.
pub(crate) fn contents(log: &mut SegmentLog) -> Result<StoreModel, StorageError> {
    let reader = log.reader();
    let mut model = StoreModel::new();
    for stored in log.stored_groups() {
        let StoredGroup { group: name, creation, key: Some(key) } = stored else {
            let tombstone = GroupModel { creation: stored.creation, removed: true, ..GroupModel::default() };
            model.insert(stored.group.as_str().to_owned(), tombstone);
            continue;
        };
        let (same, state) = log.open_group(&name)?;
        assert_eq!(same, key);
        let mut entries = Vec::new();
        let mut next = state.before_first.index + 1;
        while state.damaged.is_empty() && next <= state.last_index {
            for chunk in reader.read(key, next, state.last_index, 300)? {
                assert_eq!(chunk.first_index(), next);
                entries.extend((0..chunk.len()).map(|i| (chunk.term(), chunk.entry(i).to_vec())));
                next = chunk.last_index() + 1;
            }
        }
        // The terms that it reports are those of the entries.
        for (i, (term, _)) in entries.iter().enumerate() {
            let index = state.before_first.index + 1 + i as u64;
            let at = state.terms.partition_point(|(first, _)| *first <= index);
            assert_eq!(state.terms[at - 1].1, *term);
        }
        let group = GroupModel {
            creation,
            removed: false,
            before_first: state.before_first,
            entries,
            hard_state: state.hard_state,
            promised_ms: state.promised_ms,
            member_removed: state.member_removed,
            conf_at_start: state.conf_at_start,
            configurations: state.configurations,
            damaged: !state.damaged.is_empty(),
        };
        model.insert(name.as_str().to_owned(), group);
    }
    Ok(model)
}

/// Tiny files and constant housekeeping, everything on the calling thread.
pub(crate) fn tiny() -> SegmentLogOptions {
    SegmentLogOptions {
        file_bytes: 8 << 10,
        block_bytes: 512,
        checkpoint_bytes: 1 << 10,
        rewrite_bytes: 512,
        rewrite_live_percent: 40,
        recycled_files: 2,
        background: false,
        ..SegmentLogOptions::default()
    }
}

pub(crate) fn open(disk: &MemoryDisk, options: &SegmentLogOptions) -> Result<SegmentLog, StorageError> {
    SegmentLog::open(Arc::new(disk.clone()), options.clone())
}

/// Works until `steps` are done or one fails; the models before and after the last step.
pub(crate) struct Run {
    pub(crate) before: StoreModel,
    pub(crate) after: StoreModel,
    pub(crate) error: Option<StorageError>,
    /// The store, when it could be opened.
    pub(crate) log: Option<SegmentLog>,
}

/// Opens the store, which holds `model`, and works on it.
pub(crate) fn work(
    disk: &MemoryDisk,
    options: &SegmentLogOptions,
    random: &mut Random,
    model: StoreModel,
    steps: usize,
) -> Run {
    let mut log = match open(disk, options) {
        Ok(log) => log,
        Err(error) => return Run { before: model.clone(), after: model, error: Some(error), log: None },
    };
    let mut before = model;
    for _ in 0..steps {
        let step = next_step(random, &before);
        let next = after(&before, &step);
        if let Err(error) = perform(&mut log, &step) {
            return Run { before, after: next, error: Some(error), log: Some(log) };
        }
        before = next;
    }
    Run { after: before.clone(), before, error: None, log: Some(log) }
}

/// Names of the checkpoint files, the older first.
pub(crate) fn checkpoints(disk: &MemoryDisk) -> Vec<String> {
    let names = ringraft_storage::Disk::list(disk).unwrap();
    names.into_iter().filter(|n| n.ends_with(".ckpt")).collect()
}
