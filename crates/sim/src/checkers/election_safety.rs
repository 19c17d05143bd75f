use ringraft_core::{PeerId, Term};
use rustc_hash::FxHashMap;

use super::{Checker, Event, leads, name};

/// At most one leader a term (Raft figure 3, Election Safety).
#[derive(Default)]
pub struct ElectionSafety {
    leaders: FxHashMap<Term, PeerId>,
}

impl Checker for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Stepped { node, .. } = event else { return Ok(()) };
        if !leads(node) {
            return Ok(());
        }
        let leader = self.leaders.entry(node.term()).or_insert_with(|| name(node).clone());
        if leader != name(node) {
            return Err(format!("{leader} and {} both lead term {}", name(node), node.term()));
        }
        Ok(())
    }
}
