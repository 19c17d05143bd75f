//! What a group at rest owes its callers: every member answers reads, and the leader can hand over to any voter.

use ringraft::handler::NodeCall;

use super::World;
use super::event::Event;
use super::workload::Question;
use crate::checkers::Violation;
use crate::cluster::checks::Outcome;
use crate::cluster::checks::broken;
use crate::cluster::clock::MS;
use crate::linearizability::RegisterOp;

/// Tries that a group has: a connection of which one end is gone may not have been noticed yet.
const TRIES: u32 = 12;

/// How far the last calls are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LastCalls {
    /// Not begun.
    #[default]
    Before,
    /// Reads from this number on wait for their outcome; the try is the second number.
    Reads(u64, u32),
    /// Leadership is being handed over since this moment, for so many times.
    Transfers(u64, u32),
    /// Every call has its outcome.
    Over,
}

impl World {
    /// Everything is at rest: calls what is left to be called. Says whether something is under way.
    ///
    /// # Errors
    /// A call that must succeed does not.
    pub(super) fn call_at_rest(&mut self) -> Result<bool, Violation> {
        match self.last_calls {
            // Worlds that are not watched at rest have small bounds and many groups.
            LastCalls::Before if self.quiet.is_none() => return Ok(false),
            LastCalls::Before => {
                self.leaders_may_change();
                self.transfers_failed(0)?;
                self.read_everywhere(1);
            }
            LastCalls::Reads(first, tries) => {
                let calls = self.workload.tasks.calls.iter().skip(first as usize - 1);
                let missed: Vec<usize> =
                    calls.filter(|call| call.outcome != Outcome::Read).map(|call| call.group).collect();
                match missed.first() {
                    None => self.hand_over_everywhere(1),
                    Some(_) if tries < TRIES => self.read_everywhere(tries + 1),
                    Some(group) => {
                        let what = format!("a member of group {group} at rest answers no reads");
                        return Err(broken("every member answers reads", what + &self.describe(*group)));
                    }
                }
            }
            LastCalls::Transfers(since, tries) => {
                let failed = self.transfers_failed(since)?;
                match failed {
                    None => {}
                    Some(None) => self.last_calls = LastCalls::Over,
                    Some(Some(_)) if tries < TRIES => self.hand_over_everywhere(tries + 1),
                    Some(Some((group, why))) => {
                        let what = format!("group {group} at rest does not hand its leader over: {why}");
                        return Err(broken("a group at rest hands over", what + &self.describe(group)));
                    }
                }
            }
            LastCalls::Over => return Ok(false),
        }
        self.calm_since = self.now;
        self.after(20 * MS, Event::Check);
        Ok(true)
    }

    fn read_everywhere(&mut self, tries: u32) {
        self.last_calls = LastCalls::Reads(self.workload.tasks.next_id(), tries);
        for group in 0..self.plan.groups.len() {
            for host in self.live(group) {
                let key = group as u64 * 1000;
                let read = Question { key, op: RegisterOp::Read, by_index: true, expects: false };
                self.ask(self.plan.clients, group, host, read);
            }
        }
    }

    fn hand_over_everywhere(&mut self, tries: u32) {
        self.last_calls = LastCalls::Transfers(self.now, tries);
        self.operators.heirs.clear();
        for group in 0..self.plan.groups.len() {
            let Some(leader) = self.leader_of(group) else { continue };
            let live = self.live(group);
            let votes = |host: &usize| {
                let node = self.node(group, leader);
                *host != leader && node.is_some_and(|n| n.configuration().is_voter(&self.hosts[*host].peer))
            };
            let others: Vec<usize> = live.into_iter().filter(votes).collect();
            if others.is_empty() {
                continue;
            }
            let to = others[self.random.index(others.len())];
            self.operators.heirs.push((group, to));
            let to = Some(self.member(to));
            self.call_node(leader, group, NodeCall::TransferLeadership { to });
        }
    }
}
