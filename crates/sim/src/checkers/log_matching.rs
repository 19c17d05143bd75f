use ringraft_core::{LogIndex, Term};
use rustc_hash::FxHashMap;

use super::{Checker, Event};

/// Entries of equal index and term are equal, and so is everything before them (Raft figure 3, Log Matching): by
/// hashes that chain an entry with its predecessors.
#[derive(Default)]
pub struct LogMatching {
    chains: FxHashMap<(LogIndex, Term), u64>,
}

impl Checker for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Appended { node, log, first } = event else { return Ok(()) };
        for index in *first..=log.last_index() {
            let Some(entry) = log.entry(index) else { continue };
            let known = *self.chains.entry((index, entry.term)).or_insert(entry.chain);
            if known != entry.chain {
                return Err(format!(
                    "{node} holds another log up to {index}/{} than an earlier one",
                    entry.term
                ));
            }
        }
        Ok(())
    }
}
