//! Which group a key belongs to (SOFAJRaft's AtomicServer: `HashUtils`, `AtomicServer.start`).

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1, 64 bits, over the UTF-16 units of the key, as an absolute value.
///
/// As in Java, the absolute value of the smallest number is that number itself: the result may be `i64::MIN`, which lies
/// below every range and goes to the first one.
pub fn key_hash(key: &str) -> i64 {
    let hash =
        key.encode_utf16().fold(FNV_OFFSET, |hash, unit| hash.wrapping_mul(FNV_PRIME) ^ u64::from(unit));
    (hash as i64).wrapping_abs()
}

/// The starts of consecutive ranges of hashes, ascending; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Vec<i64>);

impl Ranges {
    /// Cuts `min..max` into `total` ranges of `ceil((max - min) / total)` hashes; the last one may be shorter. `None` when a
    /// range would be empty or the bounds are not `0 <= min <= max`.
    ///
    /// One range may be empty only when it is the only one (`min == max`): keys go to the first range anyway when they lie
    /// outside of all.
    pub fn cut(min: i64, max: i64, total: usize) -> Option<Ranges> {
        let total = i64::try_from(total).ok().filter(|total| *total > 0)?;
        if min < 0 || max < min {
            return None;
        }
        let width = max - min;
        let step = width / total + i64::from(width % total != 0);
        let starts = (0..total).map(|i| step.checked_mul(i).and_then(|at| at.checked_add(min)));
        let starts = starts.collect::<Option<Vec<i64>>>()?;
        let last_is_empty = total > 1 && starts.last().is_none_or(|start| *start >= max);
        if last_is_empty { None } else { Some(Ranges(starts)) }
    }

    /// Ranges that begin at these hashes; `None` unless there is one and they ascend.
    pub fn from_starts(starts: Vec<i64>) -> Option<Ranges> {
        let ascend = starts.windows(2).all(|pair| pair[0] < pair[1]);
        if starts.is_empty() || !ascend { None } else { Some(Ranges(starts)) }
    }

    /// The starts, ascending.
    pub fn starts(&self) -> &[i64] {
        &self.0
    }

    /// Position of the range that a hash belongs to: the one with the greatest start that is not above it, else the first.
    pub fn locate(&self, hash: i64) -> usize {
        self.0.partition_point(|start| *start <= hash).saturating_sub(1)
    }

    /// Position of the range that a key belongs to.
    pub fn locate_key(&self, key: &str) -> usize {
        self.locate(key_hash(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1() {
        // Published check values of FNV-1 64; ASCII has one UTF-16 unit a byte.
        for (key, expected) in
            [("", FNV_OFFSET), ("a", 0xaf63_bd4c_8601_b7be), ("foobar", 0x340d_8765_a4dd_a9c2)]
        {
            assert_eq!(key_hash(key), (expected as i64).wrapping_abs(), "{key:?}");
        }
    }

    #[test]
    fn the_hash_counts_utf_16_units() {
        let one = |hash: u64, unit: u64| hash.wrapping_mul(FNV_PRIME) ^ unit;
        assert_eq!(key_hash("é"), (one(FNV_OFFSET, 0xe9) as i64).wrapping_abs());
        let pair = one(one(FNV_OFFSET, 0xd83d), 0xde00);
        assert_eq!(key_hash("\u{1f600}"), (pair as i64).wrapping_abs());
    }

    #[test]
    fn ranges_are_cut_by_the_rounded_up_step() {
        assert_eq!(Ranges::cut(0, 10, 3).unwrap().starts(), [0, 4, 8]);
        assert_eq!(Ranges::cut(0, i64::MAX, 1).unwrap().starts(), [0]);
        let eight = Ranges::cut(0, i64::MAX, 8).unwrap();
        assert_eq!(eight.starts()[..3], [0, 1 << 60, 1 << 61]);
        assert_eq!(Ranges::cut(100, 110, 3).unwrap().starts(), [100, 104, 108]);
    }

    #[test]
    fn cuts_that_leave_a_range_empty_are_refused() {
        assert_eq!(Ranges::cut(0, 10, 0), None);
        assert_eq!(Ranges::cut(0, 10, 7), None, "steps of 2: the seventh would begin at 12");
        assert_eq!(Ranges::cut(-1, 10, 1), None);
        assert_eq!(Ranges::cut(10, 9, 1), None);
        assert_eq!(Ranges::cut(5, 5, 1).unwrap().starts(), [5]);
    }

    #[test]
    fn a_hash_belongs_to_the_greatest_start_below_it() {
        let ranges = Ranges::cut(0, 10, 3).unwrap();
        for (hash, at) in [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (9, 2), (1000, 2), (-1, 0), (i64::MIN, 0)]
        {
            assert_eq!(ranges.locate(hash), at, "{hash}");
        }
    }

    #[test]
    fn starts_must_ascend() {
        assert_eq!(Ranges::from_starts(vec![]), None);
        assert_eq!(Ranges::from_starts(vec![0, 0]), None);
        assert_eq!(Ranges::from_starts(vec![0, 5]).unwrap().locate(5), 1);
    }
}
