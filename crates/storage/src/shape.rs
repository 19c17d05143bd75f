//! The rules of one group's operations, checked before any of them is carried out.

use ringraft_core::{LogId, LogIndex, LogOp, Term};

/// Where the log of a group begins and ends while operations on it are checked one after the other. Nothing is changed
/// meanwhile: `stored` names the store's own knowledge of a term.
#[derive(Clone, Debug)]
pub(crate) struct LogShape {
    /// The entry before the first.
    before_first: LogId,
    last: LogId,
    /// Up to here the log is still that of the store.
    kept: LogIndex,
    /// Entries behind that, by first and last index.
    appended: Vec<(LogIndex, LogIndex, Term)>,
}

impl LogShape {
    /// A log as the store has it.
    pub(crate) fn new(before_first: LogId, last: LogId) -> LogShape {
        LogShape { before_first, last, kept: last.index, appended: Vec::new() }
    }

    /// Checks an operation and goes on from what it leaves.
    ///
    /// The error says which rule it breaks; the shape is as it was then.
    pub(crate) fn check(
        &mut self,
        op: &LogOp,
        stored: impl Fn(LogIndex) -> Option<Term>,
    ) -> Result<(), String> {
        match op {
            LogOp::HardState(_) => {}
            LogOp::Append(chunk) => {
                let (first, term) = (chunk.first_index(), chunk.term());
                if first != self.last.index + 1 {
                    return Err(format!(
                        "append at {first} after last index {} leaves a gap or overlaps",
                        self.last.index
                    ));
                }
                if term < self.last.term {
                    return Err(format!("append of term {term} after an entry of term {}", self.last.term));
                }
                self.appended.push((first, chunk.last_index(), term));
                self.last = LogId::new(chunk.last_index(), term);
            }
            LogOp::TruncateSuffix { from } => {
                if *from <= self.before_first.index {
                    return Err(format!(
                        "suffix truncation at {from} reaches below first index {}",
                        self.before_first.index + 1
                    ));
                }
                if *from <= self.last.index {
                    let last = from - 1;
                    self.last = LogId::new(last, self.term_at(last, &stored).unwrap_or(0));
                    self.kept = self.kept.min(last);
                    self.appended.retain(|(first, ..)| *first <= last);
                    if let Some(end) = self.appended.last_mut() {
                        end.1 = end.1.min(last);
                    }
                }
            }
            LogOp::TruncatePrefix { first_kept } => {
                let Some(before) = first_kept.checked_sub(1).filter(|b| *b > self.before_first.index) else {
                    return Ok(());
                };
                if before > self.last.index {
                    return Err(format!(
                        "prefix truncation at {first_kept} reaches beyond last index {}; a log that starts elsewhere is a reset",
                        self.last.index
                    ));
                }
                self.before_first = LogId::new(before, self.term_at(before, &stored).unwrap_or(0));
            }
            LogOp::Reset { before, .. } => *self = LogShape::new(*before, *before),
            LogOp::Promise { .. } | LogOp::MemberRemoved { .. } => {}
        }
        Ok(())
    }

    fn term_at(&self, index: LogIndex, stored: impl Fn(LogIndex) -> Option<Term>) -> Option<Term> {
        if index == self.before_first.index {
            return Some(self.before_first.term);
        }
        if index <= self.kept {
            return stored(index);
        }
        self.appended
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&index))
            .map(|(.., term)| *term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample_chunk;

    fn append(first: LogIndex, term: Term, count: u64) -> LogOp {
        LogOp::Append(sample_chunk(first, term, count))
    }

    /// Checks against entries 1..=6 of terms 1, 1, 2, 2, 3, 3.
    fn check(ops: &[LogOp]) -> Result<(), (usize, String)> {
        let mut shape = LogShape::new(LogId::default(), LogId::new(6, 3));
        let stored = |index: LogIndex| (1..=6).contains(&index).then(|| index.div_ceil(2));
        ops.iter().enumerate().try_for_each(|(i, op)| shape.check(op, stored).map_err(|what| (i, what)))
    }

    #[test]
    fn each_operation_is_judged_by_what_those_before_it_leave() {
        let cut = |from| LogOp::TruncateSuffix { from };
        let drop = |first_kept| LogOp::TruncatePrefix { first_kept };
        for good in [
            vec![append(7, 3, 2), append(9, 4, 1)],
            vec![cut(4), append(4, 2, 1)],
            vec![append(7, 5, 4), cut(9), append(9, 5, 1)],
            vec![append(7, 5, 1), append(8, 6, 1), cut(3), append(3, 1, 1)],
            vec![drop(5), cut(5), append(5, 2, 1)],
            vec![drop(7), append(7, 3, 1)],
            vec![LogOp::Reset { before: LogId::new(19, 1), conf: None }, append(20, 1, 1)],
            vec![cut(9), append(7, 3, 1), drop(3), drop(2)],
        ] {
            assert_eq!(check(&good), Ok(()), "{good:?}");
        }
        for bad in [
            vec![append(8, 3, 1)],
            vec![append(7, 2, 1)],
            vec![append(7, 4, 1), append(8, 3, 1)],
            vec![cut(5), append(5, 1, 1)],
            vec![append(7, 5, 2), cut(8), append(8, 4, 1)],
            vec![append(7, 5, 1), cut(7), append(8, 5, 1)],
            vec![drop(5), cut(4)],
            vec![drop(8)],
            vec![LogOp::Reset { before: LogId::new(19, 1), conf: None }, append(21, 3, 1)],
        ] {
            assert_eq!(check(&bad).map_err(|(i, _)| i), Err(bad.len() - 1), "{bad:?}");
        }
    }
}
