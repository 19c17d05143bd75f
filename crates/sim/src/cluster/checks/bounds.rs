//! Memory is bounded: whatever a stage or a node holds stays within what its options allow. Shows rule R1.

/// What may be held at most.
#[derive(Clone, Copy, Debug)]
pub(in crate::cluster) struct Bounds {
    /// Entries of a group that wait for the disk.
    pub(in crate::cluster) unstable_entries: u64,
    /// Bytes of a group's log in memory.
    pub(in crate::cluster) tail_bytes: usize,
    /// Entries that were handed to a state machine and are not applied.
    pub(in crate::cluster) unapplied_entries: u64,
    /// Their bytes.
    pub(in crate::cluster) unapplied_bytes: usize,
}

/// What one node holds.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cluster) struct Load {
    pub(in crate::cluster) unstable_entries: u64,
    pub(in crate::cluster) tail_bytes: usize,
    pub(in crate::cluster) unapplied_entries: u64,
    pub(in crate::cluster) unapplied_bytes: usize,
}

impl Bounds {
    /// # Errors
    /// A bound is exceeded.
    pub(in crate::cluster) fn check(&self, load: &Load) -> Result<(), String> {
        let over = [
            ("entries wait for the disk", load.unstable_entries, self.unstable_entries),
            ("bytes of log in memory", load.tail_bytes as u64, self.tail_bytes as u64),
            ("entries wait to be applied", load.unapplied_entries, self.unapplied_entries),
            ("bytes wait to be applied", load.unapplied_bytes as u64, self.unapplied_bytes as u64),
        ];
        match over.into_iter().find(|(_, held, bound)| held > bound) {
            Some((what, held, bound)) => Err(format!("{held} {what}, {bound} are allowed")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_kept() {
        let bounds =
            Bounds { unstable_entries: 4, tail_bytes: 100, unapplied_entries: 8, unapplied_bytes: 200 };
        let fits = Load { unstable_entries: 4, tail_bytes: 100, unapplied_entries: 8, unapplied_bytes: 200 };
        assert_eq!(bounds.check(&fits), Ok(()));
        assert!(bounds.check(&Load { unstable_entries: 5, ..fits }).unwrap_err().contains("disk"));
        assert!(bounds.check(&Load { tail_bytes: 101, ..fits }).unwrap_err().contains("memory"));
        assert!(bounds.check(&Load { unapplied_entries: 9, ..fits }).unwrap_err().contains("applied"));
        assert!(bounds.check(&Load { unapplied_bytes: 201, ..fits }).unwrap_err().contains("applied"));
    }
}
