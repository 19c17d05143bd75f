//! Handing leadership over (thesis §3.10; SOFAJRaft's `transferLeadershipTo` and `wakeupCandidate`).

use crate::effects::{CallDone, CallFailure, CallOutcome, CallToken, Effects, FsmEvent, Send, Ticket};
use crate::message::{RaftRequest, TimeoutNowRequest, TimeoutNowResponse};
use crate::node::NodeImpl;
use crate::peer::PeerId;
use crate::rules;
use crate::status::{RaftError, Status};
use crate::types::{Term, Time};

/// A transfer that is under way: the leader is [`NodeState::Transferring`](crate::NodeState::Transferring) as long as there is one.
#[derive(Debug)]
pub(crate) struct Transfer {
    call: CallToken,
    to: PeerId,
    deadline: Time,
    /// The order to campaign, once it was sent.
    ordered: Option<Ticket>,
}

/// A transfer that has ended this node's leadership: who asked for it is told when somebody leads.
#[derive(Debug)]
pub(super) struct HandedOver {
    call: CallToken,
    to: PeerId,
    deadline: Time,
}

impl NodeImpl {
    /// When the transfer is given up, or waiting for who leads after it.
    pub(super) fn transfer_deadline(&self) -> Option<Time> {
        let waits = self.handed_over.as_ref().map(|handed_over| handed_over.deadline);
        self.role.transfer().map(|transfer| transfer.deadline).or(waits)
    }

    pub(super) fn handle_transfer_leadership(
        &mut self,
        now: Time,
        call: CallToken,
        to: Option<PeerId>,
        fx: &mut Effects,
    ) {
        let refuse = |status: Status, fx: &mut Effects| {
            fx.calls.push(CallOutcome { call, result: Err(CallFailure::Failed(status)) });
        };
        if let Some(Transfer { to, .. }) = self.role.transfer() {
            let message = format!("leadership is being transferred to {to} already");
            return refuse(Status::new(RaftError::Busy, message), fx);
        }
        if !self.role.leads() {
            return refuse(self.not_leader(), fx);
        }
        if self.change_is_under_way() {
            let message = "members are being changed; transfer leadership when that is over";
            return refuse(Status::new(RaftError::Busy, message), fx);
        }
        let to = match to.or_else(|| self.best_candidate()) {
            Some(to) => to,
            None => {
                let message = "no other voter that may lead is known to follow";
                return refuse(Status::new(RaftError::Invalid, message), fx);
            }
        };
        if to == self.options.server_id {
            let done = CallDone::Transferred { term: self.hard_state.term };
            fx.calls.push(CallOutcome { call, result: Ok(done) });
            return;
        }
        if !self.log.configuration().is_voter(&to) {
            let message = format!("{to} is no voter of the group: {}", self.log.configuration().conf);
            return refuse(Status::new(RaftError::Invalid, message), fx);
        }
        tracing::info!(group = %self.options.group_id, node = %self.options.server_id, %to, "transfers leadership");
        let deadline = now.after_millis(self.options.election_timeout_ms);
        if self.role.leadership_mut().is_some_and(|leader| std::mem::take(&mut leader.announced)) {
            let message = format!("leadership is being transferred to {to}");
            fx.fsm.push(FsmEvent::LeaderStop { status: Status::new(RaftError::TransferLeadership, message) });
        }
        self.role.begin_transfer(Transfer { call, to, deadline, ordered: None });
        self.advance_transfer(fx);
    }

    /// Orders the new leader to campaign once it has everything: nothing is proposed meanwhile.
    pub(super) fn advance_transfer(&mut self, fx: &mut Effects) {
        let last_index = self.log.last_id().index;
        let Some(transfer) = self.role.transfer().filter(|t| t.ordered.is_none()) else { return };
        let held = self.role.replicators().get(&transfer.to).map(|r| r.match_index);
        if rules::transfer::may_order(held, last_index) {
            let to = transfer.to.clone();
            let ticket = self.order_to_campaign(to, fx);
            if let Some(transfer) = self.role.leadership_mut().and_then(|leader| leader.transfer.as_mut()) {
                transfer.ordered = Some(ticket);
            }
        }
    }

    /// From now on until the end of the term somebody may campaign by this leader's own order, however late it comes (raft-rs#234). A
    /// transfer that comes to nothing before the order costs no lease: voters keep their promises.
    fn end_lease(&mut self) {
        if let Some(leader) = self.role.leadership_mut() {
            leader.lease_is_over = true;
        }
    }

    fn order_to_campaign(&mut self, to: PeerId, fx: &mut Effects) -> Ticket {
        let ticket = self.next_ticket();
        self.end_lease();
        let request = RaftRequest::TimeoutNow(TimeoutNowRequest { term: self.hard_state.term });
        let timeout_ms = u32::try_from(self.options.election_timeout_ms).unwrap_or(u32::MAX);
        fx.sends.push(Send { to, ticket, request, after_durable: false, timeout_ms });
        ticket
    }

    /// The voter with most of the log, by priority among equals and then by [`CoreOptions::successor`](crate::CoreOptions::successor);
    /// never one of priority 0.
    pub(super) fn best_candidate(&self) -> Option<PeerId> {
        let conf = self.log.configuration();
        let may_lead =
            |peer: &PeerId| conf.voters().find(|voter| *voter == peer).is_some_and(|v| v.priority() != 0);
        let follows = self
            .role
            .replicators()
            .iter()
            .filter(|r| r.acknowledged.is_some() && r.rejoining.is_none() && may_lead(&r.peer));
        let priority = |peer: &PeerId| conf.voters().find(|voter| *voter == peer).map_or(0, PeerId::priority);
        let fit: Vec<_> = follows.map(|r| ((r.match_index, priority(&r.peer)), &r.peer)).collect();
        let best = fit.iter().map(|(fitness, _)| *fitness).max()?;
        let equals: Vec<&PeerId> =
            fit.iter().filter(|(fitness, _)| *fitness == best).map(|(_, peer)| *peer).collect();
        equals.get(position_of_successor(self.options.successor, equals.len())).map(|peer| (*peer).clone())
    }

    /// A leader that is about to step down of its own accord spares its followers the wait.
    pub(super) fn hand_over(&mut self, fx: &mut Effects) {
        if !self.role.leads() {
            return;
        }
        if let Some(to) = self.best_candidate() {
            tracing::info!(group = %self.options.group_id, node = %self.options.server_id, %to, "hands leadership over");
            self.order_to_campaign(to, fx);
        }
    }

    /// The order was answered.
    pub(super) fn handle_timeout_now_response(
        &mut self,
        now: Time,
        from: &PeerId,
        ticket: Ticket,
        response: TimeoutNowResponse,
        fx: &mut Effects,
    ) {
        // Its candidacy may still fail, but this leader has nothing more to say in its term.
        if self.step_down_if_higher(now, response.term, RaftError::TransferLeadership, fx) {
            return;
        }
        if !response.success && self.role.transfer().is_some_and(|t| t.ordered == Some(ticket)) {
            self.resume_leadership(
                Status::new(RaftError::Invalid, format!("{from} refuses to campaign")),
                fx,
            );
        }
    }

    /// The order could not be delivered, as far as is known. Says whether it was one.
    pub(super) fn timeout_now_failed(&mut self, ticket: Ticket, status: &Status, fx: &mut Effects) -> bool {
        if self.role.transfer().is_none_or(|t| t.ordered != Some(ticket)) {
            return false;
        }
        self.resume_leadership(status.clone(), fx);
        true
    }

    pub(super) fn handle_transfer_timeout(&mut self, now: Time, fx: &mut Effects) {
        if let Some(ended) = self.handed_over.take_if(|handed_over| handed_over.deadline <= now) {
            let message = format!(
                "{} was ordered to campaign, and nobody was heard to lead within {} ms since",
                ended.to, self.options.election_timeout_ms
            );
            let failure = CallFailure::Unknown(Status::new(RaftError::TimedOut, message));
            fx.calls.push(CallOutcome { call: ended.call, result: Err(failure) });
        }
        let Some(transfer) = self.role.transfer().filter(|t| t.deadline <= now) else { return };
        let message = format!(
            "{} did not take leadership over within {} ms; see whether it is up and follows",
            transfer.to, self.options.election_timeout_ms
        );
        self.resume_leadership(Status::new(RaftError::TimedOut, message), fx);
    }

    /// The transfer has failed: this node goes on leading, without its lease.
    fn resume_leadership(&mut self, status: Status, fx: &mut Effects) {
        let Some(transfer) = self.role.end_transfer() else { return };
        tracing::warn!(group = %self.options.group_id, node = %self.options.server_id, to = %transfer.to, %status,
            "transfer failed, leads on");
        let ordered = transfer.ordered.is_some();
        // Once ordered, the target may campaign whatever is heard of it.
        let failure = if ordered { CallFailure::Unknown(status) } else { CallFailure::Failed(status) };
        fx.calls.push(CallOutcome { call: transfer.call, result: Err(failure) });
        if let Some(leader) = self.role.leadership_mut().filter(|l| l.first_index() <= self.delivered) {
            leader.announced = true;
            fx.fsm.push(FsmEvent::LeaderStart { term: self.hard_state.term });
        }
    }

    /// Leadership is over, and with it the transfer that was under way. When somebody is in a higher `term` it may be the target, or
    /// another that raised it: which of them leads will be heard.
    pub(super) fn tell_of_transfer(
        &mut self,
        now: Time,
        ended: Option<Transfer>,
        term: Term,
        status: &Status,
        fx: &mut Effects,
    ) {
        let Some(Transfer { call, to, ordered, .. }) = ended else { return };
        let Some(call) = rules::transfer::told_of_transfer(call) else { return };
        if ordered.is_some() && term > self.hard_state.term {
            let deadline = now.after_millis(self.options.election_timeout_ms);
            self.handed_over = Some(HandedOver { call, to, deadline });
            return;
        }
        // Without an order nobody has campaigned because of it.
        let failure = match ordered {
            Some(_) => CallFailure::Unknown(status.clone()),
            None => CallFailure::Failed(status.clone()),
        };
        fx.calls.push(CallOutcome { call, result: Err(failure) });
    }

    /// Somebody leads the present term: a transfer is done when that is whom leadership was handed to.
    pub(super) fn tell_who_leads(&mut self, leader: &PeerId, fx: &mut Effects) {
        let Some(HandedOver { call, to, .. }) = self.handed_over.take() else { return };
        let term = self.hard_state.term;
        let result = if *leader == to {
            Ok(CallDone::Transferred { term })
        } else {
            let message = format!("{to} was ordered to campaign, and {leader} leads term {term}");
            Err(CallFailure::Unknown(Status::new(RaftError::TransferLeadership, message)))
        };
        fx.calls.push(CallOutcome { call, result });
    }

    /// The node takes part no more, and will hear of no leader.
    pub(super) fn abandon_handed_over(&mut self, status: &Status, fx: &mut Effects) {
        if let Some(HandedOver { call, .. }) = self.handed_over.take() {
            fx.calls.push(CallOutcome { call, result: Err(CallFailure::Unknown(status.clone())) });
        }
    }
}

/// Which of so many equals gets the leadership; there is one at least.
fn position_of_successor(successor: u64, equals: usize) -> usize {
    let turn = successor % equals.max(1) as u64;
    // Less than the number of equals, so that it fits.
    (equals.saturating_sub(1) + turn as usize) % equals.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_equals_has_its_turn() {
        assert_eq!([0, 1, 2, 3, 4].map(|successor| position_of_successor(successor, 3)), [2, 0, 1, 2, 0]);
        assert_eq!([0, 1, u64::MAX].map(|successor| position_of_successor(successor, 1)), [0, 0, 0]);
    }
}
