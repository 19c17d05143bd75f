//! What this host remembers of groups, for a peer that remembers nothing of them and asks before it takes itself for a new member.

use ringraft_core::{NodeState, RaftError, Status};
use ringraft_proto::generated::group_state::{GroupMemory, GroupStateRequest, GroupStateResponse};

use super::routing::RoutingTable;
use super::unopened_groups::is_meant;

/// Groups of one question; who asks for more asks several times.
pub(crate) const MAX_GROUPS: usize = 4096;

/// Answers a question.
///
/// # Errors
/// `EINVAL` for one about too many groups.
pub(super) fn answer(
    routes: &RoutingTable,
    question: &GroupStateRequest,
) -> Result<GroupStateResponse, Status> {
    if question.groups.len() > MAX_GROUPS {
        let message =
            format!("a question about {} groups; ask for at most {MAX_GROUPS}", question.groups.len());
        return Err(Status::new(RaftError::Invalid, message));
    }
    let creations = question.creations.iter().copied().chain(std::iter::repeat(0));
    let asked = question.groups.iter().zip(creations);
    let memory = asked.map(|(group, creation)| memory(routes, group, creation).into()).collect();
    Ok(GroupStateResponse { memory, ..Default::default() })
}

fn memory(routes: &RoutingTable, group: &str, creation: u64) -> GroupMemory {
    let Some(node) = routes.node(group).filter(|node| is_meant(creation, node.creation())) else {
        let unopened = routes.unopened().contains(group, creation);
        return if unopened { GroupMemory::GROUP_MEMORY_OPENING } else { GroupMemory::GROUP_MEMORY_NOTHING };
    };
    if node.last_committed_index() > 0 || node.last_applied_index() > 0 {
        GroupMemory::GROUP_MEMORY_COMMITTED
    } else if node.state() == NodeState::Uninitialized {
        GroupMemory::GROUP_MEMORY_OPENING
    } else if node.term() > 0 || node.last_log_index() > 0 {
        GroupMemory::GROUP_MEMORY_LOG
    } else {
        GroupMemory::GROUP_MEMORY_NOTHING
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn ask(routes: &RoutingTable, groups: &[&str]) -> Vec<i32> {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let question = GroupStateRequest { groups, ..Default::default() };
        answer(routes, &question).unwrap().memory.iter().map(|memory| memory.value()).collect()
    }

    /// A server that starts has groups that it has not opened yet: it must not be taken for one that remembers nothing of them.
    #[test]
    fn what_is_not_opened_yet_is_no_nothing() {
        let routes = RoutingTable::new();
        routes.unopened().set([("a", 0), ("b", 7)].map(|(group, n)| (group.parse().unwrap(), n)).into_iter());
        let question = GroupStateRequest {
            groups: ["a", "b", "b", "b"].map(str::to_owned).into(),
            creations: vec![7, 7, 8],
            ..Default::default()
        };
        let of_lives: Vec<i32> =
            answer(&routes, &question).unwrap().memory.iter().map(|memory| memory.value()).collect();
        assert_eq!(of_lives, [0, 1, 0, 1], "another life is no memory, and who names none means any");
        assert_eq!(ask(&routes, &["a", "b", "strange", "", "\u{1}"]), [1, 1, 0, 0, 0]);
        routes.unopened().remove(&"a".parse().unwrap());
        assert_eq!(ask(&routes, &["a", "b"]), [0, 1], "seen to be blank");
    }

    #[test]
    fn questions_are_bounded() {
        let question = |count| GroupStateRequest { groups: vec![String::new(); count], ..Default::default() };
        let routes = RoutingTable::new();
        assert_eq!(answer(&routes, &question(MAX_GROUPS)).unwrap().memory.len(), MAX_GROUPS);
        assert_eq!(answer(&routes, &question(MAX_GROUPS + 1)).unwrap_err().error, RaftError::Invalid);
    }
}
