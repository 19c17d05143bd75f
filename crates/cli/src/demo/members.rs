//! Changes of members and transfers, asked for over the network as an operator asks for them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protobuf::Message;
use ringraft::{RaftError, RpcClient, RpcClientOptions, RpcError};
use ringraft_proto::class;
use ringraft_proto::generated::cli as proto;

/// How long one request may take: a new member must catch up.
const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// What is asked of the leader of a group.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// A new voter.
    Add(&'a str),
    /// One voter less.
    Remove(&'a str),
    /// Another leader.
    Transfer(&'a str),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done, or (a transfer) has begun.
    Done,
    /// Not now, or not here; or nobody knows. Look again before asking again.
    Later(String),
    /// It will not be done.
    Refused(String),
}

/// Asks leaders.
pub struct Admin {
    client: RpcClient,
}

impl Admin {
    /// Starts the client.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn start() -> Result<Admin, String> {
        let client = RpcClient::new(RpcClientOptions::default()).map_err(|error| error.to_string())?;
        Ok(Admin { client })
    }

    /// Asks `leader` (`ip:port`) about a group.
    ///
    /// # Errors
    /// When the request cannot be written.
    pub fn ask(&self, leader: &str, group: &str, ask: Ask<'_>) -> Result<Answer, String> {
        let (class, content) = encode(leader, group, ask).map_err(|error| error.to_string())?;
        Ok(judge(self.client.call(leader, class, content, CALL_PATIENCE).map(drop)))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.client.shutdown();
    }
}

fn encode(leader: &str, group: &str, ask: Ask<'_>) -> protobuf::Result<(&'static str, Bytes)> {
    let (group_id, leader_id) = (Some(group.to_owned()), Some(leader.to_owned()));
    let (class, written) = match ask {
        Ask::Add(peer) => {
            let peer_id = Some(peer.to_owned());
            let message = proto::AddPeerRequest { group_id, leader_id, peer_id, ..Default::default() };
            (class::ADD_PEER_REQUEST, message.write_to_bytes())
        }
        Ask::Remove(peer) => {
            let peer_id = Some(peer.to_owned());
            let message = proto::RemovePeerRequest { group_id, leader_id, peer_id, ..Default::default() };
            (class::REMOVE_PEER_REQUEST, message.write_to_bytes())
        }
        Ask::Transfer(peer) => {
            let peer_id = Some(peer.to_owned());
            let message = proto::TransferLeaderRequest { group_id, leader_id, peer_id, ..Default::default() };
            (class::TRANSFER_LEADER_REQUEST, message.write_to_bytes())
        }
    };
    Ok((class, written?.into()))
}

/// Says what an answer means. What changes members is never asked again before somebody has looked who they are.
fn judge(answer: Result<(), RpcError>) -> Answer {
    match answer {
        Ok(()) => Answer::Done,
        Err(RpcError::Remote { status, .. })
            if matches!(status.error, RaftError::Invalid | RaftError::Request) =>
        {
            Answer::Refused(status.to_string())
        }
        Err(error) => Answer::Later(error.to_string()),
    }
}

/// A limit of time for something that is tried again and again.
pub struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Deadline {
    /// From now on.
    pub fn after(limit: Duration) -> Deadline {
        Deadline { end: Instant::now() + limit, limit }
    }

    /// # Errors
    /// When the time is over: what was tried, and what was said last.
    pub fn check(&self, what: &str, last: &str) -> Result<(), String> {
        if Instant::now() < self.end {
            return Ok(());
        }
        Err(format!("tried {what} for {} s, in vain; last: {last}", self.limit.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use ringraft::Status;

    use super::*;

    #[test]
    fn only_what_will_never_be_done_ends_the_tries() {
        let remote = |error| RpcError::Remote { endpoint: "a:1".into(), status: Status::new(error, "x") };
        assert_eq!(judge(Ok(())), Answer::Done);
        for error in [RaftError::NotPermitted, RaftError::Busy, RaftError::CatchUp, RaftError::Cancelled] {
            assert!(matches!(judge(Err(remote(error))), Answer::Later(_)), "{error:?}");
        }
        assert!(matches!(judge(Err(remote(RaftError::Invalid))), Answer::Refused(_)));
        let lost = RpcError::Lost { endpoint: "a:1".into(), reason: "x".into() };
        assert!(matches!(judge(Err(lost)), Answer::Later(_)));
    }

    #[test]
    fn requests_name_group_leader_and_peer() {
        let (class, content) = encode("l:1", "g_0", Ask::Remove("p:2")).unwrap();
        assert_eq!(class, class::REMOVE_PEER_REQUEST);
        let message = proto::RemovePeerRequest::parse_from_bytes(&content).unwrap();
        assert_eq!((message.group_id(), message.leader_id(), message.peer_id()), ("g_0", "l:1", "p:2"));
    }
}
