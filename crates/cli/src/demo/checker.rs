//! What a counter may hold, given what was answered. The checks never accuse wrongly: what may be is allowed.

/// A counter with one writer, whose requests follow each other, and whose every write has a value of its own.
///
/// A write whose outcome is unknown may take effect at any later time, but only once.
#[derive(Clone, Debug, Default)]
pub struct Register {
    /// The last value that was acknowledged or seen; `None` before the first.
    current: Option<i64>,
    /// Writes of which nobody knows, and which have not been seen yet.
    floating: Vec<i64>,
}

impl Register {
    /// What a comparison should expect: the last known value.
    pub fn expected(&self) -> i64 {
        self.current.unwrap_or(0)
    }

    /// A write was acknowledged.
    pub fn acked(&mut self, value: i64) {
        self.current = Some(value);
    }

    /// Nobody knows what became of a write.
    pub fn unknown(&mut self, value: i64) {
        self.floating.push(value);
    }

    /// A comparison with [`expected`](Register::expected) found another value.
    ///
    /// # Errors
    /// When no other value is possible.
    pub fn comparison_failed(&self, key: &str) -> Result<(), String> {
        if self.floating.is_empty() {
            let expected = self.expected();
            return Err(format!(
                "{key}: compare-and-set of the acknowledged value {expected} found another value"
            ));
        }
        Ok(())
    }

    /// A read answered `value`.
    ///
    /// # Errors
    /// When the counter cannot have it: an acknowledged write is lost, or a value came from nowhere.
    pub fn read(&mut self, key: &str, value: Option<i64>) -> Result<(), String> {
        if value == self.current {
            return Ok(());
        }
        if let Some(at) = self.floating.iter().position(|floating| Some(*floating) == value) {
            self.floating.swap_remove(at);
            self.current = value;
            return Ok(());
        }
        let show = |value: Option<i64>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
        let (expected, found) = (show(self.current), show(value));
        let or = if self.floating.is_empty() {
            String::new()
        } else {
            format!(" (or one of {:?})", self.floating)
        };
        Err(format!("{key}: expected the acknowledged {expected}{or}, found {found}"))
    }
}

/// A counter to which many add 1.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    acked: u64,
    unknown: u64,
    /// Sums that were answered, as a set of bits.
    answered: Vec<u64>,
}

impl Tally {
    /// An addition was acknowledged with this sum.
    ///
    /// # Errors
    /// When another addition had the same sum (one of them is lost), or it is none at all.
    pub fn acked(&mut self, key: &str, sum: i64) -> Result<(), String> {
        self.acked += 1;
        let Ok(sum @ 1..) = u64::try_from(sum) else {
            return Err(format!("{key}: adding 1 answered {sum}"));
        };
        let (word, bit) = ((sum / 64) as usize, 1 << (sum % 64));
        if word > 1 << 24 {
            return Err(format!("{key}: adding 1 answered {sum}, which is more than was ever added"));
        }
        if self.answered.len() <= word {
            self.answered.resize(word + 1, 0);
        }
        if self.answered[word] & bit != 0 {
            return Err(format!(
                "{key}: two additions were answered with the sum {sum}; one of them is lost"
            ));
        }
        self.answered[word] |= bit;
        Ok(())
    }

    /// Nobody knows what became of an addition.
    pub fn unknown(&mut self) {
        self.unknown += 1;
    }

    /// The counter was read when nothing was on its way any more.
    ///
    /// # Errors
    /// When it is less than what was acknowledged, or more than that and what is unknown.
    pub fn read(&self, key: &str, value: Option<i64>) -> Result<(), String> {
        let (least, most) = (self.acked, self.acked + self.unknown);
        let value = value.unwrap_or(0);
        if u64::try_from(value).is_ok_and(|value| (least..=most).contains(&value)) {
            return Ok(());
        }
        Err(format!(
            "{key}: {least} additions were acknowledged and {} are unknown, but it is {value}",
            self.unknown
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_write_must_be_read() {
        let mut register = Register::default();
        register.read("k", None).unwrap();
        register.acked(1);
        register.read("k", Some(1)).unwrap();
        register.acked(2);
        assert!(register.read("k", Some(1)).is_err(), "the older value is a lost write");
        assert!(register.read("k", None).is_err());
        assert!(register.read("k", Some(7)).is_err(), "nobody wrote it");
    }

    #[test]
    fn an_unknown_write_may_show_once_at_any_time() {
        let mut register = Register::default();
        register.acked(1);
        register.unknown(2);
        register.read("k", Some(1)).unwrap();
        register.acked(3);
        register.read("k", Some(2)).unwrap();
        assert!(register.read("k", Some(3)).is_err(), "2 was seen after 3");
        register.acked(4);
        assert!(register.read("k", Some(2)).is_err(), "2 was overwritten");
    }

    #[test]
    fn comparisons_fail_only_for_a_reason() {
        let mut register = Register::default();
        assert_eq!(register.expected(), 0);
        register.acked(1);
        assert!(register.comparison_failed("k").is_err());
        register.unknown(2);
        register.comparison_failed("k").unwrap();
    }

    #[test]
    fn sums_are_answered_once_each() {
        let mut tally = Tally::default();
        tally.acked("c", 2).unwrap();
        tally.acked("c", 1).unwrap();
        assert!(tally.acked("c", 2).is_err());
        assert!(tally.acked("c", 0).is_err());
        assert!(tally.acked("c", i64::MAX).is_err());
    }

    #[test]
    fn totals_lie_between_what_is_certain_and_what_is_possible() {
        let mut tally = Tally::default();
        for sum in 1..=3 {
            tally.acked("c", sum).unwrap();
        }
        tally.unknown();
        for (value, fine) in
            [(Some(2), false), (Some(3), true), (Some(4), true), (Some(5), false), (None, false)]
        {
            assert_eq!(tally.read("c", value).is_ok(), fine, "{value:?}");
        }
        Tally::default().read("c", None).unwrap();
    }
}
