//! The written report: sections between markers, everything else untouched; and what the figures
//! were measured on.

use std::{path::PathBuf, process::Command};

use crate::job::Result;

/// The folder that holds the report and the plot.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Replaces what is between a section's markers.
pub(crate) fn replace(text: &str, section: &str, new: &str) -> Result<String> {
    let [begin, end] = ["begin", "end"].map(|word| format!("<!-- {word}: {section} -->"));
    let (before, rest) = text.split_once(&begin).ok_or_else(|| format!("no marker {begin}"))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| format!("no marker {end}"))?;
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", new.trim()))
}

/// The load of the machine, as the kernel counts it.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// When, what, and on which machine.
pub(crate) fn origin(date: Option<String>, quick: bool, load_before: &str) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |it| it.1);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let date = date.unwrap_or_else(|| said("date", &["-u", "+%F"]));
    format!(
        "{date}, commit {}, {}; {model}, {cores} cores, {};\n\
         {}, node {}; one-minute load {load_before} before and {} after.",
        said("git", &["rev-parse", "--short", "HEAD"]),
        if quick { "`--quick`" } else { "full run" },
        said("uname", &["-sr"]),
        said("rustc", &["--version"]),
        said("node", &["--version"]),
        load(),
    )
}

/// What a program says, or that it says nothing.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(folder()).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    if text.is_empty() { "none".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let text = "a\n<!-- begin: x -->\nold\n<!-- end: x -->\nb\n";
        let new = replace(text, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\nb\n");
        assert_eq!(replace(&new, "x", "new").unwrap(), new);
        assert!(replace(text, "y", "new").is_err());
    }
}
