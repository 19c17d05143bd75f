//! Rules about terms and time: who hears of a term is in it, and a leader that everybody hears stays.

use ringraft::handler::{GroupHandle, LaneEvent};
use ringraft_core::{NodeImpl, RaftRequest, Term};

use super::host::Process;
use super::plan::MS;
use super::world::{Event, World, broken};
use crate::checkers::Violation;

/// Worlds with more groups are not asked to stay quiet: their small bounds may keep heartbeats waiting.
const QUIET_GROUPS: usize = 4;

/// Groups that have come to rest.
pub(super) struct Quiet {
    terms: Vec<Term>,
}

/// Terms that a turn is told of by others, with the group: in answers, and in requests for votes, unless voters may keep their
/// term for the sake of a `promise`.
pub(super) fn heard_terms(p: &Process, events: &[LaneEvent], promise: bool) -> Vec<(usize, Term)> {
    let heard = |event: &LaneEvent| {
        let (handle, term) = match event {
            LaneEvent::Response(response) => {
                let (slot, generation) = (response.context.slot, response.context.generation);
                (GroupHandle { lane: 0, slot, generation }, response.result.as_ref().ok()?.term()?)
            }
            LaneEvent::Request(request) => match &request.request {
                RaftRequest::RequestVote(vote) if !vote.pre_vote && !promise => (request.handle, vote.term),
                _ => return None,
            },
            _ => return None,
        };
        Some((*p.by_handle.get(&handle)?, term))
    };
    events.iter().filter_map(heard).collect()
}

impl World {
    /// Whoever hears of a higher term is in it (Raft §5.1).
    ///
    /// # Errors
    /// A node is not.
    pub(super) fn terms_are_learnt(&self, host: usize, heard: &[(usize, Term)]) -> Result<(), Violation> {
        for (group, term) in heard {
            let node = self.node(*group, host).filter(|node| node.state().is_active());
            if let Some(node) = node.filter(|node| node.term() < *term) {
                let what = format!("host {host} stays in term {} of group {group}", node.term());
                return Err(broken("terms are learnt", format!("{what}, though it heard of term {term}")));
            }
        }
        Ok(())
    }

    /// The groups have come to rest. Says whether they are to be watched for a while before all is over.
    pub(super) fn stays_quiet(&mut self) -> bool {
        if self.quiet.is_some() || self.plan.groups.len() > QUIET_GROUPS {
            return false;
        }
        self.quiet = Some(Quiet { terms: self.terms() });
        let round = (self.plan.election_timeout_ms + self.plan.election_delay_ms) * MS;
        self.after(3 * round, Event::Check);
        true
    }

    /// A group at rest, its leader in reach of all, elects no other.
    ///
    /// # Errors
    /// One did.
    pub(super) fn leaders_kept(&self) -> Result<(), Violation> {
        let Some(quiet) = &self.quiet else { return Ok(()) };
        for (group, (before, now)) in quiet.terms.iter().zip(self.terms()).enumerate() {
            if *before != now {
                let what = format!("group {group} was at rest in term {before} and is in term {now}");
                return Err(broken("a group at rest keeps its leader", what + &self.describe(group)));
            }
        }
        Ok(())
    }

    /// The highest term of each group among the hosts that live.
    fn terms(&self) -> Vec<Term> {
        let term = |group: usize| {
            self.live(group)
                .into_iter()
                .filter_map(|host| self.node(group, host))
                .map(NodeImpl::term)
                .max()
                .unwrap_or(0)
        };
        (0..self.plan.groups.len()).map(term).collect()
    }
}
