//! Bytes of the segment files: file header, part header, run. `docs/formats.md` has the tables.
//!
//! Version 2 is written; files of version 1 are read, with the same types.

mod bytes;
mod configuration;
mod file;
mod part;
mod run;

pub(crate) use bytes::{Cursor, MAX_TEXT, align, put_text, put_varint, put32, put64, u16_at, u32_at, u64_at};
pub(crate) use configuration::{
    decode_configuration, encode_configuration, put_configuration_entry, stored_payload,
    take_configuration_entry,
};
pub(crate) use file::{
    DATA_START, FORMAT_VERSION, Layout, PART_HEADER, SMALLEST_BLOCK_LOG2, SegmentHeader, numbered,
    segment_name, segment_number,
};
pub(crate) use part::PartHeader;
pub(crate) use run::{
    MAX_RUN_ENTRIES, Newer, RUN_HEADER, RunError, RunHeader, RunKind, RunView, decode_run, encode_run,
    seal_run,
};
