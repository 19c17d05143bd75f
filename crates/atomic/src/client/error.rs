//! Why a request of the client has no answer.

/// Why a request failed. Every kind but [`Unknown`](ClientError::Unknown) is certain: the request was not carried out and will not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The request was sent and nobody says what became of it: it may have been or may yet be carried out. Read the counter
    /// before sending it again.
    #[error("outcome unknown: {0}; read the counter before you send the request again")]
    Unknown(String),
    /// The group was overloaded until the deadline.
    #[error("the group was busy until the deadline: {0}; try again later or send less")]
    Busy(String),
    /// No leader took the request until the deadline.
    #[error("no leader took the request before the deadline: {0}; is a majority of the servers running?")]
    NotLeader(String),
    /// No server could be reached until the deadline.
    #[error(
        "no server could be reached before the deadline: {0}; check the addresses and that the servers run"
    )]
    Timeout(String),
    /// The servers belong to another cluster than is meant, or to two.
    #[error("wrong cluster: {0}; name the servers of one cluster, or correct the cluster id")]
    WrongCluster(String),
    /// A request that no server will take.
    #[error("the request was refused: {0}")]
    Invalid(String),
}

impl ClientError {
    /// The word for scripts: `unknown`, `busy`, `not_leader`, `timeout`, `wrong_cluster` or `invalid`.
    pub fn kind(&self) -> &'static str {
        match self {
            ClientError::Unknown(_) => "unknown",
            ClientError::Busy(_) => "busy",
            ClientError::NotLeader(_) => "not_leader",
            ClientError::Timeout(_) => "timeout",
            ClientError::WrongCluster(_) => "wrong_cluster",
            ClientError::Invalid(_) => "invalid",
        }
    }

    /// Whether the request was certainly not carried out.
    pub fn is_definite(&self) -> bool {
        !matches!(self, ClientError::Unknown(_))
    }
}
