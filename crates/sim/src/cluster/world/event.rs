//! What happens next.

use ringraft_net::{ConnectionClass, Endpoint, LinkId};
use ringraft_proto::Frame;

use crate::cluster::random::Random;
use crate::cluster::transport::ConnectionId;

/// A way from one host to another.
pub(super) type Way = (usize, usize);

/// One act of such a fault.
pub(super) enum Act {
    /// Nothing passes on these ways for so long.
    Cut { ways: Vec<Way>, away: u64 },
    /// A process is killed, or its machine loses power when there is a seed for that, and is back so long after.
    Restart { host: usize, power: Option<u64>, away: u64 },
    /// A process stands still for so long.
    Pause { host: usize, away: u64 },
    /// The leader is asked to hand over, and its order is late.
    Order { group: usize, leader: usize, candidate: usize, random: Random },
    /// Whoever leads hears nothing for so long, unless it is the candidate.
    Deafen { group: usize, candidate: usize, away: u64 },
    /// When another leads as well, a voter of both loses its disk; looked for so many times more.
    Forget { group: usize, leader: usize, tries: u32, random: Random },
}

/// What happens at some moment. Those of a process carry its life and come to nothing in a later one.
pub(super) enum Event {
    Turn(usize, u32),
    Write(usize, u32),
    Synced(usize, u32),
    /// No batch may have come since that many batches.
    Vouch(usize, u32, u64),
    /// A worker applies.
    Apply(usize, u32, usize),
    Read(usize, u32),
    Deliver(ConnectionId, usize, Box<Frame>),
    Connect {
        host: usize,
        life: u32,
        link: LinkId,
        endpoint: Endpoint,
        class: ConnectionClass,
    },
    Close(ConnectionId, bool),
    Heal(Vec<(usize, usize)>),
    /// Requests that nobody answered are given up.
    Sweep(usize, u32),
    Client(usize),
    Fault(u64),
    Start(usize),
    /// Some of those who hear the leader of a group get slow; soon it is lost.
    HinderLeader {
        group: usize,
        near: Vec<usize>,
        last: u64,
        random: Random,
    },
    /// The leader of a group, whoever it is by then, is lost.
    LoseLeader {
        group: usize,
        random: Random,
    },
    /// The next act of a fault.
    Act(Act),
    /// Readers look for somebody to ask.
    Readers,
    /// A disk stage tells the lane what is durable.
    Told(usize, u32),
    /// An operator ends a process whose store has failed.
    Replace(usize, u32),
    DiskRoom(usize),
    Operator,
    /// Somebody of another cluster speaks.
    OtherCluster,
    /// A group is to be removed and made anew.
    Renew(usize),
    /// A host goes on with that.
    Move(usize, usize),
    Calm,
    Check,
    /// A trial of a worker that stands still goes on.
    Standstill,
}
