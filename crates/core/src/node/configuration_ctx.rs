//! The change of members that a leader is carrying out (SOFAJRaft's `ConfigurationCtx`): how far it is, and who is told.

use crate::effects::{CallFailure, CallOutcome, CallToken, Effects};
use crate::peer::{Configuration, ConfigurationEntry, PeerId};
use crate::rules;
use crate::stage::{Stage, StageEvent};
use crate::status::{RaftError, Status};
use crate::transitions;
use crate::types::{LogIndex, Time};

/// A new voter on its way to its vote.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub(super) peer: PeerId,
    /// End of the present round.
    pub(super) deadline: Time,
    /// What it held when the round began.
    pub(super) held: LogIndex,
    /// How many entries it lacked at the end of its best round.
    pub(super) lacked: LogIndex,
    pub(super) is_first_round: bool,
    pub(super) rounds_without_progress: u32,
    /// It was near enough at some time in this round.
    pub(super) was_near: bool,
}

/// The change that this leader is carrying out.
#[derive(Debug, Default)]
pub(crate) struct ConfigurationCtx {
    pub(super) stage: Stage,
    /// Who asked; nobody when the change is that of an earlier leader.
    pub(super) call: Option<CallToken>,
    pub(super) old: Configuration,
    pub(super) new: Configuration,
    pub(super) catching_up: Vec<CatchUp>,
    /// Rounds in which each new voter was near enough at some time, and never all at once.
    pub(super) rounds_apart: u32,
    /// The entry that must be committed to go on.
    pub(super) entry: LogIndex,
    /// When who asked is told that this has not come about.
    pub(super) deadline: Option<Time>,
}

impl ConfigurationCtx {
    /// A change of `old` to `new` that begins: the new voters catch up first.
    pub(super) fn begin(
        &mut self,
        call: CallToken,
        old: Configuration,
        new: Configuration,
        catching_up: Vec<CatchUp>,
    ) {
        let begun =
            ConfigurationCtx { call: Some(call), old, new, catching_up, ..ConfigurationCtx::default() };
        self.replace(StageEvent::Begin, ConfigurationCtx { stage: Stage::CatchingUp, ..begun });
    }

    /// The change of an earlier leader, as far as its entry in the log says; nothing when there is none to finish.
    pub(super) fn inherit(&mut self, entry: &ConfigurationEntry, stage: Stage) {
        let event = match stage {
            Stage::Joint => StageEvent::InheritJoint,
            Stage::Stable => StageEvent::InheritRemoval,
            Stage::None | Stage::CatchingUp => return,
        };
        let (old, new, entry) = (entry.old_conf.clone(), entry.conf.clone(), entry.id.index);
        self.replace(event, ConfigurationCtx { stage, old, new, entry, ..ConfigurationCtx::default() });
    }

    /// The configuration of `stage` is logged, as entry `entry`, and is to be committed until `deadline`.
    pub(super) fn logged(&mut self, stage: Stage, entry: LogIndex, deadline: Time) {
        let event = if stage == Stage::Joint { StageEvent::LogJoint } else { StageEvent::LogNew };
        transitions::check(event, self.stage, stage);
        self.stage = stage;
        self.entry = entry;
        self.deadline = Some(deadline);
        self.catching_up.clear();
    }

    /// When the change wants to look at the time next: at the end of a new voter's round, or of what a step may take.
    pub(super) fn deadline(&self) -> Option<Time> {
        let rounds = self.catching_up.iter().map(|c| c.deadline);
        rounds.chain(self.deadline.filter(|_| self.call.is_some())).min()
    }

    /// Tells who asked when what is logged has not been committed in its time, `patience_ms`. The change itself goes on: it is in the log, and
    /// neither this leader nor a later one can take it back. A call without an end would tell an operator less.
    pub(super) fn tell_of_standstill(&mut self, now: Time, patience_ms: u64, fx: &mut Effects) {
        if !self.deadline.is_some_and(|at| rules::membership::waits_no_longer(at, now)) {
            return;
        }
        self.deadline = None;
        let Some(call) = rules::membership::told_of_change(self.call.take()) else { return };
        let message = format!(
            "entry {}, which makes {} the members, is logged and was not committed within {patience_ms} ms: disks or links of members stand \
             still. The change goes on and may take effect yet; see how far it is before asking again",
            self.entry, self.new
        );
        let failure = CallFailure::Unknown(Status::new(RaftError::TimedOut, message));
        fx.calls.push(CallOutcome { call, result: Err(failure) });
    }

    /// Ends the change by `event`, and gives back what it was.
    pub(super) fn end(&mut self, event: StageEvent) -> ConfigurationCtx {
        self.replace(event, ConfigurationCtx::default())
    }

    fn replace(&mut self, event: StageEvent, ctx: ConfigurationCtx) -> ConfigurationCtx {
        transitions::check(event, self.stage, ctx.stage);
        std::mem::replace(self, ctx)
    }

    /// Tells who asked that the change is over, though it was not finished. What is logged may be finished by another leader.
    pub(super) fn tell_of_end(self, status: &Status, fx: &mut Effects) {
        let Some(call) = rules::membership::told_of_change(self.call) else { return };
        let failure = match self.stage {
            Stage::Joint | Stage::Stable => CallFailure::Unknown(status.clone()),
            Stage::None | Stage::CatchingUp => CallFailure::Failed(status.clone()),
        };
        fx.calls.push(CallOutcome { call, result: Err(failure) });
    }

    /// How far the change is, for people; `None` without one.
    pub(crate) fn describe(&self) -> Option<String> {
        let waits = |c: &CatchUp| format!("{} holds {}", c.peer, c.held);
        match self.stage {
            Stage::None => None,
            Stage::CatchingUp => {
                let peers: Vec<String> = self.catching_up.iter().map(waits).collect();
                Some(format!("CATCHING_UP to {}: {}", self.new, peers.join(", ")))
            }
            Stage::Joint => Some(format!("JOINT at {}, to {}", self.entry, self.new)),
            Stage::Stable => Some(format!("STABLE at {}, to {}", self.entry, self.new)),
        }
    }
}
