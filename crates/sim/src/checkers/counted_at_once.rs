use std::fmt;

use ringraft_core::LogIndex;

use super::{Checker, Event, name};

/// A leader has committed what majorities hold, as far as it knows: whatever brings a majority about has it counted. In a group at rest
/// nothing would count later, and an entry that could be acknowledged would wait for the next proposal.
#[derive(Default)]
pub struct CountedAtOnce;

impl Checker for CountedAtOnce {
    fn name(&self) -> &'static str {
        "what a majority holds is committed"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Stepped { node, .. } => {
                all_committed(name(node), node.committable_index(), node.committed_index())
            }
            _ => Ok(()),
        }
    }
}

/// Whether what `leader` may commit is committed.
pub(super) fn all_committed(
    leader: impl fmt::Display,
    held: Option<LogIndex>,
    committed: LogIndex,
) -> Result<(), String> {
    match held {
        Some(held) if held > committed => Err(format!(
            "{leader} knows that a majority holds everything up to {held} and has committed {committed}"
        )),
        _ => Ok(()),
    }
}
