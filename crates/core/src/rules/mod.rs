//! The rules of raft as this engine keeps them: one small function each, named after what it demands.
//!
//! A handler asks a rule and acts on the answer. The functions here decide and change nothing but what they are handed, so that
//! each can be read, cited and doubted on its own. Their comments say what holds, why, and what happens otherwise, with the
//! source: the paper (Ongaro and Ousterhout 2014, "Raft"), the thesis (Ongaro 2014), or the bug of another engine.
//!
//! This is also where the bugs of [`mutants`](crate::mutants) are put back, in builds with that feature: a rule and the ways in
//! which engines have broken it stand side by side, and the handlers know nothing of them. Some rules are prohibitions. Their
//! function then does nothing, or gives back what it was given; it marks the place where a bug once did something.

pub(crate) mod durability;
pub(crate) mod election;
pub(crate) mod log;
pub(crate) mod membership;
pub(crate) mod quorum;
pub(crate) mod reads;
pub(crate) mod replication;
pub(crate) mod transfer;
