//! Whose a message and a directory are: which cluster's, and which life of a group's name.

pub(crate) mod cluster_gate;
pub(crate) mod cluster_id;
pub(crate) mod creation;
