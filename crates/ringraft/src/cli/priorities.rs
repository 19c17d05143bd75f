//! A change of priorities alone, which some leaders take for none.

use ringraft_core::{PeerId, RaftError, Status};

use super::CliError;

/// Whether a change leaves the voters as they are and gives some of them other priorities.
pub(super) fn change_alone(old: &[PeerId], voters: &[PeerId]) -> bool {
    let same = old.len() == voters.len() && voters.iter().all(|voter| old.contains(voter));
    same && !are_those_of(old, voters)
}

/// Whether each of `voters` is among `members`, with the same priority.
fn are_those_of(members: &[PeerId], voters: &[PeerId]) -> bool {
    voters.iter().all(|v| members.iter().any(|m| m == v && m.priority() == v.priority()))
}

/// A change of priorities alone was answered as done: the members that the leader has now must say so.
pub(super) fn were_taken(members: &[PeerId], voters: &[PeerId]) -> Result<(), CliError> {
    if are_those_of(members, voters) {
        return Ok(());
    }
    let message = format!(
        "the leader has changed nothing, its members are {}: a Java node, or an earlier program, takes no other priorities for the \
         same members; let a ringraft node lead, or remove the member and add it with its new priority",
        super::texts(members).join(",")
    );
    Err(CliError::Refused(Status::new(RaftError::Invalid, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(text: &str) -> Vec<PeerId> {
        text.split(',').map(|peer| peer.parse().expect("a peer id")).collect()
    }

    #[test]
    fn a_leader_that_takes_no_priorities_is_found_out() {
        let (old, wanted) = (peers("a:1::100,b:1::40,c:1"), peers("c:1::100,a:1::40,b:1::40"));
        assert!(change_alone(&old, &wanted));
        for other in ["a:1::100,b:1::40,c:1", "a:1,b:1,d:1", "a:1,b:1", "a:1,b:1,c:1,d:1"] {
            assert!(!change_alone(&old, &peers(other)), "{other}");
        }
        assert_eq!(were_taken(&wanted, &wanted), Ok(()));
        // Members that came in the meantime are another matter.
        assert_eq!(were_taken(&peers("a:1::40,b:1::40,c:1::100,d:1"), &wanted), Ok(()));
        let refusal = were_taken(&old, &wanted).unwrap_err();
        assert_eq!(refusal.code(), Some(RaftError::Invalid));
        assert!(!refusal.is_unknown() && refusal.to_string().contains("a:1::100,b:1::40,c:1"), "{refusal}");
    }
}
