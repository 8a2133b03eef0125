//! A live feed in the terminal: prints the events of GraphQL subscriptions as they come, through
//! every reconnect.
//!
//! Without arguments it subscribes to a market that it serves itself; with a URL, to any server.
//! Reading order: `args` (what is wanted), `network` (the way to the server), `run` (the loop),
//! `events` and `show` (what comes out of the library), `output` and `news` (what is printed
//! where), `market` (the embedded server).

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
    news::complain,
    outcome::{Misuse, Outcome},
    settings::Settings,
};

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(outcome) => outcome.into(),
        Err(misuse) => {
            complain(format_args!("{misuse}"));
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

/// To standard error, as `RUST_LOG` says.
fn log() -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env()?
        // At `trace` it shows every frame, and so the init payload.
        .add_directive("tungstenite=info".parse()?);
    let (stderr, ansi) = (std::io::stderr, std::io::stderr().is_terminal());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(ansi).init();
    Ok(())
}
