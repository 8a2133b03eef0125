//! The feed: random prices from a seed, and a history from which a reader can resume.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use async_graphql::{Enum, SimpleObject};
use futures::stream::{self, Stream};
use tokio::sync::watch;

/// The number of trades that can be replayed.
pub(crate) const HISTORY: usize = 10_000;

const SYMBOLS: [(&str, f64); 5] =
    [("BTC", 67_000.0), ("ETH", 3_500.0), ("SOL", 150.0), ("LTC", 85.0), ("LINK", 14.0)];

/// The side of the order that took liquidity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(crate) enum Side {
    Buy,
    Sell,
}

/// A trade.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct Trade {
    /// The position in the feed. Starts at 1 and counts the trades of all symbols.
    pub(crate) sequence: i32,
    pub(crate) symbol: &'static str,
    pub(crate) price: f64,
    pub(crate) size: i32,
    pub(crate) side: Side,
    /// The time of the trade, in milliseconds since the Unix epoch.
    pub(crate) at: f64,
}

/// The prices at which a symbol can be bought and sold.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct Quote {
    pub(crate) symbol: &'static str,
    pub(crate) bid: f64,
    pub(crate) ask: f64,
    /// The time of the quote, in milliseconds since the Unix epoch.
    pub(crate) at: f64,
    /// The sequence of the trade that caused the quote.
    #[graphql(skip)]
    sequence: i32,
}

/// A handle to a market. The market lives as long as any handle or stream.
#[derive(Clone)]
pub(crate) struct Market(Arc<Shared>);

struct Shared {
    book: Mutex<Book>,
    /// The sequence of the newest trade. Changes wake the readers.
    newest: watch::Sender<i32>,
}

struct Book {
    rng: fastrand::Rng,
    prices: Vec<f64>,
    quotes: Vec<Quote>,
    history: VecDeque<Trade>,
    sequence: i32,
    fills: u64,
}

impl Market {
    /// Opens a market that makes `trades_per_second` by itself. At 0, it trades only on request.
    pub(crate) fn open(seed: u64, trades_per_second: u32) -> Self {
        let book = Book {
            rng: fastrand::Rng::with_seed(seed),
            prices: SYMBOLS.iter().map(|&(_, price)| price).collect(),
            quotes: SYMBOLS.iter().map(|&(symbol, price)| quote(symbol, price, 0)).collect(),
            history: VecDeque::with_capacity(HISTORY),
            sequence: 0,
            fills: 0,
        };
        let shared = Arc::new(Shared { book: Mutex::new(book), newest: watch::Sender::new(0) });
        if trades_per_second > 0 {
            tokio::spawn(keep_trading(
                Arc::downgrade(&shared),
                Duration::from_secs(1) / trades_per_second,
            ));
        }
        Self(shared)
    }

    /// Makes the next trade of the random walk.
    pub(crate) fn trade(&self) -> Trade {
        self.0.publish(Book::wander)
    }

    /// Fills an order at the current price. Returns `None` if the symbol is not traded.
    pub(crate) fn fill(&self, symbol: &str, side: Side, size: i32) -> Option<Trade> {
        let index = index_of(symbol)?;
        Some(self.0.publish(|book| {
            book.fills += 1;
            book.record(index, side, size)
        }))
    }

    /// The number of orders that were filled.
    pub(crate) fn fills(&self) -> u64 {
        self.0.book().fills
    }

    /// Returns the sequences of the trades of a symbol that are still in the history.
    pub(crate) fn history(&self, symbol: &str) -> Vec<i32> {
        let book = self.0.book();
        book.history
            .iter()
            .filter(|trade| trade.symbol == symbol)
            .map(|trade| trade.sequence)
            .collect()
    }

    /// Yields every trade after the position `after` that is still in the history, then every new
    /// one. Without `after`, yields only new ones. A position beyond the newest trade comes from an
    /// earlier market and counts as the newest.
    pub(crate) fn trades(
        &self,
        symbol: Option<&'static str>,
        after: Option<i32>,
    ) -> impl Stream<Item = Trade> + use<> {
        let shared = Arc::clone(&self.0);
        let newest = shared.newest.subscribe();
        let now = shared.book().sequence;
        let cursor = after.map_or(now, |after| after.min(now));
        stream::unfold(
            (shared, newest, cursor),
            move |(shared, mut newest, mut cursor)| async move {
                loop {
                    let found = shared.book().next_after(&mut cursor, symbol);
                    if let Some(trade) = found {
                        return Some((trade, (shared, newest, cursor)));
                    }
                    newest.changed().await.ok()?;
                }
            },
        )
    }

    /// Yields the quote of a symbol, then each new one. A slow reader misses outdated quotes.
    pub(crate) fn quotes(&self, symbol: &str) -> Option<impl Stream<Item = Quote> + use<>> {
        let index = index_of(symbol)?;
        let shared = Arc::clone(&self.0);
        let newest = shared.newest.subscribe();
        Some(stream::unfold((shared, newest, None), move |(shared, mut newest, last)| async move {
            loop {
                let quote = shared.book().quotes[index].clone();
                if last != Some(quote.sequence) {
                    let last = Some(quote.sequence);
                    return Some((quote, (shared, newest, last)));
                }
                newest.changed().await.ok()?;
            }
        }))
    }

    pub(crate) fn last_trade(&self, symbol: &str) -> Option<Trade> {
        self.0.book().history.iter().rev().find(|trade| trade.symbol == symbol).cloned()
    }
}

/// The symbols that are traded.
pub(crate) fn symbols() -> impl Iterator<Item = &'static str> {
    SYMBOLS.iter().map(|&(symbol, _)| symbol)
}

async fn keep_trading(market: Weak<Shared>, period: Duration) {
    let mut interval = tokio::time::interval(period);
    loop {
        interval.tick().await;
        let Some(market) = market.upgrade() else { return };
        market.publish(Book::wander);
    }
}

impl Shared {
    fn publish(&self, make: impl FnOnce(&mut Book) -> Trade) -> Trade {
        let trade = make(&mut self.book());
        self.newest.send_replace(trade.sequence);
        trade
    }

    /// Ignores poisoning, because nothing under this lock can panic halfway.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn wander(&mut self) -> Trade {
        let index = self.rng.usize(..SYMBOLS.len());
        let side = if self.rng.bool() { Side::Buy } else { Side::Sell };
        let size = self.rng.i32(1..=500);
        self.record(index, side, size)
    }

    fn record(&mut self, index: usize, side: Side, size: i32) -> Trade {
        let drift = self.rng.f64() * 0.001;
        let price = self.prices[index]
            * match side {
                Side::Buy => 1.0 + drift,
                Side::Sell => 1.0 - drift,
            };
        let symbol = SYMBOLS[index].0;
        self.prices[index] = price;
        self.sequence += 1;
        self.quotes[index] = quote(symbol, price, self.sequence);
        let trade = Trade {
            sequence: self.sequence,
            symbol,
            price: cents(price),
            size,
            side,
            at: self.quotes[index].at,
        };
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(trade.clone());
        trade
    }

    /// Returns the next trade after `cursor`, and moves `cursor` past the trades that it skips.
    fn next_after(&self, cursor: &mut i32, symbol: Option<&str>) -> Option<Trade> {
        let oldest = self.history.front()?.sequence;
        let skip = usize::try_from(cursor.saturating_sub(oldest) + 1).unwrap_or(0);
        let found = self
            .history
            .range(skip.min(self.history.len())..)
            .find(|t| symbol.is_none_or(|s| s == t.symbol));
        *cursor = found.map_or(self.sequence, |trade| trade.sequence);
        found.cloned()
    }
}

fn index_of(symbol: &str) -> Option<usize> {
    symbols().position(|known| known == symbol)
}

fn quote(symbol: &'static str, price: f64, sequence: i32) -> Quote {
    let spread = price * 0.0002;
    Quote {
        symbol,
        bid: cents(price - spread),
        ask: cents(price + spread),
        at: wall_clock(),
        sequence,
    }
}

fn cents(price: f64) -> f64 {
    (price * 100.0).round() / 100.0
}

/// Returns the wall-clock time, so that a reader can tell the age of a trade. No decision depends
/// on it.
fn wall_clock() -> f64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64() * 1000.0
}
