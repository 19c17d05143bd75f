//! The one clock of the process, which only the loops read.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ringraft_core::Time;

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Microseconds since the first call in this process, never going back.
pub(crate) fn now() -> Time {
    let origin = *ORIGIN.get_or_init(Instant::now);
    Time(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// From now until `at`.
pub(super) fn until(at: Time) -> Duration {
    Duration::from_micros(at.since(now()))
}
