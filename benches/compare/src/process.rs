//! Processes: started from this same program, ended when nobody needs them, and never waited for
//! without a deadline.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde::de::DeserializeOwned;

use crate::job::{Job, Ports, Report, Result};

/// A client's or server's whole life, at most.
pub(crate) const DEADLINE: Duration = Duration::from_secs(100);

/// What is run against the load server.
pub(crate) enum Program<'a> {
    /// A contender of this program, by name.
    Own(&'a str),
    /// A script for node.
    Node(&'a Path),
}

/// Runs one job: a server, and a client that reports.
pub(crate) fn run(program: &Program<'_>, job: &Job) -> Result<Report> {
    let me = std::env::current_exe()?;
    let job = serde_json::to_string(job)?;
    let (_server, ports) =
        Running::start(Command::new(&me).args(["server", &job]))?.first_line::<Ports>()?;
    let ports = serde_json::to_string(&ports)?;
    let mut command = match program {
        Program::Own(name) => {
            let mut command = Command::new(&me);
            command.args(["client", name]);
            command
        }
        Program::Node(script) => {
            let mut command = Command::new("node");
            command.arg(script);
            command
        }
    };
    let (_client, report) = Running::start(command.args([&job, &ports]))?.first_line()?;
    Ok(report)
}

/// Ends this process after that time, whatever it does then.
pub(crate) fn end_after(deadline: Duration) {
    thread::spawn(move || {
        thread::sleep(deadline);
        eprintln!("ended by its deadline");
        std::process::exit(3);
    });
}

/// Runs a command to its end, and says why it failed.
pub(crate) fn complete(command: &mut Command, deadline: Duration) -> Result<()> {
    let mut child = Running::start(command)?;
    let lines = child.lines()?;
    let mut last = String::new();
    loop {
        match lines.recv_timeout(deadline) {
            Ok(line) => last = line,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => return Err("took too long".into()),
        }
    }
    if child.0.wait()?.success() { Ok(()) } else { Err(last.into()) }
}

/// A process that ends with this value.
pub(crate) struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// Waits for one line of JSON.
    fn first_line<T: DeserializeOwned>(mut self) -> Result<(Self, T)> {
        let lines = self.lines()?;
        match lines.recv_timeout(DEADLINE + Duration::from_secs(5)) {
            Ok(line) => {
                let value = serde_json::from_str(&line)?;
                Ok((self, value))
            }
            Err(error) => {
                let _ = self.0.kill();
                let mut said = String::new();
                if let Some(mut stderr) = self.0.stderr.take() {
                    let _ = stderr.read_to_string(&mut said);
                }
                Err(format!("{error}: {}", said.trim()).into())
            }
        }
    }

    /// The lines of its output, read by a thread so that one can stop waiting.
    fn lines(&mut self) -> Result<mpsc::Receiver<String>> {
        let stdout = self.0.stdout.take().ok_or("its output is read already")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(receiver)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
