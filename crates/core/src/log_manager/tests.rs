use super::*;
use crate::chunk::ChunkBuilder;

fn log() -> LogManager {
    LogManager::new(RecoveredState::default(), "a:1".parse().unwrap()).unwrap()
}

fn chunk(first: LogIndex, term: Term, lengths: &[usize]) -> Arc<EntryChunk> {
    let mut builder = ChunkBuilder::new();
    lengths.iter().for_each(|n| builder.push(&vec![b'x'; *n]));
    Arc::new(builder.take(first, term).unwrap())
}

#[test]
fn terms_are_found_over_stretches() {
    let mut log = log();
    log.append(&chunk(1, 1, &[1, 1]));
    log.append(&chunk(3, 1, &[1]));
    log.append(&chunk(4, 5, &[1, 1]));
    assert_eq!([0, 1, 3, 4, 5].map(|i| log.term_at(i)), [Some(0), Some(1), Some(1), Some(5), Some(5)]);
    assert_eq!(log.term_at(6), None);
    assert_eq!((log.last_index_of_term(1), log.last_index_of_term(5)), (Some(3), Some(5)));
    assert_eq!(log.last_index_of_term(2), None);
    assert_eq!((log.first_index_of_term_at(3), log.first_index_of_term_at(5)), (1, 4));
}

/// etcd's `async_storage_writes_append_aba_race` (catalogue D10): the completion of a write whose entries were
/// truncated must not vouch for those that took their place.
#[test]
fn a_late_completion_does_not_vouch_for_replaced_entries() {
    let mut log = log();
    log.append(&chunk(1, 1, &[1; 5]));
    let first = log.begin_write(Time(0));
    log.truncate_suffix(5);
    log.append(&chunk(5, 2, &[1]));
    let second = log.begin_write(Time(0));
    log.persisted(first);
    assert_eq!(log.stable_index(), 4);
    log.persisted(second);
    assert_eq!(log.stable_index(), 5);
    assert_eq!(log.unstable_bytes(), 0);
}

#[test]
fn truncation_lowers_the_durable_mark() {
    let mut log = log();
    log.append(&chunk(1, 1, &[1; 5]));
    let sequence = log.begin_write(Time(0));
    log.persisted(sequence);
    log.truncate_suffix(3);
    assert_eq!((log.stable_index(), log.last_id()), (2, LogId::new(2, 1)));
    log.truncate_suffix(1);
    assert_eq!(log.last_id(), LogId::new(0, 0));
}

#[test]
fn configurations_come_and_go_with_their_entries() {
    let mut log = log();
    let conf: Configuration = "a:1,b:1".parse().unwrap();
    let entry = EntryChunk::configuration(LogId::new(1, 1), conf.clone(), Configuration::default());
    log.append(&Arc::new(entry));
    assert_eq!(log.configuration().conf, conf);
    assert!(log.configuration_at(1).is_some() && log.configuration_at(2).is_none());
    log.truncate_suffix(1);
    assert_eq!(log.configuration().conf, "a:1".parse().unwrap());
}

/// Finding C3a: the members of years ago, by which the node was started, are not those of a log whose front is gone.
#[test]
fn what_was_in_force_at_the_start_of_the_log_stays_in_force() {
    let at_start = ConfigurationEntry {
        id: LogId::new(3, 1),
        conf: "b:1,c:1".parse().unwrap(),
        old_conf: "a:1,b:1".parse().unwrap(),
    };
    let recovered = RecoveredState {
        before_first: LogId::new(5, 2),
        last_index: 5,
        conf_at_start: Some(at_start.clone()),
        ..RecoveredState::default()
    };
    let mut log = LogManager::new(recovered, "a:1".parse().unwrap()).unwrap();
    assert_eq!(log.configuration(), &at_start);
    assert!(log.may_decide(&"a:1".parse().unwrap(), 5), "by its old half");
    let conf = EntryChunk::configuration(LogId::new(6, 3), "c:1".parse().unwrap(), Configuration::default());
    log.append(&Arc::new(conf));
    assert_eq!(log.configuration().id.index, 6);
    log.truncate_suffix(6);
    assert_eq!(log.configuration(), &at_start, "and again when what followed it is truncated");
}

/// Finding C15: changes, elections and truncations without end; whoever asks gets the answer of a log that forgets nothing.
#[test]
fn configurations_that_nobody_can_ask_for_are_forgotten() {
    let peers = ["a:1", "b:1", "c:1", "d:1"].map(|peer| peer.parse::<PeerId>().unwrap());
    for seed in 0..50 {
        let blank = || LogManager::new(RecoveredState::default(), Configuration::default()).unwrap();
        let (mut log, mut whole, mut random) = (blank(), blank(), crate::random::Random::new(seed));
        let (mut committed, mut applied) = (0, 0);
        for step in 0..100 {
            let last = whole.last_id().index;
            if last > committed && random.below(4) == 0 {
                let from = committed + 1 + random.below(last - committed);
                log.truncate_suffix(from);
                whole.truncate_suffix(from);
            } else {
                // At first a is alone, or is named by nobody; then anybody may come.
                let some = if step < 30 { [1, 14][seed as usize % 2] } else { 1 + random.below(15) };
                let old = if step < 30 { 0 } else { random.below(2) * 6 };
                let named = |some: u64| peers.iter().enumerate().filter(move |(i, _)| some >> i & 1 == 1);
                let conf =
                    |some| Configuration::of_peers(named(some).map(|(_, peer)| peer.clone()).collect());
                let id = LogId::new(last + 1, whole.last_id().term + random.below(2));
                let entry = Arc::new(EntryChunk::configuration(id, conf(some), conf(old)));
                log.append(&entry);
                whole.append(&entry);
            }
            committed += random.below(whole.last_id().index - committed + 1).min(3);
            applied += random.below(committed - applied + 1);
            log.forget_configurations(applied, &peers[0]);
            let kept = log.configurations.len() as u64;
            assert_eq!(kept, log.last_id().index - applied + u64::from(applied > 0), "those behind, and one");
            assert_eq!(log.configuration(), whole.configuration());
            assert_eq!(log.configurations_behind(committed), whole.configurations_behind(committed));
            assert_eq!(log.ever_named(&peers[0]), whole.ever_named(&peers[0]));
            assert_eq!(log.was_always_alone(&peers[0]), whole.was_always_alone(&peers[0]));
            for index in applied..=last {
                assert_eq!(log.configuration_at(index), whole.configuration_at(index));
            }
            for peer in &peers {
                assert_eq!(log.may_decide(peer, committed), whole.may_decide(peer, committed));
                assert_eq!(log.removal_of(peer, committed), whole.removal_of(peer, committed));
            }
        }
    }
}

/// logcabin#160, dragonboat a83f853 (catalogue D7): a batch cut at any limit is contiguous and never empty.
#[test]
fn a_batch_cut_at_every_limit_has_no_hole() {
    let mut log = log();
    log.append(&chunk(1, 1, &[3, 0, 9, 1]));
    log.append(&chunk(5, 2, &[2, 2, 40, 1, 1]));
    for from in 1..=9 {
        for max_entries in 1..=9 {
            for max_bytes in 1..=60 {
                let taken = log.entries(from, 9, max_entries, max_bytes).unwrap();
                let mut next = from;
                for part in &taken {
                    assert_eq!(part.first_index(), next);
                    next = part.last_index() + 1;
                }
                assert!(next > from && next - from <= max_entries as u64);
                let bytes: usize = taken.iter().map(|c| c.payload().len()).sum();
                let last = taken.last().unwrap();
                assert!(bytes - last.entry(last.len() - 1).len() <= max_bytes, "only the last entry crosses");
            }
        }
    }
}

#[test]
fn released_entries_are_no_longer_in_memory() {
    let mut log = log();
    log.append(&chunk(1, 1, &[1, 1]));
    log.append(&chunk(3, 1, &[1, 1]));
    let sequence = log.begin_write(Time(0));
    log.persisted(sequence);
    log.release(3);
    assert!(log.entries(2, 4, 9, 99).is_none());
    assert_eq!(log.entries(3, 4, 9, 99).unwrap().len(), 1);
    log.release(4);
    assert_eq!((log.tail_bytes(), log.tail_entries()), (0, 0));
    log.append(&chunk(5, 1, &[1]));
    assert_eq!(log.tail_entries(), 1);
}

#[test]
fn contradictory_recovered_state_is_refused() {
    let make = |last_index, terms: Vec<(LogIndex, Term)>| {
        let recovered = RecoveredState { last_index, terms, ..RecoveredState::default() };
        LogManager::new(recovered, Configuration::default()).is_ok()
    };
    assert!(make(0, vec![]) && make(5, vec![(1, 1), (4, 2)]));
    assert!(!make(5, vec![]) && !make(5, vec![(2, 1)]) && !make(5, vec![(1, 2), (4, 1)]));
    assert!(!make(5, vec![(1, 1), (6, 2)]) && !make(0, vec![(1, 1)]));
}
