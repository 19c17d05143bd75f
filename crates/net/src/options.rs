//! Settings of an event loop.

use std::time::Duration;

use ringraft_proto::FrameLimits;

/// Bounds and times of an event loop, TCP or in-process. Every queue of the loop has its bound here.
#[derive(Clone, Debug)]
pub struct NetLoopOptions {
    /// How large the parts of a received frame may be. Checked before memory is taken.
    pub frame_limits: FrameLimits,
    /// Most bytes that wait to be sent on one connection (32 MiB). One frame is always taken when nothing waits.
    pub max_outbound_bytes: usize,
    /// Most frames that wait to be sent on one connection (65536).
    pub max_outbound_frames: usize,
    /// Most bytes that wait to be sent on all connections together (256 MiB), for requests and for answers each. Beyond it a link that
    /// has something waiting takes no more requests, and the connection for which most answers wait is closed.
    pub max_total_outbound_bytes: usize,
    /// Most requests that wait for an answer on one link (65536; at most 2^20).
    pub max_inflight_requests: usize,
    /// A request that nobody answered for so long fails (6 min). This is the backstop against peers that drop
    /// requests silently, as Bolt servers do with overdue ones; callers have shorter limits of their own.
    pub request_expiry: Duration,
    /// First pause before a connection is tried again (50 ms). Each failure doubles it; half of it is random.
    pub reconnect_backoff_min: Duration,
    /// Longest pause between attempts (500 ms). A host that is heard while a link to it is down is tried at once, but not more often.
    pub reconnect_backoff_max: Duration,
    /// How long an attempt to connect may take (2 s).
    pub connect_timeout: Duration,
    /// The system closes a link's connection when what was sent on it was not acknowledged by the other system for so long, or found
    /// no room there for so long (2 s; Linux only). About twice the election time-out of the groups is right where that is longer.
    pub peer_user_timeout: Duration,
    /// The same for hosts that have not announced ringraft's extensions, that is for Java nodes (15 s). Nothing else closes a link to
    /// one for being silent: a Java follower whose leader's connection is closed with entries on it does not go on.
    pub foreign_user_timeout: Duration,
    /// A link on which nothing was read for so long sends a Bolt heartbeat (15 s).
    pub heartbeat_interval: Duration,
    /// The same while requests wait for answers on it, or the last heartbeat got none (1 s). Not for Java nodes.
    pub silence_probe: Duration,
    /// How long the answer to a heartbeat may take before it counts as missing (1 s).
    pub heartbeat_ack_timeout: Duration,
    /// The link closes when so many heartbeats in a row got no answer (3): with these defaults four seconds after a request on
    /// which nothing came. While its host answers on another link, it is only held up, and has until `heartbeat_interval`.
    pub heartbeat_max_missed: u32,
    /// An inbound connection on which nothing was read for so long is closed (90 s).
    pub inbound_idle_limit: Duration,
    /// How long the first frame of an inbound connection may take from its first byte (5 s). A connection that says
    /// nothing has one `heartbeat_interval` more: Bolt clients reconnect in the background and then are silent
    /// until their first heartbeat.
    pub first_frame_deadline: Duration,
    /// Time over which the rate of a frame that arrives in parts is taken (10 s). A second must bring a sixteenth of what is
    /// there of it: at least 1 KiB/s, and 64 KiB/s from 1 MiB on.
    pub partial_frame_window: Duration,
    /// Most inbound connections (4096). For one more, one that is of no use now is closed: a silent stranger first, one that members
    /// use last; when all are in use the newcomer is closed at once. A transport can lower it later, see
    /// [`set_max_inbound_connections`](crate::Transport::set_max_inbound_connections).
    pub max_inbound_connections: usize,
    /// How many of these strangers never get, that is who connects from an address at which no member lives (512, but not more than a quarter
    /// of all). Members' addresses are those of links and of members that sent raft requests.
    pub member_reserve: usize,
    /// Most connections of strangers from one address, or from one IPv6 subnet of 64 bits (1024). For one more, an idle one from there is
    /// closed.
    pub max_connections_per_address: usize,
    /// Most inbound connections on which nothing was asked yet that is served here, from members' addresses and from others each (1024).
    /// For one more, the oldest of them is closed. Heartbeats do not count as asking. A Java process opens a connection for each of its
    /// groups, all together after a restart; such a connection costs little memory.
    pub max_unproven_connections: usize,
    /// Most bytes of memory that received input of strangers holds, because its frames are not whole or their consumer is full (256 MiB).
    /// Beyond it the connection that has held most of it for longest is closed, never another.
    pub max_buffered_bytes: usize,
    /// The same for connections of members and those that we opened (256 MiB): strangers have no part in it.
    pub max_member_buffered_bytes: usize,
    /// Bytes read with one system call (64 KiB). A connection's own buffer grows with what it received.
    pub read_buffer_bytes: usize,
    /// Bytes taken from one connection in one turn before the others have theirs (256 KiB).
    pub read_budget_bytes: usize,
    /// Frames delivered from one connection in one turn before the others have theirs (1024).
    pub read_budget_frames: usize,
    /// Pause after `accept` failed, for want of descriptors for example (100 ms).
    pub accept_backoff: Duration,
    /// Longest time until a request that was handed back is offered again (1 ms).
    pub busy_retry: Duration,
}

impl Default for NetLoopOptions {
    fn default() -> Self {
        Self {
            frame_limits: FrameLimits::default(),
            max_outbound_bytes: 32 << 20,
            max_outbound_frames: 65536,
            max_total_outbound_bytes: 256 << 20,
            max_inflight_requests: 65536,
            request_expiry: Duration::from_secs(360),
            reconnect_backoff_min: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(2),
            peer_user_timeout: Duration::from_secs(2),
            foreign_user_timeout: Duration::from_secs(15),
            heartbeat_interval: Duration::from_secs(15),
            silence_probe: Duration::from_secs(1),
            heartbeat_ack_timeout: Duration::from_secs(1),
            heartbeat_max_missed: 3,
            inbound_idle_limit: Duration::from_secs(90),
            first_frame_deadline: Duration::from_secs(5),
            partial_frame_window: Duration::from_secs(10),
            max_inbound_connections: 4096,
            member_reserve: 512,
            max_connections_per_address: 1024,
            max_unproven_connections: 1024,
            max_buffered_bytes: 256 << 20,
            max_member_buffered_bytes: 256 << 20,
            read_buffer_bytes: 64 << 10,
            read_budget_bytes: 256 << 10,
            read_budget_frames: 1024,
            accept_backoff: Duration::from_millis(100),
            busy_retry: Duration::from_millis(1),
        }
    }
}

/// Longest time of any option: a year. Deadlines are moments of a clock that cannot count for ever.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why [`NetLoopOptions`] cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetOptionsError {
    /// A size or a count is out of its range.
    #[error("{name} is {value}; it must lie between {min} and {max}")]
    Range {
        /// The option.
        name: &'static str,
        /// What was given.
        value: u64,
        /// Smallest value that makes sense.
        min: u64,
        /// Largest value that makes sense.
        max: u64,
    },
    /// A time must not be zero.
    #[error("{name} is zero; give a time above zero")]
    ZeroTime {
        /// The option.
        name: &'static str,
    },
    /// A time is longer than a deadline can be away.
    #[error("{name} is {value:?}; give a year at most")]
    LongTime {
        /// The option.
        name: &'static str,
        /// What was given.
        value: Duration,
    },
    /// Two options contradict each other.
    #[error(
        "{lower} ({lower_value:?}) must not be larger than {upper} ({upper_value:?}); change one of them"
    )]
    Order {
        /// The option that must be the smaller.
        lower: &'static str,
        /// Its value.
        lower_value: Duration,
        /// The option that must be the larger.
        upper: &'static str,
        /// Its value.
        upper_value: Duration,
    },
}

impl NetLoopOptions {
    /// Checks every option.
    ///
    /// # Errors
    /// The first rule that does not hold, with the option's name, its value and what would be right.
    pub fn validate(&self) -> Result<(), NetOptionsError> {
        let range = |name, value: usize, min: u64, max: u64| {
            let value = value as u64;
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(NetOptionsError::Range { name, value, min, max })
            }
        };
        range("frame_limits.class", self.frame_limits.class, 64, i16::MAX as u64)?;
        range("frame_limits.header", self.frame_limits.header, 1 << 10, 64 << 10)?;
        range("frame_limits.content", self.frame_limits.content, 1 << 10, i32::MAX as u64)?;
        range("frame_limits.small_content", self.frame_limits.small_content, 1 << 10, i32::MAX as u64)?;
        range("max_outbound_bytes", self.max_outbound_bytes, 1 << 10, 1 << 40)?;
        range("max_total_outbound_bytes", self.max_total_outbound_bytes, 1 << 10, 1 << 40)?;
        range("max_outbound_frames", self.max_outbound_frames, 1, 1 << 30)?;
        range("max_inflight_requests", self.max_inflight_requests, 1, 1 << 20)?;
        range("heartbeat_max_missed", self.heartbeat_max_missed as usize, 1, 1000)?;
        range("max_inbound_connections", self.max_inbound_connections, 1, 1 << 20)?;
        range("member_reserve", self.member_reserve, 0, 1 << 20)?;
        range("max_connections_per_address", self.max_connections_per_address, 1, 1 << 20)?;
        range("max_unproven_connections", self.max_unproven_connections, 1, 1 << 20)?;
        range("max_buffered_bytes", self.max_buffered_bytes, 1 << 10, 1 << 40)?;
        range("max_member_buffered_bytes", self.max_member_buffered_bytes, 1 << 10, 1 << 40)?;
        range("read_buffer_bytes", self.read_buffer_bytes, 512, 16 << 20)?;
        range("read_budget_bytes", self.read_budget_bytes, 512, 1 << 30)?;
        range("read_budget_frames", self.read_budget_frames, 1, 1 << 30)?;
        for (name, value) in [
            ("request_expiry", self.request_expiry),
            ("reconnect_backoff_min", self.reconnect_backoff_min),
            ("reconnect_backoff_max", self.reconnect_backoff_max),
            ("connect_timeout", self.connect_timeout),
            ("peer_user_timeout", self.peer_user_timeout),
            ("foreign_user_timeout", self.foreign_user_timeout),
            ("heartbeat_interval", self.heartbeat_interval),
            ("silence_probe", self.silence_probe),
            ("heartbeat_ack_timeout", self.heartbeat_ack_timeout),
            ("inbound_idle_limit", self.inbound_idle_limit),
            ("first_frame_deadline", self.first_frame_deadline),
            ("partial_frame_window", self.partial_frame_window),
            ("accept_backoff", self.accept_backoff),
            ("busy_retry", self.busy_retry),
        ] {
            if value.is_zero() {
                return Err(NetOptionsError::ZeroTime { name });
            }
            if value > MAX_TIME {
                return Err(NetOptionsError::LongTime { name, value });
            }
        }
        let order = |lower, lower_value, upper, upper_value| {
            if lower_value <= upper_value {
                Ok(())
            } else {
                Err(NetOptionsError::Order { lower, lower_value, upper, upper_value })
            }
        };
        order(
            "reconnect_backoff_min",
            self.reconnect_backoff_min,
            "reconnect_backoff_max",
            self.reconnect_backoff_max,
        )?;
        order(
            "heartbeat_ack_timeout",
            self.heartbeat_ack_timeout,
            "heartbeat_interval",
            self.heartbeat_interval,
        )?;
        // Otherwise two healthy hosts with these options close each other's idle connections.
        order("heartbeat_interval", self.heartbeat_interval, "inbound_idle_limit", self.inbound_idle_limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass() {
        NetLoopOptions::default().validate().unwrap();
    }

    #[test]
    fn each_rule_names_its_option() {
        let zero = Duration::ZERO;
        let mut cases: Vec<(NetLoopOptions, &str)> = Vec::new();
        macro_rules! case {
            ($field:ident, $value:expr) => {
                cases.push((NetLoopOptions { $field: $value, ..Default::default() }, stringify!($field)))
            };
        }
        case!(frame_limits, FrameLimits { class: 0, ..Default::default() });
        case!(frame_limits, FrameLimits { header: 1 << 20, ..Default::default() });
        case!(frame_limits, FrameLimits { content: 1 << 31, ..Default::default() });
        case!(frame_limits, FrameLimits { small_content: 0, ..Default::default() });
        case!(max_outbound_bytes, 0);
        case!(max_total_outbound_bytes, 0);
        case!(max_outbound_frames, 0);
        case!(max_inflight_requests, 0);
        case!(max_inflight_requests, (1 << 20) + 1);
        case!(heartbeat_max_missed, 0);
        case!(max_inbound_connections, 0);
        case!(member_reserve, 1 << 21);
        case!(max_connections_per_address, 0);
        case!(max_unproven_connections, 0);
        case!(max_buffered_bytes, 0);
        case!(max_member_buffered_bytes, 0);
        case!(read_buffer_bytes, 1);
        case!(read_budget_bytes, 0);
        case!(read_budget_frames, 0);
        case!(request_expiry, zero);
        case!(reconnect_backoff_min, zero);
        case!(reconnect_backoff_max, zero);
        case!(connect_timeout, zero);
        case!(peer_user_timeout, zero);
        case!(foreign_user_timeout, zero);
        case!(silence_probe, zero);
        case!(heartbeat_interval, zero);
        case!(heartbeat_interval, Duration::from_secs(91));
        case!(heartbeat_ack_timeout, Duration::from_secs(16));
        case!(inbound_idle_limit, zero);
        case!(first_frame_deadline, zero);
        case!(partial_frame_window, zero);
        case!(accept_backoff, zero);
        case!(busy_retry, zero);
        case!(request_expiry, Duration::MAX);
        case!(reconnect_backoff_max, Duration::MAX);
        case!(inbound_idle_limit, Duration::MAX);
        case!(partial_frame_window, Duration::MAX);
        for (options, name) in cases {
            let error = options.validate().expect_err(name).to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
