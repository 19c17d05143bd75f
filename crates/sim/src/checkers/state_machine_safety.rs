use ringraft_core::{LogIndex, Term};
use rustc_hash::FxHashMap;

use super::per_node::PerNode;
use super::{Checker, Event};

/// No two state machines apply different entries at one index (Raft figure 3, State Machine Safety); each applies in
/// order, each entry once a run, and only what its own disk holds.
#[derive(Default)]
pub struct StateMachineSafety {
    applied: FxHashMap<LogIndex, (Term, u64)>,
    next: PerNode<LogIndex>,
}

impl Checker for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state-machine safety"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (node, chunk, stable) = match event {
            Event::Delivered { node, chunk, stable } => (*node, *chunk, *stable),
            Event::Restarted { node } => {
                self.next.remove(node);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let next = self.next.entry(node, || chunk.first_index());
        if *next != chunk.first_index() {
            return Err(format!("{node} applies {} where {next} is next", chunk.first_index()));
        }
        *next = chunk.last_index() + 1;
        for (position, index) in (chunk.first_index()..=chunk.last_index()).enumerate() {
            let durable = stable
                .entry(index)
                .filter(|e| e.term == chunk.term() && e.data[..] == *chunk.entry(position))
                .ok_or_else(|| format!("{node} applies {index}/{}, which its disk lacks", chunk.term()))?;
            let entry = (chunk.term(), durable.chain);
            let first = *self.applied.entry(index).or_insert(entry);
            if first != entry {
                return Err(format!(
                    "{node} applies {index}/{}, another node applied {index}/{} with another history",
                    entry.0, first.0
                ));
            }
        }
        Ok(())
    }
}
