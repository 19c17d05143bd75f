//! What was acknowledged stays: on every disk that is left, where it was said to be.

use super::{Call, Outcome};
use crate::LogImage;
use crate::cluster::machine::Command;

/// Looks for an acknowledged command in the durable log of a host.
///
/// # Errors
/// It is not there.
pub(in crate::cluster) fn kept(call: &Call, stable: &LogImage) -> Result<(), String> {
    let Outcome::Applied(index) = call.outcome else { return Ok(()) };
    let there = stable.entry(index).and_then(|entry| Command::decode(&entry.data)).map(|command| command.id);
    if there == Some(call.command.id) {
        return Ok(());
    }
    Err(format!(
        "holds {there:?} at {index} of group {}, where command {} was acknowledged",
        call.group, call.command.id
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringraft_core::{ChunkBuilder, LogOp};

    use super::*;
    use crate::cluster::checks::Tasks;
    use crate::linearizability::RegisterOp;

    #[test]
    fn a_command_that_is_gone_or_replaced() {
        let mut tasks = Tasks::new(1);
        let command = |id| Command { id, key: 0, op: RegisterOp::Write(id) };
        let (first, second) = (tasks.next_id(), tasks.next_id() + 1);
        tasks.called(0, 0, command(first), None);
        let mut log = LogImage::default();
        let mut chunk = ChunkBuilder::new();
        chunk.push(&command(first).encode(3));
        log.apply(&LogOp::Append(Arc::new(chunk.take(1, 1).unwrap())));
        let call = &mut tasks.calls[0];
        assert_eq!(kept(call, &LogImage::default()), Ok(()), "nothing was promised yet");
        call.outcome = Outcome::Applied(1);
        assert_eq!(kept(call, &log), Ok(()));
        assert!(kept(call, &LogImage::default()).is_err());
        call.command.id = second;
        assert!(kept(call, &log).is_err());
    }
}
