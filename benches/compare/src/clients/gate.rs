//! When a measurement begins and ends: the way to the server, and the marks.

use std::{
    hint::black_box,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{
    alloc,
    feed::Data,
    job::{Job, Notice, Report, Result, Task},
    measure::{cpu_time, monotonic, percentile},
};

pub(crate) struct Gate {
    control: BufReader<TcpStream>,
    count_allocations: bool,
    marks: Vec<Mark>,
    /// What the server will write in each phase.
    pub(crate) bytes: [u64; 2],
    latencies: Latencies,
}

/// Where all meters of a run leave what they saw; `None` where nothing is stamped.
type Latencies = Option<Arc<Mutex<Vec<u64>>>>;

struct Mark {
    cpu: u64,
    wall: u64,
    allocations: u64,
}

impl Gate {
    pub(crate) async fn connect(port: u16, job: &Job) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let stamped = matches!(job.task, Task::Pace { .. });
        Ok(Self {
            control: BufReader::new(stream),
            count_allocations: job.count_allocations,
            marks: Vec::with_capacity(2),
            bytes: [0; 2],
            latencies: stamped.then(Arc::default),
        })
    }

    pub(crate) async fn notice(&mut self) -> Result<Notice> {
        let mut line = String::new();
        self.control.read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Until the server has read every subscribe.
    pub(crate) async fn subscribed(&mut self) -> Result<()> {
        match self.notice().await? {
            Notice::Subscribed { bytes } => self.bytes = bytes,
            Notice::First | Notice::Reissued { .. } => {
                return Err("the server said something else".into());
            }
        }
        Ok(())
    }

    pub(crate) async fn go(&mut self) -> Result<()> {
        Ok(self.control.get_mut().write_all(b"go\n").await?)
    }

    /// A phase was read to its end. After the first, the server goes on.
    pub(crate) async fn passed(&mut self) -> Result<()> {
        self.marks.push(Mark {
            cpu: cpu_time(),
            wall: monotonic(),
            allocations: alloc::allocations(),
        });
        if self.marks.len() == 1 {
            if self.count_allocations {
                alloc::count();
            }
            self.go().await?;
        }
        Ok(())
    }

    /// For one reader, with room for so many events.
    pub(crate) fn meter(&self, events: u64) -> Meter {
        let room = if self.latencies.is_some() { usize::try_from(events).unwrap_or(0) } else { 0 };
        Meter { nanos: Vec::with_capacity(room), all: self.latencies.clone() }
    }

    pub(crate) fn fill(&self, report: &mut Report) -> Result<()> {
        let [before, after] = &self.marks[..] else { return Err("a phase is missing".into()) };
        report.cpu_nanos = after.cpu - before.cpu;
        report.wall_nanos = after.wall - before.wall;
        report.allocations =
            self.count_allocations.then_some(after.allocations - before.allocations);
        report.latency = self.latencies.as_ref().map(|all| {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            [0.5, 0.99, 0.999].map(|share| percentile(&mut all, share))
        });
        Ok(())
    }
}

/// One reader's measure of how old its events are.
pub(crate) struct Meter {
    nanos: Vec<u64>,
    all: Latencies,
}

impl Meter {
    /// The typed value is in hand.
    pub(crate) fn see<T: Data>(&mut self, data: &T) {
        if self.all.is_some() {
            let sent_at = data.sent_at();
            // The warm-up is not stamped.
            if sent_at > 0 {
                self.nanos.push(monotonic() - sent_at);
            }
        } else {
            black_box(data);
        }
    }

    /// Before the reader says that it is done.
    pub(crate) fn hand_in(&mut self) {
        if let Some(all) = &self.all {
            all.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.nanos);
        }
    }
}
