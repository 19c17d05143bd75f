//! From values to frames on their connections.

use std::fmt;
use std::sync::Arc;

use ringraft_core::{RaftError, Status};
use ringraft_net::{LinkId, ReplyHandle, RequestContext, SendError, Transport};
use ringraft_proto::{encode_raft_request, encode_raft_response};

use crate::handler::{OutReply, OutSend};

/// Encodes what a stage has to send, queues it, and flushes each connection once.
pub struct Outbox {
    transport: Arc<dyn Transport>,
    links: Vec<LinkId>,
    connections: Vec<ReplyHandle>,
    /// Links that were found full in this call.
    full: Vec<LinkId>,
}

/// Why a request was not queued that may be queued later.
const NO_ROOM: &str = "the outbound queue of the link is full";

impl Outbox {
    /// An outbox over a transport.
    pub fn new(transport: Arc<dyn Transport>) -> Outbox {
        Outbox { transport, links: Vec::new(), connections: Vec::new(), full: Vec::new() }
    }

    /// Sends requests and answers. Requests that could not be queued go to `failed`: with `EAGAIN` when the link has no room, else with
    /// `EHOSTDOWN`. What follows on a link that has no room is not sent either, however small: entries keep their order. Answers to
    /// connections that are gone are dropped, for nobody waits for them any more.
    pub fn dispatch(
        &mut self,
        sends: &mut Vec<OutSend>,
        replies: &mut Vec<OutReply>,
        failed: &mut Vec<(RequestContext, Status)>,
    ) {
        for reply in replies.drain(..) {
            let frame =
                encode_raft_response(reply.handle.request, reply.codec, reply.creation, &reply.response);
            if self.transport.reply(reply.handle, frame).is_ok() {
                let same = |other: &ReplyHandle| {
                    (other.connection, other.generation) == (reply.handle.connection, reply.handle.generation)
                };
                if !self.connections.iter().any(same) {
                    self.connections.push(reply.handle);
                }
            }
        }
        for send in sends.drain(..) {
            let timeout_ms = i32::try_from(send.timeout_ms).unwrap_or(i32::MAX);
            let names = &send.names;
            if self.full.contains(&send.link) {
                failed.push((send.context, Status::new(RaftError::Again, NO_ROOM)));
                continue;
            }
            let queued = self.transport.request(send.link, send.context, &mut |id| {
                encode_raft_request(id, &names.envelope(&send.to), timeout_ms, &send.request)
            });
            match queued {
                Ok(()) if self.links.contains(&send.link) => {}
                Ok(()) => self.links.push(send.link),
                Err(SendError::Full(_)) => {
                    self.full.push(send.link);
                    failed.push((send.context, Status::new(RaftError::Again, NO_ROOM)));
                }
                Err(error) => {
                    failed.push((send.context, Status::new(RaftError::HostDown, error.to_string())));
                }
            }
        }
        self.full.clear();
        for handle in self.connections.drain(..) {
            self.transport.flush_reply(handle);
        }
        for link in self.links.drain(..) {
            self.transport.flush(link);
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbox")
    }
}
