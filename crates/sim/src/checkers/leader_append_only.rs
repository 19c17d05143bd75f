use ringraft_core::{LogIndex, Term};

use super::per_node::PerNode;
use super::{Checker, Event, leads, name};

/// A leader never overwrites or deletes entries of its log (Raft figure 3, Leader Append-Only).
#[derive(Default)]
pub struct LeaderAppendOnly {
    /// Term, last index and chain when the node was last seen leading.
    seen: PerNode<Option<(Term, LogIndex, u64)>>,
}

impl Checker for LeaderAppendOnly {
    fn name(&self) -> &'static str {
        "leader append-only"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Stepped { node, log, .. } = event else { return Ok(()) };
        let seen = self.seen.entry(name(node), || None);
        if !leads(node) {
            *seen = None;
            return Ok(());
        }
        if let Some((term, last, chain)) = *seen
            && term == node.term()
            && log.chain_at(last) != Some(chain)
        {
            return Err(format!("{} changed its own log at or before {last} in term {term}", name(node)));
        }
        if let Some(chain) = log.chain_at(log.last_index()) {
            *seen = Some((node.term(), log.last_index(), chain));
        }
        Ok(())
    }
}
