//! Prints to standard error: status changes, errors, and the summary. Never prints credentials or
//! the query of a URL.

use std::{
    error::Error,
    fmt,
    io::{Write, stderr},
    time::Duration,
};

use resub::{Gap, Stats, Status};

use crate::show::one_line;

/// Prints status changes.
pub(crate) struct News {
    quiet: bool,
    /// Whether the last status was `Open`. If not, the next failure is a failed attempt.
    connected: bool,
    /// Whether the last status was `Waiting`, which has printed the cause.
    waited: bool,
}

impl News {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, connected: false, waited: false }
    }

    pub(crate) fn status(&mut self, status: &Status) {
        match status {
            Status::Connecting { attempt: 1, cause: None, .. } => {
                self.print(format_args!("connecting"));
            }
            // Without a delay, as after rejected credentials: the cause was not printed yet.
            Status::Connecting { attempt, cause: Some(cause), .. } if !self.waited => {
                self.print(format_args!("connecting, attempt {attempt}, after: {}", Chain(cause)));
            }
            Status::Connecting { attempt, .. } => {
                self.print(format_args!("connecting, attempt {attempt}"));
            }
            Status::Open { subprotocol, .. } => {
                self.print(format_args!("connected ({})", subprotocol.name()));
            }
            Status::Waiting { delay, cause: Some(cause), .. } => {
                let what = if self.connected { "lost" } else { "failed" };
                self.print(format_args!("{what}: {}; retry in {}", Chain(cause), Rounded(*delay)));
            }
            // The summary and the errors report the other statuses.
            _ => {}
        }
        self.connected = matches!(status, Status::Open { .. });
        self.waited = matches!(status, Status::Waiting { .. });
    }

    pub(crate) fn gap(&self, operation: &str, gap: &Gap) {
        self.print(format_args!("{operation}: {}", GapText(gap)));
    }

    pub(crate) fn print(&self, news: fmt::Arguments<'_>) {
        if !self.quiet {
            write_line(format_args!("{news}"));
        }
    }

    pub(crate) fn summary(&self, items: u64, gaps: u64, stats: &Stats, duration: Duration) {
        let Stats { reconnects, dropped, .. } = *stats;
        let (items, gaps, reconnects) =
            (Count(items, "event"), Count(gaps, "gap"), Count(reconnects, "reconnect"));
        let dropped = if dropped > 0 { format!(", {dropped} dropped") } else { String::new() };
        self.print(format_args!("{items}, {gaps}, {reconnects}{dropped} in {}", Rounded(duration)));
    }
}

/// Prints an error, even with `--quiet`.
pub(crate) fn print_error(error: fmt::Arguments<'_>) {
    write_line(format_args!("error: {error}"));
}

/// Ignores errors, because there is no other place to report that standard error is closed.
fn write_line(text: fmt::Arguments<'_>) {
    let _ = writeln!(stderr(), "{}", one_line(&text.to_string()));
}

/// Displays an error with its sources.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

/// Displays a gap for people.
pub(crate) struct GapText<'a>(pub(crate) &'a Gap);

impl fmt::Display for GapText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { reconnects, dropped, down_for, ref cause, .. } = *self.0;
        f.write_str("gap")?;
        if reconnects > 0 {
            write!(f, ", the connection was down for {}", Rounded(down_for))?;
        }
        if reconnects > 1 {
            write!(f, " over {reconnects} reconnects")?;
        }
        if dropped > 0 {
            write!(f, ", {} dropped because the output was too slow", Count(dropped, "item"))?;
        }
        match cause {
            Some(cause) => write!(f, ": {}", Chain(cause)),
            None => Ok(()),
        }
    }
}

struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        write!(f, "{count} {what}{}", if *count == 1 { "" } else { "s" })
    }
}

/// Displays milliseconds below one second, else tenths of a second.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_a_plural_and_durations_are_rounded() {
        assert_eq!(Count(1, "gap").to_string(), "1 gap");
        assert_eq!(Count(0, "gap").to_string(), "0 gaps");
        assert_eq!(Rounded(Duration::from_micros(20_900)).to_string(), "20 ms");
        assert_eq!(Rounded(Duration::from_millis(1234)).to_string(), "1.2 s");
    }

    #[test]
    fn a_gap_shows_its_downtime_its_cause_and_dropped_items() {
        let mut gap = Gap::default();
        gap.reconnects = 1;
        gap.down_for = Duration::from_millis(120);
        gap.cause = Some(resub::Disconnect::Reset(None));
        assert_eq!(
            GapText(&gap).to_string(),
            "gap, the connection was down for 120 ms: the connection broke off"
        );
        let mut gap = Gap::default();
        gap.dropped = 2;
        assert_eq!(
            GapText(&gap).to_string(),
            "gap, 2 items dropped because the output was too slow"
        );
    }
}
