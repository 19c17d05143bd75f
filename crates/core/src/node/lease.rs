//! Leases of leaders, and the promises of voters on which they stand (thesis §6.4.1).

use crate::effects::{Effects, LogOp};
use crate::electorate::Electorate;
use crate::message::{AppendEntriesRequest, Extensions};
use crate::node::NodeImpl;
use crate::peer::PeerId;
use crate::replicator::Replicator;
use crate::replicator_group::Slot;
use crate::rules;
use crate::types::Time;

/// Whether both majorities have promised to elect nobody else for longer than `now`, where `known` is what the leader knows of a member.
fn lease_runs<'a, M: Copy>(
    members: &Electorate<M>,
    is_own: impl Fn(M) -> bool,
    known: impl Fn(M) -> Option<&'a Replicator>,
    now: Time,
) -> bool {
    // A voter of which it is known that it promises nothing, such as a Java peer.
    let refused = members.votes().any(|member| known(*member).is_some_and(|r| r.refuses_promise));
    let promised = |member| match is_own(member) {
        true => Some(Time(u64::MAX)),
        false => known(member).filter(|r| r.counts()).and_then(|r| r.promised_until),
    };
    let promised = if refused { None } else { rules::quorum::promises(members, promised) };
    rules::reads::lease_runs(promised, now)
}

impl NodeImpl {
    /// Whether a quorum has promised, for long enough from now, to elect nobody else. Counted from when the requests were *sent*.
    pub(super) fn lease_is_valid(&mut self, now: Time) -> bool {
        let leader = self.role.leadership_mut().filter(|_| self.options.lease_reads);
        let Some(leader) = leader else { return false };
        if !rules::reads::may_rely_on_lease(leader.transfer.is_some(), leader.lease_is_over) {
            return false;
        }
        let count = leader.replicators.count(&self.log, &self.options.server_id);
        lease_runs(count.electorate, |slot| slot == Slot::Own, |slot| count.replicator(slot), now)
    }

    /// As [`lease_is_valid`](Self::lease_is_valid), by name: for those who only look on.
    pub(super) fn lease_seen_from_outside(&self, now: Time) -> bool {
        let Some(leader) = self.role.leadership().filter(|_| self.options.lease_reads) else { return false };
        let members = Electorate::of(self.log.configuration(), |peer| peer);
        let is_own = |peer: &PeerId| *peer == self.options.server_id;
        rules::reads::may_rely_on_lease(leader.transfer.is_some(), leader.lease_is_over)
            && lease_runs(&members, is_own, |peer| leader.replicators.get(peer), now)
    }

    /// The longest promise that this node gives with its options, in milliseconds; 0 for none.
    fn longest_promise(&self) -> u64 {
        if self.options.lease_reads { self.options.election_timeout_ms } else { 0 }
    }

    /// A voter's side of the lease: until then it helps nobody but who was ordered by the leader, and does not campaign. That is one
    /// election time-out after a leader's message, and after its own start as long as it ever promised.
    pub(super) fn promise_end(&self) -> Time {
        let own = self.longest_promise();
        let after_start =
            self.started_at.after_millis(rules::reads::bound_after_start(self.promise_at_start, own));
        let after_leader = self.promised_at.map(|at| at.after_millis(own));
        rules::reads::promise_ends(after_start, after_leader)
    }

    /// Whether the node is bound by a promise.
    pub(super) fn keeps_promise(&self, now: Time) -> bool {
        now < self.promise_end()
    }

    /// Gives the leader that wants it a promise, in milliseconds; 0 for none. One that is longer than any before is written down first:
    /// a later life of this process, with other options perhaps, must keep it.
    pub(super) fn promise(&mut self, request: &AppendEntriesRequest, fx: &mut Effects) -> u64 {
        if !request.extensions.contains(Extensions::PROMISE) {
            return 0;
        }
        let promised = request.promise_wanted.min(self.longest_promise());
        if promised > self.promised_ms {
            self.promised_ms = promised;
            fx.log.push(LogOp::Promise { ms: promised });
        }
        promised
    }

    /// Whether a promise that is given now could be forgotten.
    pub(super) fn promise_unstable(&self, fx: &Effects) -> bool {
        self.promise_sequence > self.log.persisted_sequence()
            || fx.log.iter().any(|op| matches!(op, LogOp::Promise { .. }))
    }
}
