// A counter on one server: the program of README.md.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use ringraft::{
    HostOptions, Iterator, NodeOptions, RaftGroupService, RaftHost, StartMode, StateMachine, StoreOptions,
};

struct Count(u64);

impl StateMachine for Count {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        while iter.next().is_some() {
            self.0 += 1;
            iter.set_response(self.0.to_be_bytes().to_vec());
        }
    }
}

fn run(endpoint: &str, dir: &Path) -> Result<u64, Box<dyn Error>> {
    let mut options = HostOptions::new(endpoint, StoreOptions::segment(dir));
    options.start_mode = StartMode::Bootstrap; // a blank directory is refused otherwise
    let host = RaftHost::start(options)?;
    let members = NodeOptions::with_initial_conf(endpoint.parse()?); // "ip:port,ip:port,ip:port" for three
    let node = RaftGroupService::new("counter", endpoint.parse()?, members, Count(0)).start(&host)?;
    node.wait_for_leader(Duration::from_secs(10))?; // at once on a sole voter; or node.leader_elected().await
    let applied = node.propose("increment").wait(Duration::from_secs(5))?; // or .await
    let count = u64::from_be_bytes(applied.response[..].try_into()?);
    host.shutdown();
    Ok(count)
}

fn main() {
    match run("127.0.0.1:8081", Path::new("counter.data")) {
        Ok(count) => println!("counted to {count}"),
        Err(error) => eprintln!("{error}"), // says what is wrong and what to do
    }
}
