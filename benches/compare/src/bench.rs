//! One comparison: the same job for several contenders, interleaved.
//!
//! Every round runs every contender once, each time in another order, and a ratio is one of two
//! runs of the same round: what else the machine does then hits both.

use std::path::PathBuf;

use crate::{
    clients::Contender,
    job::{Job, Report, Result},
    measure::median,
    process::{Program, run},
};

/// What is the same for all comparisons.
pub(crate) struct Bench {
    pub(crate) quick: bool,
    /// Nobody else is measured, apart from `routed`; empty: everybody.
    pub(crate) only: Vec<Contender>,
    /// The script for node, where that can run.
    pub(crate) node: Option<PathBuf>,
}

/// One job and what came of it.
pub(crate) struct Measured {
    pub(crate) job: Job,
    /// By contender, then by round; `None` where a run failed.
    runs: Vec<(Contender, Vec<Option<Report>>)>,
}

impl Bench {
    /// Whether this is the thorough or the quick value.
    pub(crate) fn pick<T>(&self, thorough: T, quick: T) -> T {
        if self.quick { quick } else { thorough }
    }

    pub(crate) fn measure(
        &self,
        label: &str,
        job: Job,
        contenders: &[Contender],
        rounds: usize,
    ) -> Measured {
        let wanted = |contender: &Contender| {
            (*contender != Contender::Node || self.node.is_some())
                && (self.only.is_empty()
                    || *contender == Contender::Routed
                    || self.only.contains(contender))
        };
        let mut runs: Vec<_> = contenders
            .iter()
            .copied()
            .filter(wanted)
            .map(|contender| (contender, Vec::new()))
            .collect();
        let count = runs.len();
        for round in 0..rounds {
            for turn in 0..count {
                // Every second round in the other direction, so that nobody always follows the same
                // one.
                let at = if round % 2 == 0 {
                    (turn + round) % count
                } else {
                    (count - 1 + round - turn) % count
                };
                let (contender, reports) = &mut runs[at];
                eprint!("\r\x1b[K{label}: round {} of {rounds}, {}", round + 1, contender.name());
                let report = self.run(*contender, &job);
                if let Err(error) = &report {
                    eprintln!("\r\x1b[K{label}: {} failed: {error}", contender.name());
                }
                reports.push(report.ok());
            }
        }
        eprint!("\r\x1b[K");
        Measured { job, runs }
    }

    fn run(&self, contender: Contender, job: &Job) -> Result<Report> {
        match (contender, &self.node) {
            (Contender::Node, Some(script)) => run(&Program::Node(script), job),
            (contender, _) => run(&Program::Own(contender.name()), job),
        }
    }
}

impl Measured {
    pub(crate) fn contenders(&self) -> impl Iterator<Item = Contender> {
        self.runs.iter().map(|run| run.0)
    }

    /// The median over all rounds.
    pub(crate) fn of(
        &self,
        contender: Contender,
        figure: impl Fn(&Report) -> Option<f64>,
    ) -> Option<f64> {
        median(self.reports(contender).iter().flatten().filter_map(figure))
    }

    /// The median over all rounds of the ratio within each.
    pub(crate) fn ratio(
        &self,
        contender: Contender,
        base: Contender,
        figure: impl Fn(&Report) -> Option<f64>,
    ) -> Option<f64> {
        let pairs = self.reports(contender).iter().zip(self.reports(base));
        let figure =
            |report: &Option<Report>| figure(report.as_ref()?).filter(|figure| *figure > 0.0);
        median(pairs.filter_map(|(one, other)| Some(figure(one)? / figure(other)?)))
    }

    /// Nanoseconds of CPU time for each event.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn cpu_per_event(&self) -> impl Fn(&Report) -> Option<f64> + Copy + use<> {
        let events = self.job.events() as f64;
        move |report| Some(report.cpu_nanos as f64 / events)
    }

    fn reports(&self, contender: Contender) -> &[Option<Report>] {
        self.runs.iter().find(|run| run.0 == contender).map_or(&[], |run| &run.1)
    }
}
