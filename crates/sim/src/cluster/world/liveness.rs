//! The last phase: faults end, a majority is healed, and the groups must come to rest with everything that was acknowledged.

use std::collections::VecDeque;

use super::World;
use super::event::Event;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::checks::{AtRest, kept};
use crate::cluster::clock::MS;
use crate::cluster::host::WORKERS;

/// How long the groups may take to agree, in microseconds of virtual time.
const CONVERGENCE: u64 = 60_000 * MS;

impl World {
    /// Faults end. Of the hosts a random minority may stay dead.
    pub(super) fn calm(&mut self) -> Result<(), Violation> {
        if !std::mem::replace(&mut self.chaos, false) {
            return Ok(());
        }
        self.calm_since = self.now;
        self.note(|| "calm".to_owned());
        let mut order: Vec<usize> = (0..self.plan.hosts).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.random.index(at + 1));
        }
        // Whose disk was damaged is left down for good: any start may refuse it.
        for host in 0..self.plan.hosts {
            self.hosts[host].left_dead |= self.is_damaged(host) || self.hosts[host].disk.has_lost_names();
        }
        // New voters may be about to catch up: the group then needs some that it does not need yet.
        let changing = self.members_are_changing();
        for host in order {
            if std::mem::replace(&mut self.hosts[host].left_dead, true) {
                continue;
            }
            let healthy = !changing && self.majorities_live();
            if !healthy || self.random.chance(500) {
                self.hosts[host].left_dead = false;
            }
        }
        self.heal_all();
        self.finish_renewals();
        self.hushed.fill(0);
        self.plan.disk_delay = (10, 200);
        // Enough to see that every group serves; the load was before.
        self.plan.think = self.plan.think.max(self.plan.election_timeout_ms * MS / 10);
        self.plan.burst = 1;
        for host in 0..self.plan.hosts {
            self.hosts[host].slow_disk = None;
            self.hosts[host].slow_reader = 0;
            self.hosts[host].stall = 0;
            self.hosts[host].still_until = [0; WORKERS];
            self.hosts[host].paused_until = self.now.min(self.hosts[host].paused_until);
            self.hosts[host].disk.limit_bytes(None);
            self.hosts[host].disk_full = false;
            let mut r = self.random.fork(self.now ^ host as u64);
            if self.hosts[host].left_dead {
                self.crash(host, None, 0, &mut r);
                continue;
            }
            // Whatever fault is still planned for its disk is forgotten with a loss of power; some hosts keep running.
            let planned = self.hosts[host].disk_suspect
                || self.hosts[host].power_off_at.is_some()
                || self.hosts[host].damage_planned;
            if planned || self.hosts[host].process.is_none() {
                self.crash(host, Some(r.next()), r.below(50 * MS), &mut r);
            } else {
                self.wake(host, 0);
            }
        }
        self.after(50 * MS, Event::Check);
        self.drain_outcomes()
    }

    /// Looks whether the groups are where they must be by now.
    pub(super) fn check_rest(&mut self) -> Result<(), Violation> {
        let passed = self.now - self.calm_since;
        let round = (self.plan.election_timeout_ms + self.plan.election_delay_ms) * MS;
        let grace = round + 200 * MS;
        if self.led_since.is_none() {
            match self.leaderless() {
                None => {
                    self.led_since = Some(self.now);
                    self.clients_run = false;
                }
                Some(group) if passed > grace + self.plan.operators.rounds() * round => {
                    let what = format!("group {group} has no leader {} ms after the last fault", passed / MS);
                    return Err(broken("liveness", what + &self.describe(group)));
                }
                Some(_) => {}
            }
        }
        self.leaders_kept()?;
        if self.is_standing_still() {
            self.after(20 * MS, Event::Check);
            return Ok(());
        }
        if self.led_since.is_some() {
            match self.unsettled() {
                None if self.calls_are_open()? => {
                    self.after(20 * MS, Event::Check);
                    return Ok(());
                }
                None if self.stays_quiet() => return Ok(()),
                None if self.stands_still() => return Ok(()),
                None if self.call_at_rest()? => return Ok(()),
                None => return self.finish(),
                Some((what, group))
                    if passed > grace + self.plan.operators.rounds() * round + self.convergence() =>
                {
                    let text = format!("{what} {} ms after the last fault", passed / MS);
                    return Err(broken("liveness", text + &self.describe(group)));
                }
                Some(_) => {}
            }
        }
        self.after(20 * MS, Event::Check);
        Ok(())
    }

    /// How long the groups may take to agree: in worlds whose windows hold one entry, each takes a round trip.
    fn convergence(&self) -> u64 {
        let logs = self.oracle.groups.iter().flat_map(|group| &group.logs);
        let longest = logs.map(|log| log.accepted.last_index()).max().unwrap_or(0);
        CONVERGENCE + longest * 3 * self.plan.net.delay.1
    }

    pub(super) fn node(&self, group: usize, host: usize) -> Option<&ringraft_core::NodeImpl> {
        let process = self.hosts[host].process.as_ref()?;
        process.lane.node(process.handles[group]?)
    }

    /// A group without a leader that a majority follows.
    fn leaderless(&self) -> Option<usize> {
        (0..self.plan.groups.len()).find(|group| {
            let leads = |host: usize| self.node(*group, host).is_some_and(|node| node.is_leader());
            // One that nobody has, of an earlier life or a later one, needs none.
            !self.plan.groups[*group].is_empty() && !self.live(*group).into_iter().any(leads)
        })
    }

    /// A group that is not at rest, and why.
    fn unsettled(&self) -> Option<(&'static str, usize)> {
        // One may have stepped down since, for what it heard last was late.
        if let Some(group) = self.leaderless() {
            return Some(("it has no leader any more", group));
        }
        for group in 0..self.plan.groups.len() {
            let (mut ends, mut term) = (None, None);
            for host in self.live(group) {
                let Some(node) = self.node(group, host) else { return Some(("a host is down", group)) };
                let last = node.last_log_id();
                let description = node.describe();
                if node.configuration().is_joint() || description.change.is_some() {
                    return Some(("members are being changed", group));
                }
                if description.pending_reads > 0 {
                    return Some(("reads wait", group));
                }
                if node.is_rejoining() {
                    return Some(("a lost disk was not made up for", group));
                }
                if *ends.get_or_insert(last) != last {
                    return Some(("logs differ", group));
                }
                if *term.get_or_insert(node.term()) != node.term() {
                    return Some(("terms differ", group));
                }
                if node.committed_index() != last.index {
                    return Some(("entries are not committed", group));
                }
                if node.applied_index() != last.index {
                    return Some(("entries are not applied", group));
                }
            }
        }
        (self.workload.tasks.open() > 0).then_some(("tasks have no outcome", 0))
    }

    /// What is known of a group, for the message of a violation.
    pub(super) fn describe(&self, group: usize) -> String {
        let mut text = String::new();
        for host in &self.plan.groups[group] {
            let known = match self.node(group, *host) {
                Some(node) => format!(
                    "{}{} of {} term {} last {} committed {} stable {}",
                    node.state(),
                    if node.is_rejoining() { " rejoining" } else { "" },
                    node.describe().configuration,
                    node.term(),
                    node.last_log_id(),
                    node.committed_index(),
                    node.stable_index()
                ),
                None => "down".to_owned(),
            };
            text += &format!("; host {host}: {known}");
        }
        text
    }

    /// Everything is at rest: what must be empty is empty, and what was acknowledged is there.
    fn finish(&mut self) -> Result<(), Violation> {
        // Progress that is not urgent wakes nobody, and who is no member has no timer that would.
        let marked = |host: &usize| self.hosts[*host].process.as_ref().is_some_and(|p| p.board.is_marked());
        let asleep: Vec<usize> = (0..self.hosts.len()).filter(marked).collect();
        asleep.into_iter().for_each(|host| self.wake(host, 0));
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(p) = &host.process else { continue };
            let waiting = p.control.len() + p.tasks.iter().map(VecDeque::len).sum::<usize>();
            let held = !p.out.is_empty() || p.lane.holds_back() || waiting > 0 || !p.failed.is_empty();
            // Heartbeats go on: what is just on its way is no leak.
            let applying = p.workers.iter().map(|worker| worker.ring.len()).sum::<usize>();
            let queued = p.disk_ring.len() + p.disk_queue.len() + applying + p.read_ring.len();
            let fsm_busy = p.workers.iter().any(|worker| worker.busy);
            let busy = held || queued > 0 || p.writing.is_some() || fsm_busy || p.read_busy;
            if busy || p.board.is_marked() {
                if self.now - self.calm_since > 2 * CONVERGENCE + 100 * self.plan.election_timeout_ms * MS {
                    let what = format!(
                        "host {number} never comes to rest: output {}, held back {}, rings {}, failed {}, disk {} {}, state machine {} {}, \
                         reads {} {}, progress {}",
                        !p.out.is_empty(),
                        p.lane.holds_back(),
                        waiting,
                        p.failed.len(),
                        p.disk_ring.len(),
                        p.writing.is_some(),
                        applying,
                        fsm_busy,
                        p.read_ring.len(),
                        p.read_busy,
                        p.board.is_marked()
                    );
                    return Err(broken("quotas are zero at rest", what));
                }
                self.after(MS, Event::Check);
                return Ok(());
            }
            let (mut unwritten, mut unapplied, mut groups) = (0, 0, 0);
            for node in p.handles.iter().flatten().filter_map(|handle| p.lane.node(*handle)) {
                unwritten += node.unstable_entries();
                unapplied += node.committed_index() - node.applied_index();
                groups += 1;
            }
            let rest = AtRest {
                unwritten,
                unapplied,
                queued,
                unanswered: p.answers.open(),
                // What was lost before faults ended is given up in its own time.
                waiting: p.transport.waiting(self.calm_since),
            };
            // A heartbeat is given up after half an election time-out, a request by the transport after two time-outs.
            let lost = 4 * self.plan.rpc_timeout_ms / self.plan.shortest_timeout_ms();
            rest.check(groups, self.plan.hosts, lost as usize)
                .map_err(|what| broken("quotas are zero at rest", format!("host {number} {what}")))?;
        }
        for call in &self.workload.tasks.calls {
            for host in self.live(call.group) {
                kept(call, &self.oracle.groups[call.group].logs[host].stable)
                    .map_err(|what| broken("acknowledged entries stay", format!("host {host} {what}")))?;
            }
        }
        self.check_histories()?;
        let led: u64 = self.oracle.groups.iter().map(|group| group.led).sum();
        *self.report.marks.entry("leader elected").or_default() += led;
        let lost = led.saturating_sub(self.plan.groups.len() as u64);
        *self.report.marks.entry("leader stepped down").or_default() += lost;
        *self.report.marks.entry("log truncated").or_default() += self.oracle.truncations;
        self.finished = true;
        Ok(())
    }
}
