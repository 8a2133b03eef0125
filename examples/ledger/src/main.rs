//! Writes each trade of a feed into `SQLite` exactly once, however often the process is killed.
//!
//! `cargo run -p resub-ledger` is a demonstration. It starts the market that `live_feed` embeds,
//! and this program again as a worker that writes trades into a file. It kills the worker with
//! SIGKILL about every 300 ms and starts it anew. In the end it checks that the file has every
//! trade once.
//!
//! `cargo run -p resub-ledger -- URL FILE` is the worker alone.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use graphql_client::GraphQLQuery;
use resub::{Client, Event, Overflow, Position};
use rusqlite::{Connection, OptionalExtension};
use tokio::process::Command;

use crate::market::{MarketServer, Options};

#[path = "../../live_feed/market/mod.rs"]
mod market;

#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "../../schema/market.graphql",
    query_path = "../../queries/trades.graphql",
    response_derives = "Debug"
)]
struct Trades;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many trades the demonstration waits for.
const TRADES: i64 = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => demonstrate().await,
        [url, file] => work(url, Path::new(file)).await,
        _ => Err("usage: resub-ledger [URL FILE]".into()),
    }
}

/// Writes trades into the file until the process is killed.
async fn work(url: &str, file: &Path) -> Result<()> {
    let mut ledger = Ledger::open(file)?;
    let client = Client::builder(url).build()?;
    let first = trades::Variables { symbol: None, after: Some(0) };
    let subscription = client
        .subscription::<Trades>(first)
        // The numbers leave out what comes twice, and show what the server leaves out.
        .sequence_by(|data| data.trades.sequence.unsigned_abs())
        .resume_with(|last, variables| variables.after = Some(last.trades.sequence))
        // A slow disk delays the feed and loses nothing.
        .overflow(Overflow::Rewind);
    let mut trades = match ledger.position()? {
        Some(position) => subscription.starting_after(position).start()?,
        None => subscription.starting_at_variables().start()?,
    };
    while let Some(event) = trades.next().await {
        match event? {
            Event::Next(response) => {
                let trade = response.data.ok_or("an item without data")?.trades;
                let position = trades.position().ok_or("an item without a position")?;
                ledger.write(&trade, &position)?;
            }
            Event::Gap(gap) if gap.is_lossless() => {}
            other => return Err(format!("something is missing: {other:?}").into()),
        }
    }
    Ok(())
}

/// The trades, and the position of the last one.
struct Ledger(Connection);

impl Ledger {
    fn open(file: &Path) -> Result<Self> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS trade (sequence INTEGER NOT NULL, price REAL NOT NULL);
             CREATE TABLE IF NOT EXISTS position (id INTEGER PRIMARY KEY, json TEXT NOT NULL);",
        )?;
        Ok(Self(connection))
    }

    fn position(&self) -> Result<Option<Position>> {
        let json: Option<String> = self
            .0
            .query_row("SELECT json FROM position WHERE id = 1", [], |row| row.get(0))
            .optional()?;
        Ok(json.map(|json| serde_json::from_str(&json)).transpose()?)
    }

    /// Writes a trade and its position in one transaction. So the file has either both or neither,
    /// and no trade is written twice.
    fn write(&mut self, trade: &trades::TradesTrades, position: &Position) -> Result<()> {
        let transaction = self.0.transaction()?;
        transaction.execute(
            "INSERT INTO trade (sequence, price) VALUES (?1, ?2)",
            (trade.sequence, trade.price),
        )?;
        transaction.execute(
            "INSERT INTO position (id, json) VALUES (1, ?1)
             ON CONFLICT (id) DO UPDATE SET json = excluded.json",
            [serde_json::to_string(position)?],
        )?;
        Ok(transaction.commit()?)
    }

    /// The number of trades, of different trades, and the last one.
    fn count(&self) -> Result<(i64, i64, i64)> {
        Ok(self.0.query_row(
            "SELECT count(*), count(DISTINCT sequence), coalesce(max(sequence), 0) FROM trade",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?)
    }
}

/// Kills a worker again and again, then checks what it has written.
async fn demonstrate() -> Result<()> {
    let server = MarketServer::start(Options {
        trades_per_second: 200,
        drop_every: Some(Duration::from_millis(700)),
        ..Options::default()
    })?;
    let file = TemporaryFile::new();
    let ledger = Ledger::open(&file.0)?;
    let (mut kills, mut last) = (0, 0);
    while last < TRADES {
        let mut worker = Command::new(std::env::current_exe()?)
            .arg(server.url())
            .arg(&file.0)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        // Long enough to start, and different each time.
        let life = Duration::from_millis(150 + kills * 37 % 300);
        if let Ok(status) = tokio::time::timeout(life, worker.wait()).await {
            return Err(format!("the worker has ended by itself: {}", status?).into());
        }
        // This is SIGKILL on Unix: the worker has no time to clean up.
        worker.kill().await?;
        kills += 1;
        last = ledger.count()?.2;
        if kills == MAX_KILLS {
            return Err(format!("only {last} trades after {kills} kills").into());
        }
    }
    let (all, different, last) = ledger.count()?;
    println!("{kills} kills, {all} trades: {different} different ones, from 1 to {last}");
    if (all, different) == (last, last) {
        Ok(())
    } else {
        Err("a trade is missing, or was written twice".into())
    }
}

/// The demonstration makes progress at each start; this is many times what it needs.
const MAX_KILLS: u64 = 1_000;

/// A file that is deleted in the end, with those that `SQLite` makes beside it.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("resub-ledger-{}.db", std::process::id())))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = self.0.clone().into_os_string();
            file.push(suffix);
            // It may not exist.
            let _ = std::fs::remove_file(file);
        }
    }
}
