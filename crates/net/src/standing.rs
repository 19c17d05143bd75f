//! What is known of whoever opened a connection, and what it is worth when slots run short.

use crate::address::Address;

/// Ranks are below this.
pub(crate) const RANKS: usize = 6;

/// Neither served nor from a member's address.
pub(crate) const SILENT_STRANGER: usize = 0;
/// Served, and not from a member's address.
pub(crate) const STRANGER: usize = 1;
/// Not served, from a member's address.
pub(crate) const SILENT_NEIGHBOUR: usize = 2;
/// Served, from a member's address: a client on a member's machine, or a member's link that carries no raft requests.
pub(crate) const NEIGHBOUR: usize = 3;
/// Carries raft requests in a member's name, from elsewhere.
pub(crate) const MEMBER_FROM_ELSEWHERE: usize = 4;
/// Carries raft requests in a member's name, from a member's address.
pub(crate) const MEMBER: usize = 5;

/// What is known of an inbound connection.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) address: Address,
    /// A member lives at that address.
    pub(crate) known: bool,
    /// A request of it was served.
    pub(crate) served: bool,
    /// It carries raft requests in a member's name.
    pub(crate) member: bool,
}

impl Standing {
    /// The lower, the sooner it gives way.
    pub(crate) fn rank(&self) -> usize {
        match (self.member, self.known, self.served) {
            (true, false, _) => MEMBER_FROM_ELSEWHERE,
            (true, true, _) => MEMBER,
            (false, false, false) => SILENT_STRANGER,
            (false, false, true) => STRANGER,
            (false, true, false) => SILENT_NEIGHBOUR,
            (false, true, true) => NEIGHBOUR,
        }
    }

    /// Whether nothing speaks for a member.
    pub(crate) fn is_stranger(&self) -> bool {
        self.rank() <= STRANGER
    }
}
