use ringraft_core::Term;
use rustc_hash::FxHashSet;

use super::{Checker, Event, leads, name};

/// What was committed is in the log of every later leader, and nobody commits anything else in its place (Raft
/// figure 3, Leader Completeness).
#[derive(Default)]
pub struct LeaderCompleteness {
    /// By index: the chain of what is committed there, and the lowest term in which a node knew it as committed.
    committed: Vec<Option<(u64, Term)>>,
    /// Terms whose leader was looked at when it began; afterwards it only appends.
    begun: FxHashSet<Term>,
}

impl Checker for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Stepped { node, log, .. } = event else { return Ok(()) };
        let (term, index) = (node.term(), node.committed_index());
        if let Some(chain) = log.chain_at(index).filter(|_| index > 0) {
            let at = index as usize;
            if self.committed.len() <= at {
                self.committed.resize(at + 1, None);
            }
            let known = self.committed[at].get_or_insert((chain, term));
            if known.0 != chain {
                return Err(format!("{} knows another log up to {index} as committed", name(node)));
            }
            known.1 = known.1.min(term);
        }
        if leads(node) && self.begun.insert(term) {
            let earlier = self.committed.iter().enumerate().rev();
            let mut earlier =
                earlier.filter_map(|(index, known)| known.map(|(chain, at)| (index, chain, at)));
            if let Some((lost, chain, at)) = earlier.find(|(_, _, at)| *at < term)
                && log.chain_at(lost as u64) != Some(chain)
            {
                return Err(format!(
                    "{} leads term {term} without entry {lost}, which was committed in term {at}",
                    name(node)
                ));
            }
        }
        Ok(())
    }
}
