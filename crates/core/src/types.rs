//! Names and numbers that every part of the engine shares.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Index of a log entry; the first entry of a group has index 1, 0 means "none".
pub type LogIndex = u64;

/// Raft term; 0 is the term before the first election.
pub type Term = u64;

/// Position of an entry: index and the term in which it was created (SOFAJRaft's `LogId`).
///
/// Ordering is *by term first*, as the election restriction compares logs (Raft §5.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogId {
    /// Index of the entry.
    pub index: LogIndex,
    /// Term of the leader that created the entry.
    pub term: Term,
}

impl LogId {
    /// A log id from its two parts.
    pub const fn new(index: LogIndex, term: Term) -> LogId {
        LogId { index, term }
    }
}

impl PartialOrd for LogId {
    fn partial_cmp(&self, other: &LogId) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LogId {
    fn cmp(&self, other: &LogId) -> std::cmp::Ordering {
        (self.term, self.index).cmp(&(other.term, other.index))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.term)
    }
}

/// A moment on a monotonic clock, in microseconds since an origin that only the driver knows.
///
/// The core never reads a clock: drivers pass the moment in. Wall-clock time has no place here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The moment `micros` microseconds later; saturates instead of wrapping.
    #[must_use]
    pub const fn after(self, micros: u64) -> Time {
        Time(self.0.saturating_add(micros))
    }

    /// The moment `millis` milliseconds later; saturates instead of wrapping.
    #[must_use]
    pub const fn after_millis(self, millis: u64) -> Time {
        self.after(millis.saturating_mul(1000))
    }

    /// Microseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Name of a raft group: a letter, then letters, digits, `-` or `_` (SOFAJRaft's rule), at most 255 in all: the name
/// travels in every message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Arc<str>);

/// Why a text is not a [`GroupId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "group id {0:?} is not valid: it must start with a letter and go on with letters, digits, '-' or '_'"
)]
pub struct InvalidGroupId(pub String);

impl GroupId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupId {
    type Err = InvalidGroupId;

    fn from_str(text: &str) -> Result<GroupId, InvalidGroupId> {
        let mut bytes = text.bytes();
        let head = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
        if text.len() <= 255 && head && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            Ok(GroupId(text.into()))
        } else {
            Err(InvalidGroupId(text.to_owned()))
        }
    }
}

impl std::borrow::Borrow<str> for GroupId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ids_compare_by_term_first() {
        // openraft a48a3282: a pairwise comparison lets (2,1) and (1,2) refuse each other for ever.
        assert!(LogId::new(1, 2) > LogId::new(2, 1));
        assert!(LogId::new(2, 1) > LogId::new(1, 1));
    }

    #[test]
    fn group_ids_follow_the_rule() {
        for good in ["a", "atomic_0", "g-1"] {
            assert_eq!(good.parse::<GroupId>().unwrap().as_str(), good);
        }
        let long = "g".repeat(256);
        for bad in ["", "0a", "_a", "a b", "ä", &long] {
            assert!(bad.parse::<GroupId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn time_saturates() {
        assert_eq!(Time(5).since(Time(9)), 0);
        assert_eq!(Time(u64::MAX).after(1), Time(u64::MAX));
    }
}
