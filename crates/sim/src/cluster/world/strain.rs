//! Faults in several acts that aim at a leader: at its lease, at its orders, at its change of the members. They bring about what
//! single faults rarely do: two hosts that believe to lead, for as long as the rules allow it.

use ringraft::handler::NodeCall;
use ringraft_core::{Configuration, MembershipChange};

use super::World;
use super::event::{Act, Event, Way};
use crate::cluster::clock::MS;
use crate::cluster::faults::FaultKind;
use crate::cluster::plan::StoreKind;
use crate::cluster::random::Random;

/// The ways from each of `from` to each of `to`.
fn ways(from: &[usize], to: &[usize]) -> Vec<Way> {
    let pairs = from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b).collect()
}

impl World {
    /// The act of a fault is due.
    pub(super) fn act(&mut self, act: Act) {
        if !self.chaos {
            return;
        }
        match act {
            Act::Cut { ways, away } => self.cut_ways(ways, away),
            Act::Restart { host, power, away } => {
                let mut r = self.random.fork(self.now ^ 7);
                self.crash(host, power, away, &mut r);
            }
            Act::Pause { host, away } => self.pause(host, away),
            Act::Order { group, leader, candidate, random } => {
                if self.leader_of(group) == Some(leader) {
                    self.order_late(group, leader, candidate, random);
                }
            }
            Act::Deafen { group, candidate, away } => {
                if let Some(leader) = self.leader_of(group).filter(|leader| *leader != candidate) {
                    self.cut_ways(ways(&self.plan.groups[group], &[leader]), away);
                }
            }
            Act::Forget { group, leader, tries, random } => {
                self.forget_between(group, leader, tries, random);
            }
        }
    }

    fn slow_ways(&mut self, ways: &[Way], until: u64, delay: u64) {
        for (from, to) in ways {
            self.clog_way(*from, *to, until, delay);
        }
    }

    /// Aims a fault at the leader of a group. Says whether it could.
    pub(super) fn strain(&mut self, kind: FaultKind, r: &mut Random) -> bool {
        let group = r.index(self.plan.groups.len());
        let Some(leader) = self.leader_of(group) else { return false };
        let mut others: Vec<usize> =
            self.plan.groups[group].iter().copied().filter(|host| *host != leader).collect();
        // One at a time: they would undo each other's work, and leave clients nothing.
        if others.is_empty() || self.strained > self.now {
            return false;
        }
        self.strained = self.now + 5 * self.plan.election_timeout_ms * MS;
        let candidate = others.remove(r.index(others.len()));
        match kind {
            FaultKind::LeaderMuffled => self.muffle_leader(leader, candidate, others, r),
            FaultKind::LeaseStrained => self.strain_lease(group, leader, candidate, others, r),
            FaultKind::LateOrder if self.plan.operators.transfers => {
                // Nobody proposes: the order leaves at once.
                let timeout = self.plan.election_timeout_ms * MS;
                self.hushed[group] = self.now + 4 * timeout;
                let order = Act::Order { group, leader, candidate, random: r.clone() };
                self.after(r.range(0, timeout / 2), Event::Act(order));
            }
            FaultKind::ChangeCutShort => return self.cut_change_short(group, leader, candidate, others, r),
            FaultKind::VoterForgets => {
                let timeout = self.plan.election_timeout_ms * MS;
                others.push(candidate);
                let mut cut = ways(&[leader], &others);
                cut.extend(ways(&others, &[leader]));
                self.cut_ways(cut, 2 * timeout);
                let look = Act::Forget { group, leader, tries: 64, random: r.clone() };
                self.after(timeout * 3 / 4, Event::Act(look));
            }
            FaultKind::VoterLags => return self.lag_behind_voters(leader, candidate, others, r),
            _ => return false,
        }
        true
    }

    /// A bare majority gets what the leader does next, and of that those who are needed on both sides have slow disks. Then the
    /// leader stands still, for longer than their patience and their writes take: they elect one that has heard nothing of it.
    /// When it wakes up, it learns first that they hold everything.
    fn lag_behind_voters(
        &mut self,
        leader: usize,
        candidate: usize,
        mut others: Vec<usize>,
        r: &mut Random,
    ) -> bool {
        let members = others.len() + 2;
        let lagging = if members.is_multiple_of(2) { 2 } else { 1 };
        if members < 3 {
            return false;
        }
        let timeout = self.plan.election_timeout_ms * MS;
        for at in (1..others.len()).rev() {
            others.swap(at, r.index(at + 1));
        }
        let mut near = others.split_off((members - 1) / 2 - 1);
        let voters: Vec<usize> = near.drain(..lagging).collect();
        let mut far = others;
        far.push(candidate);
        let (soon, slow) = (r.range(MS, timeout / 4), timeout + r.range(timeout / 2, 2 * timeout));
        let away = slow + r.range(timeout / 16, timeout);
        let mut cut = ways(&[leader], &far);
        cut.extend(ways(&far, &[leader]));
        // Whoever else holds it all must not be asked, and must not ask.
        let electors: Vec<usize> = far.iter().chain(&voters).copied().collect();
        cut.extend(ways(&near, &electors));
        cut.extend(ways(&electors, &near));
        self.cut_ways(cut, soon + away + timeout);
        for voter in voters {
            self.hosts[voter].slow_disk = Some((self.now + soon, slow));
        }
        self.after(soon, Event::Act(Act::Pause { host: leader, away }));
        true
    }

    /// The leader is heard by nobody, and hears nobody, or hears late what was said before: old answers arrive when another leads.
    fn muffle_leader(&mut self, leader: usize, candidate: usize, mut others: Vec<usize>, r: &mut Random) {
        let timeout = self.plan.election_timeout_ms * MS;
        others.push(candidate);
        let (soon, away) = (r.range(0, timeout / 2), r.range(2 * timeout, 5 * timeout));
        let mut cut = ways(&[leader], &others);
        if r.chance(if self.plan.operators.lease_reads { 250 } else { 500 }) {
            cut.extend(ways(&others, &[leader]));
        } else {
            let late = r.range(timeout / 4, timeout * 9 / 10);
            let until = self.now + soon + 4 * timeout;
            self.slow_ways(&ways(&others, &[leader]), until, late);
        }
        self.after(soon, Event::Act(Act::Cut { ways: cut, away }));
    }

    /// A candidate that does not hear the leader is helped by voters that have just started again, or that hear the leader again
    /// since they promised their vote; the leader hears nothing meanwhile. Nobody proposes, so that the candidate lacks nothing.
    fn strain_lease(
        &mut self,
        group: usize,
        leader: usize,
        candidate: usize,
        others: Vec<usize>,
        r: &mut Random,
    ) {
        let timeout = self.plan.election_timeout_ms * MS;
        let mut all = others.clone();
        all.push(candidate);
        let begin = r.range(timeout / 8, timeout / 2);
        let deaf = Act::Cut { ways: ways(&all, &[leader]), away: r.range(timeout, 2 * timeout) };
        self.hushed[group] = self.now + 5 * timeout;
        if r.chance(500) || others.is_empty() {
            let cut =
                Act::Cut { ways: ways(&[leader], &[candidate]), away: r.range(3 * timeout, 6 * timeout) };
            self.after(begin, Event::Act(cut));
            let soon = begin + r.range(timeout / 2, 3 * timeout);
            for host in &others {
                let power = matches!(self.plan.store, StoreKind::Segment(_)).then(|| r.next());
                let power = power.filter(|_| r.chance(300));
                let away = r.sized(MS, timeout / 16 + MS);
                if r.chance(800) {
                    self.after(soon, Event::Act(Act::Restart { host: *host, power, away }));
                }
            }
            if r.chance(800) {
                let cut = Act::Cut { ways: ways(&[leader], &others), away: r.range(timeout, 2 * timeout) };
                self.after(soon, Event::Act(cut));
            }
            self.after(soon, Event::Act(deaf));
            return;
        }
        // Whom the others promise their vote, they answer late; the leader is heard again before that.
        let delay = r.range(timeout / 32, timeout / 8);
        let silence = timeout + r.range(0, self.plan.election_delay_ms * MS + timeout / 5);
        let until = self.now + begin + silence + 3 * timeout;
        self.after(begin, Event::Act(Act::Cut { ways: ways(&[leader], &others), away: silence }));
        let longer = Act::Cut { ways: ways(&[leader], &[candidate]), away: silence + 4 * timeout };
        self.after(begin, Event::Act(longer));
        self.slow_ways(&ways(&others, &[candidate]), until, delay);
        if r.chance(700) {
            self.slow_ways(&ways(&[candidate], &others), until, delay);
        }
        let heard = begin + silence + r.range(timeout / 16, timeout / 2);
        self.after(heard, Event::Act(deaf));
    }

    /// Two hosts lead a group: a voter that the newer one knows loses its disk, and then hears the older one only.
    fn forget_between(&mut self, group: usize, older: usize, tries: u32, mut r: Random) {
        let timeout = self.plan.election_timeout_ms * MS;
        let all = self.plan.groups[group].clone();
        let leads = |host: usize| self.node(group, host).is_some_and(|node| node.is_leader());
        if !leads(older) || tries == 0 {
            return;
        }
        let newer = all.iter().copied().find(|host| *host != older && leads(*host));
        let has_committed = |host: usize| {
            self.node(group, host).is_some_and(|node| {
                let committed = node.committed_index();
                node.term_at(committed) == Some(node.term())
            })
        };
        let Some(newer) = newer.filter(|newer| has_committed(*newer)) else {
            let look = Act::Forget { group, leader: older, tries: tries - 1, random: r };
            self.after(timeout / 64, Event::Act(look));
            return;
        };
        let voters: Vec<usize> = all.into_iter().filter(|host| ![older, newer].contains(host)).collect();
        if voters.is_empty() {
            return;
        }
        let voter = voters[r.index(voters.len())];
        let away = r.sized(MS / 8, timeout / 64 + MS);
        if self.wipe(voter, away, &mut r) {
            let (mut near, mut far) = (ways(&[older], &[voter]), ways(&[newer], &[voter]));
            near.extend(ways(&[voter], &[older]));
            far.extend(ways(&[voter], &[newer]));
            self.heal(&near);
            self.cut_ways(far, 2 * timeout);
        }
    }

    /// The order of a transfer is late: the leader may have given it up by then, and hears nothing.
    fn order_late(&mut self, group: usize, leader: usize, candidate: usize, mut r: Random) {
        let timeout = self.plan.election_timeout_ms * MS;
        if self.plan.operators.lease_reads && r.chance(500) {
            self.order_after_another(group, leader, candidate, &mut r);
            return;
        }
        let delay = r.range(timeout / 2, timeout * 3 / 2);
        let to = Some(self.member(candidate));
        // Only the order is late; what the leader says later is on time, where nothing keeps the order of frames.
        self.slow_ways(&[(leader, candidate)], self.now + r.range(MS, timeout / 8), delay);
        self.call_node(leader, group, NodeCall::TransferLeadership { to });
        let all = self.plan.groups[group].clone();
        let deaf = delay.saturating_sub(r.range(timeout / 16, timeout * 3 / 4));
        let away = r.range(timeout, 2 * timeout);
        self.after(deaf, Event::Act(Act::Cut { ways: ways(&all, &[leader]), away }));
    }

    /// The order of a transfer comes when another leads, perhaps by leases, and hears nothing.
    fn order_after_another(&mut self, group: usize, leader: usize, candidate: usize, r: &mut Random) {
        let timeout = self.plan.election_timeout_ms * MS;
        let delay = r.range(5 * timeout / 2, 4 * timeout);
        let to = Some(self.member(candidate));
        self.hushed[group] = self.now + delay + timeout;
        self.strained = self.now + delay + 2 * timeout;
        self.slow_ways(&[(leader, candidate)], self.now + r.range(MS, timeout / 8), delay);
        self.call_node(leader, group, NodeCall::TransferLeadership { to });
        let others: Vec<usize> =
            self.plan.groups[group].iter().copied().filter(|host| *host != leader).collect();
        let mut gone = ways(&[leader], &others);
        gone.extend(ways(&others, &[leader]));
        let away = r.range(3 * timeout / 2, 2 * timeout);
        self.after(timeout / 8, Event::Act(Act::Cut { ways: gone, away }));
        let deaf = delay.saturating_sub(r.range(1, timeout / 8));
        let deafen = Act::Deafen { group, candidate, away: r.range(timeout, 2 * timeout) };
        self.after(deaf, Event::Act(deafen));
    }

    /// The leader hears nobody any more when it is asked to be the only voter: by the new members alone it would decide everything.
    fn shrink_alone(&mut self, group: usize, leader: usize, others: &[usize], r: &mut Random) {
        let timeout = self.plan.election_timeout_ms * MS;
        let mut cut = ways(&[leader], others);
        cut.extend(ways(others, &[leader]));
        self.cut_ways(cut, r.range(2 * timeout, 4 * timeout));
        let alone = Configuration::of_peers(vec![self.member(leader)]);
        let change = MembershipChange::ChangePeers(alone);
        self.call_node(leader, group, NodeCall::ChangeMembers { change, prev_index: None });
    }

    /// The leader begins a change of the members, and is lost for some of them, or for all, before it is over.
    fn cut_change_short(
        &mut self,
        group: usize,
        leader: usize,
        candidate: usize,
        mut others: Vec<usize>,
        r: &mut Random,
    ) -> bool {
        let whole = !self.plan.groups[group].iter().any(|host| self.may_rejoin(*host));
        if !self.plan.operators.members || !whole {
            return false;
        }
        let timeout = self.plan.election_timeout_ms * MS;
        others.push(candidate);
        if r.chance(450) {
            self.shrink_alone(group, leader, &others, r);
            return true;
        }
        let mut conf = Configuration::default();
        if r.chance(850) {
            conf.peers.push(self.member(leader));
        }
        let stay = [100, 400, 700][r.index(3)];
        for host in &others {
            match r.chance(stay) {
                true => conf.peers.push(self.member(*host)),
                false if r.chance(300) => conf.learners.push(self.member(*host)),
                false => {}
            }
        }
        if conf.peers.is_empty() {
            conf.peers.push(self.member(leader));
        }
        let change = MembershipChange::ChangePeers(conf);
        self.call_node(leader, group, NodeCall::ChangeMembers { change, prev_index: None });
        let soon = if r.chance(400) { 0 } else { r.sized(1, timeout / 4) };
        let away = r.range(timeout, 5 * timeout);
        if r.chance(200) {
            let power = matches!(self.plan.store, StoreKind::Segment(_)).then(|| r.next());
            let power = power.filter(|_| r.chance(500));
            self.after(soon, Event::Act(Act::Restart { host: leader, power, away }));
            return true;
        }
        let far: Vec<usize> = others.iter().copied().filter(|_| r.chance(700)).collect();
        let near: Vec<usize> =
            self.plan.groups[group].iter().copied().filter(|host| !far.contains(host)).collect();
        let mut cut = ways(&near, &far);
        if r.chance(700) {
            cut.extend(ways(&far, &near));
        }
        self.after(soon, Event::Act(Act::Cut { ways: cut, away }));
        true
    }
}
