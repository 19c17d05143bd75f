//! What every request carries beside what it asks: sender, receiver, group, and ringraft's own cluster id and creation number. An answer
//! carries the creation number, too.

use bytes::BufMut;

use crate::error::DecodeError;
use crate::fields::Fields;
use crate::wire::{put_varint, varint_len};

/// Tags of ringraft's own fields of requests, the second of answers, too; on the wire in two bytes.
pub(crate) const CLUSTER_ID: u32 = 1010 << 3 | 2;
pub(crate) const CREATION: u32 = 1011 << 3;

/// Longest cluster id in bytes that a request may carry; far more than any cluster needs.
pub const MAX_CLUSTER_ID: usize = 255;

/// Who sends a request to whom, and which cluster and which life of the group it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The group's id.
    pub group: &'a str,
    /// Peer id of the sender.
    pub server_id: &'a str,
    /// Peer id of the receiver.
    pub peer_id: &'a str,
    /// The sender's cluster; empty when it does not know it, or is an earlier program or a Java node.
    pub cluster_id: &'a str,
    /// Creation number of the group as the sender knows it; 0 for none.
    pub creation: u64,
}

impl<'a> Envelope<'a> {
    /// An envelope that names no cluster and no creation number, as a Java node writes it.
    pub fn new(group: &'a str, server_id: &'a str, peer_id: &'a str) -> Envelope<'a> {
        Envelope { group, server_id, peer_id, cluster_id: "", creation: 0 }
    }

    /// Bytes of [`put_own`](Self::put_own).
    pub(crate) fn own_len(&self) -> usize {
        let cluster = self.cluster_id.len();
        let cluster = if cluster == 0 { 0 } else { 2 + varint_len(cluster as u64) + cluster };
        cluster + if self.creation == 0 { 0 } else { 2 + varint_len(self.creation) }
    }

    /// Appends ringraft's own fields, those that say something.
    pub(crate) fn put_own(&self, buf: &mut impl BufMut) {
        put_cluster_id(buf, self.cluster_id);
        put_creation(buf, self.creation);
    }
}

/// Appends the field `creation` to a serialized message of nodes or the administration; nothing for 0.
pub fn put_creation(buf: &mut impl BufMut, creation: u64) {
    if creation != 0 {
        put_varint(buf, u64::from(CREATION));
        put_varint(buf, creation);
    }
}

/// Appends the field `cluster_id` to a serialized request of a client or the administration; nothing for an empty id.
pub fn put_cluster_id(content: &mut impl BufMut, cluster_id: &str) {
    if !cluster_id.is_empty() {
        put_varint(content, u64::from(CLUSTER_ID));
        put_varint(content, cluster_id.len() as u64);
        content.put_slice(cluster_id.as_bytes());
    }
}

/// The cluster that a serialized request of a client or the administration means; empty when it names none.
///
/// # Errors
/// [`DecodeError::Malformed`] when the content is no protobuf message.
pub fn cluster_id_of(content: &[u8]) -> Result<&str, DecodeError> {
    Fields::read("request", content, [CLUSTER_ID])?.cluster_id()
}

impl<'a, const N: usize> Fields<'a, N> {
    /// The field `cluster_id`; empty when it is absent.
    pub(crate) fn cluster_id(&self) -> Result<&'a str, DecodeError> {
        checked_cluster_id(self.optional_text(CLUSTER_ID)?.unwrap_or(""))
    }
}

/// Refuses what no cluster is called: ids are repeated in answers and logs.
pub(crate) fn checked_cluster_id(id: &str) -> Result<&str, DecodeError> {
    if id.len() > MAX_CLUSTER_ID { Err(DecodeError::ClusterId(id.len())) } else { Ok(id) }
}

#[cfg(test)]
mod tests {
    use protobuf::Message;

    use super::*;
    use crate::generated::{atomic, cli};

    #[test]
    fn the_field_is_the_one_of_the_generated_messages() {
        let mut add = cli::AddPeerRequest::new();
        add.set_group_id("g".into());
        add.set_leader_id("a:1".into());
        add.set_peer_id("b:1".into());
        let mut content = add.write_to_bytes().unwrap();
        assert_eq!(cluster_id_of(&content), Ok(""));
        put_cluster_id(&mut content, "");
        assert_eq!(content, add.write_to_bytes().unwrap(), "an unknown id is absent");
        put_cluster_id(&mut content, "c0ffee");
        assert_eq!(cluster_id_of(&content), Ok("c0ffee"));
        assert_eq!(cli::AddPeerRequest::parse_from_bytes(&content).unwrap().cluster_id(), "c0ffee");

        let set = atomic::SetRequest { key: "k".into(), cluster_id: "1".into(), ..Default::default() };
        assert_eq!(cluster_id_of(&set.write_to_bytes().unwrap()), Ok("1"));
    }

    #[test]
    fn hostile_ids_are_refused() {
        let mut content = Vec::new();
        put_cluster_id(&mut content, &"x".repeat(MAX_CLUSTER_ID));
        assert!(cluster_id_of(&content).is_ok());
        let mut content = Vec::new();
        put_cluster_id(&mut content, &"x".repeat(MAX_CLUSTER_ID + 1));
        assert_eq!(cluster_id_of(&content), Err(DecodeError::ClusterId(MAX_CLUSTER_ID + 1)));
        let mut content = Vec::new();
        put_varint(&mut content, u64::from(CLUSTER_ID));
        content.extend_from_slice(&[2, 0xff, 0xff]);
        assert!(matches!(cluster_id_of(&content), Err(DecodeError::Malformed { .. })), "not UTF-8");
        assert!(cluster_id_of(&content[..3]).is_err(), "cut");
    }
}
