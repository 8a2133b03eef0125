//! CPU time, wall time and allocations for each event, as fast as the client reads.

use super::blast;
use crate::{
    alloc,
    bench::{Bench, Measured},
    clients::Contender,
    feed::{Many, One, Response, Shape, Small, payload},
    table::{Table, Target, count, figure, number, size, targets},
};

pub(crate) fn measure(bench: &Bench) -> String {
    let megabytes = bench.pick(64, 16);
    let rounds = bench.pick(5, 3);
    let columns: Vec<_> = CELLS
        .iter()
        .filter(|cell| !bench.quick || cell.2)
        .map(|&(bytes, subscriptions, _)| {
            let label = format!("{}, {} sub.", size(bytes), count(subscriptions));
            let job = blast(Shape::of_bytes(bytes), subscriptions, megabytes);
            let measured = bench.measure(&label, job, &Contender::ALL, rounds);
            let allocations = bench.measure(&label, job.counting_allocations(), &COUNTED, 1);
            Column { label, bytes, measured, allocations }
        })
        .collect();

    let mut head = vec!["CPU, ns for each event (ratio to `routed`)"];
    head.extend(columns.iter().map(|column| column.label.as_str()));
    let mut cpu = Table::new(&head);
    head[0] = "events a second, thousands";
    let mut pace = Table::new(&head);
    head[0] = "allocations for each event, beyond those of the decoded type";
    let mut allocations = Table::new(&head);
    for who in columns[0].measured.contenders() {
        let name = || std::iter::once(who.name().to_owned());
        cpu.row(name().chain(columns.iter().map(|column| {
            let measured = &column.measured;
            figure(measured, who, measured.cpu_per_event())
        })));
        pace.row(name().chain(columns.iter().map(|column| number(column.thousands_a_second(who)))));
        if COUNTED.contains(&who) {
            allocations.row(name().chain(columns.iter().map(|column| {
                column.allocations(who).map_or_else(|| "-".into(), |beyond| format!("{beyond:.3}"))
            })));
        }
    }
    let targets = targets(columns.iter().flat_map(Column::targets));
    format!("{}\n{}\n{}\n{targets}", cpu.text(), pace.text(), allocations.text())
}

struct Column {
    label: String,
    bytes: usize,
    measured: Measured,
    allocations: Measured,
}

impl Column {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn thousands_a_second(&self, who: Contender) -> Option<f64> {
        let events = self.measured.job.events() as f64;
        self.measured.of(who, |report| Some(events * 1e6 / report.wall_nanos as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn allocations(&self, who: Contender) -> Option<f64> {
        let job = &self.allocations.job;
        let own = allocations_of_the_type(job.shape) as f64;
        let all = self
            .allocations
            .of(who, |report| Some(report.allocations? as f64 / job.events() as f64));
        all.map(|all| all - own)
    }

    fn targets(&self) -> Vec<Target> {
        let figure = self.measured.cpu_per_event();
        let mut targets = Vec::new();
        for &(bytes, subscriptions, who, at_most) in &TARGETS {
            if (bytes, subscriptions) != (self.bytes, self.measured.job.subscriptions) {
                continue;
            }
            for ((base, against), at_most) in BASES.into_iter().zip(at_most) {
                let Some(at_most) = at_most else { continue };
                let peer = if (who, base) == (Contender::ResubTasksMt, Contender::Peer) {
                    Contender::PeerMt
                } else {
                    base
                };
                targets.push(Target {
                    figure: format!("CPU, {}, {}", self.label, who.name()),
                    against,
                    at_most,
                    measured: self.measured.ratio(who, peer, figure),
                });
            }
        }
        targets.push(Target {
            figure: format!("allocations, {}, resub, tasks", self.label),
            against: "beyond the type's",
            at_most: 0.005,
            measured: self.allocations(Contender::ResubTasks),
        });
        targets
    }
}

/// What decoding one event allocates, whoever does it.
fn allocations_of_the_type(shape: Shape) -> u64 {
    let text = payload(shape);
    alloc::count();
    let before = alloc::allocations();
    let decoded = match shape {
        Shape::Tick => serde_json::from_str::<Response<Small>>(&text).is_ok(),
        Shape::One => serde_json::from_str::<Response<One>>(&text).is_ok(),
        Shape::Rows(_) => serde_json::from_str::<Response<Many>>(&text).is_ok(),
    };
    debug_assert!(decoded);
    alloc::allocations() - before
}

/// Bytes, subscriptions, and whether the quick run has it, too.
const CELLS: [(usize, usize, bool); 8] = [
    (150, 1, false),
    (150, 100, true),
    (150, 10_000, true),
    (2048, 1, false),
    (2048, 100, true),
    (2048, 10_000, false),
    (65_536, 1, true),
    (65_536, 100, false),
];

/// Whose allocator is ours.
const COUNTED: [Contender; 8] = [
    Contender::Routed,
    Contender::Prefix,
    Contender::ResubTasks,
    Contender::ResubSelect,
    Contender::ResubTasksMt,
    Contender::ResubSelectMt,
    Contender::Peer,
    Contender::PeerMt,
];

const BASES: [(Contender, &str); 3] = [
    (Contender::Routed, "routed"),
    (Contender::Peer, "graphql-ws-client"),
    (Contender::Node, "graphql-ws (node)"),
];

/// Bytes, subscriptions, who, and the most that its CPU time may be of each of [`BASES`].
const TARGETS: [(usize, usize, Contender, [Option<f64>; 3]); 8] = [
    (150, 100, Contender::ResubTasks, [Some(0.90), Some(0.25), Some(0.25)]),
    (150, 10_000, Contender::ResubTasks, [Some(1.05), Some(0.17), Some(0.20)]),
    (2048, 100, Contender::ResubTasks, [Some(0.85), Some(0.17), Some(0.45)]),
    (65_536, 1, Contender::ResubTasks, [Some(0.85), Some(0.35), Some(0.50)]),
    (150, 100, Contender::ResubTasksMt, [Some(1.20), Some(0.25), None]),
    (150, 10_000, Contender::ResubTasksMt, [Some(1.20), Some(0.25), None]),
    (2048, 100, Contender::ResubTasksMt, [Some(1.20), Some(0.25), None]),
    (65_536, 1, Contender::ResubTasksMt, [Some(1.20), Some(0.25), None]),
];
