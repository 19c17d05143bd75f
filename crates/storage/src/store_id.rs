//! The random name of a store.

use std::fmt;

/// The random name of a store, given when it is made and repeated by every file of it, so that a file of another directory is never
/// taken for its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// The first 16 bytes of `bytes`, which must be there.
    pub(crate) fn read(bytes: &[u8]) -> StoreId {
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        StoreId(id)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
