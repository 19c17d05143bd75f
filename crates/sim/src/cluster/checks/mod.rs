//! Rules about whole hosts, each in a file of its own, beside those about nodes (`crate::checkers`). Each is shown what happens
//! and says what is wrong; none knows the world.

mod acknowledged;
mod answers;
mod bounds;
mod promises;
mod quotas;
mod tasks;

pub(super) use acknowledged::kept;
pub(super) use answers::{Answers, OpenRequest};
pub(super) use bounds::{Bounds, Load};
pub(super) use promises::{
    acknowledges, binds_itself, log_as_written, speaks_for, stable_mark, term_of_the_group, votes,
};
pub(super) use quotas::AtRest;
pub(super) use tasks::{Call, Completed, Outcome, Tasks};

use crate::checkers::Violation;

/// A rule that a world found broken.
pub(in crate::cluster) fn broken(checker: &'static str, message: impl Into<String>) -> Violation {
    Violation { checker, message: message.into() }
}
