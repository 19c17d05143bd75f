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
