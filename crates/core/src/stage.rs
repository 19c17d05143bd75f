//! How far a change of the members is.

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
