//! Resident memory for each subscription that has nothing to do.
//!
//! The growth of the client's resident memory, divided; the connection and one subscription were
//! there before. The operation as JSON is subtracted, for whoever keeps it: a client that
//! subscribes again must.

use crate::{
    bench::{Bench, Measured},
    clients::Contender,
    feed::{Operation, Shape},
    job::{Job, Report, Task},
    table::{Table, Target, count, number, targets},
};

pub(crate) fn measure(bench: &Bench) -> String {
    let counts: &[usize] = bench.pick(&[10_000, 100_000], &[10_000]);
    let all: Vec<Measured> = counts
        .iter()
        .map(|&subscriptions| {
            let job = Job {
                task: Task::Idle,
                subscriptions,
                shape: Shape::One,
                count_allocations: false,
            };
            bench.measure(&format!("memory, {subscriptions}"), job, &CONTENDERS, bench.pick(3, 1))
        })
        .collect();

    let mut head = vec!["bytes for each subscription, without its operation".to_owned()];
    for each in counts {
        head.extend([format!("{}, idle", count(*each)), "after one event each".into()]);
    }
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for who in all[0].contenders() {
        let values = all.iter().flat_map(|measured| {
            [0, 1].map(|at| number(measured.of(who, bytes(measured.job.subscriptions, at))))
        });
        table.row(std::iter::once(who.name().to_owned()).chain(values));
    }
    let targets = targets(all.iter().flat_map(|measured| {
        let subscriptions = measured.job.subscriptions;
        let figure = bytes(subscriptions, 0);
        let target = move |against, at_most, measured| Target {
            figure: format!("resident bytes, {} idle", count(subscriptions)),
            against,
            at_most,
            measured,
        };
        [
            target("bytes", 600.0, measured.of(Contender::ResubTasks, figure)),
            target(
                "graphql-ws-client",
                0.50,
                measured.ratio(Contender::ResubTasks, Contender::Peer, figure),
            ),
            target(
                "graphql-ws (node)",
                0.15,
                measured.ratio(Contender::ResubTasks, Contender::Node, figure),
            ),
        ]
    }));
    format!(
        "The operation has {} bytes of JSON.\n\n{}\n{targets}",
        Operation::bytes(),
        table.text()
    )
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn bytes(subscriptions: usize, at: usize) -> impl Fn(&Report) -> Option<f64> + Copy {
    let (others, operation) = ((subscriptions - 1) as f64, Operation::bytes() as f64);
    move |report| Some((report.resident?[at] as f64 / others - operation).max(0.0))
}

const CONTENDERS: [Contender; 4] =
    [Contender::Routed, Contender::ResubTasks, Contender::Peer, Contender::Node];
