//! All peers of a leader (SOFAJRaft's `ReplicatorGroup`), and the numbers by which they are counted.

use crate::effects::Ticket;
use crate::electorate::Electorate;
use crate::log_manager::LogManager;
use crate::peer::PeerId;
use crate::replicator::Replicator;
use crate::types::{LogIndex, Time};

/// A member by number: where its leader finds what it knows of it.
///
/// A slot is good for one [`Count`] and is never kept: everything that is counted stands in the [`Replicator`] that the slot leads to,
/// and goes with it. Kept, it could name the next member in that place, with what the one before has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The leader itself.
    Own,
    /// The replicator at this position.
    Peer(usize),
    /// A member that nothing goes to: it holds nothing, has answered nothing and promised nothing.
    Nobody,
}

/// The replicators of a leader, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct ReplicatorGroup {
    replicators: Vec<Replicator>,
    /// The configuration in force, by the slots of its members.
    electorate: Electorate<Slot>,
    /// Whether the replicator of this position belongs to a voter of that configuration.
    votes: Vec<bool>,
    /// Which change of the configuration in force these numbers are of ([`LogManager::configuration_version`]); `None` when somebody came
    /// or went since.
    numbered: Option<u64>,
}

/// A leader's members by number, as long as nobody comes or goes.
pub(crate) struct Count<'a> {
    /// The configuration in force.
    pub(crate) electorate: &'a Electorate<Slot>,
    replicators: &'a [Replicator],
    votes: &'a [bool],
}

impl Count<'_> {
    /// What `known` says of the member of a slot; `own` for the leader itself, the default for one that nothing is known of.
    pub(crate) fn of<T: Default>(&self, slot: Slot, own: T, known: impl Fn(&Replicator) -> T) -> T {
        match slot {
            Slot::Own => own,
            Slot::Peer(position) => self.replicators.get(position).map(known).unwrap_or_default(),
            Slot::Nobody => T::default(),
        }
    }

    /// What the leader knows of the member of a slot; nothing of itself.
    pub(crate) fn replicator(&self, slot: Slot) -> Option<&Replicator> {
        match slot {
            Slot::Peer(position) => self.replicators.get(position),
            Slot::Own | Slot::Nobody => None,
        }
    }

    /// The replicators of voters, with their positions.
    pub(crate) fn voters(&self) -> impl Iterator<Item = (usize, &Replicator)> {
        self.replicators.iter().enumerate().filter(|(position, _)| self.votes[*position])
    }
}

impl ReplicatorGroup {
    /// Nobody.
    pub(crate) const fn none() -> ReplicatorGroup {
        ReplicatorGroup {
            replicators: Vec::new(),
            electorate: Electorate::nobody(),
            votes: Vec::new(),
            numbered: None,
        }
    }

    /// The members of the configuration in force by number.
    ///
    /// Names are compared here alone, and only when the configuration or the replicators have changed since: every acknowledgement
    /// is counted, and by name that is a search for each voter. That both are asked at each count, and not told when they change,
    /// is what makes it impossible to count by a configuration that is in force no more, or by the place of somebody who has left.
    pub(crate) fn count(&mut self, log: &LogManager, own: &PeerId) -> Count<'_> {
        if self.numbered != Some(log.configuration_version()) {
            let slot = |peer: &PeerId| match self.position(peer) {
                _ if peer == own => Slot::Own,
                Some(position) => Slot::Peer(position),
                None => Slot::Nobody,
            };
            self.electorate = Electorate::of(log.configuration(), slot);
            self.votes = vec![false; self.replicators.len()];
            for slot in self.electorate.votes() {
                if let Slot::Peer(position) = *slot {
                    self.votes[position] = true;
                }
            }
            self.numbered = Some(log.configuration_version());
        }
        Count { electorate: &self.electorate, replicators: &self.replicators, votes: &self.votes }
    }

    /// Starts replicating to a peer, unless that goes on already.
    pub(crate) fn add_replicator(&mut self, peer: &PeerId, last_index: LogIndex, now: Time) {
        if self.get(peer).is_none() {
            self.replicators.push(Replicator::new(peer.clone(), last_index, now));
            self.numbered = None;
        }
    }

    /// Ends the replicators of peers that are not wanted any more. Who comes behind them moves up.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&PeerId) -> bool) {
        self.replicators.retain(|r| wanted(&r.peer));
        self.numbered = None;
    }

    /// The replicator of a peer.
    pub(crate) fn get(&self, peer: &PeerId) -> Option<&Replicator> {
        self.replicators.iter().find(|r| r.peer == *peer)
    }

    /// The replicator at a position.
    pub(crate) fn at(&mut self, position: usize) -> Option<&mut Replicator> {
        self.replicators.get_mut(position)
    }

    /// Position of a peer's replicator.
    pub(crate) fn position(&self, peer: &PeerId) -> Option<usize> {
        self.replicators.iter().position(|r| r.peer == *peer)
    }

    /// Position of the replicator that waits for an answer of `from` to the request of this ticket; `None` when the request is
    /// forgotten, or was sent to one that has left since, also if it has come back. Tickets are compared, and one name.
    pub(crate) fn awaiting(&self, ticket: Ticket, from: &PeerId) -> Option<usize> {
        let position =
            self.replicators.iter().position(|r| r.heartbeat_awaits(ticket) || r.awaits(ticket))?;
        (self.replicators[position].peer == *from).then_some(position)
    }

    /// Number of replicators.
    pub(crate) fn len(&self) -> usize {
        self.replicators.len()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Replicator> {
        self.replicators.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chunk::EntryChunk;
    use crate::message::AppendKind;
    use crate::options::RecoveredState;
    use crate::peer::Configuration;
    use crate::replicator::Inflight;
    use crate::rules;
    use crate::timer::RepeatedTimer;
    use crate::types::LogId;

    fn peer(name: &str) -> PeerId {
        format!("{name}:1").parse().unwrap()
    }

    fn conf(names: &str) -> Configuration {
        let peers = names.chars().map(|name| peer(&name.to_string())).collect();
        Configuration::of_peers(peers)
    }

    fn log(names: &str) -> LogManager {
        LogManager::new(RecoveredState::default(), conf(names)).unwrap()
    }

    fn append(log: &mut LogManager, new: &str, old: &str) {
        let id = LogId::new(log.last_id().index + 1, 1);
        log.append(&Arc::new(EntryChunk::configuration(id, conf(new), conf(old))));
    }

    /// Replicators of these peers, which hold as much as the numbers say.
    fn group(held: &[(&str, LogIndex)]) -> ReplicatorGroup {
        let mut group = ReplicatorGroup::none();
        for (name, index) in held {
            group.add_replicator(&peer(name), 0, Time(0));
            let last = group.len() - 1;
            group.at(last).unwrap().match_index = *index;
        }
        group
    }

    /// What the voters hold durably, where `a` is the leader and holds 9.
    fn durable(group: &mut ReplicatorGroup, log: &LogManager) -> LogIndex {
        let count = group.count(log, &peer("a"));
        let held = |slot| count.of(slot, 9, Replicator::counts_for);
        rules::quorum::durable_index(count.electorate, held, &mut Vec::new())
    }

    #[test]
    fn a_place_never_counts_for_the_member_that_had_it_before() {
        let mut log = log("abcd");
        let mut group = group(&[("b", 9), ("c", 7), ("d", 1)]);
        assert_eq!(durable(&mut group, &log), 7, "three of four");
        append(&mut log, "acd", "");
        assert_eq!(durable(&mut group, &log), 7, "b is replicated to, and no member");
        group.retain(|r| *r != peer("b"));
        assert_eq!(durable(&mut group, &log), 7, "c has the place of b, and d that of c");
        append(&mut log, "abcd", "");
        assert_eq!(durable(&mut group, &log), 1, "b is a member, and nothing goes to it");
        group.add_replicator(&peer("b"), 0, Time(0));
        assert_eq!(durable(&mut group, &log), 1, "who comes back holds nothing");
        group.at(2).unwrap().match_index = 8;
        assert_eq!(durable(&mut group, &log), 7);
    }

    #[test]
    fn members_are_numbered_anew_with_every_configuration() {
        let mut log = log("abc");
        let mut group = group(&[("b", 9), ("c", 9), ("d", 3), ("e", 4)]);
        assert_eq!(durable(&mut group, &log), 9);
        append(&mut log, "ade", "abc");
        assert_eq!(durable(&mut group, &log), 4, "both halves");
        let votes = |group: &mut ReplicatorGroup, log: &LogManager| {
            let own = peer("a");
            group.count(log, &own).voters().map(|(_, r)| r.peer.ip().to_owned()).collect::<String>()
        };
        assert_eq!(votes(&mut group, &log), "bcde");
        log.truncate_suffix(1);
        assert_eq!((durable(&mut group, &log), votes(&mut group, &log)), (9, "bc".to_owned()));
        log.force_configuration(conf("ade"));
        assert_eq!((durable(&mut group, &log), votes(&mut group, &log)), (4, "de".to_owned()));
        append(&mut log, "xyz", "");
        assert_eq!(
            (durable(&mut group, &log), votes(&mut group, &log)),
            (0, String::new()),
            "nobody of them is known"
        );
    }

    #[test]
    fn an_answer_belongs_to_who_was_asked_and_is_still_the_same() {
        let sent = |group: &mut ReplicatorGroup, position: usize, ticket| {
            group.at(position).unwrap().sent(Inflight {
                ticket: Ticket(ticket),
                kind: AppendKind::Entries,
                prev: 0,
                last: 1,
                bytes: 1,
                sent_at: Time(0),
                heartbeat_before: RepeatedTimer::default(),
            });
        };
        let mut group = group(&[("b", 0), ("c", 0)]);
        sent(&mut group, 0, 1);
        sent(&mut group, 1, 2);
        group.at(1).unwrap().heartbeat_sent(Ticket(3), Time(0));
        let awaiting = |group: &ReplicatorGroup, ticket, name| group.awaiting(Ticket(ticket), &peer(name));
        assert_eq!(
            (awaiting(&group, 1, "b"), awaiting(&group, 2, "c"), awaiting(&group, 3, "c")),
            (Some(0), Some(1), Some(1))
        );
        assert_eq!((awaiting(&group, 1, "c"), awaiting(&group, 4, "c")), (None, None));
        group.retain(|r| *r != peer("b"));
        assert_eq!((awaiting(&group, 1, "b"), awaiting(&group, 2, "c")), (None, Some(0)));
        group.add_replicator(&peer("b"), 0, Time(0));
        assert_eq!(awaiting(&group, 1, "b"), None, "it has left and come back since");
    }
}
