//! What creation numbers decide: which messages a replica hears, and which groups are new on a host that has lost its disk.
//! `docs/decisions/0012-groups-come-and-go.md` says why.

use ringraft_core::{Mutant, RaftError, Status};

/// Whether a group with this creation number is new in a directory that began by rejoin: only where it was created after the disk was
/// lost, for every other may have lived on it, voted and acknowledged. `rejoined_after` is the highest number that any group had by then;
/// `None` where nobody has said.
pub fn begins_anew(rejoined_after: Option<u64>, creation: u64) -> bool {
    rejoined_after.is_some_and(|last| creation > last)
}

/// Whether a request of a sender whose group has the creation number `theirs` is for the life that runs here, with number `ours`.
///
/// # Errors
/// `EWRONGCREATION` naming both.
pub(crate) fn check(group: &str, theirs: u64, ours: u64) -> Result<(), Status> {
    if same_life(theirs, ours) {
        return Ok(());
    }
    let message = format!(
        "the request means the life of group {group} with creation number {theirs}, and this server runs the one with {ours} (0: none)"
    );
    Err(Status::new(RaftError::WrongCreation, message))
}

/// Rule P13: terms, votes and entries of one life mean nothing in another. 0 is a number like any other: what an unnumbered life has sent
/// must not pass for a message of the next.
fn same_life(theirs: u64, ours: u64) -> bool {
    theirs == ours || Mutant::J2CreationIsNotCompared.is_active()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows rule P13.
    #[test]
    fn only_messages_of_the_same_life_are_heard() {
        assert_eq!(check("g", 0, 0), Ok(()));
        assert_eq!(check("g", 7, 7), Ok(()));
        for (theirs, ours) in [(6, 7), (8, 7), (0, 7), (7, 0)] {
            let refusal = check("g", theirs, ours).unwrap_err();
            assert_eq!(refusal.error, RaftError::WrongCreation);
            let (said, runs) = (format!("number {theirs}"), format!("with {ours}"));
            assert!(refusal.message.contains(&said) && refusal.message.contains(&runs), "{refusal}");
        }
    }

    #[test]
    fn what_may_have_lived_on_a_lost_disk_is_not_new() {
        assert!(!begins_anew(None, 9), "nobody has said what there was");
        for (creation, new) in [(0, false), (4, false), (5, false), (6, true)] {
            assert_eq!(begins_anew(Some(5), creation), new, "{creation}");
        }
        assert!(!begins_anew(Some(0), 0));
    }
}
