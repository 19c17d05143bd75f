//! How far a change of the members is.

use crate::transitions::transitions;

/// How far a change of the members is (SOFAJRaft's `Stage`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No change.
    #[default]
    None,
    /// New voters catch up; nothing is logged yet.
    CatchingUp,
    /// The joint configuration is logged.
    Joint,
    /// The new configuration is logged.
    Stable,
}

transitions! {
    /// What moves a change on. A leader that steps down drops its change, in whatever stage it is.
    pub(crate) enum StageEvent moves Stage [None, CatchingUp, Joint, Stable] {
        /// A change begins.
        Begin: None => CatchingUp;
        /// The change has come to nothing, and nothing of it is logged.
        GiveUp: CatchingUp => None;
        /// The joint configuration is logged, for the new voters have caught up.
        LogJoint: CatchingUp => Joint;
        /// The new configuration is logged: the joint one is committed, or the voters stay the same.
        LogNew: CatchingUp | Joint => Stable;
        /// The new configuration is committed.
        Finish: Stable => None;
        /// A new leader finds a joint configuration in its log.
        InheritJoint: None => Joint;
        /// A new leader finds in its log that it votes no more.
        InheritRemoval: None => Stable;
    }
}
