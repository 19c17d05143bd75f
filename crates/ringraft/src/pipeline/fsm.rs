//! The loop of a state-machine worker.

use std::sync::Arc;

use ringraft_ring::{Consumer, WaitOutcome};

use crate::handler::{ApplyOutput, ApplyTaskHandler, FsmTask};
use crate::pipeline::{LaneShared, StageGuard};
use crate::rpc::flush::{flush_now, gather_flushes};
use crate::thread::clock::now;

/// Events taken at once. Each carries what one turn of a lane has for this worker.
const BATCH: usize = 64;

pub(crate) struct FsmLoop {
    pub(crate) ring: Consumer<Vec<FsmTask>>,
    pub(crate) lanes: Vec<Arc<LaneShared>>,
    /// Calls of `on_apply` that take longer are told in the log; 0 means none.
    pub(crate) slow_apply_ms: u64,
    /// Held until the end.
    pub(crate) _guard: StageGuard,
}

impl FsmLoop {
    pub(crate) fn run(mut self) {
        gather_flushes();
        let mut handler = ApplyTaskHandler::new();
        if self.slow_apply_ms > 0 {
            handler.tell_slow_calls(self.slow_apply_ms, now);
        }
        let (mut events, mut tasks, mut out) = (Vec::new(), Vec::new(), ApplyOutput::default());
        let mut wake = vec![false; self.lanes.len()];
        while self.ring.wait(None) != WaitOutcome::Closed {
            self.ring.drain(BATCH, &mut events);
            self.lanes.iter().for_each(|lane| lane.room());
            for mut event in events.drain(..) {
                tasks.append(&mut event);
            }
            let start = now();
            handler.on_batch(&mut tasks, &mut out);
            metrics::histogram!("fsm-apply-tasks").record(now().since(start) as f64 / 1000.0);
            flush_now();
            for (handle, progress, index) in out.applied.drain(..) {
                let lane = usize::from(handle.lane);
                wake[lane] |= self.lanes[lane].board.applied(handle, &progress, index);
            }
            for (handle, progress, status) in out.failed.drain(..) {
                let lane = usize::from(handle.lane);
                self.lanes[lane].board.group_failed(handle, &progress, status);
                wake[lane] = true;
            }
            for (lane, wake) in self.lanes.iter().zip(&mut wake) {
                if std::mem::take(wake) {
                    lane.wake();
                }
            }
        }
        handler.shutdown();
        flush_now();
    }
}
