//! Whom a node voted for in its current term.

use std::fmt;

use crate::peer::{InvalidPeerId, PeerId};

/// Whom a node voted for in its current term.
///
/// "Nobody yet" and "nobody, whatever comes" are different answers to a candidate, so they are different values. A member that
/// has lost its disk may have voted in this term already without knowing it; a second vote could elect a second leader. It
/// withholds its vote until a leader has brought it back (`docs/decisions/0008-a-lost-disk.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Vote {
    /// Nobody yet: the vote of the term can still be given.
    #[default]
    None,
    /// This candidate, and no other in this term.
    For(PeerId),
    /// Nobody, in this term and every later one, until the node has caught up again.
    Withheld,
}

impl Vote {
    /// The text that stands on disk: empty for no vote, the peer's text for a vote, `0.0.0.0:0` (SOFAJRaft's empty peer) for a
    /// vote that is withheld. [`from_text`](Self::from_text) reads it back.
    pub fn to_text(&self) -> String {
        match self {
            Vote::None => String::new(),
            Vote::For(peer) => peer.to_string(),
            Vote::Withheld => PeerId::empty().to_string(),
        }
    }

    /// The vote of a text that stands on disk.
    ///
    /// # Errors
    /// [`InvalidPeerId`] when the text is neither empty nor a peer id.
    pub fn from_text(text: &str) -> Result<Vote, InvalidPeerId> {
        if text.is_empty() {
            return Ok(Vote::None);
        }
        let peer: PeerId = text.parse()?;
        Ok(if peer.is_empty() { Vote::Withheld } else { Vote::For(peer) })
    }

    /// The candidate that has the vote, if one has.
    pub fn candidate(&self) -> Option<&PeerId> {
        match self {
            Vote::For(peer) => Some(peer),
            Vote::None | Vote::Withheld => None,
        }
    }

    /// Whether `candidate` has the vote or can still get it.
    pub(crate) fn is_open_to(&self, candidate: &PeerId) -> bool {
        match self {
            Vote::None => true,
            Vote::For(peer) => peer == candidate,
            Vote::Withheld => false,
        }
    }
}

/// For people: `-` without a vote, else the text that stands on disk.
impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Vote::None => f.write_str("-"),
            Vote::For(_) | Vote::Withheld => f.write_str(&self.to_text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_disk_is_read_back() {
        let peer = Vote::For("10.0.0.1:80:2:100".parse().unwrap());
        for (vote, text) in [(Vote::None, ""), (peer, "10.0.0.1:80:2:100"), (Vote::Withheld, "0.0.0.0:0")] {
            assert_eq!(vote.to_text(), text);
            assert_eq!(Vote::from_text(text), Ok(vote));
        }
        assert!(Vote::from_text("nobody").is_err());
    }

    #[test]
    fn a_vote_is_given_once() {
        let (a, b): (PeerId, PeerId) = ("a:1".parse().unwrap(), "b:1".parse().unwrap());
        assert!(Vote::None.is_open_to(&a));
        assert!(Vote::For(a.clone()).is_open_to(&a) && !Vote::For(a.clone()).is_open_to(&b));
        assert!(!Vote::Withheld.is_open_to(&a), "a lost disk may have held a vote for anybody");
        assert!(!Vote::Withheld.is_open_to(&PeerId::empty()), "not even for the empty peer");
    }
}
