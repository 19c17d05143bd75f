use std::collections::BTreeMap;

use ringraft_core::{LogIndex, PeerId, Term};

use super::{Checker, Event, leads, name};

/// A leader never overwrites or deletes entries of its log (Raft figure 3, Leader Append-Only).
#[derive(Default)]
pub struct LeaderAppendOnly {
    /// Term, last index and chain when the node was last seen leading.
    seen: BTreeMap<PeerId, (Term, LogIndex, u64)>,
}

impl Checker for LeaderAppendOnly {
    fn name(&self) -> &'static str {
        "leader append-only"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Stepped { node, log, .. } = event else { return Ok(()) };
        if !leads(node) {
            self.seen.remove(name(node));
            return Ok(());
        }
        if let Some((term, last, chain)) = self.seen.get(name(node)).copied()
            && term == node.term()
            && log.chain_at(last) != Some(chain)
        {
            return Err(format!("{} changed its own log at or before {last} in term {term}", name(node)));
        }
        if let Some(chain) = log.chain_at(log.last_index()) {
            self.seen.insert(name(node).clone(), (node.term(), log.last_index(), chain));
        }
        Ok(())
    }
}
