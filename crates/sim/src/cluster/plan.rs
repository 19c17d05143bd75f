//! What one seed simulates: sizes of every bound, delays, and which faults may happen (swarm testing, Groce et al. 2012).

use ringraft::handler::LaneLimits;
use ringraft_storage::SegmentLogOptions;

use super::checks::Bounds;
use super::clock::MS;
use super::damage::draw_atlas;
use super::faults::FaultKind;
use super::operator_plan::OperatorPlan;
use super::random::Random;
use super::{Length, Profile, SimOptions};

/// The largest chunk of entries in memory, generously.
const LARGEST_PIECE: usize = 16 << 10;

/// Bounds in bytes, from a sequence of their own.
struct Memory {
    unapplied_bytes: usize,
    worker_bytes: usize,
    write_bytes: usize,
    tail_bytes: usize,
}

impl Memory {
    /// Each is tight in half of the seeds.
    fn draw(seed: u64) -> Memory {
        let mut r = Random::new(seed).fork(0xB17E5);
        let mut bound = |least, most| if r.chance(500) { r.sized(least, most) as usize } else { 1 << 30 };
        Memory {
            unapplied_bytes: bound(1, 8 << 10),
            worker_bytes: bound(64, 32 << 10),
            write_bytes: bound(64, 16 << 10),
            tail_bytes: bound(64, 32 << 10),
        }
    }
}

/// Where the logs live.
#[derive(Clone, Debug)]
pub(super) enum StoreKind {
    /// In memory: a crash of the process keeps what was submitted.
    Memory,
    /// The segment log over a simulated disk.
    Segment(SegmentLogOptions),
}

/// The network between the hosts.
#[derive(Clone, Debug)]
pub(super) struct NetPlan {
    /// Shortest and longest delay of a frame, in microseconds.
    pub(super) delay: (u64, u64),
    /// Frames are lost, doubled and reordered one by one; otherwise connections are ordered and break as a whole.
    pub(super) datagrams: bool,
    pub(super) loss: u64,
    pub(super) duplication: u64,
    /// Requests of a link that may be unanswered.
    pub(super) outbox: usize,
    /// Frames of a connection that may be sent and not read.
    pub(super) window: usize,
}

/// Everything that a seed decides before the first event.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) hosts: usize,
    /// Hosts of each group.
    pub(super) groups: Vec<Vec<usize>>,
    pub(super) limits: LaneLimits,
    pub(super) apply_ring: usize,
    pub(super) disk_ring: usize,
    pub(super) fsm_ring: usize,
    pub(super) read_ring: usize,
    pub(super) turn_events: usize,
    pub(super) disk_batch: usize,
    pub(super) write_bytes: usize,
    pub(super) disk_delay: (u64, u64),
    pub(super) stage_delay: u64,
    pub(super) store: StoreKind,
    pub(super) net: NetPlan,
    pub(super) election_timeout_ms: u64,
    pub(super) election_delay_ms: u64,
    pub(super) heartbeat_factor: u64,
    pub(super) step_down_when_vote_timedout: bool,
    pub(super) entries_size: usize,
    pub(super) body_size: usize,
    pub(super) inflight_msgs: usize,
    pub(super) inflight_bytes: usize,
    pub(super) rpc_timeout_ms: u64,
    pub(super) unstable_entries: u64,
    pub(super) unapplied_entries: u64,
    pub(super) unapplied_bytes: usize,
    pub(super) tail_bytes: usize,
    pub(super) clock_ppm: u64,
    pub(super) clients: usize,
    pub(super) keys: u64,
    pub(super) think: u64,
    pub(super) burst: u64,
    pub(super) value_bytes: u64,
    pub(super) faults: Vec<FaultKind>,
    /// Hosts whose disks may be damaged.
    pub(super) atlas: Vec<bool>,
    pub(super) operators: OperatorPlan,
    /// Mean time between two faults, in microseconds.
    pub(super) fault_gap: u64,
    /// Events after which faults end, however little time has passed.
    pub(super) budget: u64,
    /// How long faults happen, in microseconds of virtual time.
    pub(super) chaos: u64,
}

impl Plan {
    /// Bytes of a group that may wait for the disk.
    pub(super) fn unstable_bytes(&self) -> usize {
        self.body_size + (64 << 10)
    }

    /// The shortest election time-out of a host, in milliseconds; `election_timeout_ms` is the longest.
    pub(super) fn shortest_timeout_ms(&self) -> u64 {
        // Longer than the longest heartbeat period of a leader and the delays of the network.
        if self.operators.uneven { self.election_timeout_ms / 2 } else { self.election_timeout_ms }
    }

    /// What a node may hold: a limit is looked at before a request or proposal is taken, which may then exceed it.
    pub(super) fn bounds(&self) -> Bounds {
        let request = (self.entries_size.max(self.limits.chunk_entries)) as u64;
        Bounds {
            // A change of members, and what a lost disk is made up with, wait for no room.
            unstable_entries: self.unstable_entries + request + 2,
            tail_bytes: self.unstable_bytes().max(self.tail_bytes) + 2 * self.body_size + (64 << 10),
            unapplied_entries: self.unapplied_entries,
            unapplied_bytes: self.unapplied_bytes + LARGEST_PIECE,
        }
    }

    /// What all groups of a worker together may have handed on and not applied: each crosses the bound by a piece at most, when a read
    /// of the store that was counted brings a large entry.
    pub(super) fn worker_bytes(&self) -> usize {
        self.limits.worker_bytes + self.groups.len() * LARGEST_PIECE
    }

    pub(super) fn draw(options: &SimOptions) -> Plan {
        let mut r = Random::new(options.seed).fork(1);
        let days = options.profile == Profile::Days;
        let all = options.profile == Profile::All;
        let sizes: &[usize] = match options.profile {
            Profile::Days => &[1, 3, 3, 3, 5],
            Profile::All => &[3, 3, 3, 4, 5, 5],
            _ => &[1, 2, 3, 3, 3, 3, 5, 5, 5, 4, 7],
        };
        let hosts = options.nodes.unwrap_or_else(|| sizes[r.index(sizes.len())]).clamp(1, 7);
        let group_count = if days { r.range(1, 2) } else { r.sized(1, 16) } as usize;
        let group_count = if !days && r.chance(20) { r.range(32, 200) as usize } else { group_count };
        let group_count = options.groups.unwrap_or(group_count).clamp(1, 200);
        let partial = hosts > 3 && r.chance(500);
        let groups: Vec<Vec<usize>> = (0..group_count)
            .map(|_| {
                let mut members: Vec<usize> = (0..hosts).collect();
                if partial {
                    while members.len() > 3 {
                        members.remove(r.index(members.len()));
                    }
                }
                members
            })
            .collect();
        let election_timeout_ms = if days { 600_000 } else { r.range(60, 1000) };
        let slow_net = election_timeout_ms * MS / 20;
        let delay_min = r.sized(10, slow_net / 4 + 10);
        let delay = (delay_min, delay_min + r.sized(10, slow_net));
        let datagrams = options.profile != Profile::Disk && r.chance(650);
        let entries_size = r.sized(1, 64) as usize;
        let body_size = r.sized(64, 16 << 10) as usize;
        // Small enough for batches that go on in the next file.
        let block_bytes = [512, 512, 4096][r.index(3)];
        let file_bytes = 4096 + block_bytes * r.sized(8, 128);
        let segment = SegmentLogOptions {
            file_bytes,
            block_bytes,
            prepared_files: r.range(1, 3) as usize,
            recycled_files: r.below(4) as usize,
            sync: true,
            checkpoint_bytes: r.sized(file_bytes, 32 * file_bytes),
            rewrite_live_percent: [0, 25, 50, 80][r.index(4)],
            rewrite_bytes: r.sized(512, file_bytes),
            open_files: 2,
            prepare_patience: std::time::Duration::ZERO,
            background: false,
        };
        let store = match options.profile {
            Profile::Network => StoreKind::Memory,
            Profile::Disk | Profile::All => StoreKind::Segment(segment),
            _ if r.chance(200) => StoreKind::Memory,
            _ => StoreKind::Segment(segment),
        };
        let mut faults = Vec::new();
        for kind in FaultKind::ALL {
            if kind.fits(options.profile, matches!(store, StoreKind::Segment(_))) && (r.chance(500) || all) {
                faults.push(kind);
            }
        }
        let mut atlas = draw_atlas(hosts, &groups, &mut r);
        let mut operators = OperatorPlan::draw(options, &groups, election_timeout_ms);
        // From a source of its own, so that all else of a seed stays as it was.
        operators.uneven = operators.lease_reads && Random::new(options.seed).fork(7).chance(700);
        if operators.members {
            // Who is a member changes: no host can be spared for good.
            atlas.fill(false);
            if all {
                faults.retain(|kind| !kind.damages());
            }
        }
        if operators.lease_reads {
            // What a lease stands on: a clock that leaps would break every promise (`docs/testing.md`).
            faults.retain(|kind| *kind != FaultKind::ClockLeap);
        }
        if operators.aims {
            // Little but what aims at leaders.
            faults.retain(|kind| kind.aims() || all || r.chance(150));
            faults.extend([
                FaultKind::LeaderMuffled,
                FaultKind::LeaseStrained,
                FaultKind::ChangeCutShort,
                FaultKind::ChangeCutShort,
                FaultKind::LateOrder,
                FaultKind::LateOrder,
                FaultKind::VoterLags,
            ]);
            if !atlas.contains(&true) {
                faults.push(FaultKind::VoterForgets);
            }
            if operators.lease_reads {
                faults.extend([FaultKind::LeaseStrained; 3]);
                faults.push(FaultKind::LeaderMuffled);
            }
        }
        let memory = Memory::draw(options.seed);
        let limits = LaneLimits {
            chunk_entries: r.sized(1, 64) as usize,
            chunk_bytes: r.sized(64, 4096) as usize,
            alone_bytes: r.sized(32, 1024) as usize,
            group_turn_tasks: r.sized(1, 64) as usize,
            group_backlog: r.sized(1, 64) as usize,
            // Every group may campaign well within an election time-out.
            worker_bytes: memory.worker_bytes,
            write_bytes: memory.write_bytes / 4,
            tail_bytes: memory.tail_bytes,
            campaigns_a_second: 1 + r.range(10, 100) * group_count as u64 * 1000 / election_timeout_ms,
        };
        // Faults in several acts take their time, and what they are about comes between them.
        let fault_gap = match operators.aims {
            true => election_timeout_ms * MS * r.range(3, 6),
            false => election_timeout_ms * MS * r.sized(1, 32) / 8,
        };
        let timeout = election_timeout_ms * MS;
        // Electing leaders takes a share of the events, too.
        let elections = 100 * (hosts * group_count) as u64;
        let (budget, chaos) = match options.length {
            _ if days => (20_000_000, 60 * 86_400_000 * MS),
            Length::Any => (elections + r.sized(8_000, 100_000), timeout * r.range(20, 80)),
            Length::Short => {
                let longer = if operators.aims { 2 } else { 1 };
                (elections + longer * r.range(8_000, 20_000), longer * timeout * r.range(20, 80))
            }
            Length::Long => (elections + r.range(150_000, 350_000), timeout * r.range(400, 1600)),
        };
        // Some clients are at the limits all the time; others leave time for many faults and elections.
        let think = match (days, r.chance(350)) {
            (true, _) => 600_000 * MS,
            (false, true) => r.sized(timeout / 2000, timeout / 16),
            (false, false) => r.sized(slow_net / 16, slow_net),
        };
        // Datagrams in a thousand: often many, sometimes few or none.
        let rate = |r: &mut Random| match r.below(10) {
            0 => 0,
            1..=3 => r.sized(1, 100),
            _ => r.range(100, 350),
        };
        Plan {
            hosts,
            groups,
            limits,
            apply_ring: r.sized(2, 256) as usize,
            disk_ring: r.sized(1, 16) as usize,
            fsm_ring: r.sized(1, 16) as usize,
            read_ring: r.sized(1, 16) as usize,
            turn_events: r.sized(1, 256) as usize,
            disk_batch: r.sized(1, 16) as usize,
            // Some disks are slower than elections: writes are under way while leaders come and go.
            disk_delay: if r.chance(150) {
                (r.sized(10, 200), r.sized(slow_net, 2 * election_timeout_ms * MS))
            } else {
                (r.sized(10, 200), r.sized(200, slow_net))
            },
            stage_delay: r.sized(1, 100),
            store,
            net: NetPlan {
                delay,
                datagrams,
                loss: rate(&mut r),
                duplication: rate(&mut r),
                outbox: r.sized(8, 4096) as usize + 8 * group_count,
                // Room for the heartbeats of every group: a network that cannot carry them keeps no leader.
                window: if r.chance(300) { r.sized(1, 64) as usize + 2 * group_count } else { 1 << 16 },
            },
            election_timeout_ms,
            // Where it is small, another may be elected before the leader gives up. It stays above the delays of the network: else
            // candidates that start together split the votes for ever.
            election_delay_ms: match operators.quick {
                true => r.range(election_timeout_ms / 8, election_timeout_ms / 4),
                false => election_timeout_ms / 2 + r.range(10, election_timeout_ms),
            },
            heartbeat_factor: r.range(3, 10),
            step_down_when_vote_timedout: r.chance(700),
            entries_size,
            body_size,
            inflight_msgs: r.sized(1, 64) as usize,
            inflight_bytes: body_size + r.sized(1, 64 << 10) as usize,
            rpc_timeout_ms: election_timeout_ms * r.range(2, 6),
            unstable_entries: entries_size as u64 + r.sized(1, 256),
            unapplied_entries: entries_size as u64 + r.sized(1, 1024),
            unapplied_bytes: memory.unapplied_bytes,
            write_bytes: memory.write_bytes,
            tail_bytes: r.sized(1, 16 << 10) as usize,
            clock_ppm: if r.chance(500) || all { r.sized(1, 10_000) } else { 0 },
            clients: r.sized(1, 12) as usize,
            keys: r.sized(1, 6),
            think,
            burst: if r.chance(200) { r.range(2, 16) } else { 1 },
            value_bytes: if r.chance(200) { 3000 } else { r.sized(1, 700) },
            faults,
            atlas,
            operators,
            fault_gap: if days { 3_600_000 * MS } else { fault_gap.max(MS) },
            budget,
            chaos,
        }
    }
}
