//! Rules about leaders and time: who is heard stays, and who is not heard by a quorum goes.

use ringraft_core::{NodeImpl, Term};

use super::plan::MS;
use super::world::{Event, World, broken};
use crate::checkers::Violation;

/// Worlds with more groups are not asked to stay quiet: their small bounds may keep heartbeats waiting.
const QUIET_GROUPS: usize = 4;

/// Groups that have come to rest.
pub(super) struct Quiet {
    terms: Vec<Term>,
}

impl World {
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
            self.live(group).into_iter().filter_map(|host| self.node(group, host)).map(NodeImpl::term).max().unwrap_or(0)
        };
        (0..self.plan.groups.len()).map(term).collect()
    }
}
