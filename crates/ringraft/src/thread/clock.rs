//! The one clock of the process, which only the loops read, and callers who give a read its time.
//!
//! Leases and promises end by it, so it must go on while the machine is suspended: a leader that wakes up after half a minute
//! would else rely on a lease that the others have long outlived. On Linux that is `CLOCK_BOOTTIME`. What it cannot see is a virtual machine that its
//! host pauses or restores: whether the guest's clocks go on then is the hypervisor's affair (`docs/operations.md`). Elsewhere it is
//! [`Instant`](std::time::Instant), which may stand still meanwhile; leases are not for machines there that are suspended.

#[cfg(not(shuttle))]
use std::sync::OnceLock;
use std::time::Duration;

use ringraft_core::Time;

/// Time stands still under shuttle: what shall happen there is woken for, no timer helps it along.
#[cfg(shuttle)]
pub(crate) fn now() -> Time {
    Time(0)
}

/// Microseconds since the first call in this process, never going back, time in which the machine was suspended included.
#[cfg(not(shuttle))]
pub(crate) fn now() -> Time {
    static ORIGIN: OnceLock<Duration> = OnceLock::new();
    let now = source::read();
    let origin = *ORIGIN.get_or_init(|| now);
    Time(u64::try_from(now.saturating_sub(origin).as_micros()).unwrap_or(u64::MAX))
}

/// From now until `at`.
pub(crate) fn until(at: Time) -> Duration {
    Duration::from_micros(at.since(now()))
}

#[cfg(all(not(shuttle), any(target_os = "linux", target_os = "android")))]
mod source {
    use std::time::Duration;

    /// Goes on while the machine is suspended, and is set by nobody.
    pub(super) const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;

    /// Time since the machine was started.
    ///
    /// # Panics
    /// When the kernel has no such clock (before Linux 2.6.39). A time that stands still would make a lease last for ever.
    #[allow(unsafe_code)]
    pub(super) fn read() -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a timespec that lives through the call, and the call writes nothing else.
        let result = unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
        assert_eq!(result, 0, "this kernel has no CLOCK_BOOTTIME: {}", std::io::Error::last_os_error());
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

#[cfg(all(not(shuttle), not(any(target_os = "linux", target_os = "android"))))]
mod source {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    /// Time since the first call.
    pub(super) fn read() -> Duration {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        FIRST.get_or_init(Instant::now).elapsed()
    }
}

#[cfg(all(test, not(shuttle), target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_while_the_machine_is_suspended() {
        // A test cannot suspend its machine. The kernel says how long it has been up, suspended or not.
        assert_eq!(source::CLOCK, libc::CLOCK_BOOTTIME);
        let uptime = || -> Duration {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap())
        };
        // It counts in hundredths of a second; in a container it may say less.
        let before = uptime();
        let read = source::read();
        assert!(before <= read + Duration::from_millis(20), "{before:?} {read:?}");
    }

    #[test]
    fn time_never_goes_back() {
        let mut last = now();
        for _ in 0..10_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
