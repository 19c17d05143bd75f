use std::collections::{BTreeMap, BTreeSet};

use ringraft_core::{LogIndex, Term};

use super::{Checker, Event, leads, name};

/// What was committed is in the log of every later leader, and nobody commits anything else in its place (Raft
/// figure 3, Leader Completeness).
#[derive(Default)]
pub struct LeaderCompleteness {
    /// Chain of every committed index and the lowest term in which a node knew it as committed.
    committed: BTreeMap<LogIndex, (u64, Term)>,
    /// Terms whose leader was looked at when it began; afterwards it only appends.
    begun: BTreeSet<Term>,
}

impl Checker for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Stepped { node, log, .. } = event else { return Ok(()) };
        let (term, index) = (node.term(), node.committed_index());
        if let Some(chain) = log.chain_at(index).filter(|_| index > 0) {
            let known = self.committed.entry(index).or_insert((chain, term));
            if known.0 != chain {
                return Err(format!("{} knows another log up to {index} as committed", name(node)));
            }
            known.1 = known.1.min(term);
        }
        if leads(node) && self.begun.insert(term) {
            let earlier = self.committed.iter().rev().find(|(_, (_, at))| *at < term);
            if let Some((lost, (chain, at))) = earlier
                && log.chain_at(*lost) != Some(*chain)
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
