//! The part of the suite about groups that come and go.

use ringraft_core::{HardState, LogOp, RecoveredState, Vote};

use super::{Bench, sample_chunk};
use crate::traits::{GroupKey, GroupOpening, StorageError};

pub(super) fn remove_and_create(bench: &mut Bench) {
    let (old, _) = bench.group("g");
    let (other, _) = bench.group("other");
    bench.write(
        old,
        vec![LogOp::Append(sample_chunk(1, 1, 3)), LogOp::HardState(HardState { term: 5, vote: Vote::None })],
    );
    bench.write(other, vec![LogOp::Append(sample_chunk(1, 1, 2))]);
    bench.store.store().remove_group(old).expect("a group is removed");
    if bench.restarts {
        bench.store.reopen();
    }
    assert_eq!(bench.store.store().groups().len(), 1);
    let read = bench.store.store().reader().read(old, 1, 3, 100);
    assert!(matches!(read, Err(StorageError::NotFound { .. })), "{read:?}");
    let opened = bench.open("g", 1).expect("a higher number than none");
    let (new, state) = (opened.key, opened.recovered);
    assert_eq!(state, RecoveredState::default(), "nothing of the earlier life is left");
    assert!(new.incarnation > old.incarnation && new != old);
    bench.write(new, vec![LogOp::Append(sample_chunk(1, 9, 2))]);
    bench.check_entries(new, &[(1, 9), (2, 9)]);
    bench.check_entries(other, &[(1, 1), (2, 1)]);
}

/// Each life of a name has its number, and what was removed never begins again.
pub(super) fn lives_of_a_name(bench: &mut Bench) {
    let refused = |bench: &mut Bench, asked: u64, known: u64, removed: bool| {
        let error = bench.open("g", asked).expect_err("another life");
        let fits = matches!(&error, StorageError::OtherLife { known: k, removed: r, .. } if (*k, *r) == (known, removed));
        assert!(fits, "{asked}: {error}");
    };
    let stored = |bench: &mut Bench| -> Vec<(String, u64, bool)> {
        let stored = bench.store.store().stored_groups().into_iter();
        stored.map(|s| (s.group.as_str().to_owned(), s.creation, s.key.is_some())).collect()
    };
    let mut lives: Vec<GroupKey> = Vec::new();
    for creation in [3, 4, 9] {
        let key = bench.open("g", creation).expect("a later life").key;
        bench.write(key, vec![LogOp::Append(sample_chunk(1, creation, 2))]);
        for asked in [0, creation] {
            let again = bench.open("g", asked).expect("the life that is there");
            assert_eq!((again.key, again.creation, again.recovered.last_index), (key, creation, 2));
        }
        refused(bench, creation + 1, creation, false);
        refused(bench, creation - 1, creation, false);
        assert_eq!(stored(bench), [("g".to_owned(), creation, true)]);
        bench.store.store().remove_group(key).expect("a group is removed");
        if bench.restarts {
            bench.store.reopen();
        }
        assert_eq!(stored(bench), [("g".to_owned(), creation, false)]);
        for asked in [0, 1, creation] {
            refused(bench, asked, creation, true);
        }
        let again = bench.store.store().remove_group(key);
        assert!(matches!(again, Err(StorageError::Invalid { .. })), "{again:?}");
        assert!(lives.iter().all(|life| life.incarnation < key.incarnation));
        lives.push(key);
        for _ in 0..3 {
            bench.store.store().maintain().expect("housekeeping works");
        }
    }
    bench.store.reopen();
    assert_eq!(stored(bench), [("g".to_owned(), 9, false)], "the highest counts");
}

pub(super) fn open_many(bench: &mut Bench) {
    let (before, _) = bench.group("b");
    let opening = |name: &str, creation| GroupOpening { group: name.parse().expect("a name"), creation };
    let groups = [
        opening("a", 2),
        opening("b", 1),
        opening("c", 0),
        opening("a", 2),
        opening("a", 3),
        opening("b", 0),
    ];
    let opened = bench.store.store().open_groups(&groups).expect("most are opened");
    let keys: Vec<Option<GroupKey>> = opened.iter().map(|o| o.as_ref().ok().map(|o| o.key)).collect();
    assert_eq!((keys[1], keys[4], keys[5]), (None, None, Some(before)), "{opened:?}");
    assert!(keys[0].is_some() && keys[0] == keys[3] && keys[2].is_some() && keys[0] < keys[2]);
    bench.store.reopen();
    let stored: Vec<_> =
        bench.store.store().stored_groups().into_iter().map(|s| (s.key, s.creation)).collect();
    assert_eq!(stored, [(Some(before), 0), (keys[0], 2), (keys[2], 0)]);
}

/// A key that stands there twice is one group, and the store can be read afterwards.
pub(super) fn remove_many(bench: &mut Bench) {
    let keys: Vec<GroupKey> = ["a", "b", "c"].iter().map(|name| bench.group(name).0).collect();
    keys.iter().for_each(|key| bench.write(*key, vec![LogOp::Append(sample_chunk(1, 1, 2))]));
    bench.store.store().remove_groups(&[]).expect("nothing is to be done");
    bench.store.store().remove_groups(&[keys[2], keys[0], keys[2]]).expect("both are removed");
    bench.store.reopen();
    let left = bench.store.store().groups();
    assert_eq!(left.iter().map(|(_, key)| *key).collect::<Vec<_>>(), [keys[1]]);
    bench.check_entries(keys[1], &[(1, 1), (2, 1)]);
    let again = bench.store.store().remove_groups(&[keys[0]]);
    assert!(matches!(again, Err(StorageError::Invalid { .. })), "{again:?}");
}
