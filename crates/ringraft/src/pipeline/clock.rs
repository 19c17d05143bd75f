//! The one clock of the process, which only the loops read.

#[cfg(not(shuttle))]
use std::sync::OnceLock;
use std::time::Duration;
#[cfg(not(shuttle))]
use std::time::Instant;

use ringraft_core::Time;

#[cfg(not(shuttle))]
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Time stands still under shuttle: what shall happen there is woken for, no timer helps it along.
#[cfg(shuttle)]
pub(crate) fn now() -> Time {
    Time(0)
}

/// Microseconds since the first call in this process, never going back.
#[cfg(not(shuttle))]
pub(crate) fn now() -> Time {
    let origin = *ORIGIN.get_or_init(Instant::now);
    Time(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// From now until `at`.
pub(super) fn until(at: Time) -> Duration {
    Duration::from_micros(at.since(now()))
}
