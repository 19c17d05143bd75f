//! Randomness from the seed. Each purpose draws from a stream of its own, so that dropping one fault changes nothing else.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    /// A stream of its own for one purpose.
    pub(super) fn fork(&self, label: u64) -> Random {
        let mut fork = Random(self.0 ^ label.wrapping_mul(0xA24B_AED4_963E_E407));
        fork.next();
        fork
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub(super) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A number in `low..=high` whose size, not value, is spread evenly: small ones are as likely as large ones.
    pub(super) fn sized(&mut self, low: u64, high: u64) -> u64 {
        let bits = |n: u64| u64::from(64 - n.leading_zeros());
        let chosen = self.range(bits(low.max(1)), bits(high.max(1)));
        let top = if chosen >= 64 { u64::MAX } else { (1 << chosen) - 1 };
        self.range(low, top.clamp(low, high))
    }

    /// True in so many of a thousand cases.
    pub(super) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// An index into a list of this length.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}
