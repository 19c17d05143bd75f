//! Looks after requests whose server is silent: asks the other servers who leads, and takes requests away from a server that has been
//! replaced.
//!
//! A server that hangs, or that is cut off without a word, keeps what was sent to it until the time is over. The others know soon who
//! leads instead. What they say moves the requests to come; one that waits at the silent server is sent again if that does no harm,
//! and otherwise ends as unknown, for the silent server may have handed it on before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringraft::{RpcError, RpcResult};
use ringraft_proto::class;

use super::Inner;
use super::call::Call;
use super::cluster::wrong_cluster;
use super::in_flight::Pending;
use super::server::Server;
use super::table::decode_slots;
use super::transport::ClientTransport;

/// How often a request is looked at within [`ClientOptions::silence`](super::ClientOptions::silence).
const LOOKS: u32 = 5;

/// How much longer than its time-out a request may take: the transport answers within its time.
const GRACE: Duration = Duration::from_secs(1);

impl Inner {
    fn watch_interval(&self) -> Duration {
        (self.options.silence / LOOKS).max(Duration::from_millis(1))
    }

    /// Looks at the requests again and again, as long as there are any.
    pub(super) fn watch_later(self: &Arc<Inner>) {
        let inner = Arc::clone(self);
        let look = move || {
            inner.look_after_requests();
            if inner.in_flight.is_watch_needed() {
                inner.watch_later();
            }
        };
        self.retries.at(Instant::now() + self.watch_interval(), Box::new(look));
    }

    fn look_after_requests(self: &Arc<Inner>) {
        let now = Instant::now();
        let mut silent: Vec<Arc<Server>> = Vec::new();
        self.in_flight.for_each(|pending| {
            if self.is_silent(pending, now)
                && !silent.iter().any(|server| Arc::ptr_eq(server, &pending.server))
            {
                silent.push(Arc::clone(&pending.server));
            }
        });
        if !silent.is_empty() {
            silent.iter().for_each(|server| server.was_silent(now));
            self.ask_who_leads();
            self.take_from_the_silent();
        }
        let late = |pending: &Pending<Call>| pending.call.deadline() + GRACE < now;
        for Pending { call, server, .. } in self.in_flight.take_if(late) {
            call.lost_sight_of(format!("{} did not answer", server.endpoint()));
        }
    }

    fn is_silent(&self, pending: &Pending<Call>, now: Instant) -> bool {
        pending.server.silence(pending.sent, now) >= self.options.silence
    }

    /// Asks every server for the ranges and their leaders, those that are avoided too: an answer is how they come back. Asks none that
    /// has not answered the last question, and none too often.
    pub(super) fn ask_who_leads(self: &Arc<Inner>) {
        let (now, pause) = (Instant::now(), self.watch_interval());
        for server in self.table.servers() {
            if !server.begin_question(now, pause) {
                continue;
            }
            let (inner, asked) = (Arc::clone(self), Arc::clone(&server));
            let done = Box::new(move |result: RpcResult| {
                asked.end_question();
                inner.note(&asked, now, &result);
                if let Ok(response) = result
                    && let Ok((slots, _)) = decode_slots(&response.content)
                {
                    inner.table.learn(&slots);
                    inner.take_from_the_silent();
                }
            });
            let timeout = self.options.read_attempt_timeout;
            self.transport.call(
                server.endpoint(),
                class::ATOMIC_GET_SLOTS_REQUEST,
                Bytes::new(),
                timeout,
                done,
            );
        }
    }

    /// Takes what waits at a silent server away from it, where another server can have it.
    fn take_from_the_silent(self: &Arc<Inner>) {
        let now = Instant::now();
        let moves =
            |pending: &Pending<Call>| self.is_silent(pending, now) && self.is_better_elsewhere(pending, now);
        for Pending { call, server, sent } in self.in_flight.take_if(moves) {
            let silence = server.silence(sent, now).as_millis();
            let message = match self.table.leader(call.slot()) {
                Some(leader) if !call.is_for_anybody() => format!(
                    "{} has not answered for {silence} ms, and {} leads by now",
                    server.endpoint(),
                    leader.endpoint()
                ),
                _ => format!("{} has not answered for {silence} ms", server.endpoint()),
            };
            call.lost_sight_of(message);
        }
    }

    fn is_better_elsewhere(&self, pending: &Pending<Call>, now: Instant) -> bool {
        let other = |server: &Arc<Server>| !Arc::ptr_eq(server, &pending.server) && !server.is_avoided(now);
        if pending.call.is_for_anybody() {
            return self.table.servers().iter().any(other);
        }
        self.table.leader(pending.call.slot()).as_ref().is_some_and(other)
    }

    /// Remembers what the outcome of a request that was sent at `sent` says about the server.
    pub(super) fn note(&self, server: &Server, sent: Instant, result: &RpcResult) {
        let now = Instant::now();
        match result {
            // It answers, but not this client.
            result if wrong_cluster(result).is_some() => server.was_unreachable(now),
            Ok(_) | Err(RpcError::Remote { .. }) => server.heard(now),
            // One that answers others meanwhile, or was given no time, is not silent.
            Err(RpcError::TimedOut { .. }) if server.silence(sent, now) >= self.options.silence => {
                server.was_silent(now);
            }
            Err(RpcError::NotConnected { .. } | RpcError::Lost { .. }) => server.was_unreachable(now),
            Err(RpcError::TimedOut { .. } | RpcError::Busy { .. } | RpcError::Closed) => {}
        }
    }
}
