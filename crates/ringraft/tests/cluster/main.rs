//! Hosts in one process: election, replication, restarts, failures of users' code, overload, shutdown, requests of users;
//! members, leadership, reads and their administration; clusters that name one server, and members without memory.

mod agreement;
mod cli_service;
mod disk_loop;
mod failures;
mod full_disk;
mod leadership;
mod lives;
mod many_groups;
mod membership;
mod reads;
mod restart;
mod route_table;
mod rpc;
mod start;
mod support;
mod waiting;
mod whose;
