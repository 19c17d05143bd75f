//! A value for each node of a group: groups are small, so that a list is quicker than a map.

use ringraft_core::PeerId;

/// Values by node.
pub(super) struct PerNode<T> {
    values: Vec<(PeerId, T)>,
}

impl<T> Default for PerNode<T> {
    fn default() -> PerNode<T> {
        PerNode { values: Vec::new() }
    }
}

impl<T> PerNode<T> {
    /// The value of a node, or the one that `first` makes.
    pub(super) fn entry(&mut self, node: &PeerId, first: impl FnOnce() -> T) -> &mut T {
        let at = match self.values.iter().position(|(of, _)| of == node) {
            Some(at) => at,
            None => {
                self.values.push((node.clone(), first()));
                self.values.len() - 1
            }
        };
        &mut self.values[at].1
    }

    /// Forgets the value of a node.
    pub(super) fn remove(&mut self, node: &PeerId) {
        self.values.retain(|(of, _)| of != node);
    }
}
