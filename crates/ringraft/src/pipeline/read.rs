//! The loop of a read worker: old entries for peers that lag, fetched off the owner threads.

use std::sync::Arc;

use ringraft_ring::{Consumer, Producer, WaitOutcome};
use ringraft_storage::LogReader;

use crate::handler::{LaneEvent, ReadTask};
use crate::pipeline::LaneShared;

pub(crate) struct ReadLoop {
    pub(crate) ring: Consumer<ReadTask>,
    pub(crate) reader: Arc<dyn LogReader>,
    pub(crate) lanes: Vec<Arc<LaneShared>>,
    /// Rings of the lanes for control.
    pub(crate) lane_rings: Vec<Producer<LaneEvent>>,
}

impl ReadLoop {
    pub(crate) fn run(mut self) {
        let mut tasks = Vec::new();
        while self.ring.wait(None) != WaitOutcome::Closed {
            self.ring.drain(1, &mut tasks);
            self.lanes.iter().for_each(|lane| lane.room());
            for ReadTask { handle, key, read } in tasks.drain(..) {
                let result = self.reader.read(key, read.from, read.to, read.max_bytes);
                let event = LaneEvent::LogRead { handle, ticket: read.ticket, result: Box::new(result) };
                // Waiting is fine here: the lane does not wait for this worker, and drains the ring in every turn. A closed ring needs
                // no answer.
                let _ = self.lane_rings[usize::from(handle.lane)].publish(event);
            }
        }
    }
}
