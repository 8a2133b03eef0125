//! Curves on logarithmic axes, as SVG: a straight line of slope one is linear growth, a flat one is none.

use std::fmt::Write;

pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) of: &'static str,
    /// Where the horizontal axis has a mark, and its text.
    pub(crate) ticks: Vec<(f64, String)>,
    pub(crate) series: Vec<Series>,
}

pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The panels side by side.
pub(crate) fn svg(panels: &[Panel]) -> String {
    let mut svg = String::new();
    let mut left = 0;
    let mut body = String::new();
    for panel in panels {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(body, "<g transform=\"translate({left} 0)\">\n{}</g>", draw(panel));
        left += WIDTH;
    }
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {left} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#222\">\n<rect width=\"{left}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n{body}</svg>"
    );
    svg
}

fn draw(panel: &Panel) -> String {
    let all = || panel.series.iter().flat_map(|series| &series.points);
    let x = Axis::over(all().map(|point| point.0), LEFT, f64::from(WIDTH) - RIGHT);
    // Whole decades, so that the slope of a curve can be seen.
    let y = Axis::over(
        all().flat_map(|point| {
            let decade = point.1.max(1e-9).log10();
            [10f64.powf(decade.floor()), 10f64.powf(decade.ceil())]
        }),
        f64::from(HEIGHT) - BOTTOM,
        TOP,
    );
    let mut svg = String::new();
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"20\" font-weight=\"bold\">{}</text>", panel.title);
    let mut decade = y.least;
    while decade <= y.most + 1e-9 {
        let (at, value) = (y.at(10f64.powf(decade)), 10f64.powf(decade));
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            f64::from(WIDTH) - RIGHT,
            LEFT - 5.0,
            at + 4.0,
        );
        decade += 1.0;
    }
    let bottom = f64::from(HEIGHT) - BOTTOM;
    for (value, text) in &panel.ticks {
        let at = x.at(*value);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#eee\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" \
             font-size=\"9\">{text}</text>",
            bottom + 14.0,
        );
    }
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>", bottom + 30.0, panel.of);
    let mut row = TOP + 10.0;
    for (series, colour) in panel.series.iter().zip(COLOURS) {
        let points: Vec<_> =
            series.points.iter().map(|point| format!("{:.1},{:.1}", x.at(point.0), y.at(point.1))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{row:.1}\" fill=\"{colour}\">{}</text>", LEFT + 8.0, series.name);
        row += 14.0;
    }
    svg
}

/// From a logarithm to a place.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            let log = value.max(1e-9).log10();
            (least.min(log), most.max(log))
        });
        if least < most { Self { least, most, from, to } } else { Self { least: 0.0, most: 1.0, from, to } }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.max(1e-9).log10() - self.least) / (self.most - self.least);
        self.from + share * (self.to - self.from)
    }
}

const WIDTH: u32 = 380;
const HEIGHT: u32 = 300;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
const COLOURS: [&str; 3] = ["#666666", "#c0392b", "#2471a3"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_factors_are_equal_distances() {
        let axis = Axis::over([1.0, 100.0].into_iter(), 0.0, 200.0);
        assert!((axis.at(10.0) - 100.0).abs() < 1e-9);
    }
}
