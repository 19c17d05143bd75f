//! What the load has seen so far, shared by its workers and whoever watches.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::checker::Tally;

/// No server.
const NOBODY: usize = usize::MAX;

/// Numbers of the load and what broke first.
pub struct Board {
    /// Writes that were acknowledged.
    pub acked: AtomicU64,
    /// Writes whose outcome is unknown.
    pub unknown: AtomicU64,
    /// Requests that certainly were not carried out.
    pub failed: AtomicU64,
    /// Reads that were answered.
    pub reads: AtomicU64,
    /// Reads that failed although the client went on trying, because nobody was known to lead.
    pub reads_leaderless: AtomicU64,
    /// Reads that failed otherwise.
    pub reads_failed: AtomicU64,
    /// Differences between what was acknowledged and what is there.
    pub lost: AtomicU64,
    first_difference: Mutex<Option<String>>,
    first_failure: Mutex<Option<String>>,
    groups: Vec<Mutex<GroupTrack>>,
    /// Which server has answered for a group last.
    leaders: Vec<AtomicUsize>,
    /// Counters to which all sessions add.
    tallies: Vec<Mutex<Tally>>,
}

#[derive(Default)]
struct GroupTrack {
    last_success: Option<Instant>,
    /// The server that was killed or hands over, and its last success.
    outage: Option<(usize, Instant)>,
}

impl Board {
    /// A board for so many groups and shared counters.
    pub fn new(groups: usize, tallies: usize) -> Board {
        Board {
            acked: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            reads_leaderless: AtomicU64::new(0),
            reads_failed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            first_difference: Mutex::new(None),
            first_failure: Mutex::new(None),
            groups: (0..groups).map(|_| Mutex::default()).collect(),
            leaders: (0..groups).map(|_| AtomicUsize::new(NOBODY)).collect(),
            tallies: (0..tallies).map(|_| Mutex::default()).collect(),
        }
    }

    /// A server has carried out a request of a group. Gives the length of the outage that this ends.
    pub fn success(&self, group: usize, server: usize, failovers: &Mutex<Vec<Duration>>) {
        let now = Instant::now();
        let mut track = self.groups[group].lock();
        match &mut track.outage {
            // An answer that was under way when the server was killed.
            Some((killed, last)) if *killed == server => *last = now,
            Some((_, last)) => {
                failovers.lock().push(now - *last);
                track.outage = None;
            }
            None => {}
        }
        track.last_success = Some(now);
        drop(track);
        self.leaders[group].store(server, Ordering::Relaxed);
    }

    /// `server` was killed: the groups that it led are out until another server answers. Gives those groups.
    pub fn killed(&self, server: usize, led: impl Fn(usize) -> bool) -> Vec<usize> {
        let moved: Vec<usize> = (0..self.groups.len()).filter(|group| led(*group)).collect();
        moved.iter().for_each(|group| self.hands_over(*group, server));
        moved
    }

    /// `server` is about to lead the group no more: it is out until another server answers. Saying so twice counts from its last
    /// answer all the same.
    pub fn hands_over(&self, group: usize, server: usize) {
        let mut track = self.groups[group].lock();
        if track.outage.is_none_or(|(from, _)| from != server) {
            track.outage = Some((server, track.last_success.unwrap_or_else(Instant::now)));
        }
    }

    /// The server leads the group still: nothing was handed over.
    pub fn keeps(&self, group: usize) {
        self.groups[group].lock().outage = None;
    }

    /// Whether a group is out since a kill.
    pub fn is_out(&self, group: usize) -> bool {
        self.groups[group].lock().outage.is_some()
    }

    /// Which server has answered for a group last.
    pub fn leader(&self, group: usize) -> Option<usize> {
        let leader = self.leaders[group].load(Ordering::Relaxed);
        (leader != NOBODY).then_some(leader)
    }

    /// How many groups each of `servers` servers has answered for last.
    pub fn leads(&self, servers: usize) -> Vec<usize> {
        let leads =
            |server| (0..self.groups.len()).filter(|group| self.leader(*group) == Some(server)).count();
        (0..servers).map(leads).collect()
    }

    /// The counter to which all sessions add.
    pub fn tally(&self, tally: usize) -> &Mutex<Tally> {
        &self.tallies[tally]
    }

    /// Number of such counters.
    pub fn tallies(&self) -> usize {
        self.tallies.len()
    }

    /// Takes note of a check that failed.
    pub fn check(&self, result: Result<(), String>) {
        if let Err(difference) = result {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.first_difference.lock().get_or_insert(difference);
        }
    }

    /// The first check that failed.
    pub fn first_difference(&self) -> Option<String> {
        self.first_difference.lock().clone()
    }

    /// Takes note of a request that was not carried out.
    pub fn fail(&self, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.first_failure.lock().get_or_insert_with(|| why.to_owned());
    }

    /// Why the first request that failed did.
    pub fn first_failure(&self) -> Option<String> {
        self.first_failure.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends_with_the_first_answer_of_another_server() {
        let (board, failovers) = (Board::new(2, 0), Mutex::default());
        board.success(0, 1, &failovers);
        board.success(1, 2, &failovers);
        assert_eq!(board.killed(1, |group| board.leader(group) == Some(1)), [0]);
        board.success(0, 1, &failovers);
        assert!(board.is_out(0), "an answer that was under way");
        board.success(0, 2, &failovers);
        assert!(!board.is_out(0) && !board.is_out(1));
        assert_eq!((failovers.lock().len(), board.leads(3)), (1, vec![0, 0, 2]));
    }

    #[test]
    fn a_hand_over_lasts_from_the_last_answer_of_the_one_to_the_first_of_the_other() {
        let (board, failovers) = (Board::new(1, 0), Mutex::default());
        board.success(0, 1, &failovers);
        board.hands_over(0, 1);
        board.success(0, 1, &failovers);
        let answered = board.groups[0].lock().last_success;
        board.hands_over(0, 1);
        assert_eq!(board.groups[0].lock().outage.map(|(_, last)| last), answered);
        board.success(0, 0, &failovers);
        assert_eq!((failovers.lock().len(), board.is_out(0)), (1, false));
        board.hands_over(0, 0);
        board.keeps(0);
        board.success(0, 1, &failovers);
        assert_eq!(failovers.lock().len(), 1, "what was not handed over on purpose does not count");
    }

    #[test]
    fn the_first_difference_is_kept() {
        let board = Board::new(1, 0);
        board.check(Ok(()));
        board.check(Err("a".into()));
        board.check(Err("b".into()));
        assert_eq!(board.first_difference().as_deref(), Some("a"));
        assert_eq!(board.lost.load(Ordering::Relaxed), 2);
    }
}
