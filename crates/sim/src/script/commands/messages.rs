//! What happens to messages on their way.

use super::{Args, Result, key, link, no_more_keys, parsed, syntax};
use crate::script::network::{Filter, Kind, Link};
use crate::script::world::{NodeName, World};

/// `[A->B] [KIND] [skip=K] [n=K]`; without a link every busy one.
fn selection(world: &World, args: &mut Args<'_>) -> Result<(Vec<Link>, Filter)> {
    let links = match args.words.front().and_then(|w| link(w)) {
        Some(link) => {
            args.words.pop_front();
            vec![link]
        }
        None => world.network().busy_links(),
    };
    let mut filter = Filter::default();
    if let Some(word) = args.words.front().filter(|w| !w.contains('=')) {
        filter.kind = Some(kind(word)?);
        args.words.pop_front();
    }
    let mut pairs = args.pairs()?;
    filter.skip = key(&mut pairs, "skip")?.unwrap_or(0);
    filter.count = key(&mut pairs, "n")?;
    no_more_keys(&pairs)?;
    Ok((links, filter))
}

fn kind(word: &str) -> Result<Kind> {
    word.parse().or_else(|e: crate::script::InvalidKind| syntax(e.to_string()))
}

fn something(count: usize) -> Result<()> {
    if count == 0 {
        return syntax("no message matches; `queue` shows what is under way");
    }
    Ok(())
}

/// `deliver …`: what is under way now, link by link.
pub(super) fn deliver(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (links, mut filter) = selection(world, args)?;
    let mut moved = 0;
    // What a delivery puts on a later link does not move with it.
    let counts: Vec<usize> = links.iter().map(|l| world.network().queued(*l).count()).collect();
    let wanted = filter.count;
    for (link, present) in links.into_iter().zip(counts) {
        let room = match filter.kind {
            Some(kind) => {
                let all = world.network().queued(link).take(present).filter(|m| m.kind == kind).count();
                all.saturating_sub(filter.skip)
            }
            None => present.saturating_sub(filter.skip),
        };
        filter.count = Some(wanted.map_or(room, |n| n.min(room)));
        moved += world.deliver(link, filter)?;
    }
    something(moved)
}

/// `drop …`.
pub(super) fn drop_messages(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (links, filter) = selection(world, args)?;
    something(links.into_iter().map(|l| world.drop_messages(l, filter)).sum())
}

/// `dup …`.
pub(super) fn duplicate(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (links, filter) = selection(world, args)?;
    something(links.into_iter().map(|l| world.duplicate(l, filter)).sum())
}

/// `break …`: lost, and the asker learns of it.
pub(super) fn break_connection(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (links, filter) = selection(world, args)?;
    let mut count = 0;
    for link in links {
        count += world.break_connection(link, filter)?;
    }
    something(count)
}

/// `hold A->B [KIND]` and `release A->B [KIND]`.
pub(super) fn hold(world: &mut World, args: &mut Args<'_>, hold: bool) -> Result<()> {
    let link = args.link()?;
    let kind = args.words.pop_front().map(kind).transpose()?;
    args.end()?;
    if hold {
        world.network_mut().hold(link, kind);
    } else {
        world.network_mut().release(link, kind);
    }
    Ok(())
}

/// `cut A->B` or `cut N` (every link from and to N), and `heal` of the same, or of everything.
pub(super) fn cut(world: &mut World, args: &mut Args<'_>, cut: bool) -> Result<()> {
    let names = world.names();
    let all = || names.iter().flat_map(|a| names.iter().map(|b| Link { from: *a, to: *b }));
    let links: Vec<Link> = match args.words.pop_front() {
        None if cut => return syntax("name a link A->B or a node"),
        None => all().collect(),
        Some(word) => match link(word) {
            Some(link) => vec![link],
            None => {
                let name: NodeName = parsed("a link A->B or a node number", word)?;
                all().filter(|l| l.from == name || l.to == name).collect()
            }
        },
    };
    args.end()?;
    for link in links {
        if cut {
            world.network_mut().cut(link);
        } else {
            world.network_mut().heal(link);
        }
    }
    Ok(())
}

/// `connect N PEER`: a connection came up at N.
pub(super) fn connect(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (name, peer) = (args.take("a node number")?, args.take("a peer's number")?);
    args.end()?;
    Ok(world.connect(name, peer)?)
}

/// `stabilize [N…]`: delivers everything, among these nodes only, until nothing moves.
pub(super) fn stabilize(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let names = args.names()?;
    Ok(world.stabilize(&names)?)
}
