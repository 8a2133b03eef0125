//! How old an event is when the typed value is in hand, while the client has time to spare.

use crate::{
    bench::{Bench, Measured},
    clients::Contender,
    feed::Shape,
    job::{Job, Report, Task},
    table::{Table, Target, number, ratio, targets},
};

pub(crate) fn measure(bench: &Bench) -> String {
    let hundreds = bench.pick(3, 1);
    let bursts = run(
        bench,
        "bursts",
        Task::Pace { burst: 100, every_micros: 10_000, bursts: 100 * hundreds },
    );
    let singles = (!bench.quick).then(|| {
        run(
            bench,
            "one by one",
            Task::Pace { burst: 1, every_micros: 1_000, bursts: 1_000 * hundreds },
        )
    });

    let mut table = Table::new(&[
        "microseconds, 150 B, 100 subscriptions",
        "bursts of 100: p50",
        "p99",
        "p99.9",
        "p99 to `routed`",
        "one by one: p50",
        "p99",
        "p99.9",
        "p99 to `routed`",
    ]);
    for who in bursts.contenders() {
        let of_mode = |mode: Option<&Measured>| {
            let value = |at| number(mode.and_then(|mode| mode.of(who, micros(at))));
            let of_routed = mode.and_then(|mode| mode.ratio(who, Contender::Routed, micros(1)));
            [value(0), value(1), value(2), ratio(of_routed)]
        };
        let name = std::iter::once(who.name().to_owned());
        table.row(name.chain(of_mode(Some(&bursts))).chain(of_mode(singles.as_ref())));
    }
    let target = |base, against, at_most| Target {
        figure: "p99 in bursts, resub, tasks".into(),
        against,
        at_most,
        measured: bursts.ratio(Contender::ResubTasks, base, micros(1)),
    };
    let targets = targets([
        target(Contender::Routed, "routed", 1.25),
        target(Contender::Peer, "graphql-ws-client", 0.60),
        target(Contender::Node, "graphql-ws (node)", 0.30),
    ]);
    format!("{}\n{targets}", table.text())
}

fn run(bench: &Bench, label: &str, task: Task) -> Measured {
    let job = Job { task, subscriptions: 100, shape: Shape::One, count_allocations: false };
    bench.measure(&format!("latency, {label}"), job, &CONTENDERS, bench.pick(5, 3))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn micros(at: usize) -> impl Fn(&Report) -> Option<f64> + Copy {
    move |report| Some(report.latency?[at] as f64 / 1e3)
}

const CONTENDERS: [Contender; 8] = [
    Contender::Routed,
    Contender::Prefix,
    Contender::ResubTasks,
    Contender::ResubSelect,
    Contender::ResubTasksMt,
    Contender::Peer,
    Contender::PeerMt,
    Contender::Node,
];
