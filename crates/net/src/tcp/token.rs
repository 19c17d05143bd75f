//! What the poll calls whom.

use mio::{Interest, Token};

use crate::hub::ConnectionId;

// A connection's token is its generation (31 bits) and slot, so everything from 2^63 up is free for others.
pub(super) const WAKER: Token = Token(usize::MAX);
pub(super) const FIRST_LISTENER: usize = 1 << 63;

pub(super) const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

pub(super) fn token(id: ConnectionId) -> Token {
    Token(((id.generation as usize) << 32) | id.slot as usize)
}

pub(super) fn connection_id(token: usize) -> ConnectionId {
    ConnectionId { slot: token as u32, generation: (token >> 32) as u32 }
}
