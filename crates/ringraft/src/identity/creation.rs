//! What creation numbers decide: which messages a replica hears, and which groups are new on a host that has lost its disk.
//! `docs/decisions/0012-groups-come-and-go.md` says why.

use ringraft_core::{GroupId, Mutant, PeerId, RaftError, RaftResponse, Status};
use ringraft_proto::IncomingResponse;

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

/// Whether a call of an operator or a program who means the life with the creation number `meant`, 0 for any, is for the one that runs
/// here.
///
/// # Errors
/// As for [`check`].
pub(crate) fn check_call(group: &str, meant: u64, ours: u64) -> Result<(), Status> {
    if meant == 0 { Ok(()) } else { check(group, meant, ours) }
}

/// Whether an answer is of the life with number `ours`, which has asked. A member that runs another program, of Java or of an earlier
/// version, does not look at the number of a request: it votes and acknowledges for whatever life it has, and says no number. An error
/// counts for nothing and passes.
///
/// # Errors
/// `EWRONGCREATION` naming both, and who it is.
pub(crate) fn check_answer(
    group: &GroupId,
    from: &PeerId,
    answer: &IncomingResponse,
    ours: u64,
) -> Result<(), Status> {
    let theirs = answer.creation;
    if matches!(answer.response, RaftResponse::Error(_)) || answers_for(theirs, ours) {
        return Ok(());
    }
    let message = match theirs {
        0 => format!(
            "{from} does not say for which life of group {group} it answers, which has creation number {ours} here: it runs a program that \
             knows no creation numbers, and can neither vote nor acknowledge; replace the program there, or the member"
        ),
        _ => format!(
            "{from} answers for the life of group {group} with creation number {theirs}, and this is the one with {ours}"
        ),
    };
    Err(Status::new(RaftError::WrongCreation, message))
}

/// Rule P13: a vote or an acknowledgement of who has not compared the numbers may be one of another life, whose memory is not this one's.
fn answers_for(theirs: u64, ours: u64) -> bool {
    theirs == ours || Mutant::J2AnswerIsNotCompared.is_active()
}

/// Rule P13: terms, votes and entries of one life mean nothing in another. 0 is a number like any other: what an unnumbered life has sent
/// must not pass for a message of the next.
fn same_life(theirs: u64, ours: u64) -> bool {
    theirs == ours || Mutant::J2CreationIsNotCompared.is_active()
}

#[cfg(test)]
mod tests {
    use ringraft_core::RequestVoteResponse;

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
    fn calls_mean_a_life_or_any() {
        assert_eq!(check_call("g", 0, 7), Ok(()));
        assert_eq!(check_call("g", 7, 7), Ok(()));
        assert_eq!(check_call("g", 6, 7).unwrap_err().error, RaftError::WrongCreation);
        assert_eq!(check_call("g", 6, 0).unwrap_err().error, RaftError::WrongCreation);
    }

    /// Shows rule P13.
    #[test]
    fn only_answers_of_the_same_life_count() {
        let (group, from) = ("g".parse().unwrap(), "b:1".parse().unwrap());
        let vote = RequestVoteResponse { term: 1, granted: true, removed: None };
        let granted = RaftResponse::RequestVote(vote);
        let check = |creation, response: &RaftResponse, ours| {
            check_answer(&group, &from, &IncomingResponse { creation, response: response.clone() }, ours)
        };
        for number in [0, 7] {
            assert_eq!(check(number, &granted, number), Ok(()));
        }
        let error = RaftResponse::Error(Status::new(RaftError::NotFound, "no such group"));
        assert_eq!(check(0, &error, 7), Ok(()), "it counts for nothing, and says why");
        for (theirs, ours) in [(0, 7), (6, 7), (8, 7), (7, 0)] {
            let refusal = check(theirs, &granted, ours).unwrap_err();
            assert_eq!(refusal.error, RaftError::WrongCreation);
            assert!(
                refusal.message.contains("b:1") && refusal.message.contains(&ours.to_string()),
                "{refusal}"
            );
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
