//! Who is there, and who can reach whom.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::pipe::{End, Event, Mailbox, Wire};
use crate::{Endpoint, NetOptionsError};

/// The hosts of one process and the cuts between them. Cheap to clone; all clones are the same network.
#[derive(Clone, Default)]
pub struct Network {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    hosts: FxHashMap<Endpoint, Arc<Mailbox>>,
    /// Pairs in order of their names.
    cuts: FxHashSet<(Endpoint, Endpoint)>,
    wires: Vec<((Endpoint, Endpoint), Wire)>,
}

/// Why a host could not join a [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostExists {
    /// The name is taken.
    #[error("a host named {0} runs already; drop its loop first or choose another name")]
    Taken(Endpoint),
    /// The options cannot be used.
    #[error(transparent)]
    Options(#[from] NetOptionsError),
}

impl Network {
    /// A network without hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a host, and tells the others.
    ///
    /// # Errors
    /// [`HostExists::Taken`]; nothing changed.
    pub(super) fn join(&self, endpoint: &Endpoint, mailbox: Arc<Mailbox>) -> Result<(), HostExists> {
        {
            let mut state = self.state.lock();
            if state.hosts.contains_key(endpoint) {
                return Err(HostExists::Taken(endpoint.clone()));
            }
            state.hosts.insert(endpoint.clone(), mailbox);
        }
        self.changed();
        Ok(())
    }

    /// Breaks every connection between two hosts and lets none come up until [`heal`](Self::heal). What was under
    /// way is lost; both sides see their connections close.
    pub fn cut(&self, a: &Endpoint, b: &Endpoint) {
        let pair = pair(a, b);
        let mut state = self.state.lock();
        state.cuts.insert(pair.clone());
        let (severed, kept) = std::mem::take(&mut state.wires).into_iter().partition(|(of, _)| *of == pair);
        state.wires = kept;
        drop(state);
        let severed: Vec<(_, Wire)> = severed;
        for (_, wire) in severed {
            wire.sever();
        }
    }

    /// Ends a cut. Links between the two try again at once.
    pub fn heal(&self, a: &Endpoint, b: &Endpoint) {
        self.state.lock().cuts.remove(&pair(a, b));
        self.changed();
    }

    /// Opens a connection: the far end is given to its host, the near one to the caller.
    pub(super) fn connect(&self, from: &Endpoint, to: &Endpoint) -> Result<End, &'static str> {
        let pair = pair(from, to);
        let mut state = self.state.lock();
        if state.cuts.contains(&pair) {
            return Err("the network is cut");
        }
        let Some(host) = state.hosts.get(to).cloned() else { return Err("no such host") };
        let (near, far, wire) = End::pair();
        state.wires.retain(|(_, wire)| !wire.is_gone());
        state.wires.push((pair, wire));
        drop(state);
        host.post(Event::Incoming { from: from.clone(), end: far });
        Ok(near)
    }

    pub(super) fn leave(&self, endpoint: &Endpoint, mailbox: &Arc<Mailbox>) {
        let mut state = self.state.lock();
        if state.hosts.get(endpoint).is_some_and(|host| Arc::ptr_eq(host, mailbox)) {
            state.hosts.remove(endpoint);
        }
    }

    fn changed(&self) {
        let hosts: Vec<_> = self.state.lock().hosts.values().cloned().collect();
        for host in hosts {
            host.post(Event::NetworkChanged);
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let hosts: Vec<_> = state.hosts.keys().collect();
        f.debug_struct("Network").field("hosts", &hosts).field("cuts", &state.cuts).finish()
    }
}

fn pair(a: &Endpoint, b: &Endpoint) -> (Endpoint, Endpoint) {
    if a <= b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
}
