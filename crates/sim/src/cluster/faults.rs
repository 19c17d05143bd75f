//! Kinds of faults.

use super::Profile;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The process is killed; what it wrote stays in the page cache.
    Kill,
    /// The machine loses power; what was not synced is lost in part.
    PowerLoss,
    /// Power goes in the middle of the disk's next operations.
    PowerCut,
    /// The process ends in order and comes back.
    Shutdown,
    /// One operation of the disk fails.
    DiskError,
    /// One fsync fails, with one of three outcomes for the page cache.
    FsyncFails,
    /// No more bytes for a while.
    DiskFull,
    /// Writes take up to ten seconds for a while.
    SlowDisk,
    /// Reads return less than was asked for.
    ShortReads,
    /// One read fails.
    ReadError,
    /// One read returns another bit than the disk holds.
    CorruptRead,
    /// Bits of the disk change.
    BitFlip,
    /// One write lands in another place.
    MisdirectedWrite,
    /// One sync of the directory does nothing.
    LostDirEntry,
    /// A host's disk is lost with everything on it; it comes back with a blank one.
    Wipe,
    /// The process stands still for a while.
    Pause,
    /// A host's clock leaps ahead.
    ClockLeap,
    /// The disk stage stands still between answers and the news for the lane that its write is durable.
    StageStall,
    /// The state machines of one worker stand still for several election time-outs, on one host or on all.
    MachineStall,
    /// A group's leader works with a bare majority for a while, and then it is cut off, paused, killed or loses power.
    LeaderLost,
    /// What others say reaches a group's leader late, and then the leader is heard by nobody.
    LeaderMuffled,
    /// A candidate that does not hear the leader gets help while the leader, which hears nothing, may have a lease.
    LeaseStrained,
    /// The order of a transfer comes when the leader has given the transfer up.
    LateOrder,
    /// A leader is lost in the middle of a change of members.
    ChangeCutShort,
    /// Two hosts lead, and a voter that elected the newer one comes back with a blank disk to the older one.
    VoterForgets,
    /// A voter helps to elect another before what the leader gave it is durable there; the leader hears of that afterwards.
    VoterLags,
    /// Connections between two hosts break.
    Reset,
    /// One end of the connections between two hosts is gone, and the other is not told.
    HalfOpen,
    /// The way from one host to another is slow for a while.
    Clog,
    /// A host reads requests one by one for a while.
    SlowReader,
    /// Nothing passes from one host to another, in one direction.
    OneWayCut,
    /// The hosts fall into two parts that do not hear each other.
    Partition,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [FaultKind; 32] = [
        FaultKind::Kill,
        FaultKind::PowerLoss,
        FaultKind::PowerCut,
        FaultKind::Shutdown,
        FaultKind::DiskError,
        FaultKind::FsyncFails,
        FaultKind::DiskFull,
        FaultKind::SlowDisk,
        FaultKind::ShortReads,
        FaultKind::ReadError,
        FaultKind::CorruptRead,
        FaultKind::BitFlip,
        FaultKind::MisdirectedWrite,
        FaultKind::LostDirEntry,
        FaultKind::Wipe,
        FaultKind::Pause,
        FaultKind::ClockLeap,
        FaultKind::StageStall,
        FaultKind::MachineStall,
        FaultKind::LeaderLost,
        FaultKind::LeaderMuffled,
        FaultKind::LeaseStrained,
        FaultKind::LateOrder,
        FaultKind::ChangeCutShort,
        FaultKind::VoterForgets,
        FaultKind::VoterLags,
        FaultKind::Reset,
        FaultKind::HalfOpen,
        FaultKind::Clog,
        FaultKind::SlowReader,
        FaultKind::OneWayCut,
        FaultKind::Partition,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::PowerLoss => "power_loss",
            FaultKind::PowerCut => "power_cut",
            FaultKind::Shutdown => "shutdown",
            FaultKind::DiskError => "disk_error",
            FaultKind::FsyncFails => "fsync_fails",
            FaultKind::DiskFull => "disk_full",
            FaultKind::SlowDisk => "slow_disk",
            FaultKind::ShortReads => "short_reads",
            FaultKind::ReadError => "read_error",
            FaultKind::CorruptRead => "corrupt_read",
            FaultKind::BitFlip => "bit_flip",
            FaultKind::MisdirectedWrite => "misdirected_write",
            FaultKind::LostDirEntry => "lost_dir_entry",
            FaultKind::Wipe => "wipe",
            FaultKind::Pause => "pause",
            FaultKind::ClockLeap => "clock_leap",
            FaultKind::StageStall => "stage_stall",
            FaultKind::MachineStall => "machine_stall",
            FaultKind::LeaderLost => "leader_lost",
            FaultKind::LeaderMuffled => "leader_muffled",
            FaultKind::LeaseStrained => "lease_strained",
            FaultKind::LateOrder => "late_order",
            FaultKind::ChangeCutShort => "change_cut_short",
            FaultKind::VoterForgets => "voter_forgets",
            FaultKind::VoterLags => "voter_lags",
            FaultKind::Reset => "reset",
            FaultKind::HalfOpen => "half_open",
            FaultKind::Clog => "clog",
            FaultKind::SlowReader => "slow_reader",
            FaultKind::OneWayCut => "one_way_cut",
            FaultKind::Partition => "partition",
        }
    }

    /// Whether it changes what the disk holds without a word.
    pub(super) fn damages(self) -> bool {
        matches!(self, FaultKind::BitFlip | FaultKind::MisdirectedWrite | FaultKind::LostDirEntry)
    }

    /// Whether it aims at a leader.
    pub(super) fn aims(self) -> bool {
        self == FaultKind::LeaderLost || self.has_acts()
    }

    /// Whether it comes in several acts, one such fault after the other.
    pub(super) fn has_acts(self) -> bool {
        use FaultKind::{ChangeCutShort, LateOrder, LeaderMuffled, LeaseStrained, VoterForgets, VoterLags};
        matches!(self, LeaderMuffled | LeaseStrained | LateOrder | ChangeCutShort | VoterForgets | VoterLags)
    }

    /// Whether it can happen in such a world, whose logs are on simulated disks or in memory.
    pub(super) fn fits(self, profile: Profile, on_disk: bool) -> bool {
        let disk = matches!(
            self,
            FaultKind::PowerLoss
                | FaultKind::PowerCut
                | FaultKind::DiskError
                | FaultKind::FsyncFails
                | FaultKind::DiskFull
                | FaultKind::ShortReads
                | FaultKind::ReadError
                | FaultKind::CorruptRead
        ) || self.damages();
        let network = matches!(
            self,
            FaultKind::Reset
                | FaultKind::HalfOpen
                | FaultKind::Clog
                | FaultKind::OneWayCut
                | FaultKind::Partition
                | FaultKind::LeaderMuffled
                | FaultKind::LeaseStrained
                | FaultKind::LateOrder
                | FaultKind::ChangeCutShort
                | FaultKind::VoterForgets
                | FaultKind::VoterLags
        );
        match (profile, on_disk) {
            (_, false) if disk => false,
            (Profile::Disk, _) => !network,
            _ => true,
        }
    }
}
