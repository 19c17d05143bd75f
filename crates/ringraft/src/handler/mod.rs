//! The stages of the pipeline as plain structs: no threads, no clock. Thin loops drive them here, the simulator elsewhere.

pub(crate) mod event;

/// Names a group within its host: lane, slot of the lane, and which life of the slot. Whatever comes back from another stage
/// carries it and is dropped when the slot lives another life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupHandle {
    /// The lane.
    pub lane: u16,
    /// The slot in the lane.
    pub slot: u32,
    /// Which life of the slot.
    pub generation: u32,
}
