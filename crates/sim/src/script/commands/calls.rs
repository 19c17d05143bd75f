//! Reads, changes of members, transfers.

use ringraft_core::{MembershipChange, PeerId, ReadOnlyOption};

use super::inject::{half, member};
use super::{Args, Result, key, no_more_keys, parsed, syntax};
use crate::script::format;
use crate::script::world::World;

/// `change N add 4 | remove 2 | peers 1+2+5l | learner 4 5 | unlearn 4 | learners 4 5`, with `prev=INDEX`.
pub(super) fn change(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let what = args.word("add, remove, peers, learner, unlearn or learners")?;
    let prev = match args.words.back().and_then(|word| word.strip_prefix("prev=")) {
        Some(index) => {
            args.words.pop_back();
            Some(parsed("an index", index)?)
        }
        None => None,
    };
    let peers = |args: &mut Args<'_>| -> Result<Vec<PeerId>> {
        Ok(args.names()?.into_iter().map(format::peer_of).collect())
    };
    let change = match what {
        "add" => MembershipChange::AddPeer(member(args.word("a node number")?)?),
        "remove" => MembershipChange::RemovePeer(format::peer_of(args.take("a node number")?)),
        "peers" => MembershipChange::ChangePeers(half(args.word("members, such as 1+2+3l")?)?),
        "learner" => MembershipChange::AddLearners(peers(args)?),
        "unlearn" => MembershipChange::RemoveLearners(peers(args)?),
        "learners" => MembershipChange::ResetLearners(peers(args)?),
        _ => return syntax(format!("there is no change {what:?}")),
    };
    args.end()?;
    Ok(world.change(name, change, prev)?)
}

/// `transfer N [TO]`.
pub(super) fn transfer(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let to = if args.words.is_empty() { None } else { Some(args.take("a node number")?) };
    args.end()?;
    Ok(world.transfer(name, to)?)
}

/// `read N [lease] [n=COUNT]`.
pub(super) fn read(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let mode = if args.flag("lease") { ReadOnlyOption::LeaseBased } else { ReadOnlyOption::Safe };
    let mut pairs = args.pairs()?;
    let count = key(&mut pairs, "n")?.unwrap_or(1);
    no_more_keys(&pairs)?;
    Ok(world.read(name, count, mode)?)
}

/// `reset-peers N 1+2`.
pub(super) fn reset_peers(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let conf = half(args.word("members, such as 1+2+3l")?)?;
    args.end()?;
    Ok(world.reset_peers(name, conf)?)
}
