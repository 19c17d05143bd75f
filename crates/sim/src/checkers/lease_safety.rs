use ringraft_core::Term;

use super::{Checker, Event, leads};

/// While a leader answers by its lease nobody commits in a later term (Raft §8, thesis §6.4.1).
#[derive(Default)]
pub struct LeaseSafety {
    /// The latest term of which a leader has committed an entry.
    committed_term: Term,
}

impl Checker for LeaseSafety {
    fn name(&self) -> &'static str {
        "lease safety"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Stepped { node, .. } => {
                let term = node.term();
                if leads(node) && node.term_at(node.committed_index()) == Some(term) {
                    self.committed_term = self.committed_term.max(term);
                }
            }
            Event::MayRead { node, by_lease_of: Some(term), .. } if *term < self.committed_term => {
                let later = self.committed_term;
                return Err(format!(
                    "{node} reads by its lease of term {term}; term {later} has committed already"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}
