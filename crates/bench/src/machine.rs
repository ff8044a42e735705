//! What figures depend on beside the programs.

use std::fs;
use std::process::Command;

/// Processor, kernel and compiler in a line.
pub fn line() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("a processor without a name", |(_, name)| name.trim());
    let cores = cpus
        .lines()
        .filter(|it| it.starts_with("processor"))
        .count();
    let system = std::env::consts::OS;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {model}, {system} {}, {}",
        kernel.trim(),
        compiler()
    )
}

/// The compiler's name and version, as it says them.
pub fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let rustc = Command::new(rustc).arg("--version").output();
    rustc.map_or(String::new(), |it| {
        String::from_utf8_lossy(&it.stdout).trim().to_owned()
    })
}
