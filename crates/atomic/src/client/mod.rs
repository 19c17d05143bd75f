//! The routing client: finds the ranges, sends each request to the leader of its group, repeats what is safe to repeat.

mod call;
mod cluster;
mod error;
mod in_flight;
mod retry;
mod server;
#[cfg(test)]
mod silence_tests;
mod table;
#[cfg(test)]
mod tests;
mod transport;
mod watch;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protobuf::Message;
use ringraft::{PeerId, RpcClient, RpcClientOptions, RpcResult};
use ringraft_proto::class;
use ringraft_proto::generated::atomic as proto;

use crate::command::{Answer, Command, ReadMode};
use crate::describe::ServerDescription;

use call::Call;
use cluster::{InCluster, wrong_cluster};
pub use error::ClientError;
use in_flight::InFlight;
use retry::RetryQueue;
pub use table::SlotInfo;
use table::{SlotTable, decode_slots};
use transport::ClientTransport;

/// Settings of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long a request may take, all attempts together (5 s).
    pub timeout: Duration,
    /// Id of the cluster that is meant; servers of another refuse every request. `None`: that of the first server that answers.
    pub cluster_id: Option<String>,
    /// Send a SET again whose outcome is unknown (false). Right only when nobody else sets the counter: the first one may be carried out
    /// after the second, and after what others have set in between.
    pub retry_unknown_sets: bool,
    /// How long a request waits for a connection before another server is asked (200 ms).
    pub connect_timeout: Duration,
    /// How long one server has to answer a read before another is asked (1 s).
    pub read_attempt_timeout: Duration,
    /// How long a server may leave requests waiting, and answer nothing else either, before the others are asked who leads (500 ms).
    /// It is avoided from then on, until it answers something or a penalty is over.
    pub silence: Duration,
    /// First pause before a request is sent again (2 ms); it doubles with each attempt.
    pub backoff_min: Duration,
    /// Longest pause (50 ms).
    pub backoff_max: Duration,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            timeout: Duration::from_secs(5),
            cluster_id: None,
            retry_unknown_sets: false,
            connect_timeout: Duration::from_millis(200),
            read_attempt_timeout: Duration::from_secs(1),
            silence: Duration::from_millis(500),
            backoff_min: Duration::from_millis(2),
            backoff_max: Duration::from_millis(50),
        }
    }
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the state machine answered.
    pub answer: Answer,
    /// The group that answered.
    pub group: String,
    /// Position of its range.
    pub slot: usize,
    /// Index in the log; of a read through a quorum the index up to which the replica had applied at least, of a local read 0.
    pub index: u64,
    /// `ip:port` of the server that answered.
    pub server: Arc<str>,
    /// Requests that were sent for it.
    pub attempts: u32,
    /// How long it took, all attempts together.
    pub latency: Duration,
}

pub(crate) struct Inner {
    transport: InCluster<Box<dyn ClientTransport>>,
    options: ClientOptions,
    table: SlotTable,
    in_flight: InFlight<Call>,
    retries: RetryQueue,
}

/// Sends requests to the servers of one cluster. It runs two threads; any number of requests may wait at a time. Dropping it answers
/// what waits with an error.
pub struct AtomicClient {
    inner: Arc<Inner>,
}

impl AtomicClient {
    /// Asks the peers in turn for the ranges, until one answers.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when none has answered within the options' time-out, [`ClientError::WrongCluster`] when they belong to
    /// another cluster than the options say, or to two, [`ClientError::Invalid`] when what was answered
    /// cannot be used or a thread cannot be started.
    pub fn connect(peers: &[PeerId], options: ClientOptions) -> Result<AtomicClient, ClientError> {
        AtomicClient::over(Box::new(rpc_client(&options)?), peers, options)
    }

    fn over(
        transport: Box<dyn ClientTransport>,
        peers: &[PeerId],
        options: ClientOptions,
    ) -> Result<AtomicClient, ClientError> {
        let known: Vec<Arc<str>> = peers.iter().map(|peer| peer.endpoint().into()).collect();
        let transport = InCluster::new(transport, options.cluster_id.as_deref());
        let was_told = transport.knows();
        let slots = find_slots(&transport, &known, &options)?;
        if !was_told && transport.knows() {
            transport.check_strangers(&known, &slots, options.connect_timeout.min(options.timeout))?;
        }
        let table = SlotTable::new(&slots, &known).map_err(ClientError::Invalid)?;
        let thread = |error: std::io::Error| ClientError::Invalid(format!("cannot start a thread: {error}"));
        let retries = RetryQueue::start().map_err(thread)?;
        Ok(AtomicClient {
            inner: Arc::new(Inner { transport, options, table, in_flight: InFlight::default(), retries }),
        })
    }

    /// Number of ranges.
    pub fn slot_count(&self) -> usize {
        self.inner.table.len()
    }

    /// Position of the range of a key.
    pub fn slot_of(&self, key: &str) -> usize {
        self.inner.table.locate(key)
    }

    /// Sends a request and returns; `done` gets its outcome exactly once, within `timeout` and a little, on a thread of the
    /// client that it must not block, or at once on this one. `mode` is for reads.
    pub fn submit(
        &self,
        command: Command,
        mode: ReadMode,
        timeout: Duration,
        done: impl FnOnce(Result<Outcome, ClientError>) + Send + 'static,
    ) {
        if let Some(call) = Call::new(Arc::clone(&self.inner), command, mode, timeout, Box::new(done)) {
            call.attempt();
        }
    }

    /// Sends a request and waits for its outcome.
    ///
    /// # Errors
    /// [`ClientError`]; only [`ClientError::Unknown`] leaves open whether the request was carried out.
    pub fn execute(&self, command: Command, mode: ReadMode) -> Result<Outcome, ClientError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(command, mode, self.inner.options.timeout, move |outcome| {
            // The receiver waits as long as it takes.
            let _ = sender.send(outcome);
        });
        receiver.recv().unwrap_or_else(|_| Err(ClientError::Unknown("the request was dropped".into())))
    }

    /// Sets a counter.
    ///
    /// # Errors
    /// As for [`execute`](AtomicClient::execute).
    pub fn set(&self, key: &str, value: i64) -> Result<(), ClientError> {
        self.execute(Command::Set { key: key.into(), value }, ReadMode::default()).map(drop)
    }

    /// Sets a counter if it has the expected value; says whether it had.
    ///
    /// # Errors
    /// As for [`execute`](AtomicClient::execute).
    pub fn compare_and_set(&self, key: &str, expect: i64, new_value: i64) -> Result<bool, ClientError> {
        let command = Command::CompareAndSet { key: key.into(), expect, new_value };
        Ok(self.execute(command, ReadMode::default())?.changed() == Some(true))
    }

    /// Adds to a counter and returns the sum.
    ///
    /// # Errors
    /// As for [`execute`](AtomicClient::execute).
    pub fn increment_and_get(&self, key: &str, delta: i64) -> Result<i64, ClientError> {
        let command = Command::IncrementAndGet { key: key.into(), delta };
        Ok(self.execute(command, ReadMode::default())?.value().unwrap_or_default())
    }

    /// Reads a counter; `None` when it was never set.
    ///
    /// # Errors
    /// As for [`execute`](AtomicClient::execute); a read that nobody answers is [`ClientError::Timeout`].
    pub fn get(&self, key: &str, mode: ReadMode) -> Result<Option<i64>, ClientError> {
        Ok(self.execute(Command::Get { key: key.into() }, mode)?.value())
    }

    /// Ends the client: requests that wait fail. Safe to call twice.
    pub fn shutdown(&self) {
        self.inner.retries.close();
        self.inner.transport.shutdown();
        for pending in self.inner.in_flight.take_if(|_| true) {
            pending.call.abandon();
        }
    }
}

impl Drop for AtomicClient {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Asks the peers in turn for the ranges and their groups, until one answers; only those of the cluster, when its id is given.
///
/// # Errors
/// [`ClientError::Timeout`] when none has answered within `timeout`, [`ClientError::Invalid`] when a thread cannot be started.
pub fn slots(
    peers: &[PeerId],
    cluster_id: Option<&str>,
    timeout: Duration,
) -> Result<Vec<SlotInfo>, ClientError> {
    let known: Vec<Arc<str>> = peers.iter().map(|peer| peer.endpoint().into()).collect();
    let options = ClientOptions { timeout, ..ClientOptions::default() };
    find_slots(&InCluster::new(rpc_client(&options)?, cluster_id), &known, &options)
}

/// Asks one server for the state of its process and of its replicas, or of one group.
///
/// # Errors
/// [`ClientError::Timeout`] when it does not answer, [`ClientError::Invalid`] when it refuses.
pub fn describe(server: &PeerId, group: &str, timeout: Duration) -> Result<ServerDescription, ClientError> {
    // One server only: all of the time is for it.
    let options = ClientOptions { connect_timeout: timeout, ..ClientOptions::default() };
    describe_over(&rpc_client(&options)?, &server.endpoint(), group, timeout)
}

/// Has a server drop the log of its replica of a group, which must have failed, and bring it back as a member that has lost its disk. An empty
/// `cluster_id` means whatever cluster it belongs to.
///
/// # Errors
/// [`RpcError::Remote`](ringraft::RpcError::Remote) with the server's reason; any other says how the request was lost.
pub fn rejoin(
    client: &RpcClient,
    server: &PeerId,
    group: &str,
    cluster_id: &str,
    creation: u64,
    timeout: Duration,
) -> Result<(), ringraft::RpcError> {
    let (group, cluster_id) = (group.to_owned(), cluster_id.to_owned());
    let request = proto::RejoinRequest { group, cluster_id, creation, ..Default::default() };
    // Only messages beyond 2 GiB cannot be written.
    let content = request.write_to_bytes().unwrap_or_default();
    client.call(&server.endpoint(), class::ATOMIC_REJOIN_REQUEST, content.into(), timeout).map(drop)
}

fn rpc_client(options: &ClientOptions) -> Result<RpcClient, ClientError> {
    let connect_timeout_ms = options.connect_timeout.as_millis() as u64;
    RpcClient::new(RpcClientOptions { connect_timeout_ms })
        .map_err(|error| ClientError::Invalid(error.to_string()))
}

fn describe_over(
    transport: &dyn ClientTransport,
    endpoint: &str,
    group: &str,
    timeout: Duration,
) -> Result<ServerDescription, ClientError> {
    let request = proto::DescribeRequest { group: group.to_owned(), ..Default::default() };
    let content = request.write_to_bytes().map_err(|error| ClientError::Invalid(error.to_string()))?;
    let class = class::ATOMIC_DESCRIBE_REQUEST;
    let response = call_and_wait(transport, endpoint, class, content.into(), timeout)
        .map_err(|error| ClientError::Timeout(error.to_string()))?;
    ServerDescription::decode(&response.content).map_err(ClientError::Invalid)
}

fn find_slots<T: ClientTransport>(
    transport: &InCluster<T>,
    servers: &[Arc<str>],
    options: &ClientOptions,
) -> Result<Vec<SlotInfo>, ClientError> {
    if servers.is_empty() {
        return Err(ClientError::Invalid("no server is named; give at least one as ip:port".into()));
    }
    let deadline = Instant::now() + options.timeout;
    let mut last = String::from("no time to ask");
    let (sender, answers) = mpsc::channel();
    for round in 0.. {
        let mut foreign = 0;
        for server in servers {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Timeout(last));
            }
            let (sender, asked) = (sender.clone(), Arc::clone(server));
            let done = Box::new(move |result: RpcResult| {
                // Nobody listens any more when another was quicker.
                let _ = sender.send((asked, result));
            });
            let class = class::ATOMIC_GET_SLOTS_REQUEST;
            transport.call(server, class, Bytes::new(), left.min(options.read_attempt_timeout), done);
            // One that hangs is not waited for: the next is asked as well, and whoever answers first is believed.
            let Ok((server, result)) = answers.recv_timeout(left.min(options.connect_timeout)) else {
                continue;
            };
            if let Some(message) = wrong_cluster(&result) {
                (foreign, last) = (foreign + 1, message);
                if foreign == servers.len() {
                    return Err(ClientError::WrongCluster(last));
                }
                continue;
            }
            match result {
                Ok(response) => match decode_slots(&response.content) {
                    Ok((slots, cluster_id)) => {
                        transport.learn(&cluster_id);
                        return Ok(slots);
                    }
                    Err(message) => last = format!("{server}: {message}"),
                },
                Err(error) => last = error.to_string(),
            }
        }
        let pause = options.backoff_min.saturating_mul(1 << round.min(10)).min(options.backoff_max);
        std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
    }
    Err(ClientError::Timeout(last))
}

fn call_and_wait(
    transport: &dyn ClientTransport,
    endpoint: &str,
    class: &'static str,
    content: Bytes,
    timeout: Duration,
) -> RpcResult {
    let (sender, receiver) = mpsc::sync_channel(1);
    let done = Box::new(move |result| {
        // The receiver waits as long as it takes.
        let _ = sender.send(result);
    });
    transport.call(endpoint, class, content, timeout, done);
    receiver.recv().unwrap_or(Err(ringraft::RpcError::Closed))
}
