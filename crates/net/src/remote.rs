//! The hosts that this one works with: those that it has links to, and those that its groups name as members.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::Endpoint;

/// What is known of one of them. Its links share it.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) endpoint: Endpoint,
    /// Links to it that are not up.
    pub(crate) links_down: AtomicU32,
    /// It has announced ringraft's extensions: it is no Java node.
    pub(crate) extended: AtomicBool,
    /// When something was last read on a link to it.
    answered: Mutex<Option<Instant>>,
    /// The loop has been told, and has not looked yet, that it was heard while a link to it is down.
    pub(crate) noted: AtomicBool,
}

/// All of them, by endpoint. There are as many as configurations name, so that none is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    by_endpoint: Mutex<FxHashMap<Arc<str>, Arc<Remote>>>,
}

impl Remotes {
    /// The host at an endpoint; `true` when it has just become one of them.
    pub(crate) fn get(&self, endpoint: &Endpoint) -> (Arc<Remote>, bool) {
        let mut by_endpoint = self.by_endpoint.lock();
        if let Some(remote) = by_endpoint.get(&endpoint.0) {
            return (Arc::clone(remote), false);
        }
        let remote = Arc::new(Remote {
            endpoint: endpoint.clone(),
            links_down: AtomicU32::new(0),
            extended: AtomicBool::new(false),
            answered: Mutex::new(None),
            noted: AtomicBool::new(false),
        });
        by_endpoint.insert(Arc::clone(&endpoint.0), Arc::clone(&remote));
        (remote, true)
    }
}

impl Remote {
    /// Whether it is no Java node, as far as is known.
    pub(crate) fn is_extended(&self) -> bool {
        self.extended.load(Ordering::Relaxed)
    }

    /// Something was read on a link to it.
    pub(crate) fn answers(&self, now: Instant) {
        *self.answered.lock() = Some(now);
    }

    /// Whether something was read on any link to it within `limit`.
    pub(crate) fn answered_within(&self, limit: Duration, now: Instant) -> bool {
        self.answered.lock().is_some_and(|at| now.saturating_duration_since(at) < limit)
    }
}
