//! Each request of a peer that was taken in is answered once. Shows rule O3.

use ringraft_core::PeerId;
use ringraft_net::ReplyHandle;
use rustc_hash::FxHashMap;

use crate::script::What;

/// A request of a peer that was taken in and must be answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct OpenRequest {
    pub(in crate::cluster) group: usize,
    pub(in crate::cluster) from: PeerId,
    pub(in crate::cluster) what: What,
    /// Whether it is a vote (not a pre-vote).
    pub(in crate::cluster) vote: bool,
    /// Last entry that an AppendEntries with entries asks to be durable, and its term.
    pub(in crate::cluster) entries: Option<(u64, u64)>,
}

/// Requests of one process that are open. A doubled datagram brings the same handle twice: then two answers are due.
#[derive(Default)]
pub(in crate::cluster) struct Answers {
    open: FxHashMap<ReplyHandle, Vec<OpenRequest>>,
    count: usize,
}

impl Answers {
    /// A request was taken in.
    pub(in crate::cluster) fn taken(&mut self, handle: ReplyHandle, request: OpenRequest) {
        self.open.entry(handle).or_default().push(request);
        self.count += 1;
    }

    /// An answer leaves; gives the request.
    ///
    /// # Errors
    /// No request waits for it.
    pub(in crate::cluster) fn answered(&mut self, handle: &ReplyHandle) -> Result<OpenRequest, String> {
        let Some(waiting) = self.open.get_mut(handle) else {
            return Err(format!("answers {handle:?} once too often"));
        };
        let request = waiting.pop();
        if waiting.is_empty() {
            self.open.remove(handle);
        }
        self.count -= 1;
        request.ok_or_else(|| format!("answers {handle:?} once too often"))
    }

    /// Requests without answer.
    pub(in crate::cluster) fn open(&self) -> usize {
        self.count
    }

    /// The process has ended in order.
    ///
    /// # Errors
    /// A request was never answered.
    pub(in crate::cluster) fn ended(&self) -> Result<(), String> {
        match self.count {
            0 => Ok(()),
            open => Err(format!("ended with {open} requests that were never answered")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_answers_and_too_few() {
        let handle = ReplyHandle { connection: 1, generation: 1, request: 7 };
        let request = OpenRequest {
            group: 0,
            from: PeerId::new("a", 1),
            what: What::Append,
            vote: false,
            entries: Some((4, 2)),
        };
        let mut answers = Answers::default();
        assert!(answers.answered(&handle).is_err());
        answers.taken(handle, request.clone());
        answers.taken(handle, request.clone());
        assert!(answers.ended().is_err());
        assert_eq!(answers.answered(&handle), Ok(request.clone()));
        assert_eq!(answers.answered(&handle), Ok(request));
        assert_eq!(answers.ended(), Ok(()));
        assert!(answers.answered(&handle).unwrap_err().contains("too often"));
    }
}
