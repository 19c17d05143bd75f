//! The sending side that any thread may hold.

use std::fmt;
use std::sync::Arc;

use mio::net::TcpStream;
use ringraft_proto::OutFrame;

use crate::hub::Hub;
use crate::{
    ConnectionClass, Endpoint, LinkId, NetMetrics, ReplyHandle, RequestContext, SendError, Transport,
};

/// Sends through the connections of one [`NetLoop`](crate::tcp::NetLoop). Cheap to clone.
///
/// Endpoints are `host:port`. A literal address is used at once; a name is resolved on a helper thread, again
/// for every attempt to connect.
#[derive(Clone)]
pub struct TcpTransport {
    hub: Arc<Hub<TcpStream>>,
}

impl TcpTransport {
    pub(super) fn new(hub: Arc<Hub<TcpStream>>) -> Self {
        Self { hub }
    }

    /// The counters of the loop and this transport.
    pub fn metrics(&self) -> &Arc<NetMetrics> {
        &self.hub.metrics
    }
}

impl Transport for TcpTransport {
    fn link(&self, endpoint: &Endpoint, class: ConnectionClass) -> LinkId {
        self.hub.link(endpoint, class)
    }

    fn request(
        &self,
        link: LinkId,
        context: RequestContext,
        encode: &mut dyn FnMut(u32) -> OutFrame,
    ) -> Result<(), SendError> {
        self.hub.request(link, context, encode)
    }

    fn reply(&self, handle: ReplyHandle, frame: OutFrame) -> Result<(), SendError> {
        self.hub.reply(handle, frame)
    }

    fn member_spoke(
        &self,
        handle: ReplyHandle,
        announced: Option<bool>,
        member: &mut dyn FnMut() -> Option<Endpoint>,
    ) {
        self.hub.member_spoke(handle, announced, member);
    }

    fn is_answerable(&self, handle: ReplyHandle) -> bool {
        self.hub.is_answerable(handle)
    }

    fn extensions_announced(&self, endpoint: &Endpoint, announced: bool) {
        self.hub.extensions_announced(endpoint, announced);
    }

    fn set_max_inbound_connections(&self, max: usize) {
        self.hub.set_max_inbound_connections(max);
    }

    fn flush(&self, link: LinkId) {
        self.hub.flush(link);
    }

    fn flush_reply(&self, handle: ReplyHandle) {
        self.hub.flush_reply(handle);
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTransport").field("metrics", &self.hub.metrics).finish()
    }
}
