//! Deterministic simulation of whole clusters: the handlers of `ringraft`, the segment log and the RPC processors of up to
//! seven hosts in one thread, on virtual time, from one seed. `docs/testing.md` says what is simulated and what is not.

mod agenda;
mod checks;
mod clock;
mod damage;
mod faults;
mod host;
mod machine;
mod operator_plan;
mod oracle;
mod plan;
mod random;
mod recovery;
#[cfg(test)]
mod tests;
mod transport;
mod world;

use std::collections::{BTreeMap, BTreeSet};

pub use faults::FaultKind;
pub use world::run::{run, shrink};

/// Which world a seed draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Any mix of features and faults.
    #[default]
    Swarm,
    /// Faults of network, process and clock over a store in memory.
    Network,
    /// The segment log on a simulated disk, and connections that keep their order.
    Disk,
    /// Sixty days of virtual time with long time-outs and few faults.
    Days,
    /// Members, transfers and reads, and faults of network, process, clock and disk, all in every world. Only silent damage to disks is
    /// left out: where members change no host can be spared for good.
    All,
}

/// How long a seed's faults go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// Anything from 8,000 to 100,000 events.
    #[default]
    Any,
    /// About 15,000 events.
    Short,
    /// About 250,000 events.
    Long,
}

/// What to simulate.
#[derive(Clone, Debug, Default)]
pub struct SimOptions {
    /// Everything that happens follows from it.
    pub seed: u64,
    /// Hosts, 1 to 7; drawn when `None`.
    pub nodes: Option<usize>,
    /// Groups, 1 to 200; drawn when `None`.
    pub groups: Option<usize>,
    /// Which world to draw.
    pub profile: Profile,
    /// How long faults go on.
    pub length: Length,
    /// Numbers of faults that do not happen; for shrinking.
    pub skip: BTreeSet<u64>,
    /// Whether to keep the trace as text.
    pub trace: bool,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimViolation {
    /// Name of the rule.
    pub checker: String,
    /// What happened.
    pub message: String,
    /// Number of the event at which it showed.
    pub event: u64,
}

/// What one seed did.
#[derive(Clone, Debug, Default)]
pub struct SimReport {
    /// The seed.
    pub seed: u64,
    /// Calls of a handler, and deliveries and completions by the simulated world.
    pub events: u64,
    /// Entries that state machines applied first.
    pub commits: u64,
    /// Operations of clients with an answer.
    pub answered: u64,
    /// Virtual time that passed, in microseconds.
    pub virtual_us: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults by number and kind in order of time, for shrinking.
    pub fault_numbers: Vec<(u64, &'static str)>,
    /// Things worth reaching that were reached, by name.
    pub marks: BTreeMap<&'static str, u64>,
    /// Hash over everything that happened.
    pub trace_hash: u64,
    /// The rule that was broken, if any.
    pub violation: Option<SimViolation>,
    /// The last part of the trace, when it was asked for.
    pub trace: Vec<String>,
}

/// Commits that a seed needs at least to prove anything: one with fewer counts as *void*.
pub const MIN_COMMITS: u64 = 100;

/// Names of the marks of the world itself.
const WORLD_MARKS: &[&str] = &[
    "leader elected",
    "leader stepped down",
    "log truncated",
    "entries read back for a peer",
    "request held back",
    "task refused as busy",
    "outcome unknown",
    "recovered after power loss",
    "write waits for room",
    "write found room",
    "recovered after kill",
    "power cut inside recovery",
    "store failed",
    "damaged store refused",
    "damaged store started",
    "damage found by a read",
    "damage of the last batch passes for a torn write",
    "connection full",
    "full disk ring",
    "full state-machine ring",
    "history checked",
    "two hosts lead",
    "members changed",
    "leadership transferred",
    "read by read index",
    "a worker stood still",
    "another cluster spoke",
];

/// Names of everything that a full run must reach at least once: marks of the world, and branches of the core
/// ([`ringraft_core::Mark`]). [`SimReport::marks`] counts them.
pub fn marks() -> impl Iterator<Item = &'static str> {
    WORLD_MARKS.iter().copied().chain(ringraft_core::Mark::ALL.into_iter().map(ringraft_core::Mark::name))
}

/// Names of every kind of fault that a full run must have, as [`SimReport::faults`] counts them: those that are injected, and
/// what becomes of single frames and sectors.
pub fn fault_names() -> impl Iterator<Item = &'static str> {
    let small = [
        "datagram_lost",
        "datagram_doubled",
        "datagram_reordered",
        "stale_frame",
        "slow_frame",
        "torn_sector",
    ];
    FaultKind::ALL.into_iter().map(FaultKind::name).chain(small)
}
