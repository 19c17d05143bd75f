//! Disks and state machines.

use super::{Args, Result, syntax};
use crate::script::host::Automatic;
use crate::script::world::{ReadAnswer, World};

/// `persist N ok [K]` or `persist N fail`.
pub(super) fn persist(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    match args.word("ok or fail")? {
        "ok" => {
            let count = if args.words.is_empty() { usize::MAX } else { args.take("a number of writes")? };
            args.end()?;
            Ok(world.persist(name, count)?)
        }
        "fail" => {
            args.end()?;
            Ok(world.fail_disk(name)?)
        }
        other => syntax(format!("{other:?} is neither ok nor fail")),
    }
}

/// `manual-persist N` and its kin; `*` for every node, also later ones.
pub(super) fn manual(world: &mut World, args: &mut Args<'_>, change: fn(&mut Automatic)) -> Result<()> {
    let name = if args.flag("*") { None } else { Some(args.take("a node number")?) };
    args.end()?;
    Ok(world.automatic(name, change)?)
}

/// `applied N [INDEX]`.
pub(super) fn applied(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let index = if args.words.is_empty() { None } else { Some(args.take("an index")?) };
    args.end()?;
    Ok(world.applied(name, index)?)
}

/// `answer-read N [ok | fail | one-more | hole]`.
pub(super) fn answer_read(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let answer = match args.words.pop_front() {
        None | Some("ok") => ReadAnswer::Good,
        Some("fail") => ReadAnswer::Fails,
        Some("one-more") => ReadAnswer::OneMore,
        Some("hole") => ReadAnswer::Hole,
        Some(other) => return syntax(format!("{other:?} is none of ok, fail, one-more, hole")),
    };
    args.end()?;
    Ok(world.answer_read(name, answer)?)
}
