//! Which cluster a host belongs to, and what becomes of requests that mean another.
//!
//! Two clusters whose groups have the same names, and one of which has an address of the other's by mistake, would merge their logs: the
//! messages fit, and the higher term wins. So every request says which cluster it means, and one that means another is refused before
//! anything of it is looked at.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ringraft_core::{Mutant, RaftError, Status};
use ringraft_net::{LogLimiter, WireText};
use ringraft_proto::{MAX_CLUSTER_ID, cluster_id_of};

/// Has an id that was learnt from a leader written down. Says whether it was begun.
type Remember = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The cluster that a host belongs to. A host that was bootstrapped knows it from the start; one that joins takes it from the first leader that it accepts, durably and once.
#[derive(Default)]
pub struct ClusterGate {
    id: OnceLock<Box<str>>,
    required: bool,
    /// An id is being written down.
    learning: AtomicBool,
    remember: OnceLock<Remember>,
    log: LogLimiter,
}

impl ClusterGate {
    /// The gate of a host of this cluster; an empty id is not known yet. With `required`, requests that name no cluster are refused.
    pub fn new(id: &str, required: bool) -> ClusterGate {
        let gate = ClusterGate { required, ..ClusterGate::default() };
        if !id.is_empty() {
            gate.settle(id);
        }
        gate
    }

    /// The cluster's id; `None` while the host does not know it.
    pub fn id(&self) -> Option<&str> {
        self.id.get().map(|id| &**id)
    }

    /// Whether a request of a client, a serialized message whose field 1010 is `cluster_id`, may be carried out here. For the processors of programs on top.
    ///
    /// # Errors
    /// `EWRONGCLUSTER` naming both clusters; `EINVAL` when the content is no message.
    pub fn admit_content(&self, content: &[u8]) -> Result<(), Status> {
        match cluster_id_of(content) {
            Ok(theirs) => self.admit(theirs),
            Err(error) => Err(Status::new(RaftError::Invalid, error.to_string())),
        }
    }

    /// Whether a request that means cluster `theirs` may be carried out here; empty when it names none.
    pub(crate) fn admit(&self, theirs: &str) -> Result<(), Status> {
        let message = match self.id() {
            _ if theirs.is_empty() && !self.required => return Ok(()),
            None if !theirs.is_empty() => return Ok(()),
            Some(ours) if same_cluster(theirs, ours) => return Ok(()),
            ours if theirs.is_empty() => format!(
                "the request names no cluster, and this server, of cluster {}, carries out none of those (require_cluster_id)",
                ours.unwrap_or("not known yet")
            ),
            ours => format!(
                "the request means cluster {}, and this server belongs to cluster {}: one has the other's address by mistake",
                theirs.chars().take(MAX_CLUSTER_ID).collect::<String>(),
                ours.unwrap_or_default()
            ),
        };
        if let Some(left_out) = self.log.pass("cluster") {
            let (ours, theirs) = (self.id().unwrap_or_default(), WireText(theirs.as_bytes()));
            tracing::warn!(%ours, %theirs, left_out, "a request of another cluster is refused");
        }
        Err(Status::new(RaftError::WrongCluster, message))
    }

    /// Takes the cluster of a leader that would be accepted, where none is known: durably before anything that the leader says counts. The
    /// leader is told to come again until then.
    pub(crate) fn learn(&self, theirs: &str) -> Result<(), Status> {
        if self.id().is_some() || theirs.is_empty() {
            return self.admit(theirs);
        }
        if !self.learning.swap(true, Ordering::AcqRel) {
            match self.remember.get() {
                Some(remember) => {
                    if !remember(theirs) {
                        self.learning.store(false, Ordering::Release);
                    }
                }
                None => self.settle(theirs),
            }
        }
        // Another leader's id may have been quicker.
        match self.id() {
            Some(_) => self.admit(theirs),
            None => {
                Err(Status::new(RaftError::Again, "the server is writing down which cluster it belongs to"))
            }
        }
    }

    /// How an id that is learnt becomes durable; without, it is kept in memory.
    pub(crate) fn remember_with(&self, remember: impl Fn(&str) -> bool + Send + Sync + 'static) {
        // Set once, in the start of the host.
        let _ = self.remember.set(Box::new(remember));
    }

    /// The id is durable.
    pub(crate) fn settle(&self, id: &str) {
        if self.id.set(id.into()).is_ok() {
            tracing::info!(cluster_id = %WireText(id.as_bytes()), "this server belongs to the cluster");
        }
    }

    /// The id could not be written down.
    pub(crate) fn give_up_learning(&self) {
        self.learning.store(false, Ordering::Release);
    }
}

/// Whether a request that means cluster `theirs` is for a host of cluster `ours`. Groups of two clusters may have the same names and members the
/// same addresses: nothing else tells their messages apart.
fn same_cluster(theirs: &str, ours: &str) -> bool {
    theirs == ours || Mutant::C20AnotherClusterIsHeard.is_active()
}

impl fmt::Debug for ClusterGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterGate").field("id", &self.id()).field("required", &self.required).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BufMut;
    use parking_lot::Mutex;
    use ringraft_proto::put_cluster_id;

    use super::*;

    fn code(result: Result<(), Status>) -> Option<RaftError> {
        result.err().map(|status| status.error)
    }

    #[test]
    fn requests_of_another_cluster_are_refused_and_both_are_named() {
        let gate = ClusterGate::new("ours", false);
        assert_eq!(gate.admit("ours"), Ok(()));
        assert_eq!(gate.admit(""), Ok(()), "earlier programs and Java name none");
        assert!(gate.admit(&"x".repeat(1 << 20)).unwrap_err().message.len() < 1000, "it is repeated in part");
        let refusal = gate.admit("theirs").unwrap_err();
        assert_eq!(refusal.error, RaftError::WrongCluster);
        assert!(
            refusal.message.contains("cluster ours") && refusal.message.contains("cluster theirs"),
            "{refusal}"
        );
        assert_eq!(
            code(gate.learn("theirs")),
            Some(RaftError::WrongCluster),
            "what is known is not learnt anew"
        );
        assert_eq!(gate.id(), Some("ours"));
    }

    #[test]
    fn a_host_may_insist_on_a_name() {
        for ours in ["ours", ""] {
            assert_eq!(code(ClusterGate::new(ours, true).admit("")), Some(RaftError::WrongCluster));
        }
        assert_eq!(ClusterGate::new("ours", true).admit("ours"), Ok(()));
    }

    #[test]
    fn an_id_is_learnt_once_it_is_durable() {
        let gate = ClusterGate::new("", false);
        assert_eq!(gate.admit("any"), Ok(()), "who knows no cluster refuses none");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (into, refuses) = (Arc::clone(&asked), Arc::new(AtomicBool::new(true)));
        let refusing = Arc::clone(&refuses);
        gate.remember_with(move |id| {
            into.lock().push(id.to_owned());
            !refusing.load(Ordering::Relaxed)
        });
        assert_eq!(code(gate.learn("first")), Some(RaftError::Again));
        refuses.store(false, Ordering::Relaxed);
        assert_eq!(code(gate.learn("first")), Some(RaftError::Again), "asked again where it was not begun");
        assert_eq!(code(gate.learn("second")), Some(RaftError::Again), "one at a time");
        assert_eq!(*asked.lock(), ["first", "first"]);
        gate.settle("first");
        assert_eq!(gate.learn("first"), Ok(()));
        assert_eq!(code(gate.learn("second")), Some(RaftError::WrongCluster));
    }

    #[test]
    fn without_a_disk_it_is_known_at_once() {
        let gate = ClusterGate::new("", false);
        assert_eq!(gate.learn("first"), Ok(()));
        assert_eq!(gate.id(), Some("first"));
    }

    #[test]
    fn contents_of_clients_are_judged_by_their_field() {
        let gate = ClusterGate::new("ours", false);
        let mut content = vec![0x0a, 1, b'k'];
        assert_eq!(gate.admit_content(&content), Ok(()));
        put_cluster_id(&mut content, "theirs");
        assert_eq!(code(gate.admit_content(&content)), Some(RaftError::WrongCluster));
        content.put_u8(0xff);
        assert_eq!(code(gate.admit_content(&content)), Some(RaftError::Invalid));
    }
}
