//! The client against servers that answer as a test says.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use ringraft::{ApplyError, RaftError, RpcError, RpcResponse, Status};

use super::transport::CallDone;
use super::*;
use crate::command::ReadFrom;
use crate::reply::{self, Failure, Reply, ReplyKind, ReplyResult};

/// What a server does with the next request.
enum Act {
    Answer(ReplyResult),
    Error(RpcError),
    Garbage,
}

#[derive(Default)]
struct Script {
    acts: VecDeque<Act>,
    asked: Vec<String>,
    timeouts: Vec<Duration>,
    /// The client has started.
    started: bool,
}

/// Servers a:1, b:1 and c:1; when the client starts they say that a:1 leads, and later nothing but what a script says. Once the script is done nobody answers.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Script>>);

impl Fake {
    fn client(acts: impl IntoIterator<Item = Act>, options: ClientOptions) -> (Fake, AtomicClient) {
        let fake = Fake::default();
        fake.0.lock().acts.extend(acts);
        let peers: Vec<PeerId> = ["a:1", "b:1", "c:1"].map(|p| p.parse().unwrap()).into();
        let client = AtomicClient::over(Box::new(fake.clone()), &peers, options).unwrap();
        (fake, client)
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().asked.clone()
    }
}

impl ClientTransport for Fake {
    fn call(&self, endpoint: &str, class: &'static str, _content: Bytes, timeout: Duration, done: CallDone) {
        if class == class::ATOMIC_GET_SLOTS_REQUEST {
            let slot = proto::Slot {
                group: "g_0".into(),
                peers: vec!["a:1".into(), "b:1".into(), "c:1".into()],
                leader: if std::mem::replace(&mut self.0.lock().started, true) { "" } else { "a:1" }.into(),
                ..Default::default()
            };
            let message = proto::SlotsResponse { success: true, slots: vec![slot], ..Default::default() };
            let content = message.write_to_bytes().unwrap().into();
            return done(Ok(RpcResponse { class: class::ATOMIC_SLOTS_RESPONSE.into(), content }));
        }
        let kind = match class {
            class::ATOMIC_SET_REQUEST | class::ATOMIC_COMPARE_AND_SET_REQUEST => ReplyKind::Boolean,
            _ => ReplyKind::Value,
        };
        let act = {
            let mut script = self.0.lock();
            script.asked.push(endpoint.to_owned());
            script.timeouts.push(timeout);
            script.acts.pop_front().unwrap_or_else(|| Act::Error(not_connected()))
        };
        let response = |content| RpcResponse { class: kind.class().into(), content };
        done(match act {
            Act::Answer(outcome) => Ok(response(reply::encode(kind, "g_0", &outcome))),
            Act::Error(error) => Err(error),
            Act::Garbage => Ok(response(Bytes::from_static(b"\xff\xff"))),
        });
    }

    fn shutdown(&self) {}
}

fn not_connected() -> RpcError {
    RpcError::NotConnected { endpoint: "x:1".into(), reason: "refused".into() }
}

fn lost() -> RpcError {
    RpcError::Lost { endpoint: "a:1".into(), reason: "reset".into() }
}

fn timed_out() -> RpcError {
    RpcError::TimedOut { endpoint: "a:1".into(), timeout_ms: 5 }
}

fn not_leader(leader: &str) -> Act {
    Act::Answer(Err(ApplyError::NotLeader { leader: leader.parse().ok() }.into()))
}

fn busy() -> Act {
    Act::Answer(Err(ApplyError::Busy.into()))
}

fn unknown() -> Act {
    Act::Answer(Err(ApplyError::Unknown(Status::new(RaftError::NodeShutdown, "stopping")).into()))
}

fn carried(answer: Answer) -> Act {
    Act::Answer(Ok(Reply { answer, group: "g_0".into(), index: 7 }))
}

fn quick() -> ClientOptions {
    ClientOptions { timeout: Duration::from_millis(200), ..ClientOptions::default() }
}

/// Time enough for scripts that end with an answer.
fn patient() -> ClientOptions {
    ClientOptions { timeout: Duration::from_secs(60), ..ClientOptions::default() }
}

#[test]
fn the_leader_is_asked() {
    let (fake, client) = Fake::client([carried(Answer::Changed(true))], patient());
    client.set("k", 1).unwrap();
    assert_eq!(fake.asked(), ["a:1"]);
}

#[test]
fn redirects_are_followed_and_remembered() {
    let script = [not_leader("c:1"), carried(Answer::Value(Some(3))), carried(Answer::Value(Some(4)))];
    let (fake, client) = Fake::client(script, patient());
    assert_eq!(client.increment_and_get("k", 1), Ok(3));
    assert_eq!(client.increment_and_get("k", 1), Ok(4));
    assert_eq!(fake.asked(), ["a:1", "c:1", "c:1"]);
}

#[test]
fn without_a_redirect_everybody_is_asked() {
    let none = || not_leader("");
    let script = [none(), none(), none(), none(), carried(Answer::Changed(true))];
    let (fake, client) = Fake::client(script, patient());
    client.set("k", 1).unwrap();
    let mut asked = fake.asked();
    asked.sort();
    asked.dedup();
    assert_eq!(asked, ["a:1", "b:1", "c:1"]);
}

#[test]
fn what_was_not_taken_is_sent_again() {
    let refused = || Act::Error(not_connected());
    let full = Act::Error(RpcError::Busy { endpoint: "a:1".into() });
    let script = [refused(), busy(), full, refused(), carried(Answer::Changed(false))];
    let (fake, client) = Fake::client(script, patient());
    assert_eq!(client.compare_and_set("k", 1, 2), Ok(false));
    assert_eq!(fake.asked().len(), 5);
}

#[test]
fn an_unknown_write_is_never_sent_again() {
    for act in [unknown(), Act::Error(lost()), Act::Error(timed_out()), Act::Garbage] {
        let (fake, client) = Fake::client([act, carried(Answer::Value(Some(1)))], patient());
        assert!(matches!(client.increment_and_get("k", 1), Err(ClientError::Unknown(_))));
        assert_eq!(fake.asked().len(), 1);
    }
    let (fake, client) = Fake::client([unknown(), carried(Answer::Changed(true))], patient());
    assert!(matches!(client.set("k", 1), Err(ClientError::Unknown(_))));
    assert_eq!(fake.asked().len(), 1);
    let retry_sets = ClientOptions { retry_unknown_sets: true, ..patient() };
    let (fake, client) = Fake::client([unknown(), carried(Answer::Changed(true))], retry_sets);
    assert!(matches!(client.compare_and_set("k", 1, 2), Err(ClientError::Unknown(_))), "only sets");
    assert_eq!(fake.asked().len(), 1);
}

#[test]
fn an_unknown_set_is_sent_again_when_the_caller_says_so() {
    let options = ClientOptions { retry_unknown_sets: true, ..patient() };
    let (fake, client) = Fake::client([Act::Error(lost()), carried(Answer::Changed(true))], options);
    client.set("k", 1).unwrap();
    assert_eq!(fake.asked().len(), 2);
}

#[test]
fn doubt_about_an_earlier_attempt_stays() {
    let options = ClientOptions { retry_unknown_sets: true, ..quick() };
    let (_, client) = Fake::client([Act::Error(lost()), busy()], options.clone());
    assert!(
        matches!(client.set("k", 1), Err(ClientError::Unknown(_))),
        "the first may have been carried out"
    );
    let refusal = Act::Answer(Err(Failure::definite(RaftError::Invalid, "no")));
    let (_, client) = Fake::client([Act::Error(lost()), refusal], options);
    assert!(matches!(client.set("k", 1), Err(ClientError::Unknown(_))));
}

#[test]
fn reads_are_always_sent_again() {
    let script =
        [Act::Error(lost()), unknown(), Act::Error(timed_out()), Act::Garbage, carried(Answer::Value(None))];
    let (fake, client) = Fake::client(script, patient());
    assert_eq!(client.get("k", ReadMode::ThroughLog), Ok(None));
    assert_eq!(fake.asked().len(), 5);
    let one_server = client.inner.options.read_attempt_timeout;
    assert!(
        fake.0.lock().timeouts.iter().all(|timeout| *timeout <= one_server),
        "no server gets all of the time"
    );
}

/// A read through the quorum, at the leader.
const QUORUM: ReadMode = ReadMode::Quorum { from: ReadFrom::Leader, lease: false };
/// The same, at whoever is asked.
const QUORUM_ANYWHERE: ReadMode = ReadMode::Quorum { from: ReadFrom::AnyReplica, lease: false };

#[test]
fn quorum_reads_go_to_the_leader_or_to_anybody() {
    let value = || carried(Answer::Value(Some(1)));
    let (fake, client) = Fake::client([not_leader("c:1"), value(), value()], patient());
    assert_eq!((client.get("k", QUORUM), client.get("k", QUORUM)), (Ok(Some(1)), Ok(Some(1))));
    assert_eq!(fake.asked(), ["a:1", "c:1", "c:1"]);

    let refused = || Act::Answer(Err(ApplyError::NotLeader { leader: None }.into()));
    let (fake, client) = Fake::client([refused(), refused(), value()], patient());
    assert_eq!(client.get("k", QUORUM_ANYWHERE), Ok(Some(1)));
    let mut asked = fake.asked();
    asked.sort();
    assert_eq!(asked, ["a:1", "b:1", "c:1"], "another one for each attempt");
}

#[test]
fn quorum_reads_that_were_not_confirmed_are_sent_again() {
    let late = || {
        let status = Status::new(RaftError::TimedOut, "no quorum");
        Act::Answer(Err(Failure::of_read(ApplyError::ReadFailed(status))))
    };
    let lost_sight = || {
        let status = Status::new(RaftError::NodeShutdown, "stopping");
        Act::Answer(Err(Failure::of_read(ApplyError::Unknown(status))))
    };
    for mode in [QUORUM, QUORUM_ANYWHERE] {
        let script = [late(), Act::Error(lost()), busy(), lost_sight(), carried(Answer::Value(None))];
        let (fake, client) = Fake::client(script, patient());
        assert_eq!(client.get("k", mode), Ok(None));
        assert_eq!(fake.asked().len(), 5);
    }
}

#[test]
fn a_read_that_nobody_answers_has_timed_out() {
    let (_, client) = Fake::client([Act::Error(lost())], quick());
    assert!(matches!(client.get("k", ReadMode::Local), Err(ClientError::Timeout(_))));
}

#[test]
fn the_error_says_why_nobody_took_it() {
    let (_, client) = Fake::client([], quick());
    assert!(matches!(client.set("k", 1), Err(ClientError::Timeout(_))));
    let (_, client) = Fake::client(std::iter::repeat_with(busy).take(1000), quick());
    assert!(matches!(client.set("k", 1), Err(ClientError::Busy(_))));
    let (_, client) = Fake::client(std::iter::repeat_with(|| not_leader("")).take(1000), quick());
    assert!(matches!(client.set("k", 1), Err(ClientError::NotLeader(_))));
}

#[test]
fn servers_that_name_each_other_are_not_asked_without_end() {
    let circle = (0..10_000).map(|i| not_leader(if i % 2 == 0 { "b:1" } else { "a:1" }));
    let (fake, client) = Fake::client(circle, quick());
    assert!(matches!(client.set("k", 1), Err(ClientError::NotLeader(_))));
    assert!(fake.asked().len() < 100, "{} requests", fake.asked().len());
}

#[test]
fn what_no_server_will_take_is_refused_at_once() {
    let (fake, client) = Fake::client([], patient());
    assert!(matches!(client.set("", 1), Err(ClientError::Invalid(_))));
    assert!(fake.asked().is_empty());
    let refusal = Act::Answer(Err(Failure::definite(RaftError::Invalid, "malformed")));
    let (fake, client) = Fake::client([refusal], patient());
    assert!(matches!(client.get("k", QUORUM), Err(ClientError::Invalid(_))));
    assert_eq!(fake.asked().len(), 1);
}

#[test]
fn a_client_that_ends_answers_what_waits() {
    let hour = ClientOptions {
        backoff_min: Duration::from_secs(3600),
        backoff_max: Duration::from_secs(3600),
        timeout: Duration::from_secs(7200),
        ..ClientOptions::default()
    };
    let (_, client) = Fake::client([busy()], hour);
    let (sender, receiver) = mpsc::channel();
    let command = Command::Set { key: "k".into(), value: 1 };
    client.submit(command, ReadMode::default(), Duration::from_secs(7200), move |outcome| {
        sender.send(outcome).unwrap();
    });
    drop(client);
    assert!(matches!(receiver.recv(), Ok(Err(ClientError::Timeout(_)))));
    assert!(receiver.recv().is_err(), "only once");
}

#[test]
fn nobody_to_ask() {
    let fake = Fake::default();
    assert!(matches!(AtomicClient::over(Box::new(fake), &[], quick()), Err(ClientError::Invalid(_))));
}
