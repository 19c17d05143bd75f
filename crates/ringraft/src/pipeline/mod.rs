//! The threads of a host and the thin loops that they run: ring → handler → next ring.

mod damage;
mod disk;
mod disk_control;
mod disk_event;
mod fsm;
mod intake;
mod lane;
mod net;
mod read;
#[cfg(shuttle)]
mod scripted_net;
mod store_calls;
mod store_watch;
mod threads;

use std::fmt;
use std::sync::Arc;

use ringraft_ring::ConsumerWaker;

use crate::handler::ProgressBoard;
#[cfg(shuttle)]
use crate::thread::breakage::{Breakage, is};
use crate::thread::sync::{AtomicBool, AtomicUsize, Ordering, fence};

pub(crate) use damage::DamageReports;
pub(crate) use disk::DiskLoop;
pub(crate) use disk_control::DiskControl;
pub(crate) use disk_event::DiskEvent;
pub(crate) use fsm::FsmLoop;
pub(crate) use intake::{Intake, LaneRings, lane_rings};
pub(crate) use lane::{LaneLoop, LaneParts};
pub(crate) use net::{HostLoop, NetThread, NetWaker};
pub(crate) use read::ReadLoop;
#[cfg(all(test, shuttle))]
pub(crate) use scripted_net::ScriptedNet;
pub(crate) use store_calls::is_blank;
pub(crate) use store_watch::StoreWatch;
pub(crate) use threads::Threads;

/// What the other stages know of a lane.
pub(crate) struct LaneShared {
    pub(crate) board: ProgressBoard,
    /// The lane waits for room in one of the next rings.
    blocked: AtomicBool,
    /// The lane shall end.
    pub(crate) stop: AtomicBool,
    waker: ConsumerWaker,
}

impl LaneShared {
    pub(crate) fn new(waker: ConsumerWaker) -> LaneShared {
        LaneShared {
            board: ProgressBoard::new(),
            blocked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            waker,
        }
    }

    pub(crate) fn wake(&self) {
        #[cfg(shuttle)]
        if is(Breakage::Bell) {
            return;
        }
        self.waker.wake();
    }

    /// The lane could not publish; it tries once more after this, and sleeps if that fails too.
    fn announce_blocked(&self) {
        self.blocked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// There is room again in a ring that the lane publishes into: call after every drain.
    fn room(&self) {
        #[cfg(shuttle)]
        if is(Breakage::Room) {
            return;
        }
        fence(Ordering::SeqCst);
        if self.blocked.load(Ordering::Relaxed) && self.blocked.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }
}

impl fmt::Debug for LaneShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneShared").field("board", &self.board).finish_non_exhaustive()
    }
}

/// How many stages of a kind are still running.
#[derive(Clone, Debug)]
pub(crate) struct Running(Arc<AtomicUsize>);

impl Running {
    /// The counter, and one guard for each of `count` stages. When the last guard goes, `on_last` is called.
    pub(crate) fn new(count: usize, on_last: Arc<dyn Fn() + Send + Sync>) -> (Running, Vec<StageGuard>) {
        let running = Running(Arc::new(AtomicUsize::new(count)));
        let guard = || StageGuard { running: running.clone(), on_last: Arc::clone(&on_last) };
        let guards = (0..count).map(|_| guard()).collect();
        (running, guards)
    }

    /// Whether all have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// A stage that is running, or about to: it ends when this is dropped, however that comes about.
pub(crate) struct StageGuard {
    running: Running,
    on_last: Arc<dyn Fn() + Send + Sync>,
}

impl Drop for StageGuard {
    fn drop(&mut self) {
        if self.running.0.fetch_sub(1, Ordering::AcqRel) == 1 {
            (self.on_last)();
        }
    }
}
