//! The parts of the report, one file each: what is run for it, and how it is told.

mod growth;
mod latency;
mod memory;
mod reissue;
mod throughput;

use clap::ValueEnum;

use crate::{
    bench::Bench,
    feed::{Frame, Shape},
    job::{Job, Task},
};

/// A part of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Section {
    Throughput,
    Latency,
    Memory,
    Reissue,
    Growth,
}

/// What a section came to.
pub(crate) struct Outcome {
    pub(crate) markdown: String,
    /// An SVG, of the section that has one.
    pub(crate) plot: Option<String>,
}

impl From<String> for Outcome {
    fn from(markdown: String) -> Self {
        Self { markdown, plot: None }
    }
}

impl Section {
    pub(crate) const ALL: [Self; 5] =
        [Self::Throughput, Self::Latency, Self::Memory, Self::Reissue, Self::Growth];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Memory => "memory",
            Self::Reissue => "reissue",
            Self::Growth => "growth",
        }
    }

    pub(crate) fn measure(self, bench: &Bench) -> Outcome {
        match self {
            Self::Throughput => throughput::measure(bench).into(),
            Self::Latency => latency::measure(bench).into(),
            Self::Memory => memory::measure(bench).into(),
            Self::Reissue => reissue::measure(bench).into(),
            Self::Growth => growth::measure(bench),
        }
    }
}

/// As many events as fit into so many bytes, and at least five for each subscription.
fn blast(shape: Shape, subscriptions: usize, megabytes: usize) -> Job {
    let round = Frame::new("100", shape).bytes.len() * subscriptions;
    let events = (megabytes * 1_000_000 / round).max(5) as u64;
    let task = Task::Blast { warm_up: (events / 10).max(1), events };
    Job { task, subscriptions, shape, count_allocations: false }
}
