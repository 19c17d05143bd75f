//! Members of a group, as records and checkpoints hold them.

use bytes::Bytes;
use ringraft_core::{ChunkKind, Configuration, ConfigurationEntry, EntryChunk, LogId, PeerId};

use super::bytes::{Cursor, put_text, put32, put64};

/// Peers, old peers, learners, old learners, each a list of texts.
pub(crate) fn encode_configuration(conf: &Configuration, old_conf: &Configuration) -> Vec<u8> {
    let mut out = Vec::new();
    for list in [&conf.peers, &old_conf.peers, &conf.learners, &old_conf.learners] {
        put32(&mut out, list.len() as u32);
        list.iter().for_each(|peer| put_text(&mut out, &peer.to_string()));
    }
    out
}

/// Reverses [`encode_configuration`]; bytes that follow are left alone.
pub(crate) fn decode_configuration(bytes: &[u8]) -> Result<(Configuration, Configuration), String> {
    take_configuration(&mut Cursor::new(bytes))
}

fn take_configuration(cursor: &mut Cursor<'_>) -> Result<(Configuration, Configuration), String> {
    let mut lists = Vec::with_capacity(4);
    for _ in 0..4 {
        let count = cursor.u32()?;
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(cursor.text()?.parse::<PeerId>().map_err(|e| e.to_string())?);
        }
        lists.push(peers);
    }
    let mut next = || lists.remove(0);
    let (peers, old_peers, learners, old_learners) = (next(), next(), next(), next());
    Ok((Configuration { peers, learners }, Configuration { peers: old_peers, learners: old_learners }))
}

/// A configuration in force: the id of its entry and its members.
pub(crate) fn put_configuration_entry(out: &mut Vec<u8>, entry: &ConfigurationEntry) {
    put64(out, entry.id.index);
    put64(out, entry.id.term);
    out.extend_from_slice(&encode_configuration(&entry.conf, &entry.old_conf));
}

/// Reverses [`put_configuration_entry`].
pub(crate) fn take_configuration_entry(cursor: &mut Cursor<'_>) -> Result<ConfigurationEntry, String> {
    let id = LogId::new(cursor.u64()?, cursor.u64()?);
    let (conf, old_conf) = take_configuration(cursor)?;
    Ok(ConfigurationEntry { id, conf, old_conf })
}

/// The payload of a chunk as the file holds it: a configuration is spelled out, everything else is as it stands.
pub(crate) fn stored_payload(chunk: &EntryChunk) -> Bytes {
    match chunk.kind() {
        ChunkKind::Configuration { conf, old_conf } => encode_configuration(conf, old_conf).into(),
        _ => chunk.payload().clone(),
    }
}
