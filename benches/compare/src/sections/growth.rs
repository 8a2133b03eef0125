//! How costs grow. Nothing may grow faster than the logarithm of the subscriptions for an event,
//! than the subscriptions for a reconnect, or than the bytes of an event.

use super::{Outcome, blast, reissue};
use crate::{
    bench::{Bench, Measured},
    clients::Contender,
    feed::{Frame, Shape},
    job::Report,
    plot::{Panel, Scale, Series, svg},
    table::{Table, Target, count, number, ratio, size, targets},
};

pub(crate) fn measure(bench: &Bench) -> Outcome {
    let counts: &[usize] = bench.pick(&[1, 10, 100, 1_000, 10_000, 100_000], &[1, 1_000, 100_000]);
    let sizes: &[usize] =
        bench.pick(&[100, 512, 2_048, 8_192, 32_768, 131_072, 1 << 20], &[100, 8_192, 1 << 20]);
    let (rounds, megabytes) = bench.pick((3, 32), (1, 16));
    let events = counts.iter().map(|&each| {
        let job = blast(Shape::One, each, megabytes);
        let measured = bench.measure(&format!("growth, {each}"), job, &CONTENDERS, rounds);
        let figure = measured.cpu_per_event();
        Point::new(each, &measured, figure)
    });
    let events = Curve {
        head: "CPU for each event of 150 B, ns: subscriptions",
        title: "CPU time for each event",
        across: "subscriptions (events of 150 B)",
        scale: Scale::Subscriptions,
        nanos: 1.0,
        points: events.collect(),
    };
    let payloads = sizes.iter().map(|&bytes| {
        let job = blast(Shape::of_bytes(bytes), 1, megabytes);
        let measured = bench.measure(&format!("growth, {}", size(bytes)), job, &CONTENDERS, rounds);
        let figure = measured.cpu_per_event();
        Point::new(bytes, &measured, figure)
    });
    let payloads = Curve {
        head: "CPU for each event, ns, 1 subscription: bytes",
        title: "CPU time for each event",
        across: "size of an event (1 subscription)",
        scale: Scale::Bytes,
        nanos: 1.0,
        points: payloads.collect(),
    };
    let reconnects = counts.iter().map(|&each| {
        let measured = reissue::run(bench, each, &CONTENDERS, rounds);
        Point::new(each, &measured, |report| Some(reissue::cpu_millis(report)? * 1e3))
    });
    let reconnects = Curve {
        head: "CPU for each reconnect, us: subscriptions",
        title: "CPU time for each reconnect",
        across: "subscriptions, all subscribed again",
        scale: Scale::Subscriptions,
        nanos: 1e3,
        points: reconnects.collect(),
    };

    let targets = targets(bounds(&events, &payloads, &reconnects));
    let curves = [events, payloads, reconnects];
    let tables = curves.iter().map(Curve::markdown).collect::<Vec<_>>().join("\n");
    Outcome {
        markdown: format!("{tables}\n{targets}"),
        plot: Some(svg(&curves.each_ref().map(Curve::panel))),
    }
}

/// What must hold of resub, against itself at a smaller size.
fn bounds(events: &Curve, payloads: &Curve, reconnects: &Curve) -> [Target; 3] {
    [
        Target {
            figure: "CPU for an event, 100,000 sub., resub, tasks".into(),
            against: "1 sub.",
            at_most: logarithmic(100_000.0),
            measured: events.growth(1, 100_000, |_| 1.0),
        },
        // Twice, as what one operation needs is no longer in a cache.
        Target {
            figure: "CPU for an operation again, 100,000 sub., resub, tasks".into(),
            against: "1,000 sub.",
            at_most: 2.0,
            measured: reconnects.growth(1_000, 100_000, float),
        },
        // Twice, as a frame is longer than what one read brings, and longer than a cache.
        Target {
            figure: "CPU for a byte, 1 MiB, resub, tasks".into(),
            against: "8 KiB",
            at_most: 2.0,
            measured: payloads.growth(8_192, 1 << 20, |bytes| {
                // A list has whole rows only, so its frame is not exactly as long as was wished
                // for.
                float(Frame::new("1", Shape::of_bytes(bytes)).bytes.len())
            }),
        },
    ]
}

/// How much more an event may cost with so many subscriptions than with one: an eighth for each
/// doubling.
///
/// Of the 600 ns or so of one event that is 75 ns, a miss of every cache. The path of an event
/// touches a handful of places that are its subscription's own, so with everything out of the
/// caches it costs less than twice as much; whoever looks at all subscriptions for every event pays
/// at least a nanosecond for each, more than a hundred times as much.
fn logarithmic(subscriptions: f64) -> f64 {
    1.0 + subscriptions.log2() / 8.0
}

struct Curve {
    /// Of its table: with the unit of the costs, and what the first column is.
    head: &'static str,
    /// Of its panel.
    title: &'static str,
    across: &'static str,
    scale: Scale,
    /// The unit of the costs, in nanoseconds.
    nanos: f64,
    points: Vec<Point>,
}

/// What each of [`CONTENDERS`] costs at one size, and resub against `routed`.
struct Point {
    at: usize,
    costs: [Option<f64>; 3],
    of_routed: Option<f64>,
}

impl Point {
    fn new(at: usize, measured: &Measured, figure: impl Fn(&Report) -> Option<f64> + Copy) -> Self {
        let costs = CONTENDERS.map(|who| measured.of(who, figure));
        Self {
            at,
            costs,
            of_routed: measured.ratio(Contender::ResubTasks, Contender::Routed, figure),
        }
    }
}

impl Curve {
    fn markdown(&self) -> String {
        let [routed, resub, peer] = CONTENDERS.map(Contender::name);
        let mut table = Table::new(&[self.head, routed, resub, "ratio", peer]);
        for Point { at, costs: [routed, resub, peer], of_routed } in &self.points {
            let at = match self.scale {
                Scale::Subscriptions => count(*at),
                Scale::Bytes => size(*at),
            };
            table.row([at, number(*routed), number(*resub), ratio(*of_routed), number(*peer)]);
        }
        table.text()
    }

    fn panel(&self) -> Panel {
        let series = LEGEND
            .iter()
            .enumerate()
            .map(|(index, name)| Series { name, points: self.series(index) });
        Panel {
            title: self.title,
            across: self.across,
            scale: self.scale,
            series: series.collect(),
            linear_from: self.series(RESUB).first().copied(),
        }
    }

    /// Where it was measured, and nanoseconds.
    fn series(&self, index: usize) -> Vec<(f64, f64)> {
        self.points
            .iter()
            .filter_map(|point| Some((float(point.at), point.costs[index]? * self.nanos)))
            .collect()
    }

    /// How many times as much as at `from` resub costs at `to`, for each of the parts there are.
    fn growth(&self, from: usize, to: usize, parts: impl Fn(usize) -> f64) -> Option<f64> {
        let cost = |at| {
            let point = self.points.iter().find(|point| point.at == at)?;
            Some(point.costs[RESUB]? / parts(at))
        };
        Some(cost(to)? / cost(from)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn float(count: usize) -> f64 {
    count as f64
}

const CONTENDERS: [Contender; 3] = [Contender::Routed, Contender::ResubTasks, Contender::Peer];

/// Where resub is in [`CONTENDERS`].
const RESUB: usize = 1;

/// [`CONTENDERS`], for whoever sees the plot only.
const LEGEND: [&str; 3] =
    ["routed: a loop by hand", "resub, a task for each stream", "graphql-ws-client"];

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(scale: Scale, cost: impl Fn(f64) -> f64) -> Curve {
        let points = [1, 1_000, 8_192, 100_000, 1 << 20].map(|at| Point {
            at,
            costs: [None, Some(cost(float(at))), None],
            of_routed: None,
        });
        Curve { head: "", title: "", across: "", scale, nanos: 1.0, points: points.into() }
    }

    /// Which of the bounds hold of such costs of an event, of a byte's, and of a reconnect.
    fn hold(
        event: impl Fn(f64) -> f64,
        payload: impl Fn(f64) -> f64,
        reconnect: impl Fn(f64) -> f64,
    ) -> [bool; 3] {
        let [event, reconnect] =
            [curve(Scale::Subscriptions, event), curve(Scale::Subscriptions, reconnect)];
        bounds(&event, &curve(Scale::Bytes, payload), &reconnect)
            .map(|bound| bound.measured.unwrap() <= bound.at_most)
    }

    #[test]
    fn costs_with_cache_misses_are_within_bounds() {
        let misses = |n: f64| if n > 10_000.0 { 500.0 } else { 0.0 };
        let event = |n| 600.0 + misses(n);
        let reconnect = |n| 350.0 + n * (0.6 + misses(n) / 1e3);
        assert_eq!(hold(event, |bytes| 300.0 + bytes * 3.8, reconnect), [true; 3]);
    }

    #[test]
    fn costs_that_grow_one_order_faster_are_not() {
        let event = |n| 600.0 + n;
        let reconnect = |n| 350.0 + n * 0.6 + n * n * 1e-3;
        assert_eq!(hold(event, |bytes| bytes * 3.0 + bytes * bytes * 1e-3, reconnect), [false; 3]);
    }
}
