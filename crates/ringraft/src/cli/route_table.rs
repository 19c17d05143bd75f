//! What a client knows of groups: members and leader (SOFAJRaft's `RouteTable`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use ringraft_core::{Configuration, PeerId, RaftError, Status};

use super::{CliError, CliService};

/// Members and leaders by group. SOFAJRaft has one a process; here a program makes its own, and may share it.
#[derive(Default)]
pub struct RouteTable {
    routes: RwLock<BTreeMap<String, Route>>,
}

#[derive(Clone, Default)]
struct Route {
    conf: Configuration,
    leader: Option<PeerId>,
}

/// How often a request is tried with another leader.
const TRIES: u32 = 10;

impl RouteTable {
    /// A table that knows no group.
    pub fn new() -> RouteTable {
        RouteTable::default()
    }

    /// Registers a group, or changes its members. The leader is kept while it is one of them.
    ///
    /// # Errors
    /// `EINVAL` when nobody votes in `conf` or somebody stands twice.
    pub fn update_configuration(&self, group: &str, conf: Configuration) -> Result<(), Status> {
        conf.validate().map_err(|error| Status::new(RaftError::Invalid, error.to_string()))?;
        let mut routes = self.routes.write();
        let route = routes.entry(group.to_owned()).or_default();
        route.leader = route.leader.take().filter(|leader| conf.contains(leader));
        route.conf = conf;
        Ok(())
    }

    /// The members of a group, when it is registered.
    pub fn get_configuration(&self, group: &str) -> Option<Configuration> {
        let conf = self.routes.read().get(group).map(|route| route.conf.clone());
        conf.filter(|conf| !conf.is_empty())
    }

    /// Remembers the leader of a group, or that none is known.
    pub fn update_leader(&self, group: &str, leader: Option<PeerId>) {
        self.routes.write().entry(group.to_owned()).or_default().leader = leader;
    }

    /// The leader of a group, when one is known.
    pub fn select_leader(&self, group: &str) -> Option<PeerId> {
        self.routes.read().get(group).and_then(|route| route.leader.clone())
    }

    /// Asks the members who leads, and remembers it.
    ///
    /// # Errors
    /// [`CliError::NotRegistered`], [`CliError::NoLeader`].
    pub fn refresh_leader(
        &self,
        cli: &CliService,
        group: &str,
        timeout: Duration,
    ) -> Result<PeerId, CliError> {
        let conf = self.conf_of(group)?;
        let leader = cli.with_timeout(timeout).get_leader(group, &conf)?;
        self.update_leader(group, Some(leader.clone()));
        Ok(leader)
    }

    /// Asks the leader who the members are, learners too, and remembers them.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn refresh_configuration(
        &self,
        cli: &CliService,
        group: &str,
        timeout: Duration,
    ) -> Result<Configuration, CliError> {
        let known = self.conf_of(group)?;
        let conf = cli.with_timeout(timeout).get_peers(group, &known)?;
        self.update_configuration(group, conf.clone()).map_err(CliError::Unknown)?;
        Ok(conf)
    }

    /// Sends a request to the leader. A leader that refuses it as not leading (`EPERM`), knows no such replica (`ENOENT`) or cannot be
    /// reached (`EHOSTDOWN`) has not taken it: the leader is asked for again, then the members, and the request repeated. Whatever else
    /// `request` says ends it.
    ///
    /// # Errors
    /// [`CliError::Refused`] with what `request` said last; [`CliError::NotRegistered`], [`CliError::NoLeader`].
    pub fn with_leader<T>(
        &self,
        cli: &CliService,
        group: &str,
        timeout: Duration,
        mut request: impl FnMut(&PeerId) -> Result<T, Status>,
    ) -> Result<T, CliError> {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut tries = 0;
        loop {
            let leader = match self.select_leader(group) {
                Some(leader) => leader,
                None => self.refresh_leader(cli, group, left())?,
            };
            let status = match request(&leader) {
                Ok(done) => return Ok(done),
                Err(status) => status,
            };
            let elsewhere =
                matches!(status.error, RaftError::NotPermitted | RaftError::NotFound | RaftError::HostDown);
            tries += 1;
            if !elsewhere || tries >= TRIES || left().is_zero() {
                return Err(CliError::Refused(status));
            }
            self.update_leader(group, None);
            if tries > 1 {
                std::thread::sleep(super::PAUSE.min(left()));
                // The members may be others by now. If nobody tells, the old ones are asked for the leader all the same.
                let _ = self.refresh_configuration(cli, group, left());
            }
        }
    }

    /// Forgets a group; says whether it was known.
    pub fn remove_group(&self, group: &str) -> bool {
        self.routes.write().remove(group).is_some()
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.routes.write().clear();
    }

    fn conf_of(&self, group: &str) -> Result<Configuration, CliError> {
        self.get_configuration(group).ok_or_else(|| CliError::NotRegistered(group.to_owned()))
    }
}

/// One line a group (SOFAJRaft's `describe`).
impl fmt::Display for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (group, route) in self.routes.read().iter() {
            let leader = route.leader.as_ref().map_or("-".to_owned(), ToString::to_string);
            writeln!(f, "{group} leader={leader} conf={}", route.conf)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTable").field("groups", &self.routes.read().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_registered_and_led() {
        let table = RouteTable::new();
        assert_eq!((table.get_configuration("g"), table.select_leader("g")), (None, None));
        let conf: Configuration = "a:1,b:1,c:1/learner".parse().unwrap();
        table.update_configuration("g", conf.clone()).unwrap();
        assert_eq!((table.get_configuration("g"), table.select_leader("g")), (Some(conf), None));
        let leader: PeerId = "a:1".parse().unwrap();
        table.update_leader("g", Some(leader.clone()));
        assert_eq!(table.select_leader("g"), Some(leader));
        assert_eq!(table.to_string(), "g leader=a:1 conf=a:1,b:1,c:1/learner\n");
        let nobody = table.update_configuration("g", Configuration::default()).unwrap_err();
        assert_eq!(nobody.error, RaftError::Invalid);
        table.update_configuration("g", "b:1".parse().unwrap()).unwrap();
        assert_eq!(table.select_leader("g"), None, "who is no member does not lead");
        table.update_leader("g", None);
        assert!(table.remove_group("g") && !table.remove_group("g"));
        table.update_leader("h", None);
        table.reset();
        assert_eq!(table.to_string(), "");
    }
}
