//! What the operating system says about this process.

/// Threads, open files and resident memory; 0 where the system does not say (outside Linux).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessUsage {
    pub(crate) threads: u64,
    pub(crate) fds: u64,
    pub(crate) rss_kb: u64,
}

impl ProcessUsage {
    /// Usage of this process now.
    pub(crate) fn now() -> ProcessUsage {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The listing itself holds one descriptor.
        let fds =
            std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u64);
        ProcessUsage { threads: field(&status, "Threads:"), fds, rss_kb: field(&status, "VmRSS:") }
    }
}

fn field(status: &str, name: &str) -> u64 {
    let rest = status.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = "Name:\tx\nVmRSS:\t  1234 kB\nThreads:\t7\n";
        assert_eq!(
            (field(status, "VmRSS:"), field(status, "Threads:"), field(status, "None:")),
            (1234, 7, 0)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let usage = ProcessUsage::now();
        assert!(usage.threads > 0 && usage.fds > 0 && usage.rss_kb > 0, "{usage:?}");
    }
}
