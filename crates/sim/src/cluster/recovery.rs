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
        let read = || reader.read(key, next, image.last_index(), 1 << 16);
        let chunks = match read() {
            Err(StorageError::Damaged { .. }) if damaged => match reader.read(key, next, next, 1) {
                // A reader that says so is as good as one that reads.
                Err(StorageError::Damaged { .. }) => {
                    next += 1;
                    continue;
                }
                other => other,
            },
            // A fault that was planned for a read happens once.
            Err(StorageError::Io { .. }) => read(),
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
