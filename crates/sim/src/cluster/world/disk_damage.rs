//! Bits that change on a host's disk, and a host that stays down for it.

use ringraft_storage::Disk;

use super::World;
use crate::cluster::random::Random;

impl World {
    /// Inverts some bits of a host's disk. Says whether there was anything to damage.
    pub(super) fn flip_bits(&mut self, host: usize, r: &mut Random) -> bool {
        let disk = &self.hosts[host].disk;
        let names = disk.list().unwrap_or_default();
        if names.is_empty() {
            return false;
        }
        let mut flipped = false;
        for _ in 0..r.sized(1, 4) {
            let name = &names[r.index(names.len())];
            let bytes = disk.contents(name).map_or(0, |bytes| bytes.len() as u64);
            // Most of a file is empty: look for a place that was written.
            let written = (0..16).map(|_| r.below(bytes)).find(|at| disk.written_at(name, *at) > 0);
            if let Some(offset) = written {
                disk.flip_bit(name, offset, r.below(8) as u8);
                flipped = true;
            }
        }
        flipped
    }

    /// Whether anything of a host's disk was damaged so far.
    pub(super) fn is_damaged(&self, host: usize) -> bool {
        !self.hosts[host].disk.damage().is_empty()
    }

    /// The store of a host was refused, or must not be trusted: the host stays down.
    pub(super) fn refused(&mut self, host: usize, mark: &'static str) {
        self.mark(mark);
        self.note(|| format!("host {host} stays down: {mark}"));
        self.hosts[host].left_dead = true;
        let mut r = self.random.fork(self.now ^ 0xDEAD);
        self.crash(host, None, 0, &mut r);
    }
}
