//! Clients: each asks one thing after another of some host, and what it is told is remembered.

use ringraft::handler::{ApplyEvent, LaneEvent, ReadEvent};
use ringraft::{ApplyError, Completion};
use ringraft_core::{LogIndex, ReadOnlyOption};

use super::machine::{Answer, Command};
use super::plan::MS;
use super::world::{Event, World, broken};
use crate::checkers::Violation;
use crate::linearizability::{Operation, RegisterOp, Verdict, check};

/// Steps of the search for one register's history; beyond it the history counts as unchecked.
const SEARCH_LIMIT: u64 = 400_000;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    Applied(LogIndex),
    /// A read by read index was answered.
    Read,
    /// It was refused for certain.
    Refused,
    Unknown,
}

/// One command that a client gave to a host.
pub(super) struct Call {
    pub(super) client: usize,
    pub(super) group: usize,
    pub(super) command: Command,
    pub(super) outcome: Outcome,
    /// The host whose state machine a read by read index asks.
    reader: Option<usize>,
    /// Where the first state machine applied it.
    pub(super) applied: Option<LogIndex>,
    /// The highest index that was acknowledged in the group before the call.
    floor: LogIndex,
    called: u64,
    answered: Option<(u64, u64)>,
}

/// The commands of one group's log as state machines applied them.
#[derive(Default)]
pub(super) struct GroupLog {
    /// Number of the command at each index; 0 where there is none.
    commands: Vec<u64>,
    /// Last index that each host's state machine has applied in its present life.
    pub(super) acknowledged: LogIndex,
}

#[derive(Default)]
pub(super) struct Workload {
    pub(super) calls: Vec<Call>,
    pub(super) logs: Vec<GroupLog>,
    /// The host that a client believes to lead, by client and group.
    leaders: Vec<Vec<usize>>,
    /// Refusals that each client has had since its last answer: it backs off.
    refused: Vec<u32>,
    moments: u64,
    pub(super) open: usize,
}

impl Workload {
    pub(super) fn new(clients: usize, groups: usize) -> Workload {
        Workload {
            logs: (0..groups).map(|_| GroupLog::default()).collect(),
            leaders: vec![vec![0; groups]; clients],
            refused: vec![0; clients],
            ..Workload::default()
        }
    }

    fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }
}

impl World {
    /// A client asks for something.
    pub(super) fn client(&mut self, client: usize) -> Result<(), Violation> {
        if !self.clients_run {
            return Ok(());
        }
        let group = self.random.index(self.plan.groups.len());
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
        let id = self.workload.calls.len() as u64 + 1;
        let op = match self.random.below(10) {
            0..=3 => RegisterOp::Write(id),
            4..=6 => RegisterOp::Read,
            7..=8 => RegisterOp::Add(1),
            _ => {
                RegisterOp::CompareAndSet { expected: self.random.range(id.saturating_sub(20), id), new: id }
            }
        };
        let filling = self.random.below(self.plan.value_bytes) as usize;
        let expects = self.random.chance(50);
        let by_index = op == RegisterOp::Read && self.random.chance(self.plan.operators.read_index);
        let leased = self.plan.operators.lease_reads && self.random.chance(700);
        let Some(process) = &mut self.hosts[host].process else { return false };
        let Some(handle) = process.handles[group] else { return false };
        if process.ring.len() >= self.plan.apply_ring || process.stopping.is_some() {
            *self.report.marks.entry("task refused as busy").or_default() += 1;
            return false;
        }
        let command = Command { id, key, op };
        let term = if expects { process.lane.node(handle).map(|node| node.term()) } else { None };
        let done = Completion::sink(self.sink, id);
        process.ring.push_back(if by_index {
            let mode = if leased { ReadOnlyOption::LeaseBased } else { ReadOnlyOption::Safe };
            LaneEvent::Read(ReadEvent { handle, mode, done })
        } else {
            LaneEvent::Apply(ApplyEvent::new(handle, term, command.encode(filling), done))
        });
        let called = self.workload.moment();
        let floor = self.workload.logs[group].acknowledged;
        let outcome = Outcome::Open;
        self.workload.open += 1;
        self.workload.calls.push(Call {
            client,
            group,
            command,
            outcome,
            reader: by_index.then_some(host),
            applied: None,
            floor,
            called,
            answered: None,
        });
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
            let call = &mut self.workload.calls[one.id as usize - 1];
            if call.outcome == Outcome::Refused {
                let what =
                    format!("command {} was refused for certain, and is applied at {}", one.id, one.index);
                return Err(broken("a refusal is definite", what));
            }
            if call.group != one.group || *call.applied.get_or_insert(one.index) != one.index {
                let what =
                    format!("command {} is applied at {:?} and at {}", one.id, call.applied, one.index);
                return Err(broken("applied once", what));
            }
            let log = &mut self.workload.logs[one.group].commands;
            let at = one.index as usize;
            if log.len() <= at {
                log.resize(at + 1, 0);
            }
            if log[at] == 0 {
                self.report.commits += 1;
                log[at] = one.id;
            } else if log[at] != one.id {
                let what =
                    format!("host {} applies {} at {at}, another applied {}", one.host, one.id, log[at]);
                return Err(broken("state-machine safety", what));
            }
        }
        let outcomes = std::mem::take(&mut *self.outbox.outcomes.lock());
        for (id, outcome) in outcomes {
            self.complete(id, outcome)?;
        }
        Ok(())
    }

    fn complete(&mut self, id: u64, outcome: Answer) -> Result<(), Violation> {
        let moment = self.workload.moment();
        let call = &mut self.workload.calls[id as usize - 1];
        if call.outcome != Outcome::Open {
            let what = format!("command {id} has the outcome {:?} and then {outcome:?}", call.outcome);
            return Err(broken("one outcome a task", what));
        }
        self.workload.open -= 1;
        let (client, group) = (call.client, call.group);
        if let (Ok((index, _)), Some(reader)) = (&outcome, call.reader) {
            if *index < call.floor {
                let what =
                    format!("read {id} at {index} of host {reader}, asked after {} was answered", call.floor);
                return Err(broken("linearizable reads", what));
            }
            let registers = self.hosts[reader].process.as_ref().and_then(|p| p.registers[group].as_ref());
            let value = registers.and_then(|values| values.lock().get(&call.command.key).copied());
            call.outcome = Outcome::Read;
            call.answered = Some((moment, value.unwrap_or_default()));
            self.workload.refused[client] = 0;
            self.report.answered += 1;
            self.mark("read by read index");
            return Ok(());
        }
        match outcome {
            Ok((index, response)) => {
                if call.applied != Some(index) {
                    let what = format!("command {id} is answered at {index}, applied at {:?}", call.applied);
                    return Err(broken("acknowledged when applied", what));
                }
                if index <= call.floor {
                    let what =
                        format!("command {id} stands at {index}, called after {} was answered", call.floor);
                    return Err(broken("real-time order", what));
                }
                let Some(Ok(number)) = response.get(..8).map(<[u8; 8]>::try_from) else {
                    return Err(broken("acknowledged when applied", format!("command {id} has no answer")));
                };
                call.outcome = Outcome::Applied(index);
                self.workload.refused[client] = 0;
                call.answered = Some((moment, u64::from_le_bytes(number)));
                let log = &mut self.workload.logs[group];
                log.acknowledged = log.acknowledged.max(index);
                self.report.answered += 1;
            }
            Err(ApplyError::Unknown(_)) => {
                call.outcome = Outcome::Unknown;
                self.mark("outcome unknown");
            }
            Err(error) => {
                if let Some(index) = call.applied {
                    let what =
                        format!("command {id} is applied at {index}, and refused for certain: {error}");
                    return Err(broken("a refusal is definite", what));
                }
                call.outcome = Outcome::Refused;
                self.workload.refused[client] += 1;
                match &error {
                    ApplyError::NotLeader { leader: Some(leader) } => {
                        if let Some(host) = self.hosts.iter().position(|host| host.peer == *leader) {
                            self.workload.leaders[client][group] = host;
                        }
                    }
                    ApplyError::Busy => self.mark("task refused as busy"),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Every register's history must have an order that explains it.
    pub(super) fn check_histories(&mut self) -> Result<(), Violation> {
        let mut histories: std::collections::BTreeMap<u64, Vec<Operation>> = Default::default();
        for call in &self.workload.calls {
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
                    let what =
                        format!("no order explains the {} operations on register {key}", history.len());
                    return Err(broken("linearizability", what));
                }
            }
        }
        Ok(())
    }
}
