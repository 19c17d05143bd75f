//! Each task has one outcome, and the outcome is true: what was refused is never applied, what is applied is applied once and at
//! one place, an answer follows its application, and later calls stand behind earlier answers. Shows rule O3.

use ringraft::ApplyError;
use ringraft_core::{LogIndex, PeerId};

use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::machine::{Answer, AppliedCommand, Command};

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Outcome {
    Open,
    Applied(LogIndex),
    /// A read by read index was answered.
    Read,
    /// It was refused for certain.
    Refused,
    Unknown,
}

/// One command that a client gave to a host.
pub(in crate::cluster) struct Call {
    pub(in crate::cluster) client: usize,
    pub(in crate::cluster) group: usize,
    pub(in crate::cluster) command: Command,
    pub(in crate::cluster) outcome: Outcome,
    /// The host whose state machine a read by read index asks.
    reader: Option<usize>,
    /// Where the first state machine applied it.
    applied: Option<LogIndex>,
    /// The highest index that was acknowledged in the group before the call.
    floor: LogIndex,
    pub(in crate::cluster) called: u64,
    pub(in crate::cluster) answered: Option<(u64, u64)>,
}

/// What a client learned.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Completed {
    Answered,
    Unknown,
    Busy,
    /// Refused; perhaps with a hint who leads.
    Refused(Option<PeerId>),
}

/// The commands of one group's log as state machines applied them.
#[derive(Default)]
struct GroupLog {
    /// Number of the command at each index; 0 where there is none.
    commands: Vec<u64>,
    acknowledged: LogIndex,
}

/// Every call of a world.
pub(in crate::cluster) struct Tasks {
    pub(in crate::cluster) calls: Vec<Call>,
    logs: Vec<GroupLog>,
    moments: u64,
    open: usize,
}

impl Tasks {
    pub(in crate::cluster) fn new(groups: usize) -> Tasks {
        let logs = (0..groups).map(|_| GroupLog::default()).collect();
        Tasks { calls: Vec::new(), logs, moments: 0, open: 0 }
    }

    /// The number of the next command.
    pub(in crate::cluster) fn next_id(&self) -> u64 {
        self.calls.len() as u64 + 1
    }

    /// Calls without an outcome.
    pub(in crate::cluster) fn open(&self) -> usize {
        self.open
    }

    fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }

    /// A host has taken the command, whose number must be the next.
    pub(in crate::cluster) fn called(
        &mut self,
        client: usize,
        group: usize,
        command: Command,
        reader: Option<usize>,
    ) {
        debug_assert_eq!(command.id, self.next_id());
        let called = self.moment();
        let floor = self.logs[group].acknowledged;
        let outcome = Outcome::Open;
        self.open += 1;
        self.calls.push(Call {
            client,
            group,
            command,
            outcome,
            reader,
            applied: None,
            floor,
            called,
            answered: None,
        });
    }

    /// A state machine has applied a command. Says whether it is the first to apply anything there.
    ///
    /// # Errors
    /// It must not have.
    pub(in crate::cluster) fn applied(&mut self, one: AppliedCommand) -> Result<bool, Violation> {
        let Some(call) = (one.id as usize).checked_sub(1).and_then(|at| self.calls.get_mut(at)) else {
            return Err(broken("applied once", format!("command {} was never given", one.id)));
        };
        if call.outcome == Outcome::Refused {
            let what = format!("command {} was refused for certain, and is applied at {}", one.id, one.index);
            return Err(broken("a refusal is definite", what));
        }
        if call.group != one.group || *call.applied.get_or_insert(one.index) != one.index {
            let what = format!("command {} is applied at {:?} and at {}", one.id, call.applied, one.index);
            return Err(broken("applied once", what));
        }
        let log = &mut self.logs[one.group].commands;
        let at = one.index as usize;
        if log.len() <= at {
            log.resize(at + 1, 0);
        }
        if log[at] != 0 && log[at] != one.id {
            let what = format!("host {} applies {} at {at}, another applied {}", one.host, one.id, log[at]);
            return Err(broken("state-machine safety", what));
        }
        Ok(std::mem::replace(&mut log[at], one.id) == 0)
    }

    /// The host that a read by read index asks; `None` for a command.
    pub(in crate::cluster) fn reader(&self, id: u64) -> Option<usize> {
        self.calls[id as usize - 1].reader
    }

    /// A read by read index is answered with `value`; gives the client.
    ///
    /// # Errors
    /// It was answered before, or from a state that lacks what was acknowledged before it was asked.
    pub(in crate::cluster) fn read(
        &mut self,
        id: u64,
        index: LogIndex,
        value: u64,
    ) -> Result<usize, Violation> {
        let moment = self.moment();
        let call = &mut self.calls[id as usize - 1];
        if call.outcome != Outcome::Open {
            let what = format!("read {id} has the outcome {:?} and then an answer", call.outcome);
            return Err(broken("one outcome a task", what));
        }
        if index < call.floor {
            let what = format!("read {id} at {index}, asked after {} was answered", call.floor);
            return Err(broken("linearizable reads", what));
        }
        self.open -= 1;
        call.outcome = Outcome::Read;
        call.answered = Some((moment, value));
        Ok(call.client)
    }

    /// A client is told what became of its command.
    ///
    /// # Errors
    /// It must not be told that.
    pub(in crate::cluster) fn completed(
        &mut self,
        id: u64,
        outcome: &Answer,
    ) -> Result<Completed, Violation> {
        let moment = self.moment();
        let call = &mut self.calls[id as usize - 1];
        if call.outcome != Outcome::Open {
            let what = format!("command {id} has the outcome {:?} and then {outcome:?}", call.outcome);
            return Err(broken("one outcome a task", what));
        }
        self.open -= 1;
        let group = call.group;
        match outcome {
            Ok((index, response)) => {
                if call.applied != Some(*index) {
                    let what = format!("command {id} is answered at {index}, applied at {:?}", call.applied);
                    return Err(broken("acknowledged when applied", what));
                }
                if *index <= call.floor {
                    let what =
                        format!("command {id} stands at {index}, called after {} was answered", call.floor);
                    return Err(broken("real-time order", what));
                }
                let Some(Ok(number)) = response.get(..8).map(<[u8; 8]>::try_from) else {
                    return Err(broken("acknowledged when applied", format!("command {id} has no answer")));
                };
                call.outcome = Outcome::Applied(*index);
                call.answered = Some((moment, u64::from_le_bytes(number)));
                let log = &mut self.logs[group];
                log.acknowledged = log.acknowledged.max(*index);
                Ok(Completed::Answered)
            }
            Err(ApplyError::Unknown(_)) => {
                call.outcome = Outcome::Unknown;
                Ok(Completed::Unknown)
            }
            Err(error) => {
                if let Some(index) = call.applied {
                    let what =
                        format!("command {id} is applied at {index}, and refused for certain: {error}");
                    return Err(broken("a refusal is definite", what));
                }
                call.outcome = Outcome::Refused;
                Ok(match error {
                    ApplyError::Busy => Completed::Busy,
                    ApplyError::NotLeader { leader } => Completed::Refused(leader.clone()),
                    _ => Completed::Refused(None),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::linearizability::RegisterOp;

    fn with_calls(count: u64) -> Tasks {
        let mut tasks = Tasks::new(2);
        for id in 1..=count {
            tasks.called(0, 0, Command { id, key: 0, op: RegisterOp::Read }, None);
        }
        tasks
    }

    fn at(host: usize, index: u64, id: u64) -> AppliedCommand {
        AppliedCommand { host, group: 0, index, id }
    }

    fn answer(index: u64) -> Answer {
        Ok((index, Bytes::from_static(&[0; 8])))
    }

    fn rule<T: std::fmt::Debug>(result: Result<T, Violation>) -> &'static str {
        result.unwrap_err().checker
    }

    #[test]
    fn reads_see_what_was_acknowledged() {
        let mut tasks = with_calls(1);
        assert_eq!(tasks.applied(at(0, 5, 1)), Ok(true));
        assert_eq!(tasks.completed(1, &answer(5)), Ok(Completed::Answered));
        tasks.called(3, 0, Command { id: 2, key: 0, op: RegisterOp::Read }, Some(1));
        assert_eq!(tasks.reader(2), Some(1));
        assert_eq!(rule(tasks.read(2, 4, 0)), "linearizable reads");
        assert_eq!(tasks.read(2, 5, 0), Ok(3));
        assert_eq!(rule(tasks.read(2, 5, 0)), "one outcome a task");
        assert_eq!(tasks.open(), 0);
    }

    #[test]
    fn one_outcome_and_a_true_one() {
        let mut tasks = with_calls(3);
        assert_eq!(rule(tasks.completed(1, &answer(5))), "acknowledged when applied");
        let mut tasks = with_calls(3);
        assert_eq!(tasks.applied(at(0, 5, 1)), Ok(true));
        assert_eq!(tasks.applied(at(1, 5, 1)), Ok(false));
        assert_eq!(tasks.completed(1, &answer(5)), Ok(Completed::Answered));
        assert_eq!(tasks.open(), 2);
        assert_eq!(rule(tasks.completed(1, &Err(ApplyError::Busy))), "one outcome a task");
        assert_eq!(rule(tasks.applied(at(0, 6, 1))), "applied once");
        assert_eq!(rule(tasks.applied(at(0, 5, 2))), "state-machine safety");
        assert_eq!(rule(tasks.applied(at(0, 7, 9))), "applied once");
        let short = Ok((8, Bytes::new()));
        assert_eq!(tasks.applied(at(0, 8, 3)), Ok(true));
        assert_eq!(rule(tasks.completed(3, &short)), "acknowledged when applied");
    }

    #[test]
    fn a_refusal_is_definite() {
        let mut tasks = with_calls(2);
        assert_eq!(tasks.completed(1, &Err(ApplyError::Busy)), Ok(Completed::Busy));
        assert_eq!(rule(tasks.applied(at(0, 1, 1))), "a refusal is definite");
        assert_eq!(tasks.applied(at(0, 1, 2)), Ok(true));
        let refused = Err(ApplyError::NotLeader { leader: None });
        assert_eq!(rule(tasks.completed(2, &refused)), "a refusal is definite");
    }

    #[test]
    fn later_calls_stand_behind_earlier_answers() {
        let mut tasks = with_calls(1);
        assert_eq!(tasks.applied(at(0, 5, 1)), Ok(true));
        assert!(tasks.completed(1, &answer(5)).is_ok());
        tasks.called(0, 0, Command { id: 2, key: 0, op: RegisterOp::Read }, None);
        assert_eq!(tasks.applied(at(0, 4, 2)), Ok(true));
        assert_eq!(rule(tasks.completed(2, &answer(4))), "real-time order");
    }
}
