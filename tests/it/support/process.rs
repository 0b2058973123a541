//! The real program as a process of its own.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use tempfile::TempDir;

use super::app::metric;
use super::{PATIENCE, models, until};

/// The program, with an environment of the test's own.
pub(crate) fn rerankd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rerankd"));
    for (name, _) in std::env::vars() {
        if ["RERANKD__", "HF_", "HUGGING", "OTEL_"]
            .iter()
            .any(|p| name.starts_with(p))
        {
            command.env_remove(name);
        }
    }
    command
}

/// The program as another user, with its own copy of it in the folder, since that user may not see
/// this one. `None` unless the test runs as root, who alone may do so.
pub(crate) fn rerankd_of_another_user(uid: u32, gid: u32) -> Option<(Command, TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    if std::fs::metadata(folder.path()).unwrap().uid() != 0 {
        return None;
    }
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("rerankd");
    // Not by this process: while it has the file open for writing, a child that another test starts has it too, and
    // then nobody can run it.
    let copied = Command::new("cp")
        .args([Path::new(env!("CARGO_BIN_EXE_rerankd")), &program])
        .status();
    assert!(copied.unwrap().success());
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").uid(uid).gid(gid);
    Some((command, folder))
}

/// Runs the program to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    rerankd().args(args).output().unwrap()
}

/// A running server on tiny-bert with JSON logs.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) base: String,
    child: Child,
    logs: Receiver<Value>,
}

impl Server {
    /// Starts the program with some settings (`section.key`, value) and waits until it is ready.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::with_model(&models::folder("tiny-bert"), settings)
    }

    /// As [`Server::start`], on another model.
    pub(crate) fn with_model(model: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(rerankd(), model, settings)
    }

    /// As [`Server::start`], with so many files that the process may open.
    pub(crate) fn with_open_files(files: usize, settings: &[(&str, &str)]) -> Self {
        let program = rerankd();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")])
            .arg(program.get_program());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self::run(command, &models::folder("tiny-bert"), settings)
    }

    fn run(mut command: Command, model: &Path, settings: &[(&str, &str)]) -> Self {
        command
            .args(["serve", "--port", "0", "--log-format", "json", "--model"])
            .arg(model);
        for (key, value) in settings {
            let name = format!("RERANKD__{}", key.replace('.', "__").to_uppercase());
            command.env(name, value);
        }
        Self::of(command)
    }

    /// Starts a command that serves with JSON logs.
    pub(crate) fn of(command: Command) -> Self {
        Self::until(command, "ready").0
    }

    /// Starts a command that serves with JSON logs, and returns with the log up to a message.
    pub(crate) fn until(mut command: Command, message: &str) -> (Self, Vec<Value>) {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, logs) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let line = line.unwrap();
                let parsed = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if send.send(parsed).is_err() {
                    break;
                }
            }
        });
        let mut server = Self {
            base: String::new(),
            child,
            logs,
        };
        let listening = server.log("listening");
        server.base = format!("http://{}", listening["address"].as_str().unwrap());
        let mut log = Vec::new();
        while log
            .last()
            .is_none_or(|line: &Value| line["message"] != message)
        {
            log.push(server.next_line());
        }
        (server, log)
    }

    fn next_line(&self) -> Value {
        let line = self.logs.recv_timeout(PATIENCE);
        line.unwrap_or_else(|error| panic!("no further line comes: {error}"))
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    /// A connection to the server.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// GETs a path on a connection of its own; returns the status and the whole answer.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.connect();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.address()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    /// Waits until a metric is as it should be.
    pub(crate) fn until_metric(&self, name: &str, is_enough: impl Fn(f64) -> bool) {
        until(name, || is_enough(metric(&self.get("/metrics").1, name)));
    }

    /// How many log lines with this message have come by now.
    pub(crate) fn log_count(&self, message: &str) -> usize {
        let lines = self.logs.try_iter();
        lines.filter(|line| line["message"] == message).count()
    }

    /// The next log line with this message; those before it are dropped.
    pub(crate) fn log(&self, message: &str) -> Value {
        loop {
            let line = self.logs.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|e| panic!("no line says {message:?}: {e}"));
            if line["message"] == message {
                return line;
            }
        }
    }

    /// The log's remaining lines, after the program's end.
    pub(crate) fn rest_of_log(&self) -> Vec<Value> {
        self.logs.iter().collect()
    }

    /// Lets the running program open so many more files, and no more.
    pub(crate) fn allow_more_files(&self, more: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        let limit = Some(open.unwrap().count() as u64 + more);
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// The most memory that the program has had, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.unwrap().trim().strip_suffix(" kB").unwrap();
        1024 * kilobytes.parse::<usize>().unwrap()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the program's end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        end_of(&mut self.child)
    }
}

/// Waits for a program's end.
pub(crate) fn end_of(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the program's end", || {
        status = child.try_wait().unwrap();
        std::thread::yield_now();
        status.is_some()
    });
    status.unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
