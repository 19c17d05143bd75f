//! What a store may give back after a crash: everything that was durable, and a prefix of what was on its way.

use std::sync::Arc;

use ringraft_core::{LogOp, RecoveredState};
use ringraft_storage::{GroupKey, LogReader, StorageError};

use crate::LogImage;

/// The log that a store recovered, as one of those that it may recover.
///
/// # Errors
/// It is none of them: something durable was lost or changed, or something was made up.
pub(super) fn explain(
    stable: &LogImage,
    on_the_way: &[LogOp],
    key: GroupKey,
    recovered: &RecoveredState,
    reader: &dyn LogReader,
    damaged: bool,
) -> Result<LogImage, String> {
    let mut image = stable.clone();
    let fits = |image: &LogImage| {
        image.last_index() == recovered.last_index
            && image.hard_state() == &recovered.hard_state
            && image.recover() == *recovered
    };
    let mut found = fits(&image).then(|| image.clone());
    for op in on_the_way {
        match op {
            // A large chunk may be stored in pieces.
            LogOp::Append(chunk) => {
                for index in chunk.first_index()..=chunk.last_index() {
                    let Some(entry) = chunk.slice(index, index) else { continue };
                    image.apply(&LogOp::Append(Arc::new(entry)));
                    if fits(&image) {
                        found = Some(image.clone());
                    }
                }
            }
            op => image.apply(op),
        }
        if fits(&image) {
            found = Some(image.clone());
        }
    }
    let image = found.ok_or_else(|| {
        format!(
            "recovered {recovered:?}; durable was {:?} and a log up to {}, {} operations were on their way",
            stable.hard_state(),
            stable.last_index(),
            on_the_way.len()
        )
    })?;
    let mut next = image.first_index();
    while next <= image.last_index() {
        // A fault that was planned for a read happens once.
        let read = |to, bytes| match reader.read(key, next, to, bytes) {
            Err(StorageError::Io { .. }) => reader.read(key, next, to, bytes),
            other => other,
        };
        let chunks = match read(image.last_index(), 1 << 16) {
            Err(StorageError::Damaged { .. }) if damaged => match read(next, 1) {
                // A reader that says so is as good as one that reads.
                Err(StorageError::Damaged { .. }) => {
                    next += 1;
                    continue;
                }
                other => other,
            },
            other => other,
        };
        let chunks = chunks.map_err(|error| format!("entry {next} cannot be read back: {error}"))?;
        for chunk in &chunks {
            for position in 0..chunk.len() {
                let index = chunk.first_index() + position as u64;
                let same = image.entry(index).is_some_and(|entry| {
                    entry.term == chunk.term()
                        && entry.kind == *chunk.kind()
                        && entry.data[..] == *chunk.entry(position)
                });
                if index != next || !same {
                    return Err(format!("entry {index} reads back with other contents"));
                }
                next += 1;
            }
        }
        if chunks.is_empty() {
            return Err(format!("entry {next} cannot be read back"));
        }
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use ringraft_core::{HardState, Vote};
    use ringraft_storage::{GroupNumber, Incarnation};

    use super::*;

    const KEY: GroupKey = GroupKey { number: GroupNumber(1), incarnation: Incarnation(1) };

    /// Reads what an image holds. Entries whose term is the second field or later are damaged, and the read fails whose number is
    /// the third; 0 for none.
    struct Reader(LogImage, u64, AtomicU32);

    impl LogReader for Reader {
        fn read(
            &self,
            _: GroupKey,
            from: u64,
            to: u64,
            max_bytes: usize,
        ) -> Result<Vec<Arc<ringraft_core::EntryChunk>>, StorageError> {
            if self.2.fetch_sub(1, Ordering::Relaxed) == 1 {
                let (message, kind) = ("once".into(), ringraft_storage::IoKind::Other);
                return Err(StorageError::Io { operation: "read", path: "f".into(), message, kind });
            }
            if self.0.entries_from(from).any(|(index, entry)| index <= to && entry.term >= self.1) {
                return Err(StorageError::Damaged { path: "f".into(), offset: 0, what: "crc".into() });
            }
            Ok(self.0.read(from, to, max_bytes))
        }
    }

    fn image(terms: &[u64]) -> LogImage {
        LogImage::preset(HardState { term: 9, vote: Vote::None }, terms)
    }

    fn found(durable: &LogImage, on_the_way: &[LogOp], there: &LogImage) -> Result<LogImage, String> {
        explain(
            durable,
            on_the_way,
            KEY,
            &there.recover(),
            &Reader(there.clone(), u64::MAX, AtomicU32::new(0)),
            false,
        )
    }

    #[test]
    fn everything_durable_and_a_prefix_of_what_was_on_its_way() {
        let durable = image(&[1, 1]);
        let more = image(&[1, 1, 2, 2]);
        let on_the_way: Vec<LogOp> = more.read(3, 4, 1000).into_iter().map(LogOp::Append).collect();
        for there in [image(&[1, 1]), image(&[1, 1, 2]), more.clone()] {
            assert_eq!(found(&durable, &on_the_way, &there), Ok(there));
        }
        assert!(found(&durable, &on_the_way, &image(&[1])).is_err(), "something durable is gone");
        assert!(found(&durable, &on_the_way, &image(&[1, 1, 3])).is_err(), "something is made up");
        assert!(found(&durable, &[], &more).is_err());
        let forgotten = LogImage::preset(HardState { term: 8, vote: Vote::None }, &[1, 1]);
        assert!(found(&durable, &[], &forgotten).is_err(), "an earlier term");
    }

    #[test]
    fn entries_that_read_back_differently() {
        let (durable, other) = (image(&[1, 1, 1]), LogImage::preset(HardState::default(), &[1, 1, 1]));
        let reader = Reader(image(&[1, 2, 1]), u64::MAX, AtomicU32::new(0));
        assert!(explain(&durable, &[], KEY, &durable.recover(), &reader, false).is_err());
        let reader = Reader(image(&[1, 1]), u64::MAX, AtomicU32::new(0));
        assert!(explain(&durable, &[], KEY, &durable.recover(), &reader, false).is_err());
        assert!(
            explain(
                &durable,
                &[],
                KEY,
                &other.recover(),
                &Reader(other.clone(), u64::MAX, AtomicU32::new(0)),
                false
            )
            .is_err()
        );
    }

    #[test]
    fn damage_may_be_refused_to_a_reader_of_a_damaged_disk_only() {
        let durable = image(&[1, 1, 5, 5]);
        let reader = Reader(durable.clone(), 5, AtomicU32::new(0));
        assert!(explain(&durable, &[], KEY, &durable.recover(), &reader, false).is_err());
        assert_eq!(explain(&durable, &[], KEY, &durable.recover(), &reader, true), Ok(durable));
    }

    #[test]
    fn a_read_fails_once_beside_damage() {
        let durable = image(&[1, 1, 5, 5]);
        for failing in 1..8 {
            let reader = Reader(durable.clone(), 5, AtomicU32::new(failing));
            let explained = explain(&durable, &[], KEY, &durable.recover(), &reader, true);
            assert_eq!(explained.as_ref(), Ok(&durable), "read {failing}");
        }
    }
}
