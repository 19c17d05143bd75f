//! An owner that was late: what ran out while it could hear nobody says little about the others.

use crate::effects::Effects;
use crate::marks::Mark;
use crate::node::NodeImpl;
use crate::node::role::Role;
use crate::types::Time;

/// Extensions of one patience at most, in election time-outs: with the time-out itself a leader is waited for four of them, in time
/// that the owner was there.
const MOST_EXTENSIONS: u64 = 3;

/// How late the owner is, and what that has been worth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    /// By how much, in microseconds, at this tick.
    late: u64,
    /// Extensions since the leader was last heard of, in microseconds.
    extended: u64,
}

impl NodeImpl {
    /// Says, before an [`Input::Tick`](crate::Input::Tick), for how long the owner was not there, in microseconds: it was not
    /// scheduled, or its turns take so long. Heartbeats and answers of that time may be still unread. Time-outs of elections that
    /// ran out then are extended by as much, by one election time-out at most at once and three in all; after that they count.
    ///
    /// Rule R5: this is patience of those who would campaign, and only that. Leases and promises end by the clock, whatever the owner says here,
    /// and a leader that no quorum answers steps down on time: others may lead by then.
    pub fn owner_was_late(&mut self, micros: u64) {
        self.lateness.late = micros;
    }

    /// Whether a tick at `now` begins a campaign: the patience with the leader, or with a round of votes, is over and is not extended.
    pub fn campaign_is_due(&self, now: Time) -> bool {
        let over = match &self.role {
            Role::Follower(following) => {
                following.election_timer.is_due(now) && !self.leader_is_alive(now) && !self.keeps_promise(now)
            }
            Role::Candidate(candidacy) => candidacy.vote_timer.is_due(now),
            _ => false,
        };
        over && self.extension().is_none()
    }

    /// When the node campaigns if it hears of no leader until then. `None` when it does not wait for one.
    pub fn campaign_deadline(&self) -> Option<Time> {
        match &self.role {
            Role::Follower(following) => following.election_timer.deadline(),
            Role::Candidate(candidacy) => candidacy.vote_timer.deadline(),
            _ => None,
        }
    }

    /// Puts a campaign off, or forward, to `at`: for an owner of many groups that must not campaign for all of them at once.
    pub fn postpone_campaign(&mut self, at: Time) {
        if self.campaign_deadline().is_some() {
            self.put_off(at);
        }
    }

    /// Moves the time-out of the role to `at`.
    pub(super) fn put_off(&mut self, at: Time) {
        match &mut self.role {
            Role::Follower(following) => following.election_timer.start(at),
            Role::Candidate(candidacy) => candidacy.vote_timer.start(at),
            _ => {}
        }
    }

    fn extension(&self) -> Option<u64> {
        let timeout = self.options.election_timeout_ms * 1000;
        let Lateness { late, extended } = self.lateness;
        let counts = late >= self.options.heartbeat_ms() * 1000 / 2;
        let left = (MOST_EXTENSIONS * timeout).saturating_sub(extended);
        let extension = late.min(timeout).min(left);
        (counts && extension > 0).then_some(extension)
    }

    /// The end of a patience that has run out, if the owner's lateness extends it.
    pub(super) fn extended_patience(&mut self, now: Time, fx: &mut Effects) -> Option<Time> {
        let extension = self.extension()?;
        self.lateness.extended += extension;
        fx.marks.set(Mark::PatienceExtended);
        Some(Time(now.0.saturating_add(extension)))
    }

    /// A leader was heard of: patience begins anew.
    pub(super) fn patience_begins(&mut self) {
        self.lateness.extended = 0;
    }

    /// The tick is over; another has its own lateness.
    pub(super) fn tick_ends(&mut self) {
        self.lateness.late = 0;
    }
}
