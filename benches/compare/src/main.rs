//! Compares resub with a hand-written loop and with its peers, on one machine, in one run.
//!
//! `cargo run --release -p resub-compare` measures everything and writes the tables into
//! `benches/README.md`; `-- --quick` takes less than two minutes and only prints them.

mod alloc;
mod bench;
mod clients;
mod feed;
mod job;
mod measure;
mod plot;
mod process;
mod readme;
mod sections;
mod server;
mod steps;
mod table;
mod wire;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use clap::{Parser, Subcommand};

use crate::{bench::Bench, clients::Contender, job::Result, sections::Section};

/// Compares resub with a hand-written loop and with its peers.
#[derive(Parser)]
struct Options {
    /// Fewer sizes, rounds and events: ends within two minutes, and does not touch the README
    /// unless told to.
    #[arg(long)]
    quick: bool,
    /// Only this part; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Only this contender besides `routed`, by its name in the tables; may be given several times.
    #[arg(long, value_parser = contender)]
    contender: Vec<Contender>,
    /// Writes the parts that were measured into benches/README.md, also after a quick run.
    #[arg(long)]
    write: bool,
    /// Does not write.
    #[arg(long, conflicts_with = "write")]
    dry: bool,
    /// The date to write down, such as 2026-11-21. Default: today.
    #[arg(long)]
    date: Option<String>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the processes of a run are started with.
#[derive(Subcommand)]
enum Part {
    /// The load server of one job.
    #[command(hide = true)]
    Server { job: String },
    /// One contender's run.
    #[command(hide = true)]
    Client { name: String, job: String, ports: String },
    /// Events from memory, for counting instructions: contender, bytes, subscriptions, events for
    /// each.
    Steps {
        #[arg(value_parser = contender)]
        contender: Contender,
        bytes: usize,
        subscriptions: usize,
        events: usize,
        /// Prints how many allocations there were.
        #[arg(long)]
        allocations: bool,
    },
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        // At once: what is left to drop was not asked for.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    match options.part {
        Some(Part::Server { job }) => server::serve(&serde_json::from_str(&job)?),
        Some(Part::Client { name, job, ports }) => {
            let contender = contender(&name)?;
            let report =
                contender.run(&serde_json::from_str(&job)?, serde_json::from_str(&ports)?)?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        Some(Part::Steps { contender, bytes, subscriptions, events, allocations }) => {
            if allocations {
                alloc::count();
            }
            steps::run(contender, bytes, subscriptions, events)?;
            if allocations {
                println!("{}", alloc::allocations());
            }
            Ok(())
        }
        None => compare(options),
    }
}

fn compare(options: Options) -> Result<()> {
    if cfg!(debug_assertions) {
        return Err("measure with --release".into());
    }
    let Options { quick, only, contender, write, dry, date, part: _ } = options;
    let wanted = if only.is_empty() { Section::ALL.to_vec() } else { only };
    let bench = Bench { quick, only: contender, node: node() };
    let load = readme::load();
    let write = write || !(quick || dry);

    let path = readme::folder().join("README.md");
    for section in wanted {
        let outcome = section.measure(&bench);
        println!("## {}\n\n{}", section.name(), outcome.markdown);
        if write {
            let origin = readme::origin(date.clone(), quick, &load);
            let text = std::fs::read_to_string(&path)?;
            let new = format!("{}\n\n_{origin}_", outcome.markdown.trim());
            std::fs::write(&path, readme::replace(&text, section.name(), &new)?)?;
            if let Some(plot) = outcome.plot {
                std::fs::write(readme::folder().join("growth.svg"), plot)?;
            }
        }
    }
    println!("{}", readme::origin(date, quick, &load));
    Ok(())
}

fn contender(name: &str) -> Result<Contender> {
    Contender::named(name).ok_or_else(|| {
        let names: Vec<_> = Contender::ALL.iter().map(|contender| contender.name()).collect();
        format!("no such contender; there are: {}", names.join("; ")).into()
    })
}

/// The script for node, installed; `None`, with a message, where that cannot be.
fn node() -> Option<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/node"));
    let ready = process::complete(Command::new("node").arg("--version"), QUICKLY).and_then(|()| {
        if folder.join("node_modules").exists() {
            return Ok(());
        }
        eprintln!("installing graphql-ws for node");
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(folder);
        process::complete(&mut npm, INSTALL)
    });
    match ready {
        Ok(()) => Some(folder.join("client.mjs")),
        Err(error) => {
            eprintln!("graphql-ws on node is skipped: {error}");
            None
        }
    }
}

const QUICKLY: Duration = Duration::from_secs(10);
const INSTALL: Duration = Duration::from_secs(60);
