//! The example as a process: its arguments in, its lines and its exit code out.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// The lines of `--json`.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn types(&self) -> Vec<String> {
        self.json().iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.types().iter().filter(|found| *found == kind).count()
    }
}

/// Runs to the end.
pub(crate) async fn live_feed(args: &[&str]) -> Finished {
    Running::start(args).end().await
}

/// Runs to the end, with this `RUST_LOG`.
pub(crate) async fn live_feed_logging(log: &str, args: &[&str]) -> Finished {
    live_feed_with(&[("RUST_LOG", log)], args).await
}

/// Runs to the end, with these in its environment.
pub(crate) async fn live_feed_with(environment: &[(&str, &str)], args: &[&str]) -> Finished {
    Running::spawn(
        Command::new(example()).env_remove("RUST_LOG").envs(environment.iter().copied()).args(args),
    )
    .end()
    .await
}

/// Runs to the end, and trusts the certificates of this file alone.
pub(crate) async fn live_feed_trusting(roots: &Path, args: &[&str]) -> Finished {
    Running::start_trusting(roots, args).end().await
}

/// A run that goes on. Killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Read as it comes, so that the program never waits for it.
    stderr: JoinHandle<String>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(Command::new(example()).env_remove("RUST_LOG").args(args))
    }

    /// Trusts the certificates of this file alone.
    pub(crate) fn start_trusting(roots: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(example());
        // Without a directory the file is all there is.
        let command = command.env("SSL_CERT_FILE", roots).env("SSL_CERT_DIR", "");
        Self::spawn(command.env_remove("RUST_LOG").args(args))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut errors = child.stderr.take().unwrap();
        let stderr = tokio::spawn(async move {
            let mut stderr = String::new();
            errors.read_to_string(&mut stderr).await.unwrap();
            stderr
        });
        Self { child, stdout, stderr }
    }

    /// The next line of its output; none at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.stdout.next_line())
            .await
            .expect("the program prints or ends")
            .unwrap()
    }

    /// As Ctrl-C does.
    pub(crate) async fn interrupt(&self) {
        let id = self.child.id().expect("the program still runs").to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    }

    /// Closes the reading end of its output, and waits for the end.
    pub(crate) async fn hang_up(self) -> Finished {
        self.finish(String::new()).await
    }

    async fn end(mut self) -> Finished {
        let mut stdout = String::new();
        while let Some(line) = self.line().await {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        self.finish(stdout).await
    }

    async fn finish(self, stdout: String) -> Finished {
        let Self { mut child, stdout: pipe, stderr } = self;
        drop(pipe);
        let status = timeout(PATIENCE, child.wait()).await.expect("the program ends").unwrap();
        let stderr = stderr.await.unwrap();
        Finished { code: status.code().expect("no signal kills the program"), stdout, stderr }
    }
}

/// `cargo test` builds it; with `--test live_feed` alone, `cargo build --example live_feed` must
/// have.
fn example() -> PathBuf {
    let test = env::current_exe().unwrap();
    let built = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("tests are built into target/<profile>/deps");
    built.join("examples").join("live_feed").with_extension(env::consts::EXE_EXTENSION)
}

/// Only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
