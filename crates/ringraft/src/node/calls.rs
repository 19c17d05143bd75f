//! What a node can be asked besides writes: reads, members, leadership (SOFAJRaft's `Node.readIndex`, `changePeers`,
//! `transferLeadershipTo` and their like).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringraft_core::{
    CallFailure, Configuration, LogIndex, Members, MembershipChange, PeerId, RaftError, ReadOnlyOption,
    Status,
};
use ringraft_ring::TryPublishError;

use crate::handler::{CallResult, Control, LaneEvent, NodeCall, ReadEvent};
use crate::node::Node;
use crate::task::completion::{Applied, ApplyError, ApplyResult, Completion};
use crate::task::promise::{Promise, Waiter, promise};
use crate::thread::on_host_thread;

/// How long a call waits for room in the owner's ring for control before it is refused as busy.
const CONTROL_WAIT: Duration = Duration::from_secs(1);

/// The outcome of [`Node::read_index`]: await it, or block with [`wait`](ReadIndexFuture::wait). Whoever asks again after the outcome
/// was given gets [`ApplyError::ReadFailed`] with `EINVAL`.
#[must_use = "a read that nobody waits for is wasted"]
pub struct ReadIndexFuture(Waiter<ApplyResult>);

impl ReadIndexFuture {
    /// Blocks until the state machine may be read, or for `timeout`. Gives the index up to which it has applied at least.
    ///
    /// # Errors
    /// The outcome; [`ApplyError::ReadFailed`] with `ETIMEDOUT` when the time is over, and at once with `EPERM` on a thread of a host
    /// (in a state machine or a completion), which would wait for itself.
    pub fn wait(&mut self, timeout: Duration) -> Result<LogIndex, ApplyError> {
        let outcome = self.0.wait_for_host(timeout);
        outcome.unwrap_or_else(|reason| Err(ApplyError::ReadFailed(reason.status(timeout)))).map(index_of)
    }
}

impl Future for ReadIndexFuture {
    type Output = Result<LogIndex, ApplyError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0
            .poll(context)
            .map(|outcome| outcome.unwrap_or_else(|status| Err(ApplyError::ReadFailed(status))).map(index_of))
    }
}

fn index_of(applied: Applied) -> LogIndex {
    applied.index
}

impl fmt::Debug for ReadIndexFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadIndexFuture")
    }
}

/// The outcome of a change of members or of a transfer: await it, or block with [`wait`](CallFuture::wait). When the node
/// stops before the call has ended, the outcome is [`CallFailure::Unknown`] with `ENODESHUTDOWN`; whoever asks again after the outcome
/// was given gets [`CallFailure::Unknown`] with `EINVAL`. Dropping it does not take the call back.
#[must_use = "whether members changed or leadership moved matters"]
pub struct CallFuture(Waiter<CallResult>);

impl CallFuture {
    /// Blocks until the outcome is there, or for `timeout`.
    ///
    /// # Errors
    /// The outcome; [`CallFailure::Unknown`] with `ETIMEDOUT` when the time is over, and at once with `EPERM` on a thread of a host
    /// (in a state machine or a completion), which would wait for itself. The call goes on in both cases.
    pub fn wait(&mut self, timeout: Duration) -> CallResult {
        let outcome = self.0.wait_for_host(timeout);
        outcome.unwrap_or_else(|reason| Err(CallFailure::Unknown(reason.status(timeout))))
    }
}

impl Future for CallFuture {
    type Output = CallResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        self.0.poll(context).map(|outcome| outcome.unwrap_or_else(|status| Err(CallFailure::Unknown(status))))
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallFuture")
    }
}

impl Node {
    /// Waits until this node's state machine has applied everything that was acknowledged anywhere before this call, so that
    /// reading it is linearizable. Works on leader, follower and learner; costs no log entry and no disk write.
    ///
    /// The future ends within [`read_index_timeout_ms`](crate::RaftOptions::read_index_timeout_ms), whatever leader, disks and state
    /// machine do: [`ApplyError::ReadFailed`] with `ETIMEDOUT`. (A caller who asked to wait for room in the ring may have waited as long before.)
    pub fn read_index(&self, mode: ReadOnlyOption) -> ReadIndexFuture {
        let (promise, waiter) = promise();
        match self.watch_read(promise.expiry()) {
            Ok(()) => {
                // The refusal, if any, is what the future says.
                let _ = self.read_index_with(mode, Completion::promise(promise));
            }
            Err(error) => promise.fulfil(Err(error)),
        }
        ReadIndexFuture(waiter)
    }

    /// As [`read_index`](Node::read_index), with a completion, which runs on the group's state-machine worker: nothing is applied
    /// while it runs, so that it sees exactly one state. [`Applied::index`](crate::Applied::index) is the read index. Since it runs there,
    /// it waits for a state machine that stands still, also to hear that the read has failed: where that must not be, give who asked a
    /// time-out of its own, or use the future.
    ///
    /// # Errors
    /// The read was refused at once, and the completion has been told the same: [`ApplyError::Busy`], [`ApplyError::Shutdown`].
    pub fn read_index_with(&self, mode: ReadOnlyOption, done: Completion) -> Result<(), ApplyError> {
        let event = LaneEvent::Read(ReadEvent { handle: self.handle(), mode, done });
        let error = match self.publish_read(event) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let reason = match &error {
            TryPublishError::Full(_) => {
                metrics::counter!("read-index-overload-times").increment(1);
                ApplyError::Busy
            }
            TryPublishError::Closed(_) => ApplyError::Shutdown,
        };
        if let LaneEvent::Read(read) = error.into_inner() {
            read.done.complete(Err(reason.clone()));
        }
        Err(reason)
    }

    /// Adds a voter: it catches up first. A learner becomes a voter in one change.
    pub fn add_peer(&self, peer: PeerId) -> CallFuture {
        self.change_members(MembershipChange::AddPeer(peer), None)
    }

    /// Removes a voter. A leader that removes itself hands over.
    pub fn remove_peer(&self, peer: PeerId) -> CallFuture {
        self.change_members(MembershipChange::RemovePeer(peer), None)
    }

    /// Makes exactly these the members, voters and learners, by joint consensus.
    pub fn change_peers(&self, conf: Configuration) -> CallFuture {
        self.change_members(MembershipChange::ChangePeers(conf), None)
    }

    /// Adds learners: they get the log, and neither vote nor count.
    pub fn add_learners(&self, learners: Vec<PeerId>) -> CallFuture {
        self.change_members(MembershipChange::AddLearners(learners), None)
    }

    /// Removes learners.
    pub fn remove_learners(&self, learners: Vec<PeerId>) -> CallFuture {
        self.change_members(MembershipChange::RemoveLearners(learners), None)
    }

    /// Makes exactly these the learners.
    pub fn reset_learners(&self, learners: Vec<PeerId>) -> CallFuture {
        self.change_members(MembershipChange::ResetLearners(learners), None)
    }

    /// Changes the members; with `prev_index` only if the configuration in force is the log entry at that index.
    ///
    /// The call ends always. New voters catch up for as long as they come nearer to the end of the log (`ECATCHUP` after ten election time-outs in
    /// which one did not). Each of the one or two entries of the change then has an election time-out and
    /// [`disk_stall_timeout_ms`](crate::NodeOptions::disk_stall_timeout_ms) to be committed; where disks or links of members stand still for longer
    /// the outcome is [`CallFailure::Unknown`] with `ETIMEDOUT`: the entry is in the log, the change goes on, and another one is refused
    /// as busy until it is over ([`describe`](Node::describe) says how far it is).
    pub fn change_members(&self, change: MembershipChange, prev_index: Option<LogIndex>) -> CallFuture {
        self.call(NodeCall::ChangeMembers { change, prev_index })
    }

    /// Hands leadership to `to`, or to the best follower. Proposals are refused as busy meanwhile, for one election time-out at most.
    /// The call is done when that member is heard to lead; it ends within two election time-outs, [`CallFailure::Unknown`] when the member
    /// was ordered to campaign and another leads, or nobody does.
    pub fn transfer_leadership_to(&self, to: Option<PeerId>) -> CallFuture {
        self.call(NodeCall::TransferLeadership { to })
    }

    /// Forces members upon this node alone. **Unsafe**: see [`NodeCall::ResetPeers`]. For when a majority is gone for good.
    pub fn reset_peers(&self, conf: Configuration) -> CallFuture {
        self.call(NodeCall::ResetPeers { conf })
    }

    /// Who the members are, and who of them answers; on the leader only (SOFAJRaft's `listPeers`, `listAlivePeers`, `listLearners`
    /// and `listAliveLearners`). Waits for the owner at most `timeout`.
    ///
    /// # Errors
    /// `EPERM` when this node does not lead, or on a thread of the host itself, which would wait for itself; `EBUSY` when the owner has
    /// no time for more calls; `ETIMEDOUT` when the owner did not answer; `ENODESHUTDOWN` when the node has stopped.
    pub fn list_peers(&self, timeout: Duration) -> Result<Members, Status> {
        if on_host_thread() {
            let message = "list_peers cannot be called on a thread of the host";
            return Err(Status::new(RaftError::NotPermitted, message));
        }
        let (answer, waiter) = promise();
        let begin = Instant::now();
        self.ask_for_members(timeout, move |members| answer.fulfil(members));
        waiter.wait(Some(timeout.saturating_sub(begin.elapsed()))).unwrap_or_else(|| {
            Err(Status::new(RaftError::TimedOut, "the owner of the group did not answer in time"))
        })
    }

    /// As [`list_peers`](Node::list_peers) without waiting. `done` runs on the owner's thread or, when the call is refused, here.
    pub(crate) fn list_peers_then(&self, done: impl FnOnce(Result<Members, Status>) + Send + 'static) {
        self.ask_for_members(CONTROL_WAIT, done);
    }

    fn ask_for_members(&self, limit: Duration, done: impl FnOnce(Result<Members, Status>) + Send + 'static) {
        let stopped = || Status::new(RaftError::NodeShutdown, "the node has stopped");
        let answer = Promise::calling(move |members: Option<Option<Result<Members, Status>>>| {
            done(members.flatten().unwrap_or_else(|| Err(stopped())));
        });
        let control = Control::Members { handle: self.handle(), answer };
        if let Err(error) = self.publish_control(control, limit)
            && error.is_full()
            && let LaneEvent::Control(control) = error.into_inner()
            && let Control::Members { answer, .. } = *control
        {
            answer.fulfil(Some(Err(overloaded())));
        }
    }

    fn call(&self, call: NodeCall) -> CallFuture {
        let (answer, waiter) = promise();
        self.begin_call(call, answer);
        CallFuture(waiter)
    }

    /// As [`call`](Node::call) without a future. `done` runs on the owner's thread or, when the call is refused at once, here.
    pub(crate) fn call_then(&self, call: NodeCall, done: impl FnOnce(CallResult) + Send + 'static) {
        let stopped = || Status::new(RaftError::NodeShutdown, "the node has stopped");
        let answer = Promise::calling(move |result: Option<CallResult>| {
            done(result.unwrap_or_else(|| Err(CallFailure::Unknown(stopped()))));
        });
        self.begin_call(call, answer);
    }

    fn begin_call(&self, call: NodeCall, answer: Promise<CallResult>) {
        let control = Control::Call { handle: self.handle(), call, answer };
        if let Err(error) = self.publish_control(control, CONTROL_WAIT) {
            let status = match &error {
                TryPublishError::Full(_) => overloaded(),
                TryPublishError::Closed(_) => Status::new(RaftError::NodeShutdown, "the host has stopped"),
            };
            if let LaneEvent::Control(control) = error.into_inner()
                && let Control::Call { answer, .. } = *control
            {
                answer.fulfil(Err(CallFailure::Failed(status)));
            }
        }
    }
}

fn overloaded() -> Status {
    Status::new(RaftError::Busy, "the owner of the group has no time for more calls; try again later")
}
