//! Lives of a group's name: which one a store may open, and what is kept of those that are over.
//!
//! A replica that has voted and acknowledged must never begin again without its memory, or it votes a second time and its leader counts
//! what is gone. So a removed group leaves a tombstone, and only a number that nobody can have used before begins a new life
//! (`docs/decisions/0012-groups-come-and-go.md`).

use std::collections::BTreeMap;

use ringraft_core::{GroupId, Mutant};

use crate::traits::{GroupOpening, StorageError};

/// Names of removed groups, and the highest creation number that each had.
pub(crate) type Tombstones = BTreeMap<GroupId, u64>;

/// What to do about a group that is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The life that the store holds is the one that is meant.
    Existing,
    /// It begins now.
    New,
}

/// Whether the life that is meant may be opened, where the store holds one with number `live` (if any).
///
/// # Errors
/// [`StorageError::OtherLife`] with the number that the store knows.
pub(crate) fn opening(
    meant: &GroupOpening,
    live: Option<u64>,
    tombstones: &Tombstones,
) -> Result<Opening, StorageError> {
    let (group, asked) = (meant.group.clone(), meant.creation);
    match (live, tombstones.get(&meant.group)) {
        (Some(known), _) if asked == 0 || asked == known => Ok(Opening::Existing),
        (Some(known), _) => Err(StorageError::OtherLife { group, asked, known, removed: false }),
        // Rule P13: whatever is not higher may be the life that was removed, with everything that it has promised.
        (None, Some(&known)) if asked <= known => {
            Err(StorageError::OtherLife { group, asked, known, removed: true })
        }
        (None, _) => Ok(Opening::New),
    }
}

/// Remembers that a life of the name is over. A number that was removed before and is higher stays.
pub(crate) fn bury(tombstones: &mut Tombstones, group: &GroupId, creation: u64) {
    if Mutant::C8TombstoneIsForgotten.is_active() {
        return;
    }
    let highest = tombstones.entry(group.clone()).or_default();
    *highest = creation.max(*highest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(creation: u64) -> GroupOpening {
        GroupOpening { group: "g".parse().unwrap(), creation }
    }

    #[test]
    fn a_life_is_opened_by_its_number_or_by_none() {
        let none = Tombstones::new();
        for asked in [0, 5] {
            assert_eq!(opening(&meant(asked), Some(5), &none).unwrap(), Opening::Existing);
            assert_eq!(opening(&meant(asked), None, &none).unwrap(), Opening::New);
        }
        for (asked, live) in [(4, 5), (6, 5), (1, 0)] {
            let error = opening(&meant(asked), Some(live), &none).unwrap_err();
            assert!(matches!(error, StorageError::OtherLife { removed: false, known, .. } if known == live));
        }
    }

    /// Shows rule P13.
    #[test]
    fn a_name_is_used_again_with_a_higher_number_only() {
        let mut tombstones = Tombstones::new();
        bury(&mut tombstones, &meant(0).group, 5);
        bury(&mut tombstones, &meant(0).group, 3);
        for asked in [0, 1, 5] {
            let error = opening(&meant(asked), None, &tombstones).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, StorageError::OtherLife { removed: true, known: 5, .. }), "{text}");
            assert!(
                text.contains(&format!("creation number {asked}")) && text.contains("number 5"),
                "{text}"
            );
        }
        assert_eq!(opening(&meant(6), None, &tombstones).unwrap(), Opening::New);
        // A group without a number leaves a tombstone, too.
        bury(&mut tombstones, &"h".parse().unwrap(), 0);
        let again = |creation| GroupOpening { group: "h".parse().unwrap(), creation };
        assert!(opening(&again(0), None, &tombstones).is_err());
        assert_eq!(opening(&again(1), None, &tombstones).unwrap(), Opening::New);
    }
}
