//! Requests that arrive and answers that leave.

pub(crate) mod client;
pub(crate) mod user;
