//! A multi-raft replication engine: hosts, lanes, pipeline handlers, node handles.
//!
//! A [`RaftHost`] runs any number of raft groups on a fixed set of threads. A group is started with a [`StateMachine`]; the
//! [`Node`] handle takes [`Task`]s, or proposals that are awaited. A group with one voter takes writes when its start returns; others
//! elect a leader first, for which [`Node::wait_for_leader`] waits, and take writes where it is.
//!
//! ```no_run
//! use std::time::Duration;
//! use ringraft::{HostOptions, Iterator, NodeOptions, RaftGroupService, RaftHost, StartMode, StateMachine, StoreOptions};
//!
//! struct Count(u64);
//! impl StateMachine for Count {
//!     fn on_apply(&mut self, iter: &mut Iterator<'_>) {
//!         while iter.next().is_some() {
//!             self.0 += 1;
//!             iter.set_response(self.0.to_be_bytes().to_vec());
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = HostOptions::new("127.0.0.1:8081", StoreOptions::segment("/var/lib/counter"));
//! options.start_mode = StartMode::Bootstrap;
//! let host = RaftHost::start(options)?;
//! let node_options = NodeOptions::with_initial_conf("127.0.0.1:8081".parse()?);
//! let node = RaftGroupService::new("counter", "127.0.0.1:8081".parse()?, node_options, Count(0)).start(&host)?;
//! node.wait_for_leader(Duration::from_secs(10))?;
//! let applied = node.propose("increment").wait(Duration::from_secs(5))?;
//! println!("entry {} answered {:?}", applied.index, applied.response);
//! host.shutdown();
//! # Ok(())
//! # }
//! ```
//!
//! # Metrics
//! Recorded through the `metrics` facade, per batch and never per entry, under SOFAJRaft's names: histograms `append-logs` (ms),
//! `append-logs-count`, `append-logs-bytes`, `replicate-entries-count`, `replicate-entries-bytes`, `handle-append-entries-count`,
//! `fsm-apply-tasks` (ms), `fsm-apply-tasks-count`, `handle-read-index-entries`; the counters `apply-task-overload-times`,
//! `read-index-overload-times` and `heartbeat-times`; gauges `.buffer-size` and `.remaining-capacity` of
//! `jraft-node-impl-disruptor` (size only), `jraft-log-manager-disruptor` and `jraft-fsm-caller-disruptor`. Without a recorder they
//! cost next to nothing.
#![deny(missing_docs)]

mod cli;
mod error;
pub mod handler;
mod host;
mod identity;
mod node;
mod options;
mod pipeline;
pub mod rpc;
mod state_machine;
mod status;
mod task;
mod thread;

pub use cli::{CliError, CliOptions, CliService, PeersChanged, Rebalanced, RouteTable};
pub use error::{HostOptionsError, StartError};
pub use host::descriptors::raise_descriptor_limit;
pub use host::options::{HostOptions, StartMode, StoreOptions, TransportOptions};
pub use host::recover_cluster::{RecoverError, RecoverGroups, RecoveredGroup, recover_cluster};
pub use host::service::RaftGroupService;
pub use host::{GroupStart, HostDescription, RaftHost};
pub use identity::cluster_gate::ClusterGate;
pub use identity::cluster_id::derive_cluster_id;
pub use identity::creation::begins_anew;
pub use node::Node;
pub use node::calls::{CallFuture, ReadIndexFuture};
pub use options::{ApplyTaskMode, NodeOptions, OptionsError, RaftOptions};
pub use ringraft_core::{
    CallDone, CallFailure, Configuration, ConfigurationEntry, GroupId, LogId, LogIndex, Members,
    MembershipChange, NodeDescription, NodeState, PeerId, RaftError, ReadOnlyOption, ReplicatorDescription,
    Status, Term,
};
pub use ringraft_net::{Endpoint, NetLoopOptions, inproc};
pub use ringraft_storage::{SegmentLogOptions, StoredGroup};
pub use rpc::client::{RpcClient, RpcClientOptions, RpcError, RpcResponse, RpcResult};
pub use rpc::user::{Responder, UserProcessor, UserRequest};
pub use state_machine::iterator::{Entries, Entry, Iterator};
pub use state_machine::{LeaderChangeContext, StateMachine};
pub use status::leader_watch::LeaderFuture;
pub use task::Task;
pub use task::closure_queue::{ClosureBatch, ClosureQueue};
pub use task::completion::{
    Applied, ApplyError, ApplyResult, Completion, CompletionSink, Deliveries, SinkId,
};
pub use task::propose_future::ProposeFuture;
