//! Wake-ups that shuttle's tests break on purpose, to show that their schedules find it.

use std::cell::Cell;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// An owner does not say that it waits for the disk.
    UrgentFlag,
    /// An owner does not say that it waits for the state machine.
    AwaitsApplyFlag,
    /// A lane is not woken for room or progress.
    Bell,
    /// A lane that could not publish does not try once more after it has said so.
    SecondTry,
    /// A lane does not look at its board once more before it sleeps.
    LastLook,
    /// A later stage does not say that there is room.
    Room,
    /// A lane goes to sleep without having its rings for bulk wake it.
    Announce,
}

std::thread_local! {
    /// Not shuttle's: a schedule's threads share one thread of the system, and thus this.
    static BROKEN: Cell<Option<Breakage>> = const { Cell::new(None) };
    static STEERED: Cell<bool> = const { Cell::new(false) };
}

/// From now on the schedules of this test run with it.
#[cfg(test)]
pub(crate) fn set(breakage: Breakage) {
    BROKEN.set(Some(breakage));
}

/// From now on the schedules of this test are led to where a lane's second try matters: to room that comes just before the
/// lane says that it waits for it. Chance alone hardly ever leads there.
#[cfg(test)]
pub(crate) fn steer() {
    STEERED.set(true);
}

pub(crate) fn let_others_make_room() {
    if STEERED.get() {
        shuttle::thread::yield_now();
    }
}

pub(crate) fn is(breakage: Breakage) -> bool {
    BROKEN.get() == Some(breakage)
}
