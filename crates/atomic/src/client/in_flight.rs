//! Requests that were sent and have not been answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::server::Server;

/// A request at a server.
pub(super) struct Pending<Call> {
    pub(super) call: Call,
    pub(super) server: Arc<Server>,
    pub(super) sent: Instant,
}

struct State<Call> {
    next: u64,
    pending: HashMap<u64, Pending<Call>>,
    watched: bool,
}

/// Requests by number. Whoever takes one out ends it or sends it again: the answer, the watch, or the end of the client.
pub(super) struct InFlight<Call>(Mutex<State<Call>>);

impl<Call> Default for InFlight<Call> {
    fn default() -> InFlight<Call> {
        InFlight(Mutex::new(State { next: 0, pending: HashMap::new(), watched: false }))
    }
}

impl<Call> InFlight<Call> {
    /// Takes in a request that is about to be sent. Gives its number, and whether nobody watches: the caller begins to.
    pub(super) fn insert(&self, pending: Pending<Call>) -> (u64, bool) {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.pending.insert(number, pending);
        (number, !std::mem::replace(&mut state.watched, true))
    }

    /// Takes a request out; `None` when somebody was quicker.
    pub(super) fn take(&self, number: u64) -> Option<Pending<Call>> {
        self.0.lock().pending.remove(&number)
    }

    /// Takes those out that `wanted` says.
    pub(super) fn take_if(&self, mut wanted: impl FnMut(&Pending<Call>) -> bool) -> Vec<Pending<Call>> {
        let mut state = self.0.lock();
        let numbers: Vec<u64> =
            state.pending.iter().filter(|(_, pending)| wanted(pending)).map(|(number, _)| *number).collect();
        numbers.iter().filter_map(|number| state.pending.remove(number)).collect()
    }

    /// Looks at each.
    pub(super) fn for_each(&self, look: impl FnMut(&Pending<Call>)) {
        self.0.lock().pending.values().for_each(look);
    }

    /// Whether the watch goes on; when nothing is left it ends, and the next request begins it anew.
    pub(super) fn is_watch_needed(&self) -> bool {
        let mut state = self.0.lock();
        state.watched = !state.pending.is_empty();
        state.watched
    }
}
