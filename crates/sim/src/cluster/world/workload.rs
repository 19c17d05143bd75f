//! Clients: each asks one thing after another of some host, and what it is told is remembered.

use ringraft::Completion;
use ringraft::handler::{ApplyEvent, LaneEvent, ReadEvent};
use ringraft_core::{LogIndex, ReadOnlyOption};

use super::World;
use super::event::Event;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::checks::{Completed, Outcome, Tasks};
use crate::cluster::clock::MS;
use crate::cluster::host::worker_of;
use crate::cluster::machine::Command;
use crate::linearizability::{Operation, RegisterOp, Verdict, check};

/// Steps of the search for one register's history; beyond it the history counts as unchecked.
const SEARCH_LIMIT: u64 = 400_000;

/// The clients and what they believe.
pub(super) struct Workload {
    pub(super) tasks: Tasks,
    /// The host that a client believes to lead, by client and group.
    leaders: Vec<Vec<usize>>,
    /// Refusals that each client has had since its last answer: it backs off.
    refused: Vec<u32>,
}

/// What is asked of a host.
#[derive(Clone, Copy)]
pub(super) struct Question {
    pub(super) key: u64,
    pub(super) op: RegisterOp,
    /// A read goes by read index instead of through the log.
    pub(super) by_index: bool,
    /// It is for the host's term only.
    pub(super) expects: bool,
}

impl Workload {
    pub(super) fn new(clients: usize, groups: usize) -> Workload {
        Workload {
            tasks: Tasks::new(groups),
            // One more for the readers.
            leaders: vec![vec![0; groups]; clients + 1],
            refused: vec![0; clients + 1],
        }
    }
}

impl World {
    /// A client asks for something.
    pub(super) fn client(&mut self, client: usize) -> Result<(), Violation> {
        if !self.clients_run {
            return Ok(());
        }
        let group = self.random.index(self.plan.groups.len());
        if self.hushed[group] > self.now || self.plan.groups[group].is_empty() {
            let pause = self.plan.think.max(self.plan.election_timeout_ms * MS / 8);
            self.after(pause, Event::Client(client));
            return Ok(());
        }
        let members = self.plan.groups[group].clone();
        let believed = self.workload.leaders[client][group];
        let host = if self.random.chance(850) && members.contains(&believed) {
            believed
        } else {
            members[self.random.index(members.len())]
        };
        let burst = self.random.range(1, self.plan.burst);
        let mut issued = 0;
        for _ in 0..burst {
            issued += usize::from(self.call(client, group, host));
        }
        self.report.events += issued as u64;
        if issued == 0 {
            self.workload.leaders[client][group] = members[self.random.index(members.len())];
        }
        let refused = if issued == 0 { 3 } else { self.workload.refused[client].min(6) };
        let longest = self.plan.think.max(self.plan.election_timeout_ms * MS / 8);
        let think = (self.plan.think << refused).min(longest);
        let pause = think + self.random.below(think + 1);
        self.after(pause, Event::Client(client));
        self.drain_outcomes()
    }

    /// Gives one command to a host, as `Node::apply` does. Says whether the host took it.
    fn call(&mut self, client: usize, group: usize, host: usize) -> bool {
        let key = group as u64 * 1000 + self.random.below(self.plan.keys);
        let id = self.workload.tasks.next_id();
        let op = match self.random.below(10) {
            0..=3 => RegisterOp::Write(id),
            4..=6 => RegisterOp::Read,
            7..=8 => RegisterOp::Add(1),
            _ => {
                RegisterOp::CompareAndSet { expected: self.random.range(id.saturating_sub(20), id), new: id }
            }
        };
        let expects = self.random.chance(50);
        let by_index = op == RegisterOp::Read && self.random.chance(self.plan.operators.read_index);
        self.ask(client, group, host, Question { key, op, by_index, expects })
    }

    /// Gives a command to a host, or asks it for a read by read index.
    pub(super) fn ask(&mut self, client: usize, group: usize, host: usize, question: Question) -> bool {
        let Question { key, op, by_index, expects } = question;
        let id = self.workload.tasks.next_id();
        let filling = self.random.below(self.plan.value_bytes) as usize;
        let leased = self.plan.operators.lease_reads && self.random.chance(700);
        let Some(process) = &mut self.hosts[host].process else { return false };
        let Some(handle) = process.handles[group] else { return false };
        let tasks = &mut process.tasks[worker_of(group)];
        if tasks.len() >= self.plan.apply_ring || process.stopping.is_some() {
            *self.report.marks.entry("task refused as busy").or_default() += 1;
            return false;
        }
        let command = Command { id, key, op };
        let term = if expects { process.lane.node(handle).map(|node| node.term()) } else { None };
        let done = Completion::sink(self.sink, id);
        tasks.push_back(if by_index {
            let mode = if leased { ReadOnlyOption::LeaseBased } else { ReadOnlyOption::Safe };
            LaneEvent::Read(ReadEvent { handle, mode, done })
        } else {
            LaneEvent::Apply(ApplyEvent::new(handle, term, command.encode(filling), done))
        });
        self.workload.tasks.called(client, group, command, by_index.then_some(host));
        self.workload.leaders[client][group] = host;
        self.wake(host, 0);
        true
    }

    /// Takes in what state machines have applied and what completions have said.
    pub(super) fn drain_outcomes(&mut self) -> Result<(), Violation> {
        if let Some(what) = self.outbox.broken.lock().pop() {
            return Err(broken("state-machine safety", what));
        }
        let applied = std::mem::take(&mut *self.outbox.applied.lock());
        for one in applied {
            self.report.commits += u64::from(self.workload.tasks.applied(one)?);
        }
        let outcomes = std::mem::take(&mut *self.outbox.outcomes.lock());
        for (id, outcome) in outcomes {
            if let (Ok((index, _)), Some(reader)) = (&outcome, self.workload.tasks.reader(id)) {
                self.answer_read(id, *index, reader)?;
                continue;
            }
            let completed = self.workload.tasks.completed(id, &outcome)?;
            let call = &self.workload.tasks.calls[id as usize - 1];
            let (client, group) = (call.client, call.group);
            let refused = &mut self.workload.refused[client];
            match completed {
                Completed::Answered => {
                    *refused = 0;
                    self.report.answered += 1;
                }
                Completed::Unknown => self.mark("outcome unknown"),
                Completed::Busy => {
                    *refused += 1;
                    self.mark("task refused as busy");
                }
                Completed::Refused(leader) => {
                    *refused += 1;
                    let leader = leader.and_then(|leader| self.hosts.iter().position(|h| h.peer == leader));
                    if let Some(host) = leader {
                        self.workload.leaders[client][group] = host;
                    }
                }
            }
        }
        Ok(())
    }

    /// A read by read index may be answered: the host's registers hold the answer.
    fn answer_read(&mut self, id: u64, index: LogIndex, reader: usize) -> Result<(), Violation> {
        let Command { key, .. } = self.workload.tasks.calls[id as usize - 1].command;
        let group = self.workload.tasks.calls[id as usize - 1].group;
        let registers = self.hosts[reader].process.as_ref().and_then(|p| p.registers[group].as_ref());
        let value = registers.and_then(|values| values.lock().get(&key).copied()).unwrap_or_default();
        let client = self.workload.tasks.read(id, index, value)?;
        self.workload.refused[client] = 0;
        self.report.answered += 1;
        self.mark("read by read index");
        Ok(())
    }

    /// Every register's history must have an order that explains it.
    pub(super) fn check_histories(&mut self) -> Result<(), Violation> {
        let mut histories: std::collections::BTreeMap<u64, Vec<Operation>> = Default::default();
        for call in &self.workload.tasks.calls {
            if call.outcome != Outcome::Refused {
                let Command { key, op, .. } = call.command;
                let operation = Operation { op, called: call.called, answered: call.answered };
                // A read that nobody heard of explains nothing and asks for nothing.
                if operation.answered.is_some() || op != RegisterOp::Read {
                    histories.entry(key).or_default().push(operation);
                }
            }
        }
        for (key, history) in histories {
            match check(&history, SEARCH_LIMIT) {
                Verdict::Linearizable => self.mark("history checked"),
                Verdict::Unknown => self.mark("history too hard to check"),
                Verdict::Broken => {
                    let what = format!(
                        "no order explains the {} operations on register {key}: {history:?}",
                        history.len()
                    );
                    return Err(broken("linearizability", what));
                }
            }
        }
        Ok(())
    }
}
