//! Readers that go on asking a leader that is deposed, and operators that are there the moment that one is elected.

use ringraft_core::NodeState;

use super::World;
use super::event::Event;
use super::workload::Question;
use crate::checkers::Violation;
use crate::cluster::clock::MS;
use crate::linearizability::RegisterOp;

/// Groups that are watched; worlds with more are there for their numbers.
const WATCHED: usize = 8;

/// What readers and operators have seen of leaders.
#[derive(Default)]
pub(super) struct Watch {
    /// The newest term with a leader, by group.
    terms: Vec<u64>,
}

impl World {
    pub(super) fn start_readers(&mut self) {
        let (reads, acts) = self.plan.operators.watch();
        if self.plan.hosts > 1 && (reads || acts) {
            self.watch.terms = vec![0; self.plan.groups.len().min(WATCHED)];
            self.after(self.plan.election_timeout_ms * MS, Event::Readers);
        }
    }

    /// Where two hosts believe to lead, the one of the newer term gets writes and the other one reads.
    pub(super) fn readers(&mut self) -> Result<(), Violation> {
        if !self.chaos {
            return Ok(());
        }
        let timeout = self.plan.election_timeout_ms * MS;
        let (reads, acts) = self.plan.operators.watch();
        let mut pause = timeout / 16;
        for group in 0..self.watch.terms.len() {
            let leads = |host: &usize| {
                let leads = [NodeState::Leader, NodeState::Transferring];
                let node = self.node(group, *host).filter(|node| leads.contains(&node.state()));
                node.map(|node| (node.term(), *host))
            };
            let mut leaders: Vec<(u64, usize)> = self.plan.groups[group].iter().filter_map(leads).collect();
            leaders.sort_unstable();
            let Some((term, newest)) = leaders.last().copied() else { continue };
            if acts && std::mem::replace(&mut self.watch.terms[group], term) < term && self.random.chance(400)
            {
                self.ask_node(group, newest);
            }
            if leaders.len() < 2 || !reads {
                continue;
            }
            pause = timeout / 32;
            let reader = self.plan.clients;
            let key = group as u64 * 1000 + self.random.below(self.plan.keys);
            for (_, deposed) in &leaders[..leaders.len() - 1] {
                let read = Question { key, op: RegisterOp::Read, by_index: true, expects: false };
                self.report.events += u64::from(self.ask(reader, group, *deposed, read));
            }
            let write = RegisterOp::Write(self.workload.tasks.next_id());
            let write = Question { key, op: write, by_index: false, expects: false };
            self.report.events += u64::from(self.ask(reader, group, newest, write));
            self.mark("two hosts lead");
        }
        let pause = pause + self.random.below(pause + 1);
        self.after(pause, Event::Readers);
        self.drain_outcomes()
    }
}
