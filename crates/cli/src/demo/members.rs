//! Changes of members and transfers, asked for over the network as an operator asks for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringraft::{
    CliError, CliOptions, CliService, Configuration, PeerId, RaftError, RpcClient, RpcClientOptions,
};

/// How long one call may take, in milliseconds: a new member must catch up.
const CALL_TIMEOUT_MS: u64 = 30_000;

/// What is asked of the leader of a group.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// A new voter.
    Add(&'a PeerId),
    /// One voter less.
    Remove(&'a PeerId),
    /// Another leader.
    Transfer(&'a PeerId),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// Not now; or nobody knows. Look again before asking again.
    Later(String),
    /// It will not be done.
    Refused(String),
}

/// Asks leaders.
pub struct Admin {
    client: Arc<RpcClient>,
    cli: CliService,
}

impl Admin {
    /// Starts the client.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn start() -> Result<Admin, String> {
        let client = RpcClient::new(RpcClientOptions::default()).map_err(|error| error.to_string())?;
        let client = Arc::new(client);
        let options = CliOptions { timeout_ms: CALL_TIMEOUT_MS, ..CliOptions::default() };
        Ok(Admin { cli: CliService::new(Arc::clone(&client), options), client })
    }

    /// Asks the leader of a group, which one of `servers` names.
    pub fn ask(&self, servers: &Configuration, group: &str, ask: Ask<'_>) -> Answer {
        judge(match ask {
            Ask::Add(peer) => self.cli.add_peer(group, servers, peer).map(drop),
            Ask::Remove(peer) => self.cli.remove_peer(group, servers, peer).map(drop),
            Ask::Transfer(peer) => self.cli.transfer_leader(group, servers, Some(peer)),
        })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.client.shutdown();
    }
}

fn judge(outcome: Result<(), CliError>) -> Answer {
    match outcome {
        Ok(()) => Answer::Done,
        Err(CliError::Refused(status)) if status.error == RaftError::Invalid => {
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
        assert_eq!(judge(Ok(())), Answer::Done);
        for error in [RaftError::NotPermitted, RaftError::Busy, RaftError::CatchUp, RaftError::Exists] {
            let refused = CliError::Refused(Status::new(error, "x"));
            assert!(matches!(judge(Err(refused)), Answer::Later(_)), "{error:?}");
        }
        let unknown = CliError::Unknown(Status::new(RaftError::TimedOut, "x"));
        assert!(matches!(judge(Err(unknown)), Answer::Later(_)));
        let invalid = CliError::Refused(Status::new(RaftError::Invalid, "x"));
        assert!(matches!(judge(Err(invalid)), Answer::Refused(_)));
    }
}
