//! File systems that do not keep the promise on which full disks are met in time: bytes that a file has can be written again.

use std::path::Path;

/// They write elsewhere what is written again, for which there may be no room.
const COPY_ON_WRITE: [&str; 4] = ["bcachefs", "btrfs", "nilfs2", "zfs"];

/// Warns when the directory is on one of them. What cannot be found out (no Linux, thin volumes, layers above) is passed over.
pub(super) fn warn_of(directory: &Path) {
    let (Ok(directory), Ok(mounts)) =
        (directory.canonicalize(), std::fs::read_to_string("/proc/self/mountinfo"))
    else {
        return;
    };
    if let Some(file_system) = copying(&mounts, &directory) {
        tracing::warn!(directory = %directory.display(), file_system,
            "this file system copies what is written again: when it is full the log store stops instead of waiting; put the log on ext4 or XFS, \
             or see that it never fills up");
    }
}

/// The type of the file system that holds a directory, when it copies on write, by the system's list of mounts.
fn copying<'a>(mounts: &'a str, directory: &Path) -> Option<&'a str> {
    let mount = |line: &'a str| {
        // proc(5): the fifth field is where it is mounted; behind " - " comes the type.
        let (place, rest) = line.split_once(" - ")?;
        let point = unescaped(place.split(' ').nth(4)?);
        let kind = rest.split(' ').next()?;
        directory.starts_with(&point).then_some((point.len(), kind))
    };
    // The deepest; of several at one place the last, which hides the others.
    let (_, kind) = mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth)?;
    COPY_ON_WRITE.contains(&kind).then_some(kind)
}

/// Blanks and backslashes of paths are written as octal numbers.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (code, character)| path.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                      30 22 0:30 / /data rw - btrfs /dev/sdb rw\n\
                      31 30 8:2 / /data/log rw - xfs /dev/sdc rw\n\
                      32 22 0:31 / /tank/a\\040b rw master:2 - zfs tank/a rw\n\
                      33 22 0:32 / /over rw - btrfs /dev/sdd rw\n\
                      34 33 0:33 / /over rw - ext4 /dev/sde rw\n\
                      nonsense";
        for (directory, expected) in [
            ("/var/lib/x", None),
            ("/data", Some("btrfs")),
            ("/data/deep/x", Some("btrfs")),
            ("/database", None),
            ("/data/log/x", None),
            ("/tank/a b/x", Some("zfs")),
            ("/over/x", None),
        ] {
            assert_eq!(copying(mounts, Path::new(directory)), expected, "{directory}");
        }
        assert_eq!(copying("", Path::new("/")), None);
    }
}
