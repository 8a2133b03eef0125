//! Tables in Markdown, and how numbers are written in them.

use std::fmt::Write;

use crate::{bench::Measured, clients::Contender, job::Report};

pub(crate) struct Table {
    text: String,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        let mut table = Self { text: String::new() };
        table.row(head.iter().map(ToString::to_string));
        let rule = head
            .iter()
            .enumerate()
            .map(|(at, _)| if at == 0 { "---".into() } else { "---:".into() });
        table.row(rule);
        table
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.text.push('|');
        for cell in cells {
            // Writing to a string does not fail.
            let _ = write!(self.text, " {cell} |");
        }
        self.text.push('\n');
    }

    pub(crate) fn text(self) -> String {
        self.text
    }
}

/// What must hold: a figure of resub against that of another.
pub(crate) struct Target {
    pub(crate) figure: String,
    pub(crate) against: &'static str,
    pub(crate) at_most: f64,
    pub(crate) measured: Option<f64>,
}

/// The targets as a table; a word for what was missed.
pub(crate) fn targets(targets: impl IntoIterator<Item = Target>) -> String {
    let mut table = Table::new(&["what must hold", "against", "at most", "measured", ""]);
    for Target { figure, against, at_most, measured } in targets {
        let verdict = match measured {
            None => "",
            Some(ratio) if ratio <= at_most => "holds",
            Some(_) => "**missed**",
        };
        table.row([
            figure,
            against.into(),
            number(Some(at_most)),
            number(measured),
            verdict.into(),
        ]);
    }
    table.text()
}

/// A figure with its ratio to `routed`.
pub(crate) fn figure(
    measured: &Measured,
    who: Contender,
    figure: impl Fn(&Report) -> Option<f64> + Copy,
) -> String {
    match (measured.of(who, figure), measured.ratio(who, Contender::Routed, figure)) {
        (None, _) => "-".into(),
        (value, Some(of_routed)) if who != Contender::Routed => {
            format!("{} ({of_routed:.2})", number(value))
        }
        (value, _) => number(value),
    }
}

pub(crate) fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.2}"))
}

/// Three digits or more; thousands are set apart.
pub(crate) fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".into() };
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole number.
pub(crate) fn count(count: usize) -> String {
    if count < 1000 { count.to_string() } else { format!("{},{:03}", count / 1000, count % 1000) }
}

/// How bytes are said.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x0010_0000 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(number(Some(1_234_567.0)), "1,234,567");
        assert_eq!(number(Some(123.4)), "123");
        assert_eq!(number(Some(1.234)), "1.23");
        assert_eq!(number(None), "-");
        assert_eq!([1, 10_000].map(count), ["1", "10,000"]);
    }
}
