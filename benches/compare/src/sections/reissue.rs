//! The server cuts the connection under 10,000 subscriptions: until all are subscribed again.
//!
//! `routed` writes the same messages as one batch, which is the least there is to do.
//! graphql-ws-client does not reconnect; the harness does it for it.

use crate::{
    bench::{Bench, Measured},
    clients::Contender,
    feed::Shape,
    job::{Job, Reissue, Report, Task},
    measure::median,
    table::{Table, Target, figure, targets},
};

pub(crate) fn measure(bench: &Bench) -> String {
    let measured = run(bench, SUBSCRIPTIONS, &CONTENDERS, bench.pick(5, 2));
    let mut table = Table::new(&[
        "10,000 operations again (ratio to `routed`)",
        "ms from the ack to the last",
        "ms of CPU, connecting included",
        "bytes on the wire",
    ]);
    for who in measured.contenders() {
        table.row([
            who.name().to_owned(),
            figure(&measured, who, millis),
            figure(&measured, who, cpu_millis),
            figure(&measured, who, bytes),
        ]);
    }
    let target =
        |what, at_most, measured| Target { figure: what, against: "routed", at_most, measured };
    let ratio =
        |who, figure: fn(&Report) -> Option<f64>| measured.ratio(who, Contender::Routed, figure);
    let targets = targets([
        target(
            "ms, 10,000 again, current-thread".into(),
            1.5,
            ratio(Contender::ResubTasks, millis),
        ),
        target(
            "ms, 10,000 again, multi-thread".into(),
            1.5,
            ratio(Contender::ResubTasksMt, millis),
        ),
    ]);
    format!("{}\n{targets}", table.text())
}

/// So many cuts of so many subscriptions each, in every round.
pub(super) fn run(
    bench: &Bench,
    subscriptions: usize,
    contenders: &[Contender],
    rounds: usize,
) -> Measured {
    let task = Task::Reissue { rounds: 5 };
    let job = Job { task, subscriptions, shape: Shape::One, count_allocations: false };
    bench.measure(&format!("re-issue, {subscriptions}"), job, contenders, rounds)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn millis(report: &Report) -> Option<f64> {
    of(report, |reissue| reissue.nanos as f64 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn cpu_millis(report: &Report) -> Option<f64> {
    of(report, |reissue| reissue.cpu_nanos as f64 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn bytes(report: &Report) -> Option<f64> {
    of(report, |reissue| reissue.bytes as f64)
}

fn of(report: &Report, figure: impl Fn(&Reissue) -> f64) -> Option<f64> {
    median(report.reissues.iter().map(figure))
}

const SUBSCRIPTIONS: usize = 10_000;

const CONTENDERS: [Contender; 5] = [
    Contender::Routed,
    Contender::ResubTasks,
    Contender::ResubTasksMt,
    Contender::Peer,
    Contender::Node,
];
