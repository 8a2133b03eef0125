//! The main loop: connects, prints events, and stops for one of five reasons.

use std::{
    future::pending,
    io::{self, Stdout},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::join, stream::SelectAll};
use resub::{
    BuildError, Client, ClientBuilder, GraphQlError, Request, SubscribeError, SubscriptionError,
};
use serde_json::value::RawValue;
use tokio::{pin, select, sync::Notify, time::timeout};

use crate::{
    demo,
    document::{Document, labels},
    events::{Events, Seen, events},
    market::{self, MarketServer},
    news::{Chain, News, print_error},
    outcome::{Misuse, Outcome},
    output::{Format, Output},
    settings::{Settings, Target},
};

/// Why the loop stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    AllEnded,
    Count,
    Elapsed,
    Interrupted,
    /// The reader of the output has closed it.
    OutputClosed,
}

/// The state of all operations.
struct Run {
    operations: Vec<Operation>,
    output: Output<Stdout>,
    news: News,
    json: bool,
    items: u64,
    gaps: u64,
}

struct Operation {
    label: String,
    had_data: bool,
    /// The error of the last item, if it had no data.
    failing: Option<GraphQlError>,
    outcome: Outcome,
}

pub(crate) async fn run(settings: Settings) -> Result<Outcome, Misuse> {
    let began = now();
    let interrupted = watch_ctrl_c();
    let news = News::new(settings.quiet);
    // Keeps the market running until this function returns.
    let (_market, builder) = connect(&settings.target, &news)?;
    let builder = configure(builder, &settings);
    let client = match settings.network.configure(builder).build() {
        Ok(client) => client,
        Err(error @ BuildError::Tls(_)) => {
            print_error(format_args!("{}", Chain(&error)));
            return Ok(Outcome::Refused);
        }
        Err(error) => return Err(Misuse(format!("{}: {}", flag(&error), Chain(&error)))),
    };
    let mut status = client.status();
    let (labels, streams) = subscribe(&client, settings.documents, settings.unchecked)?;
    let mut events: SelectAll<Events> = streams.into_iter().collect();
    let mut run = Run::new(labels, settings.json, news);

    let elapsed = after(settings.limit);
    pin!(elapsed);
    let stop = loop {
        select! {
            // Status changes come first, so that a loss is printed before the gap that it causes.
            biased;
            () = interrupted.notified() => break Stop::Interrupted,
            () = &mut elapsed => break Stop::Elapsed,
            Ok(()) = status.changed() => {
                let status = status.borrow_and_update().clone();
                run.news.status(&status);
            }
            next = events.next() => {
                let Some((operation, seen)) = next else { break Stop::AllEnded };
                if !run.record(operation, &seen)? {
                    break Stop::OutputClosed;
                }
                if settings.count.is_some_and(|count| run.items >= count.get()) {
                    break Stop::Count;
                }
            }
        }
    };
    join(client.clone().shutdown(GRACE), run.finish(events, stop)).await.1?;
    if stop != Stop::OutputClosed {
        run.news.summary(run.items, run.gaps, &client.stats(), now() - began);
    }
    Ok(match stop {
        Stop::Interrupted => Outcome::Interrupted,
        Stop::OutputClosed => Outcome::Done,
        Stop::AllEnded | Stop::Count | Stop::Elapsed => run.outcome(),
    })
}

impl Run {
    fn new(labels: Vec<String>, json: bool, news: News) -> Self {
        let operations = labels
            .into_iter()
            .map(|label| Operation {
                label,
                had_data: false,
                failing: None,
                outcome: Outcome::Done,
            })
            .collect();
        let format = if json { Format::Json } else { Format::Lines };
        Self {
            operations,
            output: Output::new(format, io::stdout()),
            news,
            json,
            items: 0,
            gaps: 0,
        }
    }

    /// Prints an event and updates the state. Returns whether the output is still open.
    fn record(&mut self, operation: usize, seen: &Seen) -> Result<bool, Misuse> {
        let Operation { label, had_data, failing, outcome } = &mut self.operations[operation];
        let printed = self.output.event(label, seen);
        match seen {
            Seen::Next(item) => {
                self.items += 1;
                *had_data |= item.data.is_some();
                *failing = item.failure().cloned();
            }
            Seen::Gap(gap) => {
                self.gaps += 1;
                // In the other format, the gap is in the output already.
                if self.json {
                    self.news.gap(label, gap);
                }
            }
            // Several servers report a failed operation as an item and then complete it.
            Seen::End(None) => {
                if let Some(error) = failing {
                    print_error(format_args!("{label}: {error}"));
                    *outcome = Outcome::Failed;
                }
            }
            Seen::Unreadable(_) | Seen::End(Some(SubscriptionError::ShutDown)) => {}
            Seen::End(Some(error)) => {
                print_error(format_args!("{label}: {}", Chain(error)));
                *outcome = Outcome::of(error);
            }
        }
        match printed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Misuse(format!("cannot write to standard output: {error}"))),
        }
    }

    /// Reads the streams to their ends while the client shuts down.
    async fn finish(&mut self, mut events: SelectAll<Events>, stop: Stop) -> Result<(), Misuse> {
        while let Some((operation, seen)) = events.next().await {
            let wanted = match stop {
                Stop::OutputClosed => false,
                // Print no more items than requested, and no gap after the last one.
                Stop::Count => matches!(seen, Seen::End(_)),
                Stop::AllEnded | Stop::Elapsed | Stop::Interrupted => true,
            };
            if wanted && !self.record(operation, &seen)? {
                break;
            }
        }
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        let of = |operation: &Operation| match operation.outcome {
            Outcome::Done if operation.failing.is_some() && !operation.had_data => Outcome::Failed,
            outcome => outcome,
        };
        self.operations.iter().map(of).max().unwrap_or_default()
    }
}

fn connect(target: &Target, news: &News) -> Result<(Option<MarketServer>, ClientBuilder), Misuse> {
    let drop_every = match target {
        Target::Server { url } => return Ok((None, Client::builder(url))),
        Target::Embedded { drop_every } => *drop_every,
    };
    let options = market::Options { drop_every, ..market::Options::default() };
    let market = MarketServer::start(options)
        .map_err(|error| Misuse(format!("cannot serve the embedded market: {error}")))?;
    news.print(format_args!("serving a market at {}", market.url()));
    // By default, delays grow until a connection has lasted for 10 s, to protect a server in
    // trouble. This server is not in trouble: it drops connections for the demo, often sooner, and
    // has no other clients.
    let builder = Client::builder(market.url())
        .backoff(Duration::from_millis(100), Duration::from_secs(1))
        .healthy_after(Duration::from_millis(200));
    Ok((Some(market), builder))
}

fn configure(mut builder: ClientBuilder, settings: &Settings) -> ClientBuilder {
    for (name, value) in &settings.headers {
        builder = builder.header(name, value);
    }
    if let Some(payload) = &settings.init_payload {
        builder = builder.init_payload(payload);
    }
    if let Some(subprotocol) = settings.subprotocol {
        builder = builder.subprotocol(subprotocol);
    }
    if let Some(attempts) = settings.retries {
        builder = builder.give_up_after(attempts);
    }
    builder
}

/// Returns the argument that caused an error.
fn flag(error: &BuildError) -> &'static str {
    match error {
        BuildError::Url(_)
        | BuildError::Scheme(_)
        | BuildError::UserInfo
        | BuildError::Fragment => "URL",
        BuildError::Header(_) => "--header",
        BuildError::InitPayload(_) => "--init-payload",
        BuildError::Identity(_) => "--cert",
        BuildError::Proxy(_) => "--proxy, or the proxy of the environment",
        _ => "the client cannot be built",
    }
}

fn subscribe(
    client: &Client,
    documents: Vec<Document>,
    unchecked: bool,
) -> Result<(Vec<String>, Vec<Events>), Misuse> {
    if documents.is_empty() {
        return demo::subscribe(client).map_err(|error| misuse("the demo", &error));
    }
    let labels = labels(&documents);
    let mut streams = Vec::new();
    for (n, document) in documents.into_iter().enumerate() {
        let mut request = Request::<Box<RawValue>>::new(document.text);
        if let Some(variables) = document.variables {
            request = request.variables(&variables);
        }
        if let Some(name) = document.operation_name {
            request = request.operation_name(name);
        }
        let mut subscription = client.subscription_to(request);
        if unchecked {
            subscription = subscription.unchecked();
        }
        let subscription = subscription.start().map_err(|error| misuse(&labels[n], &error))?;
        streams.push(events(n, subscription));
    }
    Ok((labels, streams))
}

fn misuse(operation: &str, error: &SubscribeError) -> Misuse {
    Misuse(format!("--query: {operation}: {}", Chain(error)))
}

/// Notifies at the first Ctrl-C. The second exits the process at once.
fn watch_ctrl_c() -> Arc<Notify> {
    let notify = Arc::new(Notify::new());
    let notified = Arc::clone(&notify);
    let mut first = Box::pin(tokio::signal::ctrl_c());
    // Polling installs the handler, so that from now on the signal does not kill the process. If
    // signals cannot be handled, the future is ready with an error, and the signal does kill it.
    if first.as_mut().now_or_never().is_none() {
        tokio::spawn(async move {
            let _ = first.await;
            let mut second = Box::pin(tokio::signal::ctrl_c());
            // Install the next handler before the notification, so that no signal is missed.
            if second.as_mut().now_or_never().is_none() {
                notified.notify_one();
                let _ = second.await;
                std::process::exit(Outcome::Interrupted.code().into());
            }
        });
    }
    notify
}

/// Ready after the limit, or never without one.
async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => drop(timeout(limit, pending::<()>()).await),
        None => pending().await,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the rule is for the library; this program measures time"
)]
fn now() -> Instant {
    Instant::now()
}

/// How long the server may take to answer the close frame.
const GRACE: Duration = Duration::from_secs(2);
