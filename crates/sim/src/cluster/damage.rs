//! Disks that lose or change data without a word: where that may happen, and what the store must make of it.
//!
//! Damage stays within a *fault atlas*: of every group a majority of hosts keeps good disks, so that what was acknowledged
//! can be had. A store that finds damage refuses to start, and its host stays down, as an operator would leave it until the
//! member is made anew. What a store cannot know is damage to its last batch alone, before a later one proves that it was
//! durable (`docs/formats.md`): that passes for a torn write, and such a host stays down, too.
//!
//! A member that comes back with an empty disk (*rejoin*) has its place in `World::refused`.

use ringraft_storage::MemoryDisk;

use super::random::Random;

/// What the writes of a store prove about what it wrote before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Proof {
    /// Operations of the disk when the batch that is under way was given to the store.
    submitted: u64,
    /// A later batch is durable and says that everything was that was written up to this operation.
    proven: u64,
}

impl Proof {
    /// A batch is about to be given to the store; all earlier ones are durable.
    pub(super) fn submitting(&mut self, disk: &MemoryDisk) {
        self.submitted = disk.operations();
    }

    /// What was given to the store is durable. A vouch for which no file was ready has written nothing and proves nothing.
    pub(super) fn synced(&mut self, disk: &MemoryDisk) {
        if disk.operations() > self.submitted {
            self.proven = self.submitted;
        }
    }

    /// Whether damage is such that the store cannot tell it from a torn write.
    pub(super) fn may_miss(&self, disk: &MemoryDisk) -> bool {
        disk.damage().iter().any(|damage| damage.operation > self.proven)
    }
}

/// Hosts whose disks may be damaged: without them every group still has a majority.
pub(super) fn draw_atlas(hosts: usize, groups: &[Vec<usize>], r: &mut Random) -> Vec<bool> {
    let mut atlas = vec![false; hosts];
    let mut order: Vec<usize> = (0..hosts).collect();
    for at in (1..hosts).rev() {
        order.swap(at, r.index(at + 1));
    }
    for host in order {
        atlas[host] = true;
        let good = |members: &Vec<usize>| 2 * members.iter().filter(|m| !atlas[**m]).count() > members.len();
        atlas[host] = groups.iter().all(good);
    }
    atlas
}

#[cfg(test)]
mod tests {
    use ringraft_storage::Disk;

    use super::*;

    #[test]
    fn the_atlas_leaves_every_group_a_majority() {
        for seed in 0..200 {
            let mut r = Random::new(seed);
            let hosts = r.range(1, 7) as usize;
            let groups: Vec<Vec<usize>> = (0..r.range(1, 9))
                .map(|_| (0..hosts).filter(|_| r.chance(700)).collect::<Vec<usize>>())
                .filter(|members| !members.is_empty())
                .collect();
            let atlas = draw_atlas(hosts, &groups, &mut r);
            for members in &groups {
                let good = members.iter().filter(|member| !atlas[**member]).count();
                assert!(2 * good > members.len(), "{members:?} {atlas:?}");
            }
        }
        let three = draw_atlas(3, &[vec![0, 1, 2]], &mut Random::new(1));
        assert_eq!(three.iter().filter(|damaged| **damaged).count(), 1);
    }

    #[test]
    fn damage_is_proven_by_a_later_batch() {
        let disk = MemoryDisk::new();
        let file = disk.create("f", 1024).unwrap();
        let mut proof = Proof::default();
        file.write_at(0, b"first").unwrap();
        proof.submitting(&disk);
        disk.flip_bit("f", 0, 0);
        proof.synced(&disk);
        assert!(proof.may_miss(&disk), "nothing was written that could prove it");
        proof.submitting(&disk);
        file.write_at(512, b"second").unwrap();
        assert!(proof.may_miss(&disk));
        proof.synced(&disk);
        assert!(!proof.may_miss(&disk));
        disk.flip_bit("f", 512, 0);
        assert!(proof.may_miss(&disk));
    }
}
