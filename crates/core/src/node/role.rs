//! What a node is at the moment, with everything that it is only as that: leaving a role drops its state.

use crate::ballot::Ballot;
use crate::ballot_box::BallotBox;
use crate::node::configuration_ctx::ConfigurationCtx;
use crate::node::state::{NodeEvent, NodeState};
use crate::node::transfer::Transfer;
use crate::options::DamagedRange;
use crate::peer::PeerId;
use crate::replicator::Replicator;
use crate::replicator_group::ReplicatorGroup;
use crate::timer::RepeatedTimer;
use crate::transitions;
use crate::types::{LogIndex, Time};

/// The role of a node. [`NodeState`] is what it looks like from outside.
#[derive(Debug)]
pub(crate) enum Role {
    /// Not started.
    Uninitialized(Recovered),
    /// It follows, or waits for a leader.
    Follower(Following),
    /// It asks for votes.
    Candidate(Candidacy),
    /// It leads. On the heap, for most nodes of a host follow.
    Leader(Box<Leadership>),
    /// It has failed.
    Error,
    /// It has ended.
    Shutdown,
}

/// A node that was not started yet.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The term that the disk holds is behind the log: the one that the node starts in must be written first.
    pub(crate) hard_state_lost: bool,
    /// What of the log the disk cannot give back.
    pub(crate) damaged: Option<DamagedRange>,
}

/// What a follower knows.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// The leader of the term, when it is known.
    pub(crate) leader: Option<PeerId>,
    /// When patience ends; stopped for who may not campaign.
    pub(crate) election_timer: RepeatedTimer,
    /// Who would vote for it.
    pub(crate) pre_votes: Ballot,
}

/// What a candidate knows.
#[derive(Debug, Default)]
pub(crate) struct Candidacy {
    /// Who votes for it; itself once its vote is durable.
    pub(crate) votes: Ballot,
    /// Somebody has refused its vote.
    pub(crate) refused: bool,
    /// When the round ends. Starts when the own vote is durable: a slow disk must not burn terms.
    pub(crate) vote_timer: RepeatedTimer,
}

/// What a leader knows.
#[derive(Debug)]
pub(crate) struct Leadership {
    /// Counts what is committed, from the first entry of its term on.
    pub(crate) ballot_box: BallotBox,
    /// One for each peer.
    pub(crate) replicators: ReplicatorGroup,
    /// When it looks next whether a quorum answers.
    pub(crate) step_down_timer: RepeatedTimer,
    /// No lease is held in this term any more: somebody may have been ordered to campaign.
    pub(crate) lease_is_over: bool,
    /// The change of the members that it carries out.
    pub(crate) change: ConfigurationCtx,
    /// The hand-over that is under way.
    pub(crate) transfer: Option<Transfer>,
    /// Whether `LeaderStart` was emitted and `LeaderStop` is due.
    pub(crate) announced: bool,
}

impl Leadership {
    /// A leader whose first entry will be at `first_index`.
    pub(crate) fn new(first_index: LogIndex) -> Leadership {
        Leadership {
            ballot_box: BallotBox::new(first_index),
            replicators: ReplicatorGroup::none(),
            step_down_timer: RepeatedTimer::default(),
            lease_is_over: false,
            change: ConfigurationCtx::default(),
            transfer: None,
            announced: false,
        }
    }

    /// First index of its term.
    pub(crate) fn first_index(&self) -> LogIndex {
        self.ballot_box.pending_index()
    }
}

/// What everybody replicates to who does not lead.
static NOBODY: ReplicatorGroup = ReplicatorGroup::none();

impl Role {
    /// What it looks like from outside.
    pub(crate) fn state(&self) -> NodeState {
        match self {
            Role::Uninitialized(_) => NodeState::Uninitialized,
            Role::Follower(_) => NodeState::Follower,
            Role::Candidate(_) => NodeState::Candidate,
            Role::Leader(leadership) if leadership.transfer.is_some() => NodeState::Transferring,
            Role::Leader(_) => NodeState::Leader,
            Role::Error => NodeState::Error,
            Role::Shutdown => NodeState::Shutdown,
        }
    }

    /// Takes another role by `event`; gives back the old one.
    ///
    /// # Panics
    /// When the event does not lead there; see [`transitions::check`].
    pub(crate) fn enter(&mut self, event: NodeEvent, role: Role) -> Role {
        transitions::check(event, self.state(), role.state());
        std::mem::replace(self, role)
    }

    /// Whether it leads, also while it hands leadership over.
    pub(crate) fn leads(&self) -> bool {
        matches!(self, Role::Leader(_))
    }

    /// What it knows as leader.
    pub(crate) fn leadership(&self) -> Option<&Leadership> {
        match self {
            Role::Leader(leadership) => Some(leadership),
            _ => None,
        }
    }

    /// What it knows as leader.
    pub(crate) fn leadership_mut(&mut self) -> Option<&mut Leadership> {
        match self {
            Role::Leader(leadership) => Some(leadership),
            _ => None,
        }
    }

    /// What it knows as follower.
    pub(crate) fn following(&self) -> Option<&Following> {
        match self {
            Role::Follower(following) => Some(following),
            _ => None,
        }
    }

    /// What it knows as follower.
    pub(crate) fn following_mut(&mut self) -> Option<&mut Following> {
        match self {
            Role::Follower(following) => Some(following),
            _ => None,
        }
    }

    /// Its replicators; none unless it leads.
    pub(crate) fn replicators(&self) -> &ReplicatorGroup {
        self.leadership().map_or(&NOBODY, |leadership| &leadership.replicators)
    }

    /// The replicator at a position.
    pub(crate) fn replicator_at(&mut self, position: usize) -> Option<&mut Replicator> {
        self.leadership_mut().and_then(|leadership| leadership.replicators.at(position))
    }

    /// The hand-over that is under way.
    pub(crate) fn transfer(&self) -> Option<&Transfer> {
        self.leadership().and_then(|leadership| leadership.transfer.as_ref())
    }

    /// A leader begins to hand over.
    ///
    /// # Panics
    /// As [`enter`](Self::enter).
    pub(crate) fn begin_transfer(&mut self, transfer: Transfer) {
        let before = self.state();
        if let Some(leadership) = self.leadership_mut() {
            leadership.transfer = Some(transfer);
        }
        transitions::check(NodeEvent::BeginTransfer, before, self.state());
    }

    /// The hand-over, if there is one, is over, and the leader leads on. Gives back what it was.
    pub(crate) fn end_transfer(&mut self) -> Option<Transfer> {
        let before = self.state();
        let transfer = self.leadership_mut()?.transfer.take()?;
        transitions::check(NodeEvent::EndTransfer, before, self.state());
        Some(transfer)
    }

    /// When the role wants to look at the time next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match self {
            Role::Follower(following) => following.election_timer.deadline(),
            Role::Candidate(candidacy) => candidacy.vote_timer.deadline(),
            Role::Leader(leadership) => leadership.step_down_timer.deadline(),
            Role::Uninitialized(_) | Role::Error | Role::Shutdown => None,
        }
    }
}
