//! The inner form of a checkpoint: what is said of each group.

use std::sync::Arc;

use ringraft_core::{ConfigurationEntry, HardState, Mutant};

use super::super::format::{encode_configuration, put_configuration_entry, put_text, put32, put64};
use super::super::index::Group;
use super::Head;

/// A full block.
pub(crate) fn block<'a>(head: &Head<'_>, groups: impl ExactSizeIterator<Item = &'a Arc<Group>>) -> Vec<u8> {
    let mut out = Vec::new();
    put64(&mut out, head.position.file);
    put64(&mut out, head.position.offset);
    put64(&mut out, head.position.sequence);
    put32(&mut out, head.position.life);
    put32(&mut out, head.next_number);
    put32(&mut out, head.next_incarnation);
    put32(&mut out, groups.len() as u32);
    put32(&mut out, head.tombstones.len() as u32);
    put32(&mut out, 0); // a full block names nobody who is gone
    for group in groups {
        let at = out.len();
        put32(&mut out, 0);
        put_group(&mut out, group);
        let len = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
    for (name, creation) in head.tombstones {
        put_text(&mut out, name.as_str());
        put64(&mut out, *creation);
    }
    out
}

fn put_group(out: &mut Vec<u8>, group: &Group) {
    let index = group.index.lock();
    put32(out, group.key.number.0);
    put32(out, group.key.incarnation.0);
    put64(out, group.creation);
    put_text(out, group.name.as_str());
    put64(out, index.next_sequence);
    put64(out, index.before_first.index);
    put64(out, index.before_first.term);
    put_configuration_entry(out, index.conf_at_start.as_ref().unwrap_or(&ConfigurationEntry::default()));
    put64(out, index.hard_state.term);
    put_text(out, &vote_to_keep(&index.hard_state));
    put64(out, index.promised_ms);
    put64(out, index.member_removed.index);
    put64(out, index.member_removed.term);
    put32(out, index.damaged.len() as u32);
    for range in &index.damaged {
        put64(out, range.first);
        put64(out, range.last);
        put_text(out, &range.what);
    }
    out.push(0); // no snapshot
    put32(out, index.configurations.len() as u32);
    for entry in &index.configurations {
        put64(out, entry.id.index);
        put64(out, entry.id.term);
        let bytes = encode_configuration(&entry.conf, &entry.old_conf);
        put32(out, bytes.len() as u32);
        out.extend_from_slice(&bytes);
    }
    put32(out, 0); // all runs are named, and they tell the terms
    put32(out, index.runs.iter().count() as u32);
    for run in index.runs.iter() {
        put64(out, run.first);
        put64(out, run.last);
        put64(out, run.term);
        put64(out, run.sequence);
        put64(out, run.file);
        put32(out, run.offset as u32);
        put32(out, run.len);
        out.push(run.kind as u8);
    }
    put32(out, 0); // no file's footer stands for its runs
}

/// A checkpoint replaces the records of hard states, so it has the vote as well as the term.
fn vote_to_keep(state: &HardState) -> String {
    if Mutant::A9CheckpointForgetsTheVote.is_active() {
        return String::new();
    }
    state.vote.to_text()
}
