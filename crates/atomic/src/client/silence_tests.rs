//! The client against servers that hang, end, come back and move.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use ringraft::{ApplyError, RpcError, RpcResponse};

use super::transport::CallDone;
use super::*;
use crate::command::ReadFrom;
use crate::reply::{self, Reply, ReplyKind, ReplyResult};

/// Longer than any test waits: what has an outcome did not get it by running out of time.
const NEVER: Duration = Duration::from_secs(3600);
/// How long a test waits for an outcome before it fails.
const LIMIT: Duration = Duration::from_secs(20);

/// How a server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Leads,
    /// Names this leader; nobody when it is empty.
    Follows(&'static str),
    /// Takes requests and answers none, until it is in another state.
    Hangs,
    /// Cannot be reached.
    Down,
    /// Takes requests and forgets them: their outcome never comes.
    Forgets,
}

struct Request {
    at: String,
    class: &'static str,
    done: CallDone,
}

#[derive(Default)]
struct World {
    states: BTreeMap<String, State>,
    held: Vec<Request>,
    /// Where requests for counters went, in order.
    sent: Vec<String>,
}

/// Servers of one group, in this process.
#[derive(Clone, Default)]
struct Servers(Arc<Mutex<World>>);

impl Servers {
    fn new(states: &[(&str, State)]) -> Servers {
        let servers = Servers::default();
        servers.become_(states);
        servers
    }

    /// Changes states; servers that do not hang any more answer what they hold.
    fn become_(&self, states: &[(&str, State)]) {
        let held = {
            let mut world = self.0.lock();
            world.states.extend(states.iter().map(|(at, state)| ((*at).to_owned(), state.clone())));
            std::mem::take(&mut world.held)
        };
        held.into_iter().for_each(|request| self.answer(request));
    }

    fn client(&self, conf: &[&str]) -> AtomicClient {
        let peers: Vec<PeerId> = conf.iter().map(|peer| peer.parse().unwrap()).collect();
        let options = ClientOptions {
            timeout: NEVER,
            connect_timeout: Duration::from_millis(5),
            silence: Duration::from_millis(20),
            ..ClientOptions::default()
        };
        AtomicClient::over(Box::new(self.clone()), &peers, options).unwrap()
    }

    fn sent(&self) -> Vec<String> {
        self.0.lock().sent.clone()
    }

    fn answer(&self, request: Request) {
        let mut world = self.0.lock();
        let state = world.states.get(&request.at).cloned().unwrap_or(State::Down);
        let Request { at, class, done } = request;
        if state == State::Hangs {
            return world.held.push(Request { at, class, done });
        }
        let peers = world.states.keys().cloned().collect();
        drop(world);
        let leader = match &state {
            State::Leads => at.as_str(),
            State::Follows(leader) => leader,
            State::Down => {
                return done(Err(RpcError::NotConnected { endpoint: at, reason: "refused".into() }));
            }
            State::Hangs | State::Forgets => return drop(done),
        };
        if class == class::ATOMIC_GET_SLOTS_REQUEST {
            let slot =
                proto::Slot { group: "g_0".into(), peers, leader: leader.into(), ..Default::default() };
            let message = proto::SlotsResponse { success: true, slots: vec![slot], ..Default::default() };
            let content = message.write_to_bytes().unwrap().into();
            return done(Ok(RpcResponse { class: class::ATOMIC_SLOTS_RESPONSE.into(), content }));
        }
        let outcome: ReplyResult = if state == State::Leads || class == class::ATOMIC_GET_REQUEST {
            Ok(Reply { answer: Answer::Value(Some(1)), group: "g_0".into(), index: 7 })
        } else {
            Err(ApplyError::NotLeader { leader: leader.parse().ok() }.into())
        };
        let kind = ReplyKind::Value;
        let content = reply::encode(kind, "g_0", &outcome);
        done(Ok(RpcResponse { class: kind.class().into(), content }));
    }
}

impl ClientTransport for Servers {
    fn call(&self, endpoint: &str, class: &'static str, _: Bytes, _: Duration, done: CallDone) {
        if class != class::ATOMIC_GET_SLOTS_REQUEST {
            self.0.lock().sent.push(endpoint.to_owned());
        }
        self.answer(Request { at: endpoint.to_owned(), class, done });
    }

    fn shutdown(&self) {
        self.0.lock().held.clear();
    }
}

type Outcomes = mpsc::Receiver<Result<Outcome, ClientError>>;

/// Sends increments, which must not be sent again when their outcome is unknown.
fn increments(client: &AtomicClient, count: usize, timeout: Duration) -> Outcomes {
    let (sender, outcomes) = mpsc::channel();
    for _ in 0..count {
        let sender = sender.clone();
        let command = Command::IncrementAndGet { key: "k".into(), delta: 1 };
        client.submit(command, ReadMode::default(), timeout, move |outcome| {
            // A test that has failed listens no more.
            let _ = sender.send(outcome);
        });
    }
    outcomes
}

fn read(client: &AtomicClient, mode: ReadMode) -> Result<Option<i64>, ClientError> {
    let (sender, outcomes) = mpsc::channel();
    client.submit(Command::Get { key: "k".into() }, mode, NEVER, move |outcome| {
        // A test that has failed listens no more.
        let _ = sender.send(outcome);
    });
    next(&outcomes).map(|outcome| outcome.value())
}

fn next(outcomes: &Outcomes) -> Result<Outcome, ClientError> {
    outcomes.recv_timeout(LIMIT).expect("an outcome, long before the request's own time is over")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < limit, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The leader hangs and does not end, with requests at it; the others elect another after a while. Wherever it stands in the list.
#[test]
fn the_next_leader_of_one_that_hangs_is_found() {
    for conf in [["a:1", "b:1", "c:1"], ["b:1", "a:1", "c:1"], ["c:1", "b:1", "a:1"]] {
        let follows = || State::Follows("a:1");
        let servers = Servers::new(&[("a:1", State::Leads), ("b:1", follows()), ("c:1", follows())]);
        let client = servers.client(&conf);
        assert!(next(&increments(&client, 1, NEVER)).is_ok());
        servers.become_(&[("a:1", State::Hangs)]);
        let waiting = increments(&client, 4, NEVER);
        let hung = client.inner.table.server(&"a:1".into());
        wait_until("it is noticed", || hung.is_avoided(Instant::now()));
        // The others have not missed it yet and name it: what comes now is not sent into the dark.
        let later = increments(&client, 4, NEVER);
        wait_until("the others are asked", || servers.sent().len() >= 20);
        assert_eq!(
            servers.sent().iter().filter(|at| *at == "a:1").count(),
            5,
            "{conf:?}: {:?}",
            servers.sent()
        );
        servers.become_(&[("b:1", State::Leads), ("c:1", State::Follows("b:1"))]);
        for _ in 0..4 {
            let unknown = next(&waiting);
            assert!(matches!(&unknown, Err(ClientError::Unknown(_))), "{conf:?}: {unknown:?}");
        }
        for outcomes in [later, increments(&client, 4, NEVER)] {
            for _ in 0..4 {
                assert_eq!(next(&outcomes).map(|outcome| outcome.server.to_string()), Ok("b:1".to_owned()));
            }
        }
        assert_eq!(servers.sent().iter().filter(|at| *at == "a:1").count(), 5, "{conf:?}: none twice");
    }
}

/// A leader that stalls and goes on has not been replaced: its requests are waited for.
#[test]
fn a_leader_that_stalls_and_goes_on_is_waited_for() {
    let servers = Servers::new(&[("a:1", State::Leads), ("b:1", State::Follows("a:1"))]);
    let client = servers.client(&["a:1", "b:1"]);
    servers.become_(&[("a:1", State::Hangs)]);
    let waiting = increments(&client, 4, NEVER);
    let stalled = client.inner.table.server(&"a:1".into());
    wait_until("it is noticed", || stalled.is_avoided(Instant::now()));
    let later = increments(&client, 4, NEVER);
    wait_until("the other is asked", || servers.sent().iter().any(|at| at == "b:1"));
    servers.become_(&[("a:1", State::Leads)]);
    for outcomes in [waiting, later] {
        for _ in 0..4 {
            assert!(next(&outcomes).is_ok());
        }
    }
}

/// Reads do no harm: they are sent again at once.
#[test]
fn reads_leave_a_server_that_hangs() {
    let follows = || State::Follows("c:1");
    let servers = Servers::new(&[("a:1", follows()), ("b:1", follows()), ("c:1", State::Leads)]);
    let client = servers.client(&["a:1", "b:1", "c:1"]);
    for mode in [
        ReadMode::Local,
        ReadMode::Quorum { from: ReadFrom::AnyReplica, lease: false },
        ReadMode::ThroughLog,
        ReadMode::Quorum { from: ReadFrom::Leader, lease: false },
    ] {
        servers.become_(&[("a:1", State::Hangs), ("b:1", State::Leads), ("c:1", State::Hangs)]);
        for _ in 0..4 {
            assert_eq!(read(&client, mode), Ok(Some(1)), "{mode:?}");
        }
        servers.become_(&[("a:1", follows()), ("b:1", follows()), ("c:1", State::Leads)]);
        assert_eq!(read(&client, mode), Ok(Some(1)), "{mode:?}");
    }
}

#[test]
fn a_client_starts_though_the_first_servers_hang() {
    let hung = || State::Hangs;
    let servers = Servers::new(&[("a:1", hung()), ("b:1", hung()), ("c:1", State::Leads)]);
    let client = servers.client(&["a:1", "b:1", "c:1"]);
    assert!(next(&increments(&client, 1, NEVER)).is_ok());
}

/// A server that ends and starts again is found again, with the requests that came meanwhile.
#[test]
fn a_leader_that_restarts_is_found_again() {
    let servers = Servers::new(&[("a:1", State::Leads), ("b:1", State::Follows("a:1"))]);
    let client = servers.client(&["a:1", "b:1"]);
    servers.become_(&[("a:1", State::Down)]);
    let waiting = increments(&client, 4, NEVER);
    wait_until("the other is asked", || servers.sent().iter().any(|at| at == "b:1"));
    servers.become_(&[("a:1", State::Leads)]);
    for _ in 0..4 {
        assert_eq!(next(&waiting).map(|outcome| outcome.server.to_string()), Ok("a:1".to_owned()));
    }
}

/// The members move to other addresses one after the other; in the end none is left of those that the client was given.
#[test]
fn members_that_moved_are_followed() {
    let follows = |leader| State::Follows(leader);
    let servers = Servers::new(&[("a:1", State::Leads), ("b:1", follows("a:1"))]);
    let client = servers.client(&["a:1", "b:1"]);
    assert!(next(&increments(&client, 1, NEVER)).is_ok());
    servers.become_(&[("a:1", State::Down), ("b:1", follows("c:1")), ("c:1", State::Leads)]);
    assert_eq!(next(&increments(&client, 1, NEVER)).map(|o| o.server.to_string()), Ok("c:1".to_owned()));
    servers.become_(&[("b:1", State::Hangs), ("c:1", follows("d:1")), ("d:1", State::Leads)]);
    assert_eq!(next(&increments(&client, 1, NEVER)).map(|o| o.server.to_string()), Ok("d:1".to_owned()));
    // No leader is known now, and the write must not go to the one that hangs just to be told who leads.
    let hung = client.inner.table.server(&"b:1".into());
    wait_until("it was last heard a while ago", || {
        !hung.is_heard(Instant::now(), client.inner.options.silence)
    });
    servers.become_(&[("c:1", State::Leads), ("d:1", State::Down)]);
    assert_eq!(next(&increments(&client, 1, NEVER)).map(|o| o.server.to_string()), Ok("c:1".to_owned()));
}

/// However a request is lost on the way: it may have been carried out, and nobody says that it was not.
#[test]
fn a_write_in_doubt_never_has_a_definite_error() {
    let servers = Servers::new(&[("a:1", State::Leads)]);
    let client = servers.client(&["a:1"]);
    servers.become_(&[("a:1", State::Forgets)]);
    let forgotten = next(&increments(&client, 1, Duration::from_millis(20)));
    assert!(matches!(&forgotten, Err(ClientError::Unknown(_))), "{forgotten:?}");

    for state in [State::Forgets, State::Hangs] {
        servers.become_(&[("a:1", state)]);
        let client = servers.client_of_running(&["a:1"]);
        let waiting = increments(&client, 1, NEVER);
        drop(client);
        let ended = next(&waiting);
        assert!(matches!(&ended, Err(ClientError::Unknown(_))), "{ended:?}");
    }
}

impl Servers {
    /// A client that has started before the servers came to behave as they do.
    fn client_of_running(&self, conf: &[&str]) -> AtomicClient {
        let now = self.0.lock().states.clone();
        self.become_(&[("a:1", State::Leads)]);
        let client = self.client(conf);
        self.0.lock().states = now;
        client
    }
}
