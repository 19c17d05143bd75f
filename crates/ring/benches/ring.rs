//! Nanoseconds per event, beside other bounded channels, in one run.
fn main() {}
