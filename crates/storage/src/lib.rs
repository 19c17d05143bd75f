//! Log and meta storage of ringraft over a disk trait.
#![deny(missing_docs)]
