//! The clients that are compared, behind one interface.
//!
//! Each runs in a process of its own, so that CPU time, memory and allocations are its own. What a
//! run measures lies between two marks of the [`Gate`]: nothing may be read before the first, and
//! everything must be read before the last.

mod gate;
mod peer;
mod resub;
mod routed;
mod sink;
mod streams;

pub(crate) use self::{
    resub::{Trades, builder},
    routed::{Envelope, Located, Routed, Scanned},
};
use std::{ops::Range, time::Duration};

use self::{
    gate::Gate,
    peer::Peer,
    resub::Resub,
    sink::Sink,
    streams::{Select, Tasks},
};
use crate::{
    feed::{Data, Many, One, Shape, Small},
    job::{Job, Notice, Ports, Reissue, Report, Result, Task},
    measure::{cpu_time, resident_bytes},
};

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contender {
    /// Reads bytes and nothing else: what the server can do.
    Sink,
    /// The hand-written loop that all others are measured against.
    Routed,
    /// The same, with the payload located instead of scanned.
    Prefix,
    ResubTasks,
    ResubSelect,
    ResubTasksMt,
    ResubSelectMt,
    /// All subscriptions are readers of one operation, which is what the server sends for; in
    /// memory only.
    ResubShared,
    Peer,
    PeerMt,
    Node,
}

impl Contender {
    pub(crate) const ALL: [Self; 11] = [
        Self::Sink,
        Self::Routed,
        Self::Prefix,
        Self::ResubTasks,
        Self::ResubSelect,
        Self::ResubTasksMt,
        Self::ResubSelectMt,
        Self::ResubShared,
        Self::Peer,
        Self::PeerMt,
        Self::Node,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sink => "sink",
            Self::Routed => "routed",
            Self::Prefix => "prefix",
            Self::ResubTasks => "resub, tasks",
            Self::ResubSelect => "resub, select_all",
            Self::ResubTasksMt => "resub, tasks, mt",
            Self::ResubSelectMt => "resub, select_all, mt",
            Self::ResubShared => "resub, shared",
            Self::Peer => "graphql-ws-client",
            Self::PeerMt => "graphql-ws-client, mt",
            Self::Node => "graphql-ws (node)",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|contender| contender.name() == name)
    }

    fn runtime(self) -> std::io::Result<tokio::runtime::Runtime> {
        match self {
            Self::ResubTasksMt | Self::ResubSelectMt | Self::PeerMt => {
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
            }
            Self::Sink
            | Self::Routed
            | Self::Prefix
            | Self::ResubTasks
            | Self::ResubSelect
            | Self::ResubShared
            | Self::Peer
            | Self::Node => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        }
    }

    /// Runs the job in this process.
    pub(crate) fn run(self, job: &Job, ports: Ports) -> Result<Report> {
        crate::process::end_after(crate::process::DEADLINE);
        match job.shape {
            Shape::Tick => self.run_with::<Small>(job, ports),
            Shape::One => self.run_with::<One>(job, ports),
            Shape::Rows(_) => self.run_with::<Many>(job, ports),
        }
    }

    fn run_with<T: Data>(self, job: &Job, ports: Ports) -> Result<Report> {
        self.runtime()?.block_on(async {
            match self {
                Self::Sink => drive::<Sink>(job, ports).await,
                Self::Routed => drive::<Routed<T, Scanned>>(job, ports).await,
                Self::Prefix => drive::<Routed<T, Located>>(job, ports).await,
                Self::ResubTasks | Self::ResubTasksMt => drive::<Resub<T, Tasks>>(job, ports).await,
                Self::ResubSelect | Self::ResubSelectMt => {
                    drive::<Resub<T, Select>>(job, ports).await
                }
                Self::Peer | Self::PeerMt => drive::<Peer<T>>(job, ports).await,
                Self::ResubShared => Err("only in memory".into()),
                Self::Node => Err("not of this program".into()),
            }
        })
    }
}

/// What a client must do. It has a connection of its own, and reads typed values.
pub(crate) trait Client: Sized {
    async fn connect(port: u16) -> Result<Self>;

    /// Subscribes to these operations. They may be sent later.
    async fn subscribe(&mut self, numbers: Range<usize>) -> Result<()>;

    /// Reads so many events of each subscription, phase by phase, and tells the gate of each
    /// phase's end.
    async fn read(&mut self, phases: [u64; 2], gate: &mut Gate) -> Result<()>;

    /// Reads one event of each subscription, without a task for each.
    async fn read_one_each(&mut self) -> Result<()>;

    /// The connection is being cut: notice that, and subscribe to everything again.
    async fn reissue(&mut self) -> Result<()>;
}

async fn drive<C: Client>(job: &Job, ports: Ports) -> Result<Report> {
    let mut gate = Gate::connect(ports.control, job).await?;
    let mut client = C::connect(ports.socket).await?;
    let mut report = Report::default();
    match job.task {
        Task::Blast { .. } | Task::Pace { .. } => {
            client.subscribe(0..job.subscriptions).await?;
            gate.subscribed().await?;
            client.read(job.phases(), &mut gate).await?;
            gate.fill(&mut report)?;
        }
        Task::Idle => {
            // Not the first one: it stands for the connection.
            client.subscribe(0..1).await?;
            gate.notice().await?;
            let before = resident_bytes();
            client.subscribe(1..job.subscriptions).await?;
            gate.subscribed().await?;
            tokio::time::sleep(SETTLE).await;
            let subscribed = resident_bytes();
            gate.go().await?;
            client.read_one_each().await?;
            report.resident =
                Some([subscribed, resident_bytes()].map(|bytes| bytes.saturating_sub(before)));
        }
        Task::Reissue { rounds } => {
            client.subscribe(0..job.subscriptions).await?;
            gate.subscribed().await?;
            for _ in 0..rounds {
                tokio::time::sleep(SETTLE).await;
                let before = cpu_time();
                gate.go().await?;
                client.reissue().await?;
                let Notice::Reissued { nanos, bytes } = gate.notice().await? else {
                    return Err("the server said something else".into());
                };
                report.reissues.push(Reissue { nanos, bytes, cpu_nanos: cpu_time() - before });
            }
        }
    }
    Ok(report)
}

/// For everything that was sent to be taken, and freed.
const SETTLE: Duration = Duration::from_millis(100);
