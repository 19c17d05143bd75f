//! What the engine asks of a network: ordered connections by class to a host, requests with contexts, replies.

use std::fmt;
use std::sync::Arc;

use ringraft_proto::{OutFrame, RequestFrame, ResponseFrame};

/// Which of the connections to a peer host a message takes, so that bulk never delays a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionClass {
    /// Entries and probes, in order.
    Log,
    /// Votes, heartbeats, reads, and what users ask.
    Control,
    /// Snapshots.
    Bulk,
}

/// `ip:port` of a host as peers write it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(pub Arc<str>);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An outgoing path (peer host and class), resolved once so that the hot path needs no look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// Returns with the answer of a request; meaningful to the sender only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// The lane (or other consumer) that waits.
    pub lane: u16,
    /// What kind of request it was, to know how to decode the answer.
    pub kind: u8,
    /// The group's slot in its lane.
    pub slot: u32,
    /// Which life of the slot; answers for an earlier one are dropped.
    pub generation: u32,
    /// The core's ticket.
    pub ticket: u64,
}

/// Names an accepted request until it is answered: connection, its generation and the Bolt request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyHandle {
    /// Slot of the inbound connection.
    pub connection: u32,
    /// Which life of the slot; a reply to a connection that is gone is dropped.
    pub generation: u32,
    /// Bolt request id.
    pub request: u32,
}

/// Why a message could not be queued. Raft repeats what matters, so nothing is retried here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The bounded outbound queue of the connection is full.
    #[error("outbound queue to {0} is full")]
    Full(Endpoint),
    /// There is no connection right now; it is being re-established with back-off.
    #[error("no connection to {0}")]
    NotConnected(Endpoint),
    /// The link or the connection is gone.
    #[error("connection is closed")]
    Closed,
}

/// Sends frames. Callable from any thread; never blocks.
///
/// Frames are queued and leave with the next flush, all groups of a turn together. A flush writes to the
/// socket at once when it can and leaves the rest to the event loop.
pub trait Transport: Send + Sync {
    /// The link to a host, created on first use; it connects on its own and keeps reconnecting with back-off.
    fn link(&self, endpoint: &Endpoint, class: ConnectionClass) -> LinkId;

    /// Queues a request. The id in `encode`'s argument is the Bolt request id that the frame must carry.
    /// `encode` runs under the link's lock: it must not call the transport.
    /// Exactly one of [`Inbound::on_response`] and [`Inbound::on_request_failed`] follows when this is `Ok`.
    ///
    /// # Errors
    /// [`SendError`]; nothing was queued and no callback follows.
    fn request(
        &self,
        link: LinkId,
        context: RequestContext,
        encode: &mut dyn FnMut(u32) -> OutFrame,
    ) -> Result<(), SendError>;

    /// Queues the answer to a request. The answer to a one-way request is dropped, and that is `Ok`.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the connection is gone, [`SendError::Full`] closes it.
    fn reply(&self, handle: ReplyHandle, frame: OutFrame) -> Result<(), SendError>;

    /// Whether somebody may still wait for the answer to this request: its connection lives.
    fn is_answerable(&self, _handle: ReplyHandle) -> bool {
        true
    }

    /// Says that a raft request came behind this handle, and whether it announced ringraft's extensions, if it is of a kind that could.
    /// `member` is asked where the member lives in whose name it came (`ip:port`), `None` when the group that it is for has no such
    /// member; but not for a connection of which that is known already.
    ///
    /// A member's connection is among the last to be closed when slots or memory run short, its host's address has a reserve of
    /// slots, and links to that host that are down are tried again at once.
    fn member_spoke(
        &self,
        _handle: ReplyHandle,
        _announced: Option<bool>,
        _member: &mut dyn FnMut() -> Option<Endpoint>,
    ) {
    }

    /// Says whether the host at `endpoint` has announced ringraft's extensions in its last answer: whether it is no Java node. Only then
    /// are links to it closed quickly when nothing is heard on them, see
    /// [`peer_user_timeout`](crate::NetLoopOptions::peer_user_timeout). Until it is said of a host that is taken for a Java node.
    fn extensions_announced(&self, _endpoint: &Endpoint, _announced: bool) {}

    /// Lowers [`max_inbound_connections`](crate::NetLoopOptions::max_inbound_connections), or raises it again up to what the options say: a
    /// process must not take more connections than it has descriptors to spare for. At least 1. What is open above it is closed as
    /// others come.
    fn set_max_inbound_connections(&self, _max: usize) {}

    /// Sends what is queued on the link.
    fn flush(&self, link: LinkId);

    /// Sends the queued answers of the connection of this handle.
    fn flush_reply(&self, handle: ReplyHandle);
}

/// Receives what the event loop reads. Called on the loop's thread; must not block.
pub trait Inbound: Send {
    /// A request arrived. `Busy` hands it back: the loop stops reading that connection and offers it again later.
    fn on_request(&mut self, handle: ReplyHandle, frame: RequestFrame) -> Accept;

    /// The answer to a request, whatever its status says.
    fn on_response(&mut self, context: RequestContext, frame: ResponseFrame);

    /// A request that will not be answered: the connection broke, the peer answered garbage, or nobody answered
    /// within the transport's own limit. In no particular order.
    fn on_request_failed(&mut self, context: RequestContext, reason: &str);

    /// A link came up (first or again).
    fn on_connected(&mut self, link: LinkId, endpoint: &Endpoint, class: ConnectionClass);

    /// A link that refused a request as [`SendError::Full`] has sent at least half of what it held since. Not called when it comes up
    /// anew, which [`on_connected`](Inbound::on_connected) tells.
    fn on_room(&mut self, _link: LinkId, _endpoint: &Endpoint, _class: ConnectionClass) {}

    /// Called once after each turn of the loop that delivered something, so that work can be handed on in batches.
    fn on_turn_end(&mut self) {}
}

/// Whether a request was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Taken; a reply will follow.
    Taken,
    /// Answered with an error, since nobody here serves such requests. It earns its connection no better standing than silence does.
    Refused,
    /// The consumer is full; the request comes back for a later offer, after a pause.
    Busy(RequestFrame),
    /// The consumer has taken enough of this kind in this turn; the request comes back in the next one, without a pause. Only after
    /// something was taken in this turn.
    Later(RequestFrame),
}
