//! Finding the leader of a group: all members are asked at once, and the first that names one is believed.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringraft_core::{PeerId, RaftError};
use ringraft_proto::class;
use ringraft_proto::generated::cli::{GetLeaderRequest, GetLeaderResponse};

use super::{ATTEMPTS_IN_A_CALL, Call, CliError, CliService, message};

impl CliService {
    /// The leader as a member of the call's configuration names it. One that was `doubted`, because it has just refused, is believed
    /// only when nobody names another within the time of a question.
    pub(super) fn find_leader(&self, call: &Call<'_>, doubted: Option<&PeerId>) -> Result<PeerId, CliError> {
        let left = call.deadline.saturating_duration_since(Instant::now());
        let timeout = (self.timeout() / ATTEMPTS_IN_A_CALL).min(left).max(Duration::from_millis(1));
        let answers = self.ask_who_leads(call, timeout);
        let mut second_best = None;
        let mut reasons = Vec::new();
        // Each question has its end, and the channel with the last of them.
        for (peer, named) in answers {
            match named {
                Ok(leader) if doubted == Some(&leader) => second_best = Some(leader),
                Ok(leader) => return Ok(leader),
                // Asking again does not help, and what is asked may not be meant for the others, either.
                Err(error) if error.code() == Some(RaftError::WrongCluster) => return Err(error),
                Err(error) => reasons.push(format!("{peer}: {error}")),
            }
        }
        if let Some(leader) = second_best {
            return Ok(leader);
        }
        if reasons.is_empty() {
            reasons.push("no member is known to ask".to_owned());
        }
        Err(CliError::NoLeader { group: call.group.to_owned(), reasons: reasons.join("; ") })
    }

    /// Asks all members of the call's configuration. Each answers once, in the order in which the answers come, or fails after
    /// `timeout`.
    fn ask_who_leads(
        &self,
        call: &Call<'_>,
        timeout: Duration,
    ) -> mpsc::Receiver<(PeerId, Result<PeerId, CliError>)> {
        let (sender, answers) = mpsc::channel();
        for peer in call.conf.peers.iter().chain(&call.conf.learners) {
            let mut request = GetLeaderRequest::new();
            request.set_group_id(call.group.to_owned());
            request.set_peer_id(peer.to_string());
            let Ok(content) = self.content(&request) else { continue };
            let (sender, asked) = (sender.clone(), peer.clone());
            let done = move |answer: crate::RpcResult| {
                let named = answer
                    .map_err(CliError::from)
                    .and_then(|response| message::<GetLeaderResponse>(&response))
                    .and_then(|response| {
                        let leader = response.leader_id().parse::<PeerId>();
                        leader.map_err(|error| super::nonsense(error.to_string()))
                    });
                // Nobody listens any more when another was quicker.
                let _ = sender.send((asked, named));
            };
            self.client.call_async(&peer.endpoint(), class::GET_LEADER_REQUEST, content, timeout, done);
        }
        answers
    }
}
