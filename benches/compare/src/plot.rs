//! Curves on logarithmic axes, as SVG: a straight line of slope one is linear growth, a flat one is
//! none.
//!
//! The picture must be understood without the text around it: it carries its units, its legend and
//! its white ground, which a reader's dark mode does not take away.

use std::fmt::Write;

pub(crate) struct Panel {
    /// What the curves are, as times.
    pub(crate) title: &'static str,
    /// What the horizontal axis says, and what is the same for all points.
    pub(crate) across: &'static str,
    pub(crate) scale: Scale,
    /// In the same order in every panel.
    pub(crate) series: Vec<Series>,
    /// Where a line of linear growth begins, to compare with.
    pub(crate) linear_from: Option<(f64, f64)>,
}

pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// Places on the horizontal axis, and nanoseconds.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What the horizontal axis counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    Subscriptions,
    Bytes,
}

/// The panels side by side, under one legend.
#[expect(clippy::cast_precision_loss, reason = "a few panels")]
pub(crate) fn svg(panels: &[Panel]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut svg = String::new();
    // Writing to a string does not fail, here and below.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"Helvetica, Arial, sans-serif\" \
         font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n{}",
        legend(panels, width)
    );
    for (at, panel) in panels.iter().enumerate() {
        let _ = write!(
            svg,
            "<g transform=\"translate({} 0)\">\n{}</g>\n",
            WIDTH * at as f64,
            draw(panel)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// What the lines are, and how to read them.
fn legend(panels: &[Panel], width: f64) -> String {
    let mut entries: Vec<(String, &str)> = Vec::new();
    for (index, style) in STYLES.iter().enumerate() {
        let named = panels
            .iter()
            .filter_map(|panel| panel.series.get(index))
            .find(|series| !series.points.is_empty());
        if let Some(series) = named {
            entries.push((
                curve(&[(0.0, 0.0), (24.0, 0.0)], *style) + &mark((12.0, 0.0), *style),
                series.name,
            ));
        }
    }
    if panels.iter().any(|panel| panel.linear_from.is_some()) {
        entries.push((dashes((0.0, 0.0), (24.0, 0.0)), "linear growth"));
    }
    let (mut svg, mut x) = (String::new(), 16.0);
    for (sample, name) in entries {
        let _ = writeln!(
            svg,
            "<g transform=\"translate({x:.1} 18)\">\n\
             {sample}<text x=\"32\" y=\"4\">{name}</text>\n</g>"
        );
        x += 58.0 + 6.4 * f64::from(u32::try_from(name.len()).unwrap_or(0));
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"22\" text-anchor=\"end\" fill=\"#555\">lower is better</text>",
        width - RIGHT
    );
    svg
}

fn draw(panel: &Panel) -> String {
    let all = || panel.series.iter().flat_map(|series| &series.points);
    let bottom = HEIGHT - BOTTOM;
    let x = Axis::over(&panel.scale.ticks(), all().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Axis::over(&times(), all().map(|point| point.1), bottom, TOP);

    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\" font-size=\"13\">{}</text>",
        TOP - 12.0,
        panel.title
    );
    for (value, text) in &y.ticks {
        let at = y.at(*value);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
        );
    }
    for (value, text) in &x.ticks {
        let at = x.at(*value);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{text}</text>",
            bottom + 16.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        bottom + 36.0,
        panel.across
    );
    if let Some((from, cost)) = panel.linear_from {
        // To the edge that it meets first.
        let factor = (x.most / from).min(y.most / cost);
        svg.push_str(&dashes((x.at(from), y.at(cost)), (x.at(from * factor), y.at(cost * factor))));
    }
    for (series, style) in panel.series.iter().zip(STYLES) {
        let points: Vec<_> =
            series.points.iter().map(|point| (x.at(point.0), y.at(point.1))).collect();
        svg.push_str(&curve(&points, style));
        svg.extend(points.into_iter().map(|point| mark(point, style)));
    }
    svg
}

fn dashes(from: (f64, f64), to: (f64, f64)) -> String {
    format!(
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#888\" stroke-width=\"1.5\" \
         stroke-dasharray=\"5 4\"/>\n",
        from.0, from.1, to.0, to.1
    )
}

fn curve(points: &[(f64, f64)], style: Style) -> String {
    let places: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (places, colour) = (places.join(" "), style.colour);
    format!(
        "<polyline points=\"{places}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"
    )
}

/// Where something was measured.
fn mark((x, y): (f64, f64), Style { colour, mark }: Style) -> String {
    let shape = match mark {
        Mark::Circle => format!("circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\""),
        Mark::Square => {
            format!("rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\"", x - 3.5, y - 3.5)
        }
        Mark::Triangle => format!("path d=\"M{x:.1} {:.1}l4.5 8h-9z\"", y - 5.0),
    };
    format!("<{shape} fill=\"{colour}\"/>\n")
}

/// A logarithmic axis: from a value to a place.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
    /// Those of the given ones that lie on it.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From the last tick before all values to the first one after them, so that the slope of a
    /// curve can be seen.
    fn over(
        ticks: &[(f64, String)],
        values: impl Iterator<Item = f64>,
        from: f64,
        to: f64,
    ) -> Self {
        let (low, high) = values
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let first = ticks.iter().rposition(|tick| tick.0 <= low).unwrap_or(0).min(ticks.len() - 2);
        let last =
            ticks.iter().position(|tick| tick.0 >= high).unwrap_or(ticks.len() - 1).max(first + 1);
        Self {
            least: ticks[first].0,
            most: ticks[last].0,
            from,
            to,
            ticks: ticks[first..=last].to_vec(),
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.max(1e-9) / self.least).ln() / (self.most / self.least).ln();
        self.from + share * (self.to - self.from)
    }
}

impl Scale {
    fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Subscriptions => by_units(&[(1.0, ""), (1e3, "k"), (1e6, "M")]),
            Self::Bytes => by_units(&[(1.0, " B"), (1024.0, " KiB"), (1_048_576.0, " MiB")]),
        }
    }
}

/// The ticks of nanoseconds.
fn times() -> Vec<(f64, String)> {
    by_units(&[(1.0, " ns"), (1e3, " µs"), (1e6, " ms"), (1e9, " s")])
}

/// 1, 10 and 100 of each unit.
fn by_units(units: &[(f64, &str)]) -> Vec<(f64, String)> {
    let of_unit = |(unit, name): &(f64, &str)| {
        [1.0, 10.0, 100.0].map(|count| (count * unit, format!("{count}{name}")))
    };
    units.iter().flat_map(of_unit).collect()
}

/// How a series is drawn: the marks differ for whoever cannot tell the colours.
#[derive(Clone, Copy)]
struct Style {
    colour: &'static str,
    mark: Mark,
}

#[derive(Clone, Copy)]
enum Mark {
    Circle,
    Square,
    Triangle,
}

const STYLES: [Style; 3] = [
    Style { colour: "#444444", mark: Mark::Circle },
    Style { colour: "#0072b2", mark: Mark::Square },
    Style { colour: "#d55e00", mark: Mark::Triangle },
];

/// Of one panel. Three are as wide as a page, so that the letters are as large there as they are
/// here.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 350.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 50.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, values: [f64; 2]) -> (Axis, Vec<String>) {
        let axis = Axis::over(&scale.ticks(), values.into_iter(), 0.0, 200.0);
        let texts = axis.ticks.iter().map(|tick| tick.1.clone()).collect();
        (axis, texts)
    }

    #[test]
    fn equal_factors_are_equal_distances() {
        let (axis, _) = axis(Scale::Subscriptions, [1.0, 100.0]);
        assert!((axis.at(10.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn an_axis_begins_and_ends_with_a_tick_that_has_a_unit() {
        let (_, texts) = axis(Scale::Subscriptions, [1.0, 100_000.0]);
        assert_eq!(texts, ["1", "10", "100", "1k", "10k", "100k"]);
        let (_, texts) = axis(Scale::Bytes, [150.0, 131_072.0]);
        assert_eq!(texts, ["100 B", "1 KiB", "10 KiB", "100 KiB", "1 MiB"]);
    }

    #[test]
    fn a_single_value_and_none_have_an_axis_too() {
        let (axis_of_one, _) = axis(Scale::Subscriptions, [1.0, 1.0]);
        assert!(axis_of_one.at(1.0).abs() < 1e-9);
        assert!(Axis::over(&times(), std::iter::empty(), 0.0, 1.0).at(1.0).is_finite());
    }

    #[test]
    fn a_panel_without_points_is_drawn_and_has_no_legend() {
        let series = vec![Series { name: "absent", points: Vec::new() }];
        let panel = Panel { title: "", across: "", scale: Scale::Bytes, series, linear_from: None };
        let svg = svg(&[panel]);
        assert!(!svg.contains("absent") && !svg.contains("NaN") && !svg.contains("inf"));
    }
}
