//! The suite that every log store must pass, whoever wrote it.
//!
//! A store under test is wrapped in [`ReopenableStore`], so that the suite can restart it. The suite panics at the
//! first difference, as a test does.

mod lives;

use std::sync::Arc;

use ringraft_core::{
    ChunkBuilder, ChunkKind, Configuration, ConfigurationEntry, EntryChunk, GroupId, HardState, LogId,
    LogIndex, LogOp, RecoveredState, Term, Vote,
};

use crate::traits::{
    GroupKey, GroupOpening, GroupWrite, LogStorage, MetaStorage, OpenedGroup, StorageError, WriteBatch,
};

/// A store with both halves.
pub trait FullStorage: LogStorage + MetaStorage {}

impl<T: LogStorage + MetaStorage> FullStorage for T {}

/// A store that can be closed and opened again with what it made durable.
pub trait ReopenableStore {
    /// The open store.
    fn store(&mut self) -> &mut dyn FullStorage;

    /// Closes and opens it, as a restart of the process does.
    fn reopen(&mut self);
}

/// Runs every case, each on a new store, and again with a restart after each write.
///
/// # Panics
/// At the first difference from what [`LogStorage`] promises.
pub fn log_storage_suite(make: &mut dyn FnMut() -> Box<dyn ReopenableStore>) {
    let cases: [(&str, Case); 17] = [
        ("a new group is empty", new_group),
        ("entries are read back", append_and_read),
        ("reads stop at the byte limit", byte_limit),
        ("suffix truncation at every place", truncate_suffix),
        ("truncate and append of another term", replace_suffix),
        ("prefix truncation", truncate_prefix),
        ("prefix truncation of everything", truncate_all),
        ("reset", reset),
        ("the configuration in force at the start", configuration_at_the_start),
        ("promise and removal", promise_and_removal),
        ("hard state follows the order of the stream", hard_state),
        ("configurations and no-ops", configurations),
        ("removal and re-creation", lives::remove_and_create),
        ("names and their lives", lives::lives_of_a_name),
        ("many groups are opened at once", lives::open_many),
        ("many groups are removed at once", lives::remove_many),
        ("many groups in one batch", many_groups),
    ];
    for (name, case) in cases {
        for restarts in [false, true] {
            tracing::debug!(name, restarts, "conformance case");
            case(&mut Bench { store: make(), restarts });
        }
    }
    for misuse in
        [append_gap, append_older_term, truncate_compacted, truncate_prefix_over_the_end, unknown_group]
    {
        misuse(&mut Bench { store: make(), restarts: false });
    }
}

/// A data chunk of `count` entries from `first` on; each payload tells its index and term.
pub fn sample_chunk(first: LogIndex, term: Term, count: u64) -> Arc<EntryChunk> {
    let mut builder = ChunkBuilder::new();
    for index in first..first + count {
        builder.push(&sample_payload(index, term));
    }
    Arc::new(builder.take(first, term).expect("a sample has entries"))
}

/// The payload of [`sample_chunk`]'s entry: of different lengths, sometimes none.
pub fn sample_payload(index: LogIndex, term: Term) -> Vec<u8> {
    let text = format!("{index}@{term};").into_bytes();
    text.repeat(index as usize % 4)
}

/// One case of the suite.
type Case = fn(&mut Bench);

struct Bench {
    store: Box<dyn ReopenableStore>,
    restarts: bool,
}

impl Bench {
    fn group(&mut self, name: &str) -> (GroupKey, RecoveredState) {
        let name: GroupId = name.parse().expect("a valid name");
        self.store.store().open_group(&name).expect("a group opens")
    }

    fn open(&mut self, name: &str, creation: u64) -> Result<OpenedGroup, StorageError> {
        let group: GroupId = name.parse().expect("a valid name");
        let opened = self.store.store().open_groups(&[GroupOpening { group, creation }]);
        opened.expect("the store works").pop().expect("an answer for each")
    }

    fn write(&mut self, group: GroupKey, ops: Vec<LogOp>) {
        self.write_all(vec![GroupWrite { group, ops }]);
    }

    fn write_all(&mut self, writes: Vec<GroupWrite>) {
        let store = self.store.store();
        store.submit(&WriteBatch { writes }).expect("a batch is submitted");
        let refused = store.complete().expect("a batch completes");
        assert!(refused.is_empty(), "{refused:?}");
        store.maintain().expect("housekeeping works");
        if self.restarts {
            self.store.reopen();
        }
    }

    fn read(&mut self, group: GroupKey, from: LogIndex, to: LogIndex) -> Vec<(LogIndex, Term, Vec<u8>)> {
        let chunks = self.store.store().reader().read(group, from, to, usize::MAX).expect("entries are read");
        flatten(&chunks)
    }

    fn check_entries(&mut self, group: GroupKey, expected: &[(LogIndex, Term)]) {
        let (Some((first, _)), Some((last, _))) = (expected.first(), expected.last()) else { return };
        for from in *first..=*last {
            for to in from..=*last {
                let want: Vec<_> = expected
                    .iter()
                    .filter(|(index, _)| (from..=to).contains(index))
                    .map(|(index, term)| (*index, *term, sample_payload(*index, *term)))
                    .collect();
                assert_eq!(self.read(group, from, to), want, "entries {from}..={to}");
            }
        }
        let reader = self.store.store().reader();
        let beyond = reader.read(group, last + 1, last + 5, usize::MAX);
        assert!(matches!(beyond, Err(StorageError::NotFound { .. })), "{beyond:?}");
        let below = reader.read(group, first - 1, *last, usize::MAX);
        assert!(matches!(below, Err(StorageError::Compacted { .. })), "{below:?}");
    }

    fn recovered(&mut self, name: &str) -> RecoveredState {
        self.group(name).1
    }
}

fn flatten(chunks: &[Arc<EntryChunk>]) -> Vec<(LogIndex, Term, Vec<u8>)> {
    let entry = |c: &Arc<EntryChunk>, i: usize| (c.first_index() + i as u64, c.term(), c.entry(i).to_vec());
    chunks.iter().flat_map(|c| (0..c.len()).map(move |i| entry(c, i))).collect()
}

fn new_group(bench: &mut Bench) {
    let (key, state) = bench.group("g");
    assert_eq!(state, RecoveredState::default());
    assert_eq!(bench.store.store().hard_state(key).expect("known"), HardState::default());
    bench.store.reopen();
    assert_eq!(bench.group("g"), (key, RecoveredState::default()));
    let groups = bench.store.store().groups();
    assert_eq!(groups.iter().map(|(n, k)| (n.as_str(), *k)).collect::<Vec<_>>(), [("g", key)]);
    let read = bench.store.store().reader().read(key, 1, 1, 1);
    assert!(matches!(read, Err(StorageError::NotFound { .. })));
}

fn append_and_read(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 1, 1))]);
    bench.write(key, vec![LogOp::Append(sample_chunk(2, 1, 5)), LogOp::Append(sample_chunk(7, 2, 2))]);
    bench.write(key, vec![LogOp::Append(sample_chunk(9, 2, 3))]);
    let expected: Vec<_> = (1..=11).map(|i| (i, if i < 7 { 1 } else { 2 })).collect();
    bench.check_entries(key, &expected);
    let state = bench.recovered("g");
    assert_eq!((state.last_index, state.terms), (11, vec![(1, 1), (7, 2)]));
}

fn byte_limit(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    for first in [1, 11, 21] {
        bench.write(key, vec![LogOp::Append(sample_chunk(first, 3, 10))]);
    }
    let reader = bench.store.store().reader();
    for max_bytes in [0, 1, 5, 17, 60, 100, 1000] {
        for from in 1..=30 {
            let chunks = reader.read(key, from, 30, max_bytes).expect("entries are read");
            let entries = flatten(&chunks);
            assert!(!entries.is_empty() && entries[0].0 == from);
            assert!(entries.windows(2).all(|w| w[0].0 + 1 == w[1].0), "contiguous");
            let bytes: usize = entries.iter().map(|e| e.2.len()).sum();
            let first = entries[0].2.len();
            assert!(bytes <= max_bytes.max(first), "{bytes} bytes where {max_bytes} were asked for");
        }
    }
    let all = reader.read(key, 1, 30, usize::MAX).expect("entries are read");
    assert_eq!(flatten(&all).len(), 30);
}

fn truncate_suffix(bench: &mut Bench) {
    for from in 1..=10 {
        let name = format!("g{from}");
        let (key, _) = bench.group(&name);
        bench.write(key, vec![LogOp::Append(sample_chunk(1, 1, 3))]);
        bench.write(key, vec![LogOp::Append(sample_chunk(4, 1, 3)), LogOp::Append(sample_chunk(7, 4, 3))]);
        bench.write(key, vec![LogOp::TruncateSuffix { from }]);
        let kept: Vec<_> = (1..from).map(|i| (i, if i < 7 { 1 } else { 4 })).collect();
        bench.check_entries(key, &kept);
        let state = bench.recovered(&name);
        assert_eq!(state.last_index, from - 1);
        bench.write(key, vec![LogOp::Append(sample_chunk(from, 5, 2))]);
        let kept: Vec<_> = kept.into_iter().chain([(from, 5), (from + 1, 5)]).collect();
        bench.check_entries(key, &kept);
    }
}

fn replace_suffix(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 1, 6))]);
    bench.write(
        key,
        vec![
            LogOp::TruncateSuffix { from: 4 },
            LogOp::Append(sample_chunk(4, 2, 2)),
            LogOp::TruncateSuffix { from: 5 },
            LogOp::Append(sample_chunk(5, 3, 3)),
        ],
    );
    bench.check_entries(key, &[(1, 1), (2, 1), (3, 1), (4, 2), (5, 3), (6, 3), (7, 3)]);
    assert_eq!(bench.recovered("g").terms, [(1, 1), (4, 2), (5, 3)]);
    bench.write(key, vec![LogOp::TruncateSuffix { from: 99 }]);
    assert_eq!(bench.recovered("g").last_index, 7, "nothing beyond the end is dropped");
}

fn truncate_prefix(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 1, 4)), LogOp::Append(sample_chunk(5, 2, 4))]);
    for (first_kept, before) in [(1, (0, 0)), (3, (2, 1)), (2, (2, 1)), (5, (4, 1)), (7, (6, 2)), (9, (8, 2))]
    {
        bench.write(key, vec![LogOp::TruncatePrefix { first_kept }]);
        let state = bench.recovered("g");
        assert_eq!(state.before_first, LogId::new(before.0, before.1), "first kept {first_kept}");
        assert_eq!(state.last_index, 8);
        let kept: Vec<_> = (before.0 + 1..=8).map(|i| (i, if i < 5 { 1 } else { 2 })).collect();
        bench.check_entries(key, &kept);
    }
    bench.write(key, vec![LogOp::Append(sample_chunk(9, 2, 2))]);
    bench.check_entries(key, &[(9, 2), (10, 2)]);
}

fn truncate_all(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 1, 4))]);
    bench.write(key, vec![LogOp::TruncatePrefix { first_kept: 5 }]);
    let state = bench.recovered("g");
    assert_eq!((state.before_first, state.last_index), (LogId::new(4, 1), 4));
    assert!(state.terms.is_empty());
    bench.write(key, vec![LogOp::Append(sample_chunk(5, 7, 2))]);
    bench.check_entries(key, &[(5, 7), (6, 7)]);
}

fn truncate_prefix_over_the_end(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 1, 4))]);
    refused(bench, key, LogOp::TruncatePrefix { first_kept: 6 });
}

fn members(text: &str) -> Configuration {
    text.parse().expect("a configuration")
}

fn reset(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.write(key, vec![LogOp::HardState(HardState { term: 9, vote: Vote::None })]);
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 1, 4))]);
    let (before, old_conf) = (LogId::new(100, 3), Configuration::default());
    let conf = ConfigurationEntry { id: LogId::new(90, 2), conf: members("a:1,b:1"), old_conf };
    bench.write(key, vec![LogOp::Reset { before, conf: Some(Box::new(conf.clone())) }]);
    let state = bench.recovered("g");
    assert_eq!((state.before_first, state.last_index), (before, 100));
    assert_eq!((state.conf_at_start, state.hard_state.term), (Some(conf), 9));
    assert!(state.terms.is_empty() && state.configurations.is_empty());
    bench.write(key, vec![LogOp::Append(sample_chunk(101, 7, 2))]);
    bench.check_entries(key, &[(101, 7), (102, 7)]);
    bench.write(key, vec![LogOp::Reset { before: LogId::default(), conf: None }]);
    let state = bench.recovered("g");
    assert_eq!((state.before_first, state.last_index, state.conf_at_start), (LogId::default(), 0, None));
}

/// What goes with the prefix must not take the members with it.
fn configuration_at_the_start(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    let conf = |index, text| {
        let entry = EntryChunk::configuration(LogId::new(index, 1), members(text), Configuration::default());
        LogOp::Append(Arc::new(entry))
    };
    bench.write(key, vec![conf(1, "a:1"), conf(2, "a:1,b:1"), LogOp::Append(sample_chunk(3, 1, 2))]);
    bench.write(key, vec![conf(5, "a:1,b:1,c:1")]);
    for (first_kept, in_force) in [(2, "a:1"), (4, "a:1,b:1"), (6, "a:1,b:1,c:1")] {
        bench.write(key, vec![LogOp::TruncatePrefix { first_kept }]);
        let found = bench.recovered("g").conf_at_start.expect("a configuration is in force");
        assert_eq!(found.conf, members(in_force), "first kept {first_kept}");
    }
}

fn promise_and_removal(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    let at = LogId::new(7, 2);
    bench.write(key, vec![LogOp::Promise { ms: 1500 }, LogOp::MemberRemoved { at }]);
    bench.write(key, vec![LogOp::Promise { ms: 300 }]);
    let state = bench.recovered("g");
    assert_eq!((state.promised_ms, state.member_removed), (1500, at));
    bench.write(key, vec![LogOp::MemberRemoved { at: LogId::default() }]);
    assert_eq!(bench.recovered("g").member_removed, LogId::default());
}

fn hard_state(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    let vote = |term, peer: Option<&str>| {
        let vote = peer.map_or(Vote::None, |p| Vote::For(p.parse().expect("a valid peer")));
        HardState { term, vote }
    };
    for states in [
        vec![vote(1, Some("a:1"))],
        vec![vote(2, None), vote(2, Some("b:2:3:100")), vote(3, Some("[::1]:80"))],
        vec![vote(4, None)],
    ] {
        let last = states.last().cloned().expect("not empty");
        bench.write(key, states.into_iter().map(LogOp::HardState).collect());
        assert_eq!(bench.store.store().hard_state(key).expect("known"), last);
        assert_eq!(bench.recovered("g").hard_state, last);
    }
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 9, 1))]);
    assert_eq!(bench.recovered("g").hard_state.term, 4, "reported as it was written");
}

fn configurations(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    let parse = |text: &str| text.parse::<Configuration>().expect("a valid configuration");
    let conf =
        |index, text, old| Arc::new(EntryChunk::configuration(LogId::new(index, 2), parse(text), parse(old)));
    let noop = EntryChunk::from_parts(2, 2, ChunkKind::NoOp, vec![0, 0], bytes::Bytes::new());
    bench.write(key, vec![LogOp::Append(conf(1, "a:1,b:1,c:1/learner", ""))]);
    bench.write(key, vec![LogOp::Append(Arc::new(noop.expect("a valid chunk")))]);
    bench.write(key, vec![LogOp::Append(conf(4, "a:1::7,d:1", "a:1,b:1,e:2:2/learner"))]);
    let chunks = bench.store.store().reader().read(key, 1, 4, usize::MAX).expect("entries are read");
    let kinds: Vec<_> = chunks.iter().map(|c| (c.first_index(), c.len(), c.kind().clone())).collect();
    let joint =
        ChunkKind::Configuration { conf: parse("a:1::7,d:1"), old_conf: parse("a:1,b:1,e:2:2/learner") };
    let first = ChunkKind::Configuration { conf: parse("a:1,b:1,c:1/learner"), old_conf: parse("") };
    assert_eq!(kinds, [(1, 1, first), (2, 2, ChunkKind::NoOp), (4, 1, joint)]);
    let found = |bench: &mut Bench| -> Vec<LogIndex> {
        bench.recovered("g").configurations.iter().map(|c| c.id.index).collect()
    };
    assert_eq!(found(bench), [1, 4]);
    let entry = bench.recovered("g").configurations.pop().expect("two");
    assert!(entry.is_joint() && entry.conf.peers[0].priority() == 7);
    bench.write(key, vec![LogOp::TruncatePrefix { first_kept: 2 }]);
    assert_eq!(found(bench), [4]);
    bench.write(key, vec![LogOp::TruncateSuffix { from: 4 }]);
    assert_eq!(found(bench), [0; 0]);
}

fn many_groups(bench: &mut Bench) {
    let keys: Vec<GroupKey> = (0..40).map(|i| bench.group(&format!("g{i}")).0).collect();
    assert!(keys.windows(2).all(|w| w[0] < w[1]));
    for round in 0..3u64 {
        let write = |(i, group): (usize, &GroupKey)| {
            let term = round + 1;
            let chunk = sample_chunk(1 + round * (i as u64 + 1), term, i as u64 + 1);
            let ops = vec![LogOp::HardState(HardState { term, vote: Vote::None }), LogOp::Append(chunk)];
            GroupWrite { group: *group, ops }
        };
        bench.write_all(keys.iter().enumerate().map(write).collect());
    }
    // A group may stand in a batch more than once.
    let again = |first| GroupWrite { group: keys[0], ops: vec![LogOp::Append(sample_chunk(first, 3, 1))] };
    bench.write_all(vec![again(4), again(5)]);
    for (i, key) in keys.iter().enumerate().skip(1) {
        let each = i as u64 + 1;
        let expected: Vec<_> = (1..=3 * each).map(|index| (index, (index - 1) / each + 1)).collect();
        let want: Vec<_> = expected.iter().map(|(i, t)| (*i, *t, sample_payload(*i, *t))).collect();
        assert_eq!(bench.read(*key, 1, 3 * each), want);
        assert_eq!(bench.recovered(&format!("g{i}")).hard_state.term, 3);
    }
    bench.check_entries(keys[0], &[(1, 1), (2, 2), (3, 3), (4, 3), (5, 3)]);
}

/// Writes that break the rules are refused whole, and their group with them; the rest of the batch is durable.
fn refused(bench: &mut Bench, group: GroupKey, op: LogOp) {
    let (other, state) = bench.group("other");
    let before = bench.store.store().groups();
    let next = state.last_index + 1;
    let vote = LogOp::HardState(HardState { term: 99, vote: Vote::None });
    let write = |group, ops| GroupWrite { group, ops };
    let good = |index| write(other, vec![LogOp::Append(sample_chunk(index, 1, 1))]);
    let submit = |bench: &mut Bench, writes| {
        let store = bench.store.store();
        store.submit(&WriteBatch { writes }).expect("the batch is written but for one group");
        store.complete().expect("the batch completes")
    };
    // What stands before the broken operation in the same write goes with it, what stands after it, too.
    let writes = vec![
        good(next),
        write(group, vec![vote.clone(), op, vote.clone()]),
        good(next + 1),
        write(group, vec![vote.clone()]),
    ];
    let refused = submit(bench, writes);
    assert!(
        matches!(&refused[..], [one] if one.group == group && matches!(one.reason, StorageError::Invalid { .. })),
        "{refused:?}"
    );
    // Operations that were on their way are refused, too, by the first reason; others go on.
    let again = submit(bench, vec![write(group, vec![vote.clone()]), good(next + 2)]);
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!(again[0].reason.to_string(), refused[0].reason.to_string());
    assert!(submit(bench, vec![good(next + 3)]).is_empty());
    assert_eq!(bench.read(other, next, next + 3).len(), 4);
    let known = before.iter().any(|(_, key)| *key == group);
    for reopen in [false, true] {
        if reopen {
            bench.store.reopen();
        }
        assert_eq!(bench.store.store().groups(), before);
        assert_eq!(bench.read(other, next, next + 3).len(), 4);
        match bench.store.store().hard_state(group) {
            Ok(state) => assert!(known && state.term != 99, "nothing of a refused write is stored"),
            Err(error) => assert!(!known && matches!(error, StorageError::Invalid { .. }), "{error}"),
        }
    }
    // A new life of the group begins from what is stored.
    if known {
        bench.recovered("g");
        assert!(submit(bench, vec![write(group, vec![vote])]).is_empty());
        assert_eq!(bench.store.store().hard_state(group).expect("known").term, 99);
    }
}

fn append_gap(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    refused(bench, key, LogOp::Append(sample_chunk(2, 1, 1)));
}

fn append_older_term(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 3, 1))]);
    refused(bench, key, LogOp::Append(sample_chunk(2, 2, 1)));
}

fn truncate_compacted(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.write(key, vec![LogOp::Append(sample_chunk(1, 3, 4)), LogOp::TruncatePrefix { first_kept: 3 }]);
    refused(bench, key, LogOp::TruncateSuffix { from: 2 });
}

fn unknown_group(bench: &mut Bench) {
    let (key, _) = bench.group("g");
    bench.store.store().remove_group(key).expect("a group is removed");
    refused(bench, key, LogOp::Append(sample_chunk(1, 1, 1)));
}
