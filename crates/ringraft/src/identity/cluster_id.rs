//! The id of a cluster, computed from what its first members agree on.

use ringraft_core::{Configuration, PeerId};

// FNV-1a of 128 bits, the published constants.
const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// An id for a cluster that is being created: 32 hexadecimal digits, the 128-bit FNV-1a hash of the cluster's name, of what its group ids begin with, and of the members of the initial configuration. Every part goes in behind
/// its length in bytes (4, little-endian); the members in ascending order, voters before learners, as `ip:port:idx`.
///
/// It is for a bootstrap and never computed again: members change and the id stays. The first members get the same id because they have the
/// same configuration, and other clusters another one because no two have the same first members. A hash, not a secret: it guards against mistakes, and nobody is kept out by it.
pub fn derive_cluster_id(cluster: &str, group_prefix: &str, conf: &Configuration) -> String {
    let members = |peers: &[PeerId]| {
        let mut texts: Vec<String> =
            peers.iter().map(|peer| format!("{}:{}", peer.endpoint(), peer.idx())).collect();
        texts.sort();
        texts
    };
    let (voters, learners) = (members(&conf.peers), members(&conf.learners));
    let mut hash = OFFSET;
    let mut put = |text: &str| {
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
        for byte in len.iter().chain(text.as_bytes()) {
            hash = fnv1a(hash, *byte);
        }
    };
    put(cluster);
    put(group_prefix);
    voters.iter().for_each(|voter| put(voter));
    put("");
    learners.iter().for_each(|learner| put(learner));
    format!("{hash:032x}")
}

fn fnv1a(hash: u128, byte: u8) -> u128 {
    (hash ^ u128::from(byte)).wrapping_mul(PRIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(cluster: &str, prefix: &str, conf: &str) -> String {
        derive_cluster_id(cluster, prefix, &conf.parse().unwrap())
    }

    #[test]
    fn the_hash_is_the_published_one() {
        let hash = |text: &str| text.bytes().fold(OFFSET, fnv1a);
        assert_eq!(hash("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(hash("foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }

    /// Directories remember it: it must be the same in every version.
    #[test]
    fn the_id_does_not_change() {
        let conf = "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083/learner";
        assert_eq!(id("ringraft", "atomic", conf), KNOWN);
        let reordered = "127.0.0.1:8082,127.0.0.1:8081::7,127.0.0.1:8083/learner";
        assert_eq!(
            id("ringraft", "atomic", reordered),
            KNOWN,
            "order and priorities do not say who they are"
        );
    }

    /// Computed by another program from the description above.
    const KNOWN: &str = "05f24ecaba7a2417b32429a7b10db268";

    #[test]
    fn other_clusters_have_other_ids() {
        let mut ids = vec![
            id("c", "g", "a:1,b:1,c:1"),
            id("d", "g", "a:1,b:1,c:1"),
            id("c", "h", "a:1,b:1,c:1"),
            id("c", "g", "c:1,d:1,e:1"),
            id("c", "g", "a:1,b:1"),
            id("c", "g", "a:1,b:1,c:1/learner"),
            id("c", "g", "a:1,b:1,c:1:1"),
            id("cg", "", "a:1,b:1,c:1"),
        ];
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 8);
    }
}
