//! One request on its way: attempts, redirects, retries, its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protobuf::Message;
use ringraft::{RaftError, RpcError, RpcResult};
use ringraft_proto::class;

use crate::command::{self, Answer, Command, ReadFrom, ReadMode};
use crate::reply::{self, Failure, Reply, ReplyKind};

use super::in_flight::Pending;
use super::server::Server;
use super::table::endpoint_of;
use super::transport::ClientTransport;
use super::{ClientError, Inner, Outcome};

/// Takes the outcome of one request, exactly once.
pub(crate) type Done = Box<dyn FnOnce(Result<Outcome, ClientError>) + Send>;

/// What one attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Carried out.
    Carried(Reply),
    /// Certainly not carried out: repeat it, at `redirect` if one is named.
    Repeat { reason: Reason, redirect: Option<Arc<str>> },
    /// Certainly not carried out, here or anywhere.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// Why an attempt was not taken: what the error says when no other succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Busy(String),
    NotLeader(String),
    Unreachable(String),
    WrongCluster(String),
}

/// Says what an answer, or its lack, means.
pub(super) fn judge(kind: ReplyKind, result: RpcResult) -> Verdict {
    let response = match result {
        Ok(response) => response,
        Err(error) => return judge_error(&error),
    };
    match reply::decode(kind, &response.class, &response.content) {
        None => {
            Verdict::Unknown(format!("the server's answer cannot be read ({} bytes)", response.content.len()))
        }
        Some(Ok(reply)) => Verdict::Carried(reply),
        Some(Err(failure)) => judge_failure(failure),
    }
}

fn judge_failure(failure: Failure) -> Verdict {
    let Failure { status, redirect, unknown } = failure;
    if unknown {
        return Verdict::Unknown(status.message);
    }
    match status.error {
        RaftError::Invalid => Verdict::Refused(status.message),
        RaftError::Busy => Verdict::Repeat { reason: Reason::Busy(status.message), redirect: None },
        _ => {
            let redirect = endpoint_of(&redirect);
            Verdict::Repeat { reason: Reason::NotLeader(status.message), redirect }
        }
    }
}

fn judge_error(error: &RpcError) -> Verdict {
    let message = error.to_string();
    match error {
        RpcError::Busy { .. } => Verdict::Repeat { reason: Reason::Busy(message), redirect: None },
        error if error.was_not_sent() => {
            Verdict::Repeat { reason: Reason::Unreachable(message), redirect: None }
        }
        RpcError::Remote { status, .. } => match status.error {
            RaftError::WrongCluster => {
                Verdict::Repeat { reason: Reason::WrongCluster(message), redirect: None }
            }
            RaftError::Busy => Verdict::Repeat { reason: Reason::Busy(message), redirect: None },
            // No processor for the request: the server is starting, or is of another kind.
            RaftError::NotFound | RaftError::Request | RaftError::Invalid => {
                Verdict::Repeat { reason: Reason::NotLeader(message), redirect: None }
            }
            _ => Verdict::Unknown(message),
        },
        _ => Verdict::Unknown(message),
    }
}

/// A request that has not been answered yet. Dropping it answers it.
pub(super) struct Call {
    pub(super) inner: Arc<Inner>,
    slot: usize,
    kind: ReplyKind,
    class: &'static str,
    content: Bytes,
    /// Doing it twice is the same as doing it once.
    repeatable: bool,
    /// Any server may answer.
    anywhere: bool,
    deadline: Instant,
    attempts: u32,
    /// Times that there was nobody to send it to.
    waits: u32,
    /// The server of the last attempt was named by another one.
    redirects: u32,
    /// An attempt may have been carried out; why that is not known.
    doubt: Option<String>,
    last: Option<Reason>,
    started: Instant,
    done: Option<Done>,
}

/// A request as a message.
pub(super) struct Encoded {
    class: &'static str,
    content: Bytes,
}

pub(super) fn encode(command: Command, mode: ReadMode) -> Result<Encoded, ClientError> {
    command.validate().map_err(|error| ClientError::Invalid(error.to_string()))?;
    let (class, written) = match command {
        Command::Set { key, value } => {
            (class::ATOMIC_SET_REQUEST, command::set_request(key, value).write_to_bytes())
        }
        Command::CompareAndSet { key, expect, new_value } => (
            class::ATOMIC_COMPARE_AND_SET_REQUEST,
            command::compare_and_set_request(key, expect, new_value).write_to_bytes(),
        ),
        Command::IncrementAndGet { key, delta } => {
            (class::ATOMIC_INCREMENT_AND_GET_REQUEST, command::increment_request(key, delta).write_to_bytes())
        }
        Command::Get { key } => (class::ATOMIC_GET_REQUEST, command::get_request(key, mode).write_to_bytes()),
    };
    let content = written.map_err(|error| ClientError::Invalid(error.to_string()))?;
    Ok(Encoded { class, content: content.into() })
}

impl Call {
    pub(super) fn new(
        inner: Arc<Inner>,
        command: Command,
        mode: ReadMode,
        timeout: Duration,
        done: Done,
    ) -> Option<Call> {
        let slot = inner.table.locate(command.key());
        let kind = ReplyKind::of(&command);
        let is_set = matches!(command, Command::Set { .. });
        let repeatable = command.is_read() || (is_set && inner.options.retry_unknown_sets);
        let any_replica =
            matches!(mode, ReadMode::Local | ReadMode::Quorum { from: ReadFrom::AnyReplica, .. });
        let anywhere = command.is_read() && any_replica;
        let Encoded { class, content } = match encode(command, mode) {
            Ok(encoded) => encoded,
            Err(error) => {
                done(Err(error));
                return None;
            }
        };
        let started = Instant::now();
        Some(Call {
            inner,
            slot,
            kind,
            class,
            content,
            repeatable,
            anywhere,
            deadline: started + timeout,
            attempts: 0,
            waits: 0,
            redirects: 0,
            doubt: None,
            last: None,
            started,
            done: Some(done),
        })
    }

    /// Sends it once more, or gives up when the time is over.
    pub(super) fn attempt(mut self) {
        let now = Instant::now();
        if now >= self.deadline {
            return self.give_up();
        }
        let left = self.deadline - now;
        // A read that hangs at one server has time for another; a write that hangs is in doubt anyway.
        let timeout = if self.repeatable { left.min(self.inner.options.read_attempt_timeout) } else { left };
        let Some(server) = self.target() else {
            self.last.get_or_insert_with(|| Reason::Unreachable("no server answers".to_owned()));
            self.waits += 1;
            return self.repeat_later();
        };
        self.attempts += 1;
        let inner = Arc::clone(&self.inner);
        let (class, content) = (self.class, self.content.clone());
        let (number, is_first) =
            inner.in_flight.insert(Pending { call: self, server: Arc::clone(&server), sent: now });
        if is_first {
            inner.watch_later();
        }
        let (of_answer, endpoint) = (Arc::clone(&inner), Arc::clone(server.endpoint()));
        let done = Box::new(move |result| {
            of_answer.note(&server, now, &result);
            // Whoever was quicker has taken it away from the server.
            if let Some(Pending { call, .. }) = of_answer.in_flight.take(number) {
                call.answered(&server, result);
            }
        });
        inner.transport.call(&endpoint, class, content, timeout, done);
    }

    /// Whom to send it to. A write that must not be sent twice goes to the leader or, when none is known, to a server that has answered
    /// something just now, for it would come into doubt at one that hangs; `None` when there is no such server.
    fn target(&self) -> Option<Arc<Server>> {
        let (table, turn) = (&self.inner.table, self.slot + self.attempts as usize);
        if self.anywhere {
            return Some(table.any_server(turn));
        }
        if self.repeatable {
            return Some(table.target(self.slot, self.attempts as usize));
        }
        table.fit_leader(self.slot).or_else(|| {
            self.inner.ask_who_leads();
            table.fit_leader(self.slot).or_else(|| table.any_heard(turn, self.inner.options.silence))
        })
    }

    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether any server may answer.
    pub(super) fn is_for_anybody(&self) -> bool {
        self.anywhere
    }

    /// The server to which it was sent is not waited for any more: it may have been carried out there, or may yet be.
    pub(super) fn lost_sight_of(mut self, why: String) {
        if !self.repeatable {
            return self.finish(Err(ClientError::Unknown(why)));
        }
        self.doubt = Some(why);
        self.attempt();
    }

    /// The client ends while it waits for an answer.
    pub(super) fn abandon(mut self) {
        self.doubt.get_or_insert_with(|| "the client was shut down before the answer".to_owned());
        self.give_up();
    }

    fn answered(mut self, server: &Arc<Server>, result: RpcResult) {
        match judge(self.kind, result) {
            Verdict::Carried(reply) => {
                if !self.anywhere {
                    self.inner.table.set_leader(self.slot, server);
                }
                let (value, group, index) = (reply.answer, reply.group, reply.index);
                let outcome = Outcome {
                    answer: value,
                    group,
                    index,
                    slot: self.slot,
                    server: Arc::clone(server.endpoint()),
                    attempts: self.attempts,
                    latency: self.started.elapsed(),
                };
                self.finish(Ok(outcome));
            }
            Verdict::Refused(message) => {
                let error = match self.doubt.take() {
                    Some(doubt) => ClientError::Unknown(doubt),
                    None => ClientError::Invalid(message),
                };
                self.finish(Err(error));
            }
            Verdict::Unknown(message) => {
                self.inner.table.clear_leader(self.slot, server);
                if !self.repeatable {
                    return self.finish(Err(ClientError::Unknown(message)));
                }
                self.doubt = Some(message);
                self.repeat_later();
            }
            Verdict::Repeat { reason, redirect } => {
                let busy = matches!(reason, Reason::Busy(_));
                self.last = Some(reason);
                if busy {
                    return self.repeat_later();
                }
                match redirect.filter(|leader| leader != server.endpoint()) {
                    Some(leader) => self.go_to(&leader),
                    None => {
                        self.inner.table.clear_leader(self.slot, server);
                        self.repeat_later();
                    }
                }
            }
        }
    }

    /// Another server says that `leader` leads.
    fn go_to(mut self, leader: &Arc<str>) {
        let leader = self.inner.table.server(leader);
        if leader.is_avoided(Instant::now()) && !self.anywhere {
            // It did not answer just now, and who names it may not have missed it yet: a write would only come into doubt there. It is
            // asked for a sign of life, and the others for another leader.
            self.inner.ask_who_leads();
            return self.repeat_later();
        }
        self.inner.table.set_leader(self.slot, &leader);
        self.redirects += 1;
        // Two servers that name each other must not be asked without a pause.
        let at_once = self.redirects <= 2;
        if at_once { self.attempt() } else { self.repeat_later() }
    }

    /// Doubles with each attempt; the fraction differs from call to call, so that they do not all come back at once.
    fn pause(&self) -> Duration {
        let options = &self.inner.options;
        let base = options
            .backoff_min
            .saturating_mul(1 << (self.attempts + self.waits).min(10))
            .min(options.backoff_max);
        let spread = self.started.elapsed().subsec_nanos() % 1000;
        base / 2 + base / 2 * spread / 1000
    }

    fn repeat_later(self) {
        let inner = Arc::clone(&self.inner);
        let at = (Instant::now() + self.pause()).min(self.deadline);
        inner.retries.at(at, Box::new(move || self.attempt()));
    }

    fn give_up(mut self) {
        let error = match (self.doubt.take(), self.last.take()) {
            // A read changes nothing: that it was not answered is all there is to say.
            (Some(doubt), _) if self.class == class::ATOMIC_GET_REQUEST => ClientError::Timeout(doubt),
            (Some(doubt), _) => ClientError::Unknown(doubt),
            (None, Some(Reason::Busy(message))) => ClientError::Busy(message),
            (None, Some(Reason::NotLeader(message))) => ClientError::NotLeader(message),
            (None, Some(Reason::Unreachable(message))) => ClientError::Timeout(message),
            (None, Some(Reason::WrongCluster(message))) => ClientError::WrongCluster(message),
            (None, None) => ClientError::Timeout("the deadline had passed before the first attempt".into()),
        };
        self.finish(Err(error));
    }

    fn finish(&mut self, outcome: Result<Outcome, ClientError>) {
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.done.is_some() {
            let message = "the client was shut down".to_owned();
            let error = match self.doubt.take() {
                Some(doubt) if self.class != class::ATOMIC_GET_REQUEST => ClientError::Unknown(doubt),
                _ => ClientError::Timeout(message),
            };
            self.finish(Err(error));
        }
    }
}

impl Outcome {
    /// Whether the counter was changed; `None` for an answer that is a value.
    pub fn changed(&self) -> Option<bool> {
        match self.answer {
            Answer::Changed(changed) => Some(changed),
            Answer::Value(_) => None,
        }
    }

    /// The counter's value; `None` when it was never set, or for an answer that is no value.
    pub fn value(&self) -> Option<i64> {
        match self.answer {
            Answer::Value(value) => value,
            Answer::Changed(_) => None,
        }
    }
}
