//! Operators: they change members, move leaders, and want to know what became of it.

use std::time::Duration;

use ringraft::handler::{CallResult, Control, LaneEvent, NodeCall, Waiter, promise};
use ringraft_core::{
    CallDone, CallFailure, Configuration, ConfigurationEntry, MembershipChange, PeerId, Vote,
};

use super::World;
use super::event::Event;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::clock::MS;
use crate::cluster::host::new_disk;
use crate::cluster::random::Random;

/// A call that has no outcome yet.
struct OpenCall {
    host: usize,
    life: u32,
    group: usize,
    call: NodeCall,
    outcome: Waiter<CallResult>,
}

/// The calls of all operators.
#[derive(Default)]
pub(super) struct Operators {
    open: Vec<OpenCall>,
    /// The last transfer that did not come about, by group.
    kept: Option<(usize, String)>,
    /// Who must lead which group when the transfers at rest are over.
    pub(super) heirs: Vec<(usize, usize)>,
    /// Since when everything but calls is at rest.
    waited_since: Option<u64>,
}

impl World {
    /// The id by which the configuration knows a host.
    pub(super) fn member(&self, host: usize) -> PeerId {
        let peer = &self.hosts[host].peer;
        match self.plan.operators.priorities.get(host) {
            Some(priority) if *priority >= 0 => {
                format!("{peer}::{priority}").parse().unwrap_or_else(|_| peer.clone())
            }
            _ => peer.clone(),
        }
    }

    /// The configuration with which a host starts a group on a blank disk: empty where it is no first member.
    pub(super) fn initial_conf(&self, group: usize, host: usize) -> Configuration {
        let first = &self.plan.operators.initial[group];
        let members = if first.contains(&host) { &first[..] } else { &[] };
        Configuration::of_peers(members.iter().map(|member| self.member(*member)).collect())
    }

    pub(super) fn start_operators(&mut self) {
        if self.plan.operators.acts() {
            let delay = self.plan.operators.gap;
            self.after(delay, Event::Operator);
        }
    }

    /// An operator does something, and asks what became of what was done before.
    pub(super) fn operator(&mut self) -> Result<(), Violation> {
        self.end_calls()?;
        if !self.chaos {
            return Ok(());
        }
        let gap = self.plan.operators.gap;
        let pause = self.random.range(gap / 4 + 1, 2 * gap);
        self.after(pause, Event::Operator);
        let group = self.random.index(self.plan.groups.len());
        let hosts = self.plan.groups[group].clone();
        if hosts.is_empty() {
            return Ok(());
        }
        let leads = |world: &World, host: usize| world.node(group, host).is_some_and(|node| node.is_leader());
        let leader = hosts.iter().copied().find(|host| leads(self, *host));
        let host = match leader {
            Some(leader) if self.random.chance(900) => leader,
            _ => hosts[self.random.index(hosts.len())],
        };
        self.ask_node(group, host);
        Ok(())
    }

    /// An operator asks a host to change members or to hand leadership over.
    pub(super) fn ask_node(&mut self, group: usize, host: usize) {
        let hosts = self.plan.groups[group].clone();
        // Operators wait until a lost disk is made up for: two members of whom one has lost its disk decide nothing.
        let whole = !hosts.iter().any(|host| self.may_rejoin(*host));
        let members = self.plan.operators.members && whole;
        let transfers = self.plan.operators.transfers;
        if !members && !transfers {
            return;
        }
        let call = if members && (!transfers || self.random.chance(650)) {
            let change = self.draw_change(group);
            let prev_index = if self.random.chance(100) {
                self.node(group, host).map(|node| node.configuration().id.index)
            } else {
                None
            };
            NodeCall::ChangeMembers { change, prev_index }
        } else {
            let named = self.random.chance(600);
            let to = named.then(|| hosts[self.random.index(hosts.len())]);
            NodeCall::TransferLeadership { to: to.map(|to| self.member(to)) }
        };
        self.call_node(host, group, call);
    }

    fn draw_change(&mut self, group: usize) -> MembershipChange {
        let hosts = self.plan.groups[group].clone();
        let one = hosts[self.random.index(hosts.len())];
        let one = self.member(one);
        match self.random.below(10) {
            0..=2 => MembershipChange::AddPeer(one),
            3 | 4 => MembershipChange::RemovePeer(one),
            5 => MembershipChange::AddLearners(vec![one]),
            6 => MembershipChange::RemoveLearners(vec![one]),
            _ => {
                let (mut conf, voter) = (Configuration::default(), self.random.index(hosts.len()));
                for (at, host) in hosts.iter().enumerate() {
                    let member = self.member(*host);
                    match self.random.below(4) {
                        0 if at != voter => {}
                        1 if at != voter => conf.learners.push(member),
                        _ => conf.peers.push(member),
                    }
                }
                MembershipChange::ChangePeers(conf)
            }
        }
    }

    pub(super) fn call_node(&mut self, host: usize, group: usize, call: NodeCall) {
        let life = self.hosts[host].life;
        let Some(process) = &mut self.hosts[host].process else { return };
        let Some(handle) = process.handles[group] else { return };
        if process.control.len() >= self.plan.apply_ring || process.stopping.is_some() {
            return;
        }
        let (answer, outcome) = promise();
        let control = Control::Call { handle, call: call.clone(), answer };
        process.control.push_back(LaneEvent::Control(Box::new(control)));
        self.report.events += 1;
        self.note(|| format!("operator asks host {host}, group {group}: {call:?}"));
        self.operators.open.push(OpenCall { host, life, group, call, outcome });
        self.wake(host, 0);
    }

    /// Takes in the outcomes that are there. A call whose process is gone has none.
    fn end_calls(&mut self) -> Result<(), Violation> {
        for open in std::mem::take(&mut self.operators.open) {
            let Some(result) = open.outcome.wait(Some(Duration::ZERO)) else {
                if self.hosts[open.host].life == open.life {
                    self.operators.open.push(open);
                }
                continue;
            };
            let OpenCall { host, group, call, .. } = open;
            self.note(|| format!("host {host}, group {group}: {call:?} ends with {result:?}"));
            match (&call, result) {
                (NodeCall::ChangeMembers { .. }, Ok(CallDone::Changed { old, new })) => {
                    self.mark(if old == new { "members are so already" } else { "members changed" });
                    // Some change them again at once.
                    if self.chaos && self.random.chance(200) {
                        self.ask_node(group, host);
                    }
                }
                (NodeCall::TransferLeadership { .. }, Ok(CallDone::Transferred { .. })) => {
                    self.mark("leadership transferred");
                }
                (NodeCall::TransferLeadership { .. }, Err(failure)) => {
                    let (CallFailure::Failed(why) | CallFailure::Unknown(why)) = &failure;
                    self.operators.kept = Some((group, why.to_string()));
                    let doubt = matches!(failure, CallFailure::Unknown(_));
                    self.mark(if doubt { "operator left in doubt" } else { "operator refused" });
                }
                (_, Err(CallFailure::Failed(_))) => self.mark("operator refused"),
                (_, Err(CallFailure::Unknown(_))) => self.mark("operator left in doubt"),
                (call, Ok(done)) => {
                    return Err(broken("one outcome a call", format!("{call:?} ends with {done:?}")));
                }
            }
        }
        Ok(())
    }

    /// Whether the transfers at rest are over, and which of them, if any, came to nothing.
    pub(super) fn transfers_failed(
        &mut self,
        since: u64,
    ) -> Result<Option<Option<(usize, String)>>, Violation> {
        if self.calls_are_open()? {
            return Ok(None);
        }
        let kept = self.operators.kept.take();
        // It takes no election time-out, or followers might as well have waited for that (thesis §3.10).
        let patience = self.plan.election_timeout_ms * MS;
        let leads = |(group, heir): &&(usize, usize)| {
            self.leader_of(*group) == Some(*heir) && self.oracle.groups[*group].led_at <= since + patience
        };
        let missed = self.operators.heirs.iter().find(|heir| !leads(heir));
        let why = |(group, heir): &(usize, usize)| (*group, format!("host {heir} does not lead in time"));
        Ok(Some(kept.or_else(|| missed.map(why))))
    }

    /// Whether a call is without its outcome, when everything else is at rest. The last to end by itself is a transfer, which is
    /// given up after an election time-out.
    ///
    /// # Errors
    /// One has had no outcome for far longer.
    pub(super) fn calls_are_open(&mut self) -> Result<bool, Violation> {
        self.end_calls()?;
        let Some(OpenCall { host, group, call, .. }) = self.operators.open.first() else {
            self.operators.waited_since = None;
            return Ok(false);
        };
        let since = *self.operators.waited_since.get_or_insert(self.now);
        if self.now - since > 3 * self.plan.election_timeout_ms * MS + 1000 * MS {
            return Err(broken(
                "one outcome a call",
                format!("host {host}, group {group}: {call:?} has none"),
            ));
        }
        Ok(true)
    }

    /// The configurations that a leader of this group may find in force: those with which the hosts' logs end.
    fn possible_configurations(&self, group: usize) -> Vec<ConfigurationEntry> {
        let of_host = |host: &usize| {
            let log = &self.oracle.groups[group].logs[*host];
            let initial = ConfigurationEntry { conf: self.initial_conf(group, *host), ..Default::default() };
            let last = |image: &crate::LogImage| image.recover().configurations.last().cloned();
            [last(&log.stable), last(&log.accepted)]
                .into_iter()
                .map(move |last| last.unwrap_or_else(|| initial.clone()))
        };
        self.plan.groups[group].iter().flat_map(of_host).collect()
    }

    /// Whether every group can go on when only the hosts that are not left dead live.
    pub(super) fn majorities_live(&self) -> bool {
        let dead: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].left_dead).collect();
        self.majorities_live_without(&dead)
    }

    /// Whether a host has lost its disk, and a group on it may not have caught up: what a crash may bring back counts.
    pub(super) fn may_rejoin(&self, host: usize) -> bool {
        let rejoins = |image: &crate::LogImage| match image.hard_state().vote {
            Vote::Withheld => true,
            Vote::None => image.last_index() == 0,
            Vote::For(_) => false,
        };
        let hosts = |group: &usize| self.plan.groups[*group].contains(&host);
        self.hosts[host].wiped
            && (0..self.plan.groups.len()).filter(hosts).any(|group| {
                let log = &self.oracle.groups[group].logs[host];
                rejoins(&log.stable) || rejoins(&log.accepted)
            })
    }

    /// Whether a change of members is under way, or asked for: it may come to need any host.
    pub(super) fn members_are_changing(&self) -> bool {
        let changing = |group: usize| {
            let hosts = self.plan.groups[group].iter();
            hosts.filter_map(|host| self.node(group, *host)).any(|node| node.describe().change.is_some())
        };
        self.operators.open.iter().any(|o| matches!(o.call, NodeCall::ChangeMembers { .. }))
            || (0..self.plan.groups.len()).any(changing)
    }

    /// The disk of a host is lost, if the groups can bear that now: others hold what it held.
    pub(super) fn wipe(&mut self, host: usize, away: u64, r: &mut Random) -> bool {
        // Damage may take a host away for good at any time.
        let damage = self.plan.atlas.contains(&true);
        if damage || self.members_are_changing() || !self.majorities_live_without(&[host]) {
            return false;
        }
        self.crash(host, Some(r.next()), away, r);
        let disk = new_disk(&self.plan);
        let host_state = &mut self.hosts[host];
        host_state.disk = disk;
        host_state.memory = Some(ringraft_storage::MemoryLogStorage::new());
        host_state.proof = Default::default();
        host_state.wiped = true;
        host_state.rejoined_after = self.lives.given;
        host_state.disk_suspect = false;
        host_state.disk_full = false;
        self.oracle.wiped(host);
        self.lives.wiped(host);
        true
    }

    /// As [`majorities_live`](World::majorities_live), without these hosts, nor those that have not caught up after a lost disk.
    fn majorities_live_without(&self, without: &[usize]) -> bool {
        let gone = |host: &usize| without.contains(host) || self.may_rejoin(*host);
        let dead: Vec<&PeerId> =
            (0..self.hosts.len()).filter(gone).map(|host| &self.hosts[host].peer).collect();
        let lives = |conf: &Configuration| {
            2 * conf.peers.iter().filter(|peer| !dead.contains(peer)).count() > conf.peers.len()
        };
        (0..self.plan.groups.len()).all(|group| {
            let confs = self.possible_configurations(group);
            confs.iter().filter(|entry| !entry.conf.peers.is_empty()).all(|entry| {
                lives(&entry.conf) && (entry.old_conf.peers.is_empty() || lives(&entry.old_conf))
            })
        })
    }

    /// The hosts of a group that must agree at rest: the members, as the leader knows them, that live.
    pub(super) fn live(&self, group: usize) -> Vec<usize> {
        let hosts = self.plan.groups[group].iter().copied().filter(|host| !self.hosts[*host].left_dead);
        let leader = hosts.clone().filter_map(|host| self.node(group, host)).filter(|node| node.is_leader());
        let Some(leader) = leader.max_by_key(|node| node.term()) else { return hosts.collect() };
        let conf = leader.configuration();
        let is_member = |host: &usize| {
            let peer = &self.hosts[*host].peer;
            conf.is_voter(peer) || conf.is_learner(peer)
        };
        hosts.filter(is_member).collect()
    }
}
