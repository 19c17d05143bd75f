use ringraft_core::{PeerId, Term};
use rustc_hash::FxHashMap;

use super::{Checker, Event};

/// One vote a term, remembered across crashes by what was sent: a promise binds once it has left, whatever the disk
/// remembers of it.
#[derive(Default)]
pub struct VoteOnce {
    votes: FxHashMap<(PeerId, Term), PeerId>,
}

impl Checker for VoteOnce {
    fn name(&self) -> &'static str {
        "one vote a term"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        if let Event::Wiped { node } = event {
            // Its promises are forgotten with the disk. That they bind nobody any more is for the other rules to see.
            self.votes.retain(|(voter, _), _| voter != *node);
        }
        let Event::VoteSent { voter, term, candidate } = event else { return Ok(()) };
        let key = ((*voter).clone(), *term);
        let first = self.votes.entry(key).or_insert_with(|| (*candidate).clone());
        if first != *candidate {
            return Err(format!("{voter} voted for {first} and for {candidate} in term {term}"));
        }
        Ok(())
    }
}
