//! Deterministic worlds for ringraft: the golden-script language and its runner.
#![deny(missing_docs)]
#![forbid(unsafe_code)]
