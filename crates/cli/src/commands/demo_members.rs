//! `ringraft demo --members`: a cluster under load grows to five servers, moves its leaders, and shrinks to three others.

use std::time::{Duration, Instant};

use ringraft::{Configuration, PeerId};

use crate::demo::board::Board;
use crate::demo::cluster::{Cluster, PATIENCE, SERVERS};
use crate::demo::load::Load;
use crate::demo::members::{Admin, Answer, Ask, Deadline};
use crate::demo::progress::Progress;
use crate::demo::verdict::Members;

/// Servers that join, and as many leave in the end.
pub const SPARE: usize = 2;
/// Rounds of transfers.
const MOVES: usize = 10;
/// Time between two rounds, for the load to be normal again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a transfer that has begun may take before somebody looks whether it was given up.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(2);

/// Does it all while the load runs.
///
/// # Errors
/// When something does not come about in time, or is refused.
pub fn change_all(
    cluster: &mut Cluster,
    board: &Board,
    load: &Load,
    groups: usize,
    progress: &Progress,
) -> Result<Members, String> {
    let admin = Admin::start()?;
    let mut change = Change { cluster, board, admin, groups };
    let mut members = Members { before: change.members()?, moves: MOVES, ..Members::default() };

    // Those that lead most groups will leave.
    let leading = change.leaders()?;
    let count = |server: &usize| leading.iter().filter(|leader| *leader == server).count();
    let mut leaving: Vec<usize> = (0..SERVERS).collect();
    leaving.sort_by_key(|server| std::cmp::Reverse(count(server)));
    leaving.truncate(SPARE);
    let led: usize = leaving.iter().map(count).sum();

    for server in SERVERS..SERVERS + SPARE {
        let begun = Instant::now();
        change.cluster.join(server)?;
        change.cluster.wait_until("the new server to answer", PATIENCE, |cluster| {
            cluster.describe(server).is_some_and(|described| described.groups.len() == groups)
        })?;
        (0..groups).try_for_each(|group| change.add(group, server))?;
        members.joins.push(begun.elapsed());
        let took = begun.elapsed().as_millis();
        progress
            .say(&format!("blank server {} is a voter of all {groups} groups after {took} ms", server + 1));
    }

    for round in 1..=MOVES {
        let before = load.failovers().len();
        for group in 0..groups {
            let leader = change.leader(group)?;
            // In the last round to those that leave, so that removing them removes leaders.
            let to = match round {
                MOVES if leader == leaving[group % SPARE] => leaving[(group + 1) % SPARE],
                MOVES => leaving[group % SPARE],
                _ => (leader + 1) % (SERVERS + SPARE),
            };
            change.transfer(group, to)?;
        }
        let pause = longest_ms(&load.failovers()[before..]);
        progress
            .say(&format!("move {round}: every group has another leader; the longest pause took {pause} ms"));
        change.cluster.sleep(PAUSE)?;
    }

    for server in &leaving {
        let before = load.failovers().len();
        for group in 0..groups {
            members.leaders_removed += usize::from(change.remove(group, *server)?);
        }
        change.cluster.kill(*server)?;
        let pause = longest_ms(&load.failovers()[before..]);
        progress
            .say(&format!("server {} has left every group; the longest pause took {pause} ms", server + 1));
    }
    progress.say(&format!("the two servers that left led {led} of {groups} groups at first"));
    members.after = change.members()?;
    if members.after.len() != SERVERS
        || members.after.iter().any(|peer| leaving.iter().any(|l| *peer == change.peer(*l).to_string()))
    {
        return Err(format!("the members should be three others, and are {}", members.after.join(",")));
    }
    Ok(members)
}

struct Change<'a> {
    cluster: &'a mut Cluster,
    board: &'a Board,
    admin: Admin,
    groups: usize,
}

impl Change<'_> {
    fn peer(&self, server: usize) -> PeerId {
        self.cluster.peers()[server].clone()
    }

    fn leaders(&mut self) -> Result<Vec<usize>, String> {
        let (groups, mut found) = (self.groups, None);
        self.cluster.wait_until("a leader of every group", PATIENCE, |cluster| {
            found = cluster.leaders(groups);
            found.is_some()
        })?;
        Ok(found.unwrap_or_default())
    }

    /// The leader of a group, by what the servers say and by who answers the load.
    fn leader(&mut self, group: usize) -> Result<usize, String> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let leader = self.leaders()?[group];
            if self.board.leader(group) == Some(leader) {
                return Ok(leader);
            }
            let last = format!("server {} says that it leads", leader + 1);
            deadline.check(&format!("to find the leader of group {group}"), &last)?;
            self.cluster.sleep(Duration::from_millis(5))?;
        }
    }

    /// The members of every group, once all servers that are members agree on them, and all groups have the same.
    fn members(&mut self) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let groups = self.groups;
        self.cluster.wait_until("every group to have the same members", PATIENCE, |cluster| {
            let Some(leading) = cluster.leaders(groups) else { return false };
            let Some(servers) = cluster.describe_all() else { return false };
            let of_leader = |group: usize| {
                let at = cluster.running().iter().position(|server| *server == leading[group])?;
                Some(members_of(&servers[at].groups.get(group)?.conf))
            };
            let Some(all) = (0..groups).map(of_leader).collect::<Option<Vec<_>>>() else { return false };
            found = all.first().cloned().unwrap_or_default();
            all.iter().all(|members| *members == found)
        })?;
        Ok(found)
    }

    /// Whether a server is a member of a group, as the group's leader has it committed.
    fn is_member(&mut self, group: usize, peer: &PeerId) -> Result<bool, String> {
        let leader = self.leaders()?[group];
        let conf =
            self.cluster.describe(leader).and_then(|server| Some(server.groups.get(group)?.conf.clone()));
        Ok(conf.is_some_and(|conf| members_of(&conf).iter().any(|member| *member == peer.to_string())))
    }

    fn add(&mut self, group: usize, server: usize) -> Result<(), String> {
        let (peer, deadline) = (self.peer(server), Deadline::after(PATIENCE));
        loop {
            let last = self.ask(group, Ask::Add(&peer))?;
            if self.is_member(group, &peer)? {
                return Ok(());
            }
            deadline.check(&format!("to add {peer} to group {group}"), &last)?;
            self.cluster.sleep(Duration::from_millis(20))?;
        }
    }

    /// Says whether the leader was removed.
    fn remove(&mut self, group: usize, server: usize) -> Result<bool, String> {
        let (peer, deadline) = (self.peer(server), Deadline::after(PATIENCE));
        let mut led = false;
        loop {
            let leader = self.leader(group)?;
            if leader == server {
                led = true;
                self.board.hands_over(group, leader);
            }
            let last = self.ask(group, Ask::Remove(&peer))?;
            let left = !self.is_member(group, &peer)?;
            if left && self.leaders()?[group] != server {
                self.wait_for_another(group, server)?;
                return Ok(led);
            }
            deadline.check(&format!("to remove {peer} from group {group}"), &last)?;
            self.cluster.sleep(Duration::from_millis(20))?;
        }
    }

    fn transfer(&mut self, group: usize, to: usize) -> Result<(), String> {
        let (peer, deadline) = (self.peer(to), Deadline::after(PATIENCE));
        loop {
            let leader = self.leader(group)?;
            if leader == to {
                return Ok(());
            }
            self.board.hands_over(group, leader);
            let last = self.ask(group, Ask::Transfer(&peer))?;
            if self.wait_for_another(group, leader).is_ok() {
                // Whoever it is: a transfer to one that lags is given up, and an election may be quicker.
                return Ok(());
            }
            self.board.keeps(group);
            deadline.check(&format!("to move group {group} to server {}", to + 1), &last)?;
        }
    }

    /// Waits until the load was answered by another server than `from`.
    fn wait_for_another(&mut self, group: usize, from: usize) -> Result<(), String> {
        let board = self.board;
        self.cluster.wait_until("another leader to answer", TRANSFER_PATIENCE, |_| {
            !board.is_out(group) && board.leader(group) != Some(from)
        })?;
        Ok(())
    }

    /// What was said, for people.
    fn ask(&self, group: usize, ask: Ask<'_>) -> Result<String, String> {
        let peers = self.cluster.peers();
        let running = self.cluster.running().into_iter().map(|server| peers[server].clone());
        let servers = Configuration::of_peers(running.collect());
        match self.admin.ask(&servers, &format!("atomic_{group}"), ask) {
            Answer::Done => Ok("done".to_owned()),
            Answer::Later(why) => Ok(why),
            Answer::Refused(why) => Err(format!("{ask:?} of group {group} was refused: {why}")),
        }
    }
}

fn longest_ms(pauses: &[Duration]) -> u128 {
    pauses.iter().max().map_or(0, Duration::as_millis)
}

/// The voters of a configuration's text, in order.
fn members_of(conf: &str) -> Vec<String> {
    let mut members: Vec<String> = conf
        .split(',')
        .filter(|peer| !peer.is_empty() && !peer.ends_with("/learner"))
        .map(str::to_owned)
        .collect();
    members.sort();
    members
}
