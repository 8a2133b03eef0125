//! How costs grow. Nothing may grow faster than the logarithm of the subscriptions for an event, than the subscriptions
//! for a reconnect, or than the bytes of an event.

use super::{Outcome, blast, reissue};
use crate::{
    bench::{Bench, Measured},
    clients::Contender,
    feed::Shape,
    plot::{Panel, Series, svg},
    table::{Table, count, number, ratio, size},
};

pub(crate) fn measure(bench: &Bench) -> Outcome {
    let counts: &[usize] = bench.pick(&[1, 10, 100, 1_000, 10_000, 100_000], &[1, 100, 10_000]);
    let sizes: &[usize] = bench.pick(&[150, 512, 2_048, 8_192, 32_768, 131_072, 1 << 20], &[150, 8_192, 1 << 20]);
    let (rounds, megabytes) = bench.pick((3, 32), (1, 16));
    let events = counts.iter().map(|&each| {
        let job = blast(Shape::One, each, megabytes);
        let measured = bench.measure(&format!("growth, {each}"), job, &CONTENDERS, rounds);
        let figure = measured.cpu_per_event();
        Point::new(each, &measured, figure)
    });
    let events = Curve::new("CPU for each event of 150 B, ns", "subscriptions", false, events);
    let payloads = sizes.iter().map(|&bytes| {
        let job = blast(Shape::of_bytes(bytes), 1, megabytes);
        let measured = bench.measure(&format!("growth, {}", size(bytes)), job, &CONTENDERS, rounds);
        let figure = measured.cpu_per_event();
        Point::new(bytes, &measured, figure)
    });
    let payloads = Curve::new("CPU for each event, ns, 1 subscription", "bytes", true, payloads);
    let reconnects = counts.iter().map(|&each| {
        let measured = reissue::run(bench, each, &CONTENDERS, rounds);
        Point::new(each, &measured, |report| Some(reissue::cpu_millis(report)? * 1e3))
    });
    let reconnects = Curve::new("CPU for each reconnect, us", "subscriptions", false, reconnects);

    let curves = [events, payloads, reconnects];
    let markdown = curves.iter().map(Curve::markdown).collect::<Vec<_>>().join("\n");
    Outcome { markdown, plot: Some(svg(&curves.each_ref().map(Curve::panel))) }
}

struct Curve {
    title: &'static str,
    of: &'static str,
    in_bytes: bool,
    points: Vec<Point>,
}

/// What each of [`CONTENDERS`] costs at one size, and resub against `routed`.
struct Point {
    at: usize,
    costs: [Option<f64>; 3],
    of_routed: Option<f64>,
}

impl Point {
    fn new(at: usize, measured: &Measured, figure: impl Fn(&crate::job::Report) -> Option<f64> + Copy) -> Self {
        let costs = CONTENDERS.map(|who| measured.of(who, figure));
        Self { at, costs, of_routed: measured.ratio(Contender::ResubTasks, Contender::Routed, figure) }
    }
}

impl Curve {
    fn new(title: &'static str, of: &'static str, in_bytes: bool, points: impl Iterator<Item = Point>) -> Self {
        Self { title, of, in_bytes, points: points.collect() }
    }

    fn markdown(&self) -> String {
        let [routed, resub, peer] = CONTENDERS.map(Contender::name);
        let head = format!("{}: {}", self.title, self.of);
        let mut table = Table::new(&[&head, routed, resub, "ratio", peer]);
        for Point { at, costs: [routed, resub, peer], of_routed } in &self.points {
            table.row([self.tick(*at), number(*routed), number(*resub), ratio(*of_routed), number(*peer)]);
        }
        table.text()
    }

    #[expect(clippy::cast_precision_loss, reason = "an axis")]
    fn panel(&self) -> Panel {
        let series = CONTENDERS.iter().enumerate().map(|(index, who)| Series {
            name: who.name(),
            points: self.points.iter().filter_map(|point| Some((point.at as f64, point.costs[index]?))).collect(),
        });
        let ticks = self.points.iter().map(|point| (point.at as f64, self.tick(point.at))).collect();
        Panel { title: self.title, of: self.of, ticks, series: series.collect() }
    }

    fn tick(&self, at: usize) -> String {
        if self.in_bytes { size(at) } else { count(at) }
    }
}

const CONTENDERS: [Contender; 3] = [Contender::Routed, Contender::ResubTasks, Contender::Peer];
