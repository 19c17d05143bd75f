//! Faults that the world injects.

use ringraft_storage::disk::FsyncFailure;

use super::World;
use super::event::Event;
use crate::cluster::clock::MS;
use crate::cluster::faults::FaultKind;
use crate::cluster::host::WORKERS;
use crate::cluster::plan::StoreKind;
use crate::cluster::random::Random;

impl World {
    /// The fault of this number, unless it is skipped; arms the next.
    pub(super) fn fault(&mut self, number: u64) {
        if !self.chaos || self.plan.faults.is_empty() {
            return;
        }
        let mut r = self.fault_random.fork(number);
        let gap = self.plan.fault_gap;
        let next = r.range(gap / 4 + 1, 2 * gap);
        let kind = self.plan.faults[r.index(self.plan.faults.len())];
        let skipped = self.skip.contains(&number);
        if self.plan.operators.aims && kind.has_acts() && !skipped && self.strained > self.now {
            // It comes when the one before it is over.
            self.at(self.strained, Event::Fault(number));
            return;
        }
        self.after(next, Event::Fault(number + 1));
        if skipped {
            return;
        }
        let mut host = r.index(self.plan.hosts);
        if kind.damages() {
            // The next host that the atlas has, if any.
            let hosts = self.plan.hosts;
            let Some(found) = (host..host + hosts).map(|at| at % hosts).find(|at| self.plan.atlas[*at])
            else {
                return;
            };
            host = found;
            self.hosts[host].damage_planned = true;
        }
        if self.inject(kind, host, &mut r) {
            *self.report.faults.entry(kind.name()).or_default() += 1;
            self.report.fault_numbers.push((number, kind.name()));
        }
    }

    fn inject(&mut self, kind: FaultKind, host: usize, r: &mut Random) -> bool {
        let timeout = self.plan.election_timeout_ms * MS;
        let up = self.hosts[host].process.is_some();
        let away = r.sized(MS, 4 * timeout);
        self.note(|| format!("fault {} at host {host}", kind.name()));
        use FaultKind::{CorruptRead, DiskError, DiskFull, FsyncFails, ReadError};
        if matches!(kind, DiskError | FsyncFails | DiskFull | ReadError | CorruptRead) {
            self.hosts[host].disk_suspect = true;
        }
        match kind {
            FaultKind::Kill if up => self.crash(host, None, away, r),
            FaultKind::PowerLoss if up => self.crash(host, Some(r.next()), away, r),
            FaultKind::PowerCut => {
                let operations = r.sized(1, 64) - 1;
                self.hosts[host].cut_power_after(operations);
            }
            FaultKind::Shutdown if up => self.begin_shutdown(host, away),
            FaultKind::DiskError => self.hosts[host].disk.fail_operation_after(r.sized(1, 32) - 1),
            FaultKind::FsyncFails => {
                let outcomes = [FsyncFailure::KeepsNew, FsyncFailure::RevertsToOld, FsyncFailure::StaysDirty];
                self.hosts[host].disk.fail_fsync_after(r.below(8), outcomes[r.index(3)]);
            }
            FaultKind::DiskFull => {
                let disk = &self.hosts[host].disk;
                disk.limit_bytes(Some(disk.used_bytes()));
                self.hosts[host].disk_full = true;
                self.after(away, Event::DiskRoom(host));
            }
            FaultKind::SlowDisk => {
                let until = self.now + away;
                let delay = r.sized((timeout / 8).min(1000 * MS), (8 * timeout).min(10_000 * MS));
                self.hosts[host].slow_disk = Some((until, delay));
            }
            FaultKind::ShortReads => self.hosts[host].disk.short_reads(true),
            FaultKind::ReadError => self.hosts[host].disk.fail_read_after(r.sized(1, 32) - 1),
            FaultKind::CorruptRead if up => {
                self.hosts[host].disk.corrupt_read_after(Some(r.sized(1, 32) - 1));
            }
            FaultKind::BitFlip => return self.flip_bits(host, r),
            FaultKind::MisdirectedWrite => self.hosts[host].disk.misdirect_write_after(r.sized(1, 32) - 1),
            FaultKind::LostDirEntry => self.hosts[host].disk.lose_dir_sync_after(r.sized(1, 4) - 1),
            FaultKind::Pause if up => {
                self.pause(host, r.sized(MS, 4 * timeout));
            }
            FaultKind::ClockLeap => {
                let now = self.now;
                let hour = r.chance(100).then_some(3_600_000 * MS);
                self.hosts[host].clock.leap(now, hour.unwrap_or_else(|| r.sized(MS, 8 * timeout)));
                self.wake(host, 0);
            }
            FaultKind::StageStall => self.hosts[host].stall = r.sized(MS, 4 * timeout),
            FaultKind::MachineStall => {
                let (until, worker) = (self.now + r.sized(timeout, 6 * timeout), r.index(WORKERS));
                let all = r.chance(500);
                for at in (0..self.plan.hosts).filter(|at| all || *at == host) {
                    self.hosts[at].still_until[worker] = until;
                }
            }
            FaultKind::LeaderLost => return self.lag_behind_leader(r),
            FaultKind::LeaderMuffled
            | FaultKind::LeaseStrained
            | FaultKind::LateOrder
            | FaultKind::ChangeCutShort
            | FaultKind::VoterForgets
            | FaultKind::VoterLags => return self.strain(kind, r),
            FaultKind::Wipe => return self.wipe(host, away, r),
            FaultKind::Reset => {
                let other = r.index(self.plan.hosts);
                self.break_connections(r, |a, b| (a, b) == (host, other) || (b, a) == (host, other));
            }
            FaultKind::HalfOpen => {
                let other = r.index(self.plan.hosts);
                let away = r.sized(timeout / 4, 8 * timeout);
                return self.half_open(r, away, |a, b| (a, b) == (host, other) || (b, a) == (host, other));
            }
            FaultKind::Clog => {
                let other = r.chance(500).then(|| r.index(self.plan.hosts));
                let (until, delay) = (self.now + away, r.sized(timeout / 16, 2 * timeout));
                for to in (0..self.plan.hosts).filter(|to| *to != host && other.is_none_or(|o| o == *to)) {
                    self.clog_way(host, to, until, delay);
                    if r.chance(500) {
                        self.clog_way(to, host, until, delay);
                    }
                }
            }
            FaultKind::SlowReader => self.hosts[host].slow_reader = self.now + away,
            FaultKind::OneWayCut => {
                let other = r.index(self.plan.hosts);
                self.cut(r, away, |from, to| from == host && to == other);
            }
            FaultKind::Partition => {
                let side: Vec<bool> = (0..self.plan.hosts).map(|_| r.chance(500)).collect();
                self.cut(r, away, |from, to| side[from] != side[to]);
            }
            _ => return false,
        }
        true
    }

    /// A process stands still for so long at least.
    pub(super) fn pause(&mut self, host: usize, away: u64) {
        let until = self.now + away;
        let paused = &mut self.hosts[host].paused_until;
        *paused = until.max(*paused);
    }

    /// The host that leads a group.
    pub(super) fn leader_of(&self, group: usize) -> Option<usize> {
        let leads = |host: &&usize| self.node(group, **host).is_some_and(|node| node.is_leader());
        self.plan.groups[group].iter().find(leads).copied()
    }

    /// A leader is heard by a bare majority only, and soon by nobody: what it did last is held by some of those who elect the
    /// next leader.
    fn lag_behind_leader(&mut self, r: &mut Random) -> bool {
        let timeout = self.plan.election_timeout_ms * MS;
        let group = r.index(self.plan.groups.len());
        let Some(leader) = self.leader_of(group) else { return false };
        let mut near: Vec<usize> =
            self.plan.groups[group].iter().copied().filter(|host| *host != leader).collect();
        for at in (1..near.len()).rev() {
            near.swap(at, r.index(at + 1));
        }
        let far = near.split_off(near.len().div_ceil(2));
        near.push(leader);
        let (soon, last) = (r.sized(MS, timeout / 2), r.range(timeout / 8, timeout / 2));
        // What is held back meanwhile must not arrive before the election.
        let behind = soon + last + r.range(timeout, 6 * timeout);
        self.cut(r, behind, |from, to| from == leader && far.contains(&to));
        self.after(soon, Event::HinderLeader { group, near, last, random: r.clone() });
        true
    }

    /// Writes of the majority are under way, or disk stages late with their news, when its leader is lost.
    pub(super) fn hinder_leader(&mut self, group: usize, near: &[usize], last: u64, mut r: Random) {
        let timeout = self.plan.election_timeout_ms * MS;
        for host in near {
            match r.below(4) {
                0 => self.hosts[*host].stall = last + r.range(timeout, 4 * timeout),
                1 => {
                    let (until, delay) = (self.now + last + timeout, r.range(timeout, 10 * timeout));
                    self.hosts[*host].slow_disk = Some((until, delay));
                }
                _ => {}
            }
        }
        self.after(last, Event::LoseLeader { group, random: r });
    }

    /// The leader of a group is gone for a while, perhaps with some of those that it reaches.
    pub(super) fn lose_leader(&mut self, group: usize, mut r: Random) {
        let Some(leader) = self.leader_of(group).filter(|_| self.chaos) else { return };
        let timeout = self.plan.election_timeout_ms * MS;
        let away = r.range(timeout, 6 * timeout);
        match r.below(8) {
            0 => self.crash(leader, None, away, &mut r),
            1 if matches!(self.plan.store, StoreKind::Segment(_)) => {
                self.crash(leader, Some(r.next()), away, &mut r);
            }
            2 => self.hosts[leader].paused_until = self.now + away,
            kind => {
                let side: Vec<bool> =
                    (0..self.plan.hosts).map(|host| host == leader || r.chance(150)).collect();
                // It may still speak, or still hear.
                let (speaks, hears) = (kind == 3, kind == 4);
                self.cut(&mut r, away, |from, to| {
                    side[from] != side[to] && !(speaks && side[from]) && !(hears && side[to])
                });
            }
        }
    }
}
