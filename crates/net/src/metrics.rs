//! Counters of a network loop.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one loop and its transport. They only grow, unless their text says otherwise; any thread may read them.
        #[derive(Debug, Default)]
        pub struct NetMetrics {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl NetMetrics {
            /// Name and value of every counter, in a fixed order.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Inbound connections that are open now.
    inbound_connections,
    /// Outbound connections that are up now.
    outbound_connections,
    /// Bytes of memory that received input holds now, because its frame is not whole or its consumer is full.
    held_bytes,
    /// Inbound connections taken since the start.
    accepted,
    /// Inbound connections closed at once because a cap was reached.
    refused,
    /// Connections closed to make room for others: in memory or in slots.
    evicted,
    /// Outbound connections that came up since the start.
    connected,
    /// Outbound connections that came up for a link that had been up before.
    reconnects,
    /// Attempts to connect that failed.
    connect_failures,
    /// Connections that ended, for whatever reason.
    closed,
    /// Whole frames received.
    frames_in,
    /// Bytes received.
    bytes_in,
    /// Frames the other side's buffer took whole.
    frames_out,
    /// Bytes the other side's buffer took.
    bytes_out,
    /// Vectored writes made.
    writes,
    /// Frames that broke the format; each closed its connection.
    malformed_frames,
    /// Frames dropped because their kind has no place on that connection, or no request waits for them.
    unexpected_frames,
    /// Messages refused because an outbound queue was full.
    outbox_full,
    /// Requests refused because too many wait for an answer on their link.
    inflight_full,
    /// Requests the consumer handed back, each pausing its connection.
    busy,
    /// Requests that nobody answered within the limit.
    expired_requests,
    /// Bolt heartbeats sent on idle links.
    heartbeats_sent,
}

impl NetMetrics {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(counter: &AtomicU64, n: u64) {
        counter.fetch_sub(n, Ordering::Relaxed);
    }
}
