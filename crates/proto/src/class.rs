//! Java class names of the messages: a Bolt frame names the class of its content, and a server dispatches by it.

/// Package prefix of SOFAJRaft's raft messages, up to the message's own name.
pub const RPC_REQUESTS: &str = "com.alipay.sofa.jraft.rpc.RpcRequests$";

/// Package prefix of SOFAJRaft's CLI messages, up to the message's own name.
pub const CLI_REQUESTS: &str = "com.alipay.sofa.jraft.rpc.CliRequests$";

/// Package prefix of AtomicServer's messages (`proto/atomic.proto`), up to the message's own name.
pub const ATOMIC: &str = "ringraft.atomic.";

/// Package prefix of ringraft's own messages between servers (`proto/group_state.proto`), up to the message's own name.
pub const RINGRAFT: &str = "ringraft.";

macro_rules! classes {
    ($($size:ident $name:ident = $prefix:literal, $message:literal;)*) => {
        $(#[doc = concat!("Class of `", $message, "`.")]
        pub const $name: &str = concat!($prefix, $message);)*

        /// The constant equal to `class`, and how large its content may be.
        pub(crate) fn known(class: &[u8]) -> Option<(&'static str, ContentSize)> {
            $(const $name: &[u8] = concat!($prefix, $message).as_bytes();)*
            match class {
                $($name => Some((self::$name, ContentSize::$size)),)*
                _ => None,
            }
        }

        #[cfg(test)]
        pub(crate) const ALL: &[&str] = &[$($name),*];
    };
}

/// Which of the content limits holds for a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentSize {
    /// Ids, numbers, short texts and lists of peers.
    Small,
    /// Entries, files, and what users send.
    Any,
}

classes! {
    Small PING_REQUEST = "com.alipay.sofa.jraft.rpc.RpcRequests$", "PingRequest";
    Small ERROR_RESPONSE = "com.alipay.sofa.jraft.rpc.RpcRequests$", "ErrorResponse";
    Any APPEND_ENTRIES_REQUEST = "com.alipay.sofa.jraft.rpc.RpcRequests$", "AppendEntriesRequest";
    Small APPEND_ENTRIES_RESPONSE = "com.alipay.sofa.jraft.rpc.RpcRequests$", "AppendEntriesResponse";
    Small REQUEST_VOTE_REQUEST = "com.alipay.sofa.jraft.rpc.RpcRequests$", "RequestVoteRequest";
    Small REQUEST_VOTE_RESPONSE = "com.alipay.sofa.jraft.rpc.RpcRequests$", "RequestVoteResponse";
    Small TIMEOUT_NOW_REQUEST = "com.alipay.sofa.jraft.rpc.RpcRequests$", "TimeoutNowRequest";
    Small TIMEOUT_NOW_RESPONSE = "com.alipay.sofa.jraft.rpc.RpcRequests$", "TimeoutNowResponse";
    Small INSTALL_SNAPSHOT_REQUEST = "com.alipay.sofa.jraft.rpc.RpcRequests$", "InstallSnapshotRequest";
    Small INSTALL_SNAPSHOT_RESPONSE = "com.alipay.sofa.jraft.rpc.RpcRequests$", "InstallSnapshotResponse";
    Small GET_FILE_REQUEST = "com.alipay.sofa.jraft.rpc.RpcRequests$", "GetFileRequest";
    Any GET_FILE_RESPONSE = "com.alipay.sofa.jraft.rpc.RpcRequests$", "GetFileResponse";
    Any READ_INDEX_REQUEST = "com.alipay.sofa.jraft.rpc.RpcRequests$", "ReadIndexRequest";
    Small READ_INDEX_RESPONSE = "com.alipay.sofa.jraft.rpc.RpcRequests$", "ReadIndexResponse";
    Small ADD_PEER_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "AddPeerRequest";
    Small ADD_PEER_RESPONSE = "com.alipay.sofa.jraft.rpc.CliRequests$", "AddPeerResponse";
    Small REMOVE_PEER_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "RemovePeerRequest";
    Small REMOVE_PEER_RESPONSE = "com.alipay.sofa.jraft.rpc.CliRequests$", "RemovePeerResponse";
    Small CHANGE_PEERS_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "ChangePeersRequest";
    Small CHANGE_PEERS_RESPONSE = "com.alipay.sofa.jraft.rpc.CliRequests$", "ChangePeersResponse";
    Small SNAPSHOT_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "SnapshotRequest";
    Small RESET_PEER_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "ResetPeerRequest";
    Small TRANSFER_LEADER_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "TransferLeaderRequest";
    Small GET_LEADER_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "GetLeaderRequest";
    Small GET_LEADER_RESPONSE = "com.alipay.sofa.jraft.rpc.CliRequests$", "GetLeaderResponse";
    Small GET_PEERS_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "GetPeersRequest";
    Small GET_PEERS_RESPONSE = "com.alipay.sofa.jraft.rpc.CliRequests$", "GetPeersResponse";
    Small ADD_LEARNERS_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "AddLearnersRequest";
    Small REMOVE_LEARNERS_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "RemoveLearnersRequest";
    Small RESET_LEARNERS_REQUEST = "com.alipay.sofa.jraft.rpc.CliRequests$", "ResetLearnersRequest";
    Small LEARNERS_OP_RESPONSE = "com.alipay.sofa.jraft.rpc.CliRequests$", "LearnersOpResponse";
    Small GROUP_STATE_REQUEST = "ringraft.", "GroupStateRequest";
    Small GROUP_STATE_RESPONSE = "ringraft.", "GroupStateResponse";
    Any ATOMIC_SET_REQUEST = "ringraft.atomic.", "SetRequest";
    Any ATOMIC_COMPARE_AND_SET_REQUEST = "ringraft.atomic.", "CompareAndSetRequest";
    Any ATOMIC_INCREMENT_AND_GET_REQUEST = "ringraft.atomic.", "IncrementAndGetRequest";
    Any ATOMIC_GET_REQUEST = "ringraft.atomic.", "GetRequest";
    Any ATOMIC_GET_SLOTS_REQUEST = "ringraft.atomic.", "GetSlotsRequest";
    Any ATOMIC_BOOLEAN_RESPONSE = "ringraft.atomic.", "BooleanResponse";
    Any ATOMIC_VALUE_RESPONSE = "ringraft.atomic.", "ValueResponse";
    Any ATOMIC_SLOTS_RESPONSE = "ringraft.atomic.", "SlotsResponse";
    Any ATOMIC_DESCRIBE_REQUEST = "ringraft.atomic.", "DescribeRequest";
    Any ATOMIC_DESCRIBE_RESPONSE = "ringraft.atomic.", "DescribeResponse";
    Small ATOMIC_REJOIN_REQUEST = "ringraft.atomic.", "RejoinRequest";
    Small ATOMIC_REJOIN_RESPONSE = "ringraft.atomic.", "RejoinResponse";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_known_by_its_bytes() {
        for class in ALL {
            assert_eq!(known(class.as_bytes()).map(|(name, _)| name), Some(*class));
            assert!(
                class.starts_with(RPC_REQUESTS)
                    || class.starts_with(CLI_REQUESTS)
                    || class.starts_with(ATOMIC)
                    || class.strip_prefix(RINGRAFT).is_some_and(|name| !name.contains('.'))
            );
        }
        assert_eq!(known(b""), None);
        assert_eq!(known(b"java.lang.Object"), None);
    }
}
