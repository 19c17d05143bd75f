//! The state of a running server, as it travels and as a value.

use bytes::Bytes;
use protobuf::Message;
use ringraft_proto::generated::atomic as proto;

/// A server process and its replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerDescription {
    /// Peer id of the server.
    pub node: String,
    /// Id of its cluster; empty while it does not know it.
    pub cluster_id: String,
    /// Threads of the process.
    pub threads: u64,
    /// Open files and sockets of the process.
    pub fds: u64,
    /// Resident memory in KiB.
    pub rss_kb: u64,
    /// Its replicas, in the order of their ranges.
    pub groups: Vec<GroupDescription>,
}

/// One replica as its server sees it. The numbers may be a moment old, and need not belong to the same moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupDescription {
    /// Name of the group.
    pub group: String,
    /// SOFAJRaft's name of the node's state, such as `LEADER`.
    pub state: String,
    /// The latest term.
    pub term: u64,
    /// Peer id of the leader; empty when unknown.
    pub leader: String,
    /// Last index of the log.
    pub last: u64,
    /// Last durable index.
    pub stable: u64,
    /// Last index known to be committed.
    pub commit: u64,
    /// Last applied index.
    pub applied: u64,
    /// The members by the last configuration that is committed and applied here, else by the replica's log.
    pub conf: String,
    /// Index of the configuration that removed the replica from its group, as it knows; 0 when it is a member.
    pub removed_at: u64,
    /// Hash of every counter and its value. Of one moment with [`fsm_index`](GroupDescription::fsm_index): replicas that have
    /// equal indexes have equal hashes.
    pub fsm_hash: u64,
    /// Last command that the hash covers.
    pub fsm_index: u64,
    /// Counters that were ever set.
    pub keys: u64,
    /// Why the replica has failed; empty when it has not.
    pub error: String,
    /// Creation number of the group; 0 for none.
    pub creation: u64,
}

impl ServerDescription {
    pub(crate) fn encode(self) -> Bytes {
        let message = proto::DescribeResponse {
            success: true,
            node: self.node,
            cluster_id: self.cluster_id,
            threads: self.threads,
            fds: self.fds,
            rss_kb: self.rss_kb,
            groups: self.groups.into_iter().map(group_message).collect(),
            ..Default::default()
        };
        // Only messages beyond 2 GiB cannot be written.
        message.write_to_bytes().unwrap_or_default().into()
    }

    /// The description, or why there is none.
    pub(crate) fn decode(content: &[u8]) -> Result<ServerDescription, String> {
        let message =
            proto::DescribeResponse::parse_from_bytes(content).map_err(|error| error.to_string())?;
        if !message.success {
            return Err(message.error);
        }
        Ok(ServerDescription {
            node: message.node,
            cluster_id: message.cluster_id,
            threads: message.threads,
            fds: message.fds,
            rss_kb: message.rss_kb,
            groups: message.groups.into_iter().map(group_value).collect(),
        })
    }
}

fn group_message(group: GroupDescription) -> proto::GroupDescription {
    proto::GroupDescription {
        group: group.group,
        state: group.state,
        term: group.term,
        leader: group.leader,
        last: group.last,
        stable: group.stable,
        commit: group.commit,
        applied: group.applied,
        conf: group.conf,
        removed_at: group.removed_at,
        fsm_hash: group.fsm_hash,
        fsm_index: group.fsm_index,
        keys: group.keys,
        error: group.error,
        creation: group.creation,
        ..Default::default()
    }
}

fn group_value(message: proto::GroupDescription) -> GroupDescription {
    GroupDescription {
        group: message.group,
        state: message.state,
        term: message.term,
        leader: message.leader,
        last: message.last,
        stable: message.stable,
        commit: message.commit,
        applied: message.applied,
        conf: message.conf,
        removed_at: message.removed_at,
        fsm_hash: message.fsm_hash,
        fsm_index: message.fsm_index,
        keys: message.keys,
        error: message.error,
        creation: message.creation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_round_trip() {
        let group = GroupDescription {
            group: "atomic_0".into(),
            state: "STATE_LEADER".into(),
            term: 3,
            leader: "127.0.0.1:8081".into(),
            last: 9,
            stable: 8,
            commit: 7,
            applied: 6,
            conf: "127.0.0.1:8081".into(),
            removed_at: 2,
            fsm_hash: u64::MAX,
            fsm_index: 5,
            keys: 4,
            error: "why".into(),
            creation: 12,
        };
        let server = ServerDescription {
            node: "127.0.0.1:8081".into(),
            cluster_id: "c0ffee".into(),
            threads: 7,
            fds: 8,
            rss_kb: 9,
            groups: vec![group],
        };
        assert_eq!(ServerDescription::decode(&server.clone().encode()), Ok(server));
    }

    #[test]
    fn refusals_keep_their_words() {
        let refusal = proto::DescribeResponse { error: "no such group".into(), ..Default::default() };
        assert_eq!(
            ServerDescription::decode(&refusal.write_to_bytes().unwrap()),
            Err("no such group".into())
        );
        assert!(ServerDescription::decode(&[0xff]).is_err());
    }
}
