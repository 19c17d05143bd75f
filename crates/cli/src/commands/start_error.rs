//! Why a server does not start, in the program's words: keys of the file and flags, not the library's options.

use std::io::ErrorKind;

use ringraft::{RecoverError, StartError};
use ringraft_atomic::{AtomicConfig, ServerError};

use crate::exit::Exit;

/// The status and the text for a server that does not start.
pub fn of_server(error: &ServerError, config: &AtomicConfig) -> (Exit, String) {
    match error {
        ServerError::Config(error) => (Exit::Usage, error.to_string()),
        ServerError::Start(error) => of_start(error, config),
    }
}

/// The status and the text for a recovery that was not done.
pub fn of_recovery(error: &RecoverError, config: &AtomicConfig) -> (Exit, String) {
    match error {
        RecoverError::Store(error) => (Exit::Failed, of_start(error, config).1),
        RecoverError::Storage(_) => (Exit::Unknown, error.to_string()),
        _ => (Exit::Failed, error.to_string()),
    }
}

fn of_start(error: &StartError, config: &AtomicConfig) -> (Exit, String) {
    let text = match error {
        StartError::BlankDirectory { .. } => blank(config),
        StartError::OtherOwner { dir, owner, owner_cluster, endpoint, cluster } => {
            let clusters = if owner_cluster == cluster {
                String::new()
            } else {
                format!(" (cluster {owner_cluster}, and here {cluster})")
            };
            format!(
                "data_path {} belongs to server {owner}, but server_address is {endpoint}{clusters}; give data_path this server's own \
                 directory, or correct server_address",
                dir.display()
            )
        }
        StartError::OtherClusterId { dir, known, given } => format!(
            "data_path {} belongs to the cluster with id {known}, but cluster_id is {given}; give data_path this server's own directory, or \
             leave cluster_id out: the directory remembers it",
            dir.display()
        ),
        StartError::OtherFact { dir, name, known, given } => format!(
            "data_path {} was made with {key} = {known}, but {key} is {given} now, which would lose what is stored there: set {key} back, or \
             give data_path another directory",
            dir.display(),
            key = name.rsplit_once('.').map_or(&**name, |(_, key)| key)
        ),
        StartError::NotBlank { dir } => format!(
            "data_path {dir} is not blank: start without --rejoin to go on with what it holds; to rejoin, wipe it first"
        ),
        StartError::BeganAsRejoin { dir } => format!(
            "data_path {} began by --rejoin: its groups wait for the leaders of a cluster that exists and cannot found one; start without \
             --bootstrap, or, if the cluster is being created and nothing in the directory is needed, wipe it first",
            dir.display()
        ),
        StartError::IdentityMissing { dir, files } => format!(
            "IDENTITY is missing in data_path {}, though there are files of a store: {files}; bring it back, or, if it is lost, wipe the \
             directory and start with --rejoin (after a first start that failed, repeat its flag)",
            dir.display()
        ),
        StartError::ForeignDirectory { dir, reason } => format!("data_path {}: {reason}", dir.display()),
        StartError::Damaged { dir, path, offset, what } => format!(
            "{path} is damaged at byte {offset}: {what}; take this server's disk for lost: see that a majority of the other members is up, \
             empty data_path {} and start with --rejoin, which brings everything back from them",
            dir.display()
        ),
        StartError::Listen { address, kind, message } => {
            let hint = match kind {
                ErrorKind::AddrInUse => {
                    "another program listens there: stop it or give server_address another port"
                }
                ErrorKind::AddrNotAvailable => {
                    "that is no address of this machine: correct server_address, here and in conf"
                }
                ErrorKind::PermissionDenied => {
                    "give server_address a port above 1023, or the program the right to this one"
                }
                _ => "correct server_address",
            };
            format!("cannot listen at server_address {address}: {message}; {hint}")
        }
        // Their texts name files and system calls, and have the way out.
        error => error.to_string(),
    };
    (status(error), text)
}

fn blank(config: &AtomicConfig) -> String {
    let what = match config.data_path.to_str() {
        Some("") => "store = \"memory\" begins blank at each start".to_owned(),
        _ => format!("data_path {} holds no data of a member", config.data_path.display()),
    };
    format!(
        "{what}: start with --bootstrap if the cluster is being created and this server is one of its first members; start with --rejoin \
         if it joins a cluster that exists, or if its disk was lost"
    )
}

fn status(error: &StartError) -> Exit {
    match error {
        StartError::Store(_)
        | StartError::StoreIo { .. }
        | StartError::Damaged { .. }
        | StartError::Net(_)
        | StartError::Listen { .. }
        | StartError::Thread { .. } => Exit::Failed,
        _ => Exit::Usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AtomicConfig {
        let text = "group_id = \"atomic\"\ndata_path = \"/data\"\nconf = \"127.0.0.1:1\"\nserver_address = \"127.0.0.1:1\"";
        AtomicConfig::parse(text).unwrap()
    }

    /// What the library calls things must not reach operators, who have never seen it.
    #[test]
    fn the_texts_name_keys_and_flags() {
        let other = StartError::OtherOwner {
            dir: "/data".into(),
            owner: "127.0.0.1:2".into(),
            owner_cluster: "ringraft".into(),
            endpoint: "127.0.0.1:1".into(),
            cluster: "ringraft".into(),
        };
        let damaged = StartError::Damaged {
            dir: "/data".into(),
            path: "/data/1.seg".into(),
            offset: 7,
            what: "checksum".into(),
        };
        let listen = |kind: ErrorKind| StartError::Listen {
            address: ([127, 0, 0, 1], 1).into(),
            kind,
            message: "no".into(),
        };
        for (error, exit, words) in [
            (
                StartError::BlankDirectory { dir: "/data".into() },
                Exit::Usage,
                "data_path --bootstrap --rejoin",
            ),
            (other, Exit::Usage, "data_path server_address 127.0.0.1:2"),
            (
                StartError::OtherClusterId { dir: "/data".into(), known: "a1".into(), given: "b2".into() },
                Exit::Usage,
                "data_path cluster_id a1 b2",
            ),
            (
                StartError::OtherFact {
                    dir: "/data".into(),
                    name: "atomic.total_slots".into(),
                    known: "2".into(),
                    given: "4".into(),
                },
                Exit::Usage,
                "data_path total_slots 2 4",
            ),
            (StartError::NotBlank { dir: "/data".into() }, Exit::Usage, "data_path --rejoin wipe"),
            (
                StartError::BeganAsRejoin { dir: "/data".into() },
                Exit::Usage,
                "data_path --rejoin --bootstrap",
            ),
            (
                StartError::IdentityMissing { dir: "/data".into(), files: "1.seg".into() },
                Exit::Usage,
                "data_path IDENTITY 1.seg --rejoin",
            ),
            (damaged, Exit::Failed, "data_path --rejoin /data/1.seg"),
            (listen(ErrorKind::AddrInUse), Exit::Failed, "server_address another"),
            (listen(ErrorKind::AddrNotAvailable), Exit::Failed, "server_address machine"),
        ] {
            let (status, text) = of_start(&error, &config());
            assert_eq!(status, exit, "{text}");
            for word in words.split(' ') {
                assert!(text.contains(word), "{word} is not in {text}");
            }
            for word in ["data_dir", "endpoint", "StartMode", "TransportOptions", "cluster name"] {
                assert!(!text.contains(word), "{word} is in {text}");
            }
        }
    }
}
