//! Calls of one group that wait for their end: numbered, and ended exactly once.

use ringraft_core::{CallFailure, CallOutcome, CallToken, PeerId, RaftError, ReadOnlyOption, Status};
use rustc_hash::FxHashMap;

use crate::handler::{CallResult, FsmTask, GroupHandle};
use crate::task::completion::{ApplyError, Completion};
use crate::task::promise::Promise;

/// Who waits for a call.
enum Waiting {
    Read(Completion),
    Call(Promise<CallResult>),
}

/// Calls of one group that have not ended.
#[derive(Default)]
pub(super) struct WaitingCalls {
    last: u64,
    waiting: FxHashMap<CallToken, Waiting>,
    /// Reads of this turn, which share a round.
    safe: Vec<Completion>,
    leased: Vec<Completion>,
}

impl WaitingCalls {
    /// The reads of this turn, for this way of making sure of the leader.
    pub(super) fn reads_of_turn(&mut self, mode: ReadOnlyOption) -> &mut Vec<Completion> {
        match mode {
            ReadOnlyOption::Safe => &mut self.safe,
            ReadOnlyOption::LeaseBased => &mut self.leased,
        }
    }

    /// A read that is about to be given to the node.
    pub(super) fn insert_read(&mut self, read: Completion) -> CallToken {
        self.insert(Waiting::Read(read))
    }

    /// Another call that is about to be given to the node.
    pub(super) fn insert_call(&mut self, answer: Promise<CallResult>) -> CallToken {
        self.insert(Waiting::Call(answer))
    }

    fn insert(&mut self, waiting: Waiting) -> CallToken {
        self.last += 1;
        self.waiting.insert(CallToken(self.last), waiting);
        CallToken(self.last)
    }

    /// The reads of these calls.
    pub(super) fn take_reads(&mut self, calls: &[CallToken]) -> Vec<Completion> {
        let read = |call: &CallToken| match self.waiting.remove(call)? {
            Waiting::Read(completion) => Some(completion),
            Waiting::Call(_) => None,
        };
        calls.iter().filter_map(read).collect()
    }

    /// Everything that waits: reads, and other calls, which learn by that that there is no outcome.
    pub(super) fn take_all(&mut self) -> (Vec<Completion>, Vec<Promise<CallResult>>) {
        let mut reads = std::mem::take(&mut self.safe);
        reads.append(&mut self.leased);
        let (mut tokens, mut calls) =
            (std::mem::take(&mut self.waiting).into_iter().collect::<Vec<_>>(), Vec::new());
        tokens.sort_unstable_by_key(|(token, _)| *token);
        for (_, waiting) in tokens {
            match waiting {
                Waiting::Read(completion) => reads.push(completion),
                Waiting::Call(promise) => calls.push(promise),
            }
        }
        (reads, calls)
    }

    /// Ends calls as the node says, whose leader is `leader`.
    pub(super) fn end(
        &mut self,
        handle: GroupHandle,
        leader: Option<&PeerId>,
        outcomes: impl Iterator<Item = CallOutcome>,
        tasks: &mut Vec<FsmTask>,
    ) {
        for CallOutcome { call, result } in outcomes {
            match self.waiting.remove(&call) {
                Some(Waiting::Call(promise)) => promise.fulfil(result),
                Some(Waiting::Read(completion)) => {
                    let error = match result {
                        Err(CallFailure::Failed(status) | CallFailure::Unknown(status)) => {
                            refusal(leader, status)
                        }
                        Ok(_) => ApplyError::ReadFailed(Status::new(
                            RaftError::Internal,
                            "a read has another outcome",
                        )),
                    };
                    match tasks.last_mut() {
                        Some(FsmTask::Fail { handle: last, completions, error: same })
                            if *last == handle && *same == error =>
                        {
                            completions.push(completion);
                        }
                        _ => tasks.push(FsmTask::Fail { handle, completions: vec![completion], error }),
                    }
                }
                None => debug_assert!(false, "a call ends once"),
            }
        }
    }
}

fn refusal(leader: Option<&PeerId>, status: Status) -> ApplyError {
    match status.error {
        RaftError::NotPermitted => ApplyError::NotLeader { leader: leader.cloned() },
        RaftError::Busy => ApplyError::Busy,
        RaftError::NodeShutdown => ApplyError::Shutdown,
        _ => ApplyError::ReadFailed(status),
    }
}
