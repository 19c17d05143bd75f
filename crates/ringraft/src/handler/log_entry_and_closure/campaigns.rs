//! Campaigns of one lane, one after the other: an owner of thousands of groups that has heard of no leader for a while, for whatever
//! reason, must not campaign for all of them at once. Each campaign makes work for every member, and late heartbeats more campaigns.

use std::collections::VecDeque;

use ringraft_core::{Input, Time};

use crate::handler::log_entry_and_closure::group::Group;
use crate::handler::{GroupHandle, LaneOutput, LogEntryAndClosureHandler};

/// A campaign that finds no turn is due again after so many election time-outs, at the end of the line.
const POSTPONED_TIMEOUTS: u64 = 4;

/// Who campaigns next.
#[derive(Debug, Default)]
pub(super) struct Campaigns {
    /// When the next one fits the rate.
    next: Time,
    /// Groups whose clients wait.
    asked: VecDeque<GroupHandle>,
    others: VecDeque<GroupHandle>,
}

impl Campaigns {
    /// Whether a campaign may begin now, which then counts. A tenth of a second's share may begin at once.
    fn admits(&mut self, now: Time, a_second: u64) -> bool {
        let gap = 1_000_000 / a_second.clamp(1, 1_000_000);
        let burst = (a_second / 10).max(1) - 1;
        self.next = self.next.max(Time(now.0.saturating_sub(burst * gap)));
        let admitted = self.next <= now;
        if admitted {
            self.next = Time(self.next.0 + gap);
        }
        admitted
    }

    /// When one that waits may begin.
    fn deadline(&self) -> Option<Time> {
        let waits = !self.asked.is_empty() || !self.others.is_empty();
        waits.then_some(self.next)
    }

    fn front(&self) -> Option<GroupHandle> {
        self.asked.front().or_else(|| self.others.front()).copied()
    }

    fn pop(&mut self) {
        if self.asked.pop_front().is_none() {
            self.others.pop_front();
        }
    }
}

/// How late the owner was of late.
#[derive(Debug, Default)]
pub(super) struct Gap {
    micros: u64,
    ended: Time,
}

impl Gap {
    /// The owner looks at its timers, the first of which was due at `due`. A gap counts for as long again as it was: what came in
    /// meanwhile is read in the turns after it.
    fn late(&mut self, now: Time, due: Option<Time>) -> u64 {
        let late = due.filter(|due| *due <= now).map_or(0, |due| now.since(due));
        if late >= self.micros || now.since(self.ended) >= self.micros {
            *self = Gap { micros: late, ended: now };
        }
        self.micros
    }
}

impl LogEntryAndClosureHandler {
    /// When [`on_tick`](LogEntryAndClosureHandler::on_tick) is wanted next.
    pub fn next_deadline(&self) -> Option<Time> {
        [self.timers.next(), self.campaigns.deadline()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Time, out: &mut LaneOutput) {
        let late = self.gap.late(now, self.timers.next());
        self.begin_campaigns(now, late, out);
        while let Some((at, slot, generation)) = self.timers.pop_due(now) {
            let handle = GroupHandle { lane: self.lane, slot, generation };
            let Some(group) = self.group(handle) else { continue };
            if group.armed != Some(at) {
                continue; // an earlier deadline was armed meanwhile, and has its own entry
            }
            group.timer_has_rung();
            group.end_late_reads(now);
            if group.node().deadline().is_some_and(|deadline| deadline <= now) {
                self.tick(now, late, handle, out);
            }
            self.touch(handle);
        }
    }

    /// A timer of the group is due.
    fn tick(&mut self, now: Time, late: u64, handle: GroupHandle, out: &mut LaneOutput) {
        let a_second = self.limits.campaigns_a_second;
        let Some(group) = self.group(handle) else { return };
        group.owner_was_late(late);
        if group.node().campaign_is_due(now) && !self.campaigns.admits(now, a_second) {
            self.postpone(now, handle);
            // Another of its timers may be due as well.
        }
        self.step(now, handle, Input::Tick, out);
    }

    fn postpone(&mut self, now: Time, handle: GroupHandle) {
        let Some(group) = self.group(handle) else { return };
        let until = now.after_millis(POSTPONED_TIMEOUTS * group.node().options().election_timeout_ms);
        let was_waiting = group.postponed.is_some();
        group.postpone_campaign(until);
        let asked = group.asked;
        if !was_waiting {
            let line = if asked { &mut self.campaigns.asked } else { &mut self.campaigns.others };
            line.push_back(handle);
        }
    }

    /// Campaigns for those whose turn has come, unless they have heard of a leader or a candidate since.
    fn begin_campaigns(&mut self, now: Time, late: u64, out: &mut LaneOutput) {
        let a_second = self.limits.campaigns_a_second;
        while let Some(handle) = self.campaigns.front() {
            let waits = self.group(handle).is_some_and(Group::campaign_still_waits);
            if waits && !self.campaigns.admits(now, a_second) {
                return;
            }
            self.campaigns.pop();
            let Some(group) = self.group(handle).filter(|_| waits) else { continue };
            group.postpone_campaign(now);
            (group.postponed, group.asked) = (None, false);
            group.owner_was_late(late);
            self.step(now, handle, Input::Tick, out);
            self.touch(handle);
        }
    }

    /// Somebody asks something of a group that has no leader here: it campaigns before others.
    #[cold]
    pub(super) fn note_asked(&mut self, handle: GroupHandle) {
        let Some(group) = self.group(handle) else { return };
        if !std::mem::replace(&mut group.asked, true) && group.postponed.is_some() {
            self.campaigns.asked.push_back(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_keep_to_their_rate() {
        let mut campaigns = Campaigns::default();
        let begun = |campaigns: &mut Campaigns, millis: std::ops::Range<u64>| -> usize {
            let mut count = 0;
            for ms in millis {
                while campaigns.admits(Time(10_000_000 + ms * 1000), 200) {
                    count += 1;
                }
            }
            count
        };
        assert_eq!(begun(&mut campaigns, 0..1), 20, "a tenth of a second's share at once");
        assert_eq!(begun(&mut campaigns, 1..1001), 200);
        assert_eq!(begun(&mut campaigns, 60_000..60_001), 20, "what was not used is not saved up");
    }

    #[test]
    fn a_gap_counts_for_as_long_again() {
        let mut gap = Gap::default();
        assert_eq!(gap.late(Time(1000), Some(Time(990))), 10);
        assert_eq!(gap.late(Time(901_000), Some(Time(1000))), 900_000);
        assert_eq!(gap.late(Time(1_800_999), None), 900_000);
        assert_eq!(gap.late(Time(1_801_000), None), 0);
    }
}
