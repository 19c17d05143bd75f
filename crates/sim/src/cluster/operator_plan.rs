//! What operators and readers do in a seed.

use super::clock::MS;
use super::random::Random;
use super::{Profile, SimOptions};

/// What a seed lets operators and readers do.
#[derive(Clone, Debug)]
pub(super) struct OperatorPlan {
    /// Members change: some hosts begin as nobody's members.
    pub(super) members: bool,
    /// Leadership is handed over.
    pub(super) transfers: bool,
    /// The first members of each group.
    pub(super) initial: Vec<Vec<usize>>,
    /// Mean time between two actions, in microseconds.
    pub(super) gap: u64,
    /// Reads in a thousand that go by read index instead of through the log.
    pub(super) read_index: u64,
    /// Voters promise leases, and some of those reads use them.
    pub(super) lease_reads: bool,
    /// Options of elections and leases differ from host to host, and from life to life of a host.
    pub(super) uneven: bool,
    /// Election priority of each host.
    pub(super) priorities: Vec<i32>,
    pub(super) catchup_margin: u64,
    /// Most faults aim at leaders.
    pub(super) aims: bool,
    /// Candidates wait for little more than the election time-out.
    pub(super) quick: bool,
    /// A write that takes so long counts as stalled, in milliseconds; 0 is the default.
    pub(super) disk_stall_ms: u64,
}

impl OperatorPlan {
    /// One more group, with the first members of this one.
    pub(super) fn add(&mut self, like: usize) {
        self.initial.push(self.initial[like].clone());
    }

    pub(super) fn draw(
        options: &SimOptions,
        groups: &[Vec<usize>],
        election_timeout_ms: u64,
    ) -> OperatorPlan {
        // A stream of its own: what else a seed draws does not depend on this.
        let mut r = Random::new(options.seed).fork(5);
        let hosts = groups.iter().flatten().max().map_or(1, |last| last + 1);
        let aims = hosts > 1 && options.profile != Profile::Disk && r.chance(250);
        let all = options.profile == Profile::All;
        let members = hosts > 1 && (r.chance(if aims { 650 } else { 400 }) || all);
        let initial = groups
            .iter()
            .map(|all| {
                let mut first = all.clone();
                while members && first.len() > 1 && r.chance(500) {
                    first.remove(r.index(first.len()));
                }
                first
            })
            .collect();
        let days = options.profile == Profile::Days;
        let timeout = election_timeout_ms * MS;
        let prefers = r.chance(150);
        OperatorPlan {
            members,
            transfers: r.chance(if aims { 650 } else { 400 }) || all,
            initial,
            gap: if days { 100 * timeout } else { r.sized(timeout / 8, 8 * timeout) },
            read_index: if aims || all || r.chance(500) { r.range(100, 1000) } else { 0 },
            lease_reads: r.chance(if aims { 700 } else { 200 }),
            uneven: false,
            priorities: (0..hosts)
                .map(|_| if prefers { [-1, 10, 40, 100][r.index(4)] } else { -1 })
                .collect(),
            catchup_margin: r.sized(1, 64),
            aims,
            quick: r.chance(if aims { 600 } else { 150 }),
            disk_stall_ms: if r.chance(200) {
                r.range(election_timeout_ms, 3 * election_timeout_ms)
            } else {
                0
            },
        }
    }

    /// Rounds of election that a group may need for a leader. Who waits for a member of higher priority waits long: from 100 to 10
    /// the priority that it waits for decays in eight steps of two election time-outs.
    pub(super) fn rounds(&self) -> u64 {
        if self.priorities.iter().any(|priority| *priority >= 0) { 40 } else { 10 }
    }

    /// Whether there are readers, and whether there are operators.
    pub(super) fn watch(&self) -> (bool, bool) {
        (self.read_index > 0, self.acts())
    }

    /// Whether operators do anything.
    pub(super) fn acts(&self) -> bool {
        self.members || self.transfers
    }
}
