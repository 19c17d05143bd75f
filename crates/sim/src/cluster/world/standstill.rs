//! A trial at rest: the state machines of one worker stand still on every host, under writes, and nobody else may notice.

use ringraft_core::LogIndex;

use super::World;
use super::event::Event;
use super::workload::Question;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::clock::MS;
use crate::cluster::host::{WORKERS, worker_of};
use crate::linearizability::RegisterOp;

/// Writes at once for each group of the worker that stands still.
const BURST: usize = 2;

/// How far the trial is.
#[derive(Debug, Default)]
pub(super) enum Standstill {
    /// Not begun.
    #[default]
    Before,
    /// It goes on.
    Running {
        /// The worker.
        worker: usize,
        /// When groups of other workers are written to: by then the rings of this one are full.
        late: u64,
        /// When the worker goes on.
        until: u64,
        /// Groups of other workers that were written to, and what their leader had applied before.
        asked: Vec<(usize, LogIndex)>,
    },
    /// Over.
    Over,
}

impl World {
    /// The groups are at rest: has the trial begin, unless it is over. Says whether it has begun.
    pub(super) fn stands_still(&mut self) -> bool {
        if !matches!(self.standstill, Standstill::Before) || self.quiet.is_none() {
            return false;
        }
        let round = (self.plan.election_timeout_ms + self.plan.election_delay_ms) * MS;
        let (worker, until) = (self.random.index(WORKERS), self.now + 3 * round);
        for host in &mut self.hosts {
            host.still_until[worker] = until;
        }
        self.note(|| format!("worker {worker} of each host stands still"));
        let late = self.now + 2 * round;
        self.standstill = Standstill::Running { worker, late, until, asked: Vec::new() };
        self.after(0, Event::Standstill);
        self.after(20 * MS, Event::Check);
        true
    }

    /// Whether the trial goes on.
    pub(super) fn is_standing_still(&self) -> bool {
        matches!(self.standstill, Standstill::Running { .. })
    }

    /// Writes on; ends the trial when its time has come.
    ///
    /// # Errors
    /// A group of another worker was held back.
    pub(super) fn standstill(&mut self) -> Result<(), Violation> {
        let (worker, late, until) = match &self.standstill {
            Standstill::Running { worker, late, until, .. } => (*worker, *late, *until),
            _ => return Ok(()),
        };
        for group in (0..self.plan.groups.len()).filter(|group| worker_of(*group) == worker) {
            for _ in 0..BURST {
                self.write_to_leader(group);
            }
        }
        if self.now >= late {
            for group in (0..self.plan.groups.len()).filter(|group| worker_of(*group) != worker) {
                let Standstill::Running { asked, .. } = &self.standstill else { break };
                if !asked.iter().any(|(known, _)| *known == group)
                    && let Some(before) = self.write_to_leader(group)
                    && let Standstill::Running { asked, .. } = &mut self.standstill
                {
                    asked.push((group, before));
                }
            }
        }
        if self.now < until {
            self.after(self.plan.election_timeout_ms * MS / 16 + 1, Event::Standstill);
            return self.drain_outcomes();
        }
        let Standstill::Running { asked, .. } = std::mem::replace(&mut self.standstill, Standstill::Over)
        else {
            return Ok(());
        };
        self.calm_since = self.now;
        self.mark("a worker stood still");
        for (group, before) in asked {
            let leader = self.leader_of(group).and_then(|host| self.node(group, host));
            if leader.is_none_or(|node| node.applied_index() <= before) {
                let what =
                    format!("group {group} applies nothing while the worker of other groups stands still");
                let text = what + &self.describe(group);
                return Err(broken("a state machine that stands still holds nobody else back", text));
            }
        }
        self.drain_outcomes()
    }

    /// Gives the group's leader a write; what it had applied before, if it took it.
    fn write_to_leader(&mut self, group: usize) -> Option<LogIndex> {
        let leader = self.leader_of(group)?;
        let before = self.node(group, leader)?.applied_index();
        let op = RegisterOp::Write(self.workload.tasks.next_id());
        let question = Question { key: group as u64 * 1000, op, by_index: false, expects: false };
        self.ask(self.plan.clients, group, leader, question).then_some(before)
    }
}
