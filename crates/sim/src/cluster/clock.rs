//! A host's own monotonic clock: it runs at a wrong rate and may leap ahead.

use ringraft_core::Time;

/// Microseconds in a millisecond.
pub(super) const MS: u64 = 1000;

#[derive(Clone, Debug)]
pub(super) struct HostClock {
    /// World time and host time at which they were last set side by side.
    world: u64,
    host: u64,
    /// Error of the rate in parts per million.
    ppm: i64,
}

impl HostClock {
    pub(super) fn new(host: u64, ppm: i64) -> HostClock {
        HostClock { world: 0, host, ppm }
    }

    pub(super) fn now(&self, world: u64) -> Time {
        let passed = world - self.world;
        let error = i128::from(passed) * i128::from(self.ppm) / 1_000_000;
        Time(self.host + (i128::from(passed) + error).max(0) as u64)
    }

    /// The world time at which the host's clock shows `at` or a little more.
    pub(super) fn world_time(&self, at: Time) -> u64 {
        let wanted = u128::from(at.0.saturating_sub(self.host));
        let rate = (1_000_000 + self.ppm) as u128;
        self.world + (wanted * 1_000_000).div_ceil(rate) as u64 + 1
    }

    /// The clock leaps ahead by so many microseconds.
    pub(super) fn leap(&mut self, world: u64, by: u64) {
        self.host = self.now(world).0 + by;
        self.world = world;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_come_when_it_is_said_to_come() {
        for ppm in [-10_000, -3, 0, 7, 10_000] {
            let mut clock = HostClock::new(500, ppm);
            clock.leap(77, 1000);
            for at in [0, 1, 999, 123_456_789] {
                let world = clock.world_time(Time(at)).max(77);
                assert!(clock.now(world) >= Time(at), "{ppm} {at}");
            }
        }
    }
}
