//! The real program on its built-in model, with default settings but for the port.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) base: String,
    child: Child,
}

impl Server {
    /// Starts the program with some flags and waits until it is ready.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_rerankd")), flags)
    }

    /// The same within a group of processes, named by its folder below /sys/fs/cgroup.
    pub(crate) fn start_in(group: &Path, flags: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(group)
            .arg(env!("CARGO_BIN_EXE_rerankd"));
        Self::start_by(shell, flags)
    }

    fn start_by(mut command: Command, flags: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--port", "0", "--log-format", "json"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut base = String::new();
        for line in &mut lines {
            let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            if line["message"] == "listening" {
                base = format!("http://{}", line["address"].as_str().unwrap());
            }
            if line["message"] == "ready" {
                break;
            }
        }
        assert!(!base.is_empty(), "the program ended");
        // The log must be read, or its lines are dropped.
        std::thread::spawn(move || lines.for_each(drop));
        Self { base, child }
    }

    /// A value of /proc/PID/status in megabytes: `VmRSS` now, `VmHWM` at its peak.
    pub(crate) fn memory(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes / 1e3
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
