//! How much memory this computer has.

/// Memory of this computer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// All there is.
    pub total: u64,
    /// What programs can have without others being moved to disk.
    pub available: u64,
}

/// The memory of this computer; `None` where only Linux would tell.
pub fn host_memory() -> Option<HostMemory> {
    #[cfg(target_os = "linux")]
    return parse(&std::fs::read_to_string("/proc/meminfo").ok()?);
    #[cfg(not(target_os = "linux"))]
    None
}

/// Reads the form of `/proc/meminfo` (proc_meminfo(5)): a name, a number and `kB`, which are KiB, a line.
#[cfg(any(target_os = "linux", test))]
fn parse(text: &str) -> Option<HostMemory> {
    let of = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(HostMemory { total: of("MemTotal")?, available: of("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_read() {
        let text = "MemTotal:       16384 kB\nMemFree:         12 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\n";
        assert_eq!(parse(text), Some(HostMemory { total: 16 << 20, available: 8 << 20 }));
        for bad in ["", "MemTotal: 1 kB", "MemTotal: x kB\nMemAvailable: 1 kB", "MemTotal: 1\nMemAvailable: 1 kB"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_computer_has_memory() {
        assert!(host_memory().is_some_and(|m| m.total >= m.available && m.available > 0));
    }
}
