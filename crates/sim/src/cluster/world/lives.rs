//! Groups that come and go: some are removed from all hosts, one after the other, and begin anew under their names with a higher
//! creation number, while clients ask and messages of the earlier life are still on their way.
//!
//! Each life is a group of its own to checkers, clients and oracle, so that whatever leaks from one into the other shows as an entry that
//! nobody proposed, a leader that nobody elected, or a term from nowhere. Between removal and new life of a host somebody who has missed the
//! removal tries to start the earlier life once more, which must be refused.

use ringraft::handler::{Control, LaneEvent};
use ringraft_core::GroupId;
use ringraft_storage::{GroupOpening, LogStorage, StorageError};

use super::World;
use super::event::Event;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::clock::MS;
use crate::cluster::host::Process;
use crate::cluster::plan::Plan;
use crate::cluster::random::Random;

/// Microseconds after which a host that could not go on tries again.
const AGAIN: u64 = 500;

/// How far a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It runs the earlier life.
    Earlier,
    /// It is removing it.
    Removing,
    /// It has removed it. Whether its disk knows that: a disk that is lost since knows nothing.
    Removed { buried: bool },
    /// It runs the later life.
    Later,
}

/// One group that is removed and made anew.
#[derive(Clone, Debug)]
pub(super) struct Renewal {
    earlier: usize,
    later: usize,
    /// Hosts of both lives.
    members: Vec<usize>,
    /// How far each host is, by its number.
    stages: Vec<Stage>,
    /// Somebody has given the number of the later life.
    begun: bool,
    /// A host whose program knows no creation numbers until it has removed the earlier life ([`strangers`](super::strangers)).
    stranger: Option<usize>,
}

/// Names and numbers of every group, and what becomes of them.
pub(super) struct Lives {
    /// Number in the name of each group.
    names: Vec<usize>,
    creations: Vec<u64>,
    /// The highest creation number that was given.
    pub(super) given: u64,
    renewals: Vec<Renewal>,
}

impl Lives {
    /// Draws which groups are made anew, and adds their later lives to the plan. They have no hosts yet.
    pub(super) fn draw(plan: &mut Plan, seed: u64) -> Lives {
        // A stream of its own: what else a seed draws does not depend on this.
        let mut r = Random::new(seed).fork(9);
        let mut strangers = Random::new(seed).fork(19);
        let count = plan.groups.len();
        let mut lives =
            Lives { names: (0..count).collect(), creations: vec![0; count], given: 0, renewals: Vec::new() };
        // Where members change, nobody knows from how many hosts a group is to be removed.
        if plan.operators.members || plan.hosts < 2 || !r.chance(300) {
            return lives;
        }
        // A host that stays down for good removes nothing.
        plan.atlas.fill(false);
        plan.faults.retain(|kind| !kind.damages());
        let numbered = r.chance(500);
        if numbered {
            lives.given = r.range(1, 9);
            lives.creations.fill(lives.given);
        }
        for earlier in 0..count.min(4) {
            if earlier > 0 && !r.chance(400) {
                continue;
            }
            let later = plan.groups.len();
            let members = plan.groups[earlier].clone();
            plan.groups.push(Vec::new());
            plan.operators.add(earlier);
            lives.names.push(earlier);
            lives.creations.push(0);
            let stages = vec![Stage::Earlier; plan.hosts];
            // Of two nobody is left to go on without it.
            let stranger =
                (members.len() > 2 && strangers.chance(500)).then(|| members[strangers.index(members.len())]);
            lives.renewals.push(Renewal { earlier, later, members, stages, begun: false, stranger });
        }
        lives
    }

    /// The name of a group.
    pub(super) fn group_id(&self, group: usize) -> GroupId {
        match format!("g{}", self.names[group]).parse() {
            Ok(id) => id,
            Err(error) => unreachable!("a letter and a number name a group: {error}"),
        }
    }

    /// The creation number of a group.
    pub(super) fn creation(&self, group: usize) -> u64 {
        self.creations[group]
    }

    /// Whether a host that has the group runs it now.
    pub(super) fn runs(&self, group: usize, host: usize) -> bool {
        self.renewals.iter().all(|renewal| match renewal.stages[host] {
            Stage::Earlier => group != renewal.later,
            Stage::Removing | Stage::Removed { .. } => group != renewal.later && group != renewal.earlier,
            Stage::Later => group != renewal.earlier,
        })
    }

    /// Whether a host takes requests of this life of a group for some of the earlier one, which it has.
    pub(super) fn is_stranger(&self, host: usize, group: &str, creation: u64) -> bool {
        self.renewals.iter().any(|renewal| {
            renewal.stranger == Some(host)
                && renewal.begun
                && matches!(renewal.stages[host], Stage::Earlier | Stage::Removing)
                && self.creations[renewal.later] == creation
                && self.group_id(renewal.later).as_str() == group
        })
    }

    /// The disk of a host is lost, and with it what it knew of removals.
    pub(super) fn wiped(&mut self, host: usize) {
        for renewal in &mut self.renewals {
            if let Stage::Removing | Stage::Removed { .. } = renewal.stages[host] {
                renewal.stages[host] = Stage::Removed { buried: false };
            }
        }
    }
}

impl World {
    pub(super) fn start_renewals(&mut self) {
        let mut r = self.random.fork(9);
        for number in 0..self.lives.renewals.len() {
            let at = r.range(self.plan.chaos / 16, self.plan.chaos / 2);
            self.after(at, Event::Renew(number));
        }
    }

    /// Somebody gives the number of a later life, and each host is told in its own time.
    pub(super) fn renew(&mut self, number: usize) {
        if !self.chaos {
            return;
        }
        self.report.events += 1;
        let gap = self.random.below(3);
        let renewal = &mut self.lives.renewals[number];
        renewal.begun = true;
        self.lives.given += 1 + gap;
        self.lives.creations[renewal.later] = self.lives.given;
        let (later, members, stranger) = (renewal.later, renewal.members.clone(), renewal.stranger);
        self.plan.groups[later].clone_from(&members);
        self.mark("group made anew");
        let patience = 4 * self.plan.election_timeout_ms * MS;
        for host in members {
            let late = if stranger == Some(host) { self.plan.chaos / 4 } else { 0 };
            let delay = late + self.random.sized(1, patience);
            self.after(delay, Event::Move(number, host));
        }
    }

    /// Faults have ended: what was begun is brought to its end, and the earlier lives are nobody's any more.
    pub(super) fn finish_renewals(&mut self) {
        for number in 0..self.lives.renewals.len() {
            let renewal = &self.lives.renewals[number];
            if renewal.begun {
                let (earlier, members) = (renewal.earlier, renewal.members.clone());
                self.plan.groups[earlier].clear();
                members.into_iter().for_each(|host| self.after(MS, Event::Move(number, host)));
            }
        }
    }

    /// A host goes on with a renewal, as far as it can.
    pub(super) fn move_on(&mut self, number: usize, host: usize) -> Result<(), Violation> {
        if self.hosts[host].left_dead {
            return Ok(());
        }
        let stage = self.lives.renewals[number].stages[host];
        if stage == Stage::Later {
            return Ok(());
        }
        let patience = self.plan.election_timeout_ms * MS;
        let stopping = self.hosts[host].process.as_ref().is_none_or(|process| process.stopping.is_some());
        let again = match stage {
            _ if stopping || self.hosts[host].paused_until > self.now => patience / 4,
            Stage::Earlier => {
                self.close_earlier(number, host);
                AGAIN
            }
            Stage::Removing if !self.remove_earlier(number, host)? => AGAIN,
            Stage::Removing => self.random.sized(1, if self.chaos { 2 * patience } else { MS }),
            Stage::Removed { .. } => {
                self.start_late(number, host)?;
                if self.begin_later(number, host)? {
                    return Ok(());
                }
                AGAIN
            }
            Stage::Later => return Ok(()),
        };
        let delay = again + self.random.below(AGAIN);
        self.after(delay, Event::Move(number, host));
        Ok(())
    }

    /// The host stops its replica of the earlier life.
    fn close_earlier(&mut self, number: usize, host: usize) {
        let earlier = self.lives.renewals[number].earlier;
        self.lives.renewals[number].stages[host] = Stage::Removing;
        let name = self.lives.group_id(earlier);
        self.note(|| format!("host {host} removes {name}"));
        let Some(process) = &mut self.hosts[host].process else { return };
        if let Some(handle) = process.handles[earlier].take() {
            process.routes.remove(&name);
            let close = Control::Close { handle, answer: ringraft::handler::promise().0 };
            process.control.push_back(LaneEvent::Control(Box::new(close)));
            self.wake(host, 0);
        }
    }

    /// Removes the earlier life from the host's store, once nothing of it is on its way there. Says whether it is gone.
    fn remove_earlier(&mut self, number: usize, host: usize) -> Result<bool, Violation> {
        let earlier = self.lives.renewals[number].earlier;
        let name = self.lives.group_id(earlier);
        let h = &mut self.hosts[host];
        let Some(p) = &mut h.process else { return Ok(false) };
        if p.disk.failed().is_some()
            || p.writing.is_some()
            || p.telling.is_some()
            || is_on_its_way(p, earlier)
        {
            return Ok(false);
        }
        self.report.events += 1;
        h.proof.submitting(&h.disk);
        let removed = remove(p.store.as_log(), &name);
        if self.hosts[host].power_is_off() {
            self.power_went(host)?;
            return Ok(false);
        }
        match removed {
            Ok(buried) => {
                let h = &mut self.hosts[host];
                h.proof.synced(&h.disk);
                // Its registers stay: a worker that stood still answers reads that were confirmed before the end.
                self.lives.renewals[number].stages[host] = Stage::Removed { buried };
                self.mark("group removed");
                Ok(true)
            }
            Err(StorageError::NoRoom(_)) => Ok(false),
            Err(error) => {
                self.disk_fails(host, error)?;
                Ok(false)
            }
        }
    }

    /// Somebody who has missed the removal has the host start the earlier life.
    fn start_late(&mut self, number: usize, host: usize) -> Result<(), Violation> {
        let Renewal { earlier, later, stages, .. } = &self.lives.renewals[number];
        let later = self.lives.creation(*later);
        let meant =
            GroupOpening { group: self.lives.group_id(*earlier), creation: self.lives.creation(*earlier) };
        let buried = stages[host] == Stage::Removed { buried: true };
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        if !buried || p.disk.failed().is_some() || p.writing.is_some() || p.telling.is_some() {
            return Ok(());
        }
        let opened = p.store.as_log().open_groups(std::slice::from_ref(&meant));
        match opened.map(|mut opened| opened.pop()) {
            // A crash may have come between the creation of the later life in the store and its start.
            Ok(Some(Err(StorageError::OtherLife { .. }))) => {
                self.mark("removed life refused");
                Ok(())
            }
            // By then the store may hold the later life, and no number means whatever is there.
            Ok(Some(Ok(opened))) if meant.creation == 0 && opened.creation == later => Ok(()),
            // Nothing is asked of the disk by a store that knows the name.
            other => {
                let what = format!("host {host} has removed {meant:?} and would start it again: {other:?}");
                Err(broken("a removed life never begins again", what))
            }
        }
    }

    /// Starts the later life on a running host. Says whether it runs.
    fn begin_later(&mut self, number: usize, host: usize) -> Result<bool, Violation> {
        let later = self.lives.renewals[number].later;
        let now = self.hosts[host].clock.now(self.now);
        let Some(mut process) = self.hosts[host].process.take() else { return Ok(false) };
        let p = &mut *process;
        if p.disk.failed().is_some() || p.writing.is_some() || p.telling.is_some() {
            self.hosts[host].process = Some(process);
            return Ok(false);
        }
        self.report.events += 1;
        let h = &mut self.hosts[host];
        h.proof.submitting(&h.disk);
        p.lane.begin_turn(now, &mut p.out);
        let opened = self.open_replica(p, host, later);
        p.lane.end_turn(now, &mut p.out);
        self.hosts[host].process = Some(process);
        if self.hosts[host].power_is_off() {
            self.power_went(host)?;
            return Ok(false);
        }
        match opened {
            Ok(opened) => opened?,
            Err(StorageError::NoRoom(_)) => return Ok(false),
            Err(error) => {
                self.disk_fails(host, error)?;
                return Ok(false);
            }
        }
        let h = &mut self.hosts[host];
        h.proof.synced(&h.disk);
        self.lives.renewals[number].stages[host] = Stage::Later;
        self.mark("later life begun");
        self.wake(host, 1);
        self.observe_turn(host)?;
        Ok(true)
    }

    /// What a crash has cut short is done when the store is opened again, before any group of it.
    pub(super) fn removals_go_on(
        &mut self,
        host: usize,
        store: &mut dyn LogStorage,
    ) -> Result<(), StorageError> {
        for number in 0..self.lives.renewals.len() {
            let Renewal { earlier, stages, .. } = &self.lives.renewals[number];
            if stages[host] != Stage::Removing {
                continue;
            }
            let name = self.lives.group_id(*earlier);
            let buried = remove(store, &name)?;
            self.lives.renewals[number].stages[host] = Stage::Removed { buried };
            self.mark("removal cut short by a crash");
        }
        Ok(())
    }
}

/// Removes the group of this name, if it is there or was. Says whether the store knows of it now: one whose disk was lost may never have
/// heard of the name.
fn remove(store: &mut dyn LogStorage, name: &GroupId) -> Result<bool, StorageError> {
    let Some(stored) = store.stored_groups().into_iter().find(|stored| stored.group == *name) else {
        return Ok(false);
    };
    stored.key.map_or(Ok(()), |key| store.remove_group(key)).map(|()| true)
}

/// Whether the group still runs, or writes of it wait for the disk.
fn is_on_its_way(p: &Process, group: usize) -> bool {
    let of_group = |handle| p.by_handle.get(&handle) == Some(&group);
    let runs = |handle: &ringraft::handler::GroupHandle| of_group(*handle) && p.lane.node(*handle).is_some();
    let mut writes = p.out.disk.iter().chain(p.disk_ring.iter().flatten());
    // What the disk stage has taken in and not written is not looked into.
    p.by_handle.keys().any(runs) || !p.disk_queue.is_empty() || writes.any(|write| of_group(write.handle))
}
