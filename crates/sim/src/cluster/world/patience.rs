//! Rules about terms and time: who hears of a term is in it, and a leader that everybody hears stays.

use ringraft::handler::{GroupHandle, LaneEvent};
use ringraft_core::{LogIndex, NodeImpl, NodeState, PeerId, RaftRequest, Term};

use super::World;
use super::event::Event;
use super::lives::Lives;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::clock::MS;
use crate::cluster::host::Process;

/// Worlds with more groups are not asked to stay quiet: their small bounds may keep heartbeats waiting.
const QUIET_GROUPS: usize = 4;

/// Groups that have come to rest.
pub(super) struct Quiet {
    terms: Vec<Term>,
}

/// Term, index and moment of the oldest entry that a leader was seen waiting to write.
pub(super) type Unwritten = Option<(Term, LogIndex, u64)>;

/// Terms that a turn is told of by others, with the group: in answers, and in requests for votes, unless voters may keep their
/// term for the sake of a `promise`. What is said of another life of the group is not heard.
pub(super) fn heard_terms(
    p: &Process,
    events: &[LaneEvent],
    lives: &Lives,
    promise: bool,
) -> Vec<(usize, Term)> {
    let heard = |event: &LaneEvent| {
        let (handle, term) = match event {
            LaneEvent::Response(response) => {
                let (slot, generation) = (response.context.slot, response.context.generation);
                let (handle, answer) =
                    (GroupHandle { lane: 0, slot, generation }, response.result.as_ref().ok()?);
                if answer.creation != lives.creation(*p.by_handle.get(&handle)?) {
                    return None;
                }
                (handle, answer.response.term()?)
            }
            LaneEvent::Request(request) => match &request.request {
                RaftRequest::RequestVote(vote) if !vote.pre_vote && !promise => (request.handle, vote.term),
                _ => return None,
            },
            _ => return None,
        };
        Some((*p.by_handle.get(&handle)?, term))
    };
    events.iter().filter_map(heard).collect()
}

impl World {
    /// Whoever hears of a higher term is in it (Raft §5.1).
    ///
    /// # Errors
    /// A node is not.
    pub(super) fn terms_are_learnt(&self, host: usize, heard: &[(usize, Term)]) -> Result<(), Violation> {
        for (group, term) in heard {
            let node = self.node(*group, host).filter(|node| node.state().is_active());
            if let Some(node) = node.filter(|node| node.term() < *term) {
                let what = format!("host {host} stays in term {} of group {group}", node.term());
                return Err(broken("terms are learnt", format!("{what}, though it heard of term {term}")));
            }
        }
        Ok(())
    }

    /// A leader whose oldest write stands still for far longer than the stall time-out leads no more, where another can.
    ///
    /// # Errors
    /// It leads on.
    pub(super) fn leader_can_write(
        &mut self,
        group: usize,
        host: usize,
        node: &NodeImpl,
    ) -> Result<(), Violation> {
        let (stable, last) = (node.stable_index(), node.last_log_id().index);
        let unwritten = &mut self.unwritten[host][group];
        let others = node.configuration().voters().any(|peer| *peer != node.options().server_id);
        if !node.is_leader() || stable >= last || !others {
            *unwritten = None;
            return Ok(());
        }
        let (term, index, since) = match *unwritten {
            Some((term, index, since)) if term == node.term() && stable < index => (term, index, since),
            _ => (node.term(), last, self.now),
        };
        *unwritten = Some((term, index, since));
        let whole = !self.plan.groups[group].iter().any(|host| self.may_rejoin(*host));
        // It looks every half election time-out; clocks may run at other rates.
        let patience = (node.options().disk_stall_ms() + node.options().election_timeout_ms) * MS * 11 / 10;
        if whole && self.now - since > patience {
            let what = format!(
                "host {host} leads group {group} in term {term}, and its write of entry {index} is under way for {} ms",
                (self.now - since) / MS
            );
            return Err(broken("a leader that cannot write steps down", what));
        }
        Ok(())
    }

    /// The host of a peer, whatever its priority.
    fn host_of(&self, peer: &str) -> Option<usize> {
        let peer: PeerId = peer.parse().ok()?;
        self.hosts.iter().position(|host| host.peer == peer)
    }

    /// Who is ordered to campaign by a transfer holds the whole log (thesis §3.10).
    ///
    /// # Errors
    /// It does not.
    pub(super) fn order_waits_for_log(
        &self,
        group: usize,
        node: &NodeImpl,
        to: &str,
    ) -> Result<(), Violation> {
        let Some(target) = self.host_of(to) else { return Ok(()) };
        let held = self.oracle.groups[group].logs[target].stable.last_index();
        let excused = self.hosts[target].wiped || self.is_damaged(target);
        if node.state() == NodeState::Transferring && held < node.last_log_id().index && !excused {
            let what = format!(
                "host {target} is ordered to campaign for group {group} with {held} of {} entries",
                node.last_log_id().index
            );
            return Err(broken("a transfer waits for the log", what));
        }
        Ok(())
    }

    /// A leader goes on asking a host that does not answer once a heartbeat period, and not as fast as the network refuses.
    ///
    /// # Errors
    /// It does.
    pub(super) fn heartbeats_pause(
        &mut self,
        group: usize,
        host: usize,
        node: &NodeImpl,
        to: &str,
    ) -> Result<(), Violation> {
        let Some(target) = self.host_of(to) else { return Ok(()) };
        let (sent, since) = self.heartbeats.entry((group, host, target)).or_insert((0, self.now));
        *sent += 1;
        // Clocks may leap, and leaders come and go: each of those may send one at once.
        let periods = (self.now - *since) / (node.options().heartbeat_ms() * MS);
        if u64::from(*sent) > 64 + 4 * periods {
            let what = format!(
                "host {host} has sent {sent} heartbeats of group {group} to host {target} within {} us, and none was answered",
                self.now - *since
            );
            return Err(broken("heartbeats pause", what));
        }
        Ok(())
    }

    /// The groups have come to rest. Says whether they are to be watched for a while before all is over.
    pub(super) fn stays_quiet(&mut self) -> bool {
        if self.quiet.is_some() || self.plan.groups.len() > QUIET_GROUPS {
            return false;
        }
        // What was said long ago may still depose a leader, such as the order of a transfer that was given up.
        if self.now <= self.network.late_until {
            self.after(20 * MS, Event::Check);
            return true;
        }
        self.quiet = Some(Quiet { terms: self.terms() });
        let round = (self.plan.election_timeout_ms + self.plan.election_delay_ms) * MS;
        self.after(3 * round, Event::Check);
        true
    }

    /// From now on somebody moves the leaders.
    pub(super) fn leaders_may_change(&mut self) {
        if let Some(quiet) = &mut self.quiet {
            quiet.terms.clear();
        }
    }

    /// A group at rest, its leader in reach of all, elects no other.
    ///
    /// # Errors
    /// One did.
    pub(super) fn leaders_kept(&self) -> Result<(), Violation> {
        let Some(quiet) = &self.quiet else { return Ok(()) };
        for (group, (before, now)) in quiet.terms.iter().zip(self.terms()).enumerate() {
            if *before != now {
                let what = format!("group {group} was at rest in term {before} and is in term {now}");
                let rule = match self.is_standing_still() {
                    true => "a state machine that stands still deposes nobody",
                    false => "a group at rest keeps its leader",
                };
                return Err(broken(rule, what + &self.describe(group)));
            }
        }
        Ok(())
    }

    /// The highest term of each group among the hosts that live.
    fn terms(&self) -> Vec<Term> {
        let term = |group: usize| {
            self.live(group)
                .into_iter()
                .filter_map(|host| self.node(group, host))
                .map(NodeImpl::term)
                .max()
                .unwrap_or(0)
        };
        (0..self.plan.groups.len()).map(term).collect()
    }
}
