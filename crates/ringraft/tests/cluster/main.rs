//! Hosts in one process: election, replication, restarts, failures of users' code, overload, shutdown, requests of users.

mod agreement;
mod failures;
mod restart;
mod rpc;
mod start;
mod support;
