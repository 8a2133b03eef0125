//! Prints the events of GraphQL subscriptions as they arrive, and survives reconnects.
//!
//! Without arguments, it subscribes to a market that it serves itself; with a URL, to any server.
//! Reading order: `args` and `settings` (the command line), `network` (TLS, proxy and addresses),
//! `run` (the loop), `events` and `show` (events of the library), `output` and `news` (standard
//! output and standard error), `market` (the embedded server).

mod args;
mod demo;
mod document;
mod duration;
mod events;
mod market;
mod network;
mod news;
mod outcome;
mod output;
mod run;
mod settings;
mod show;

use std::{env, error::Error, io::IsTerminal, process::ExitCode};

use tracing_subscriber::EnvFilter;

use crate::{
    news::print_error,
    outcome::{Misuse, Outcome},
    settings::Settings,
};

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(outcome) => outcome.into(),
        Err(misuse) => {
            print_error(format_args!("{misuse}"));
            misuse.into()
        }
    }
}

async fn start() -> Result<Outcome, Misuse> {
    let settings = Settings::from_command_line()?;
    if env::var_os(EnvFilter::DEFAULT_ENV).is_some() {
        log().map_err(|error| Misuse(format!("RUST_LOG: {error}")))?;
    }
    run::run(settings).await
}

/// Logs to standard error, with the filter in `RUST_LOG`.
fn log() -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env()?
        // At `trace`, this crate logs every frame, and so the init payload.
        .add_directive("tungstenite=info".parse()?);
    let (stderr, ansi) = (std::io::stderr, std::io::stderr().is_terminal());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(ansi).init();
    Ok(())
}
