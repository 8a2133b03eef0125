//! A stream and who reads it: at once, now and then, or not at all for a while.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures::Stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    oracle::{Checked, Seen},
    setting::{Kind, key_of},
};
use crate::{
    client::{
        Client,
        subscription::{Event, Subscription},
    },
    delivery::Overflow,
    error::SubscriptionError,
    operation::Request,
};

/// What is published: a number, which is one more than that of the item before.
#[derive(Deserialize)]
pub(super) struct Numbered {
    n: u64,
}

/// How fast a stream is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As soon as there is anything.
    Fast,
    /// So many items each time.
    Slow { every: Duration, most: usize },
}

pub(super) struct Reader {
    stream: Subscription<Numbered>,
    pub(super) feed: usize,
    pub(super) seen: Seen,
    pub(super) kind: Kind,
    pub(super) pace: Pace,
    /// Nothing is read before.
    pub(super) naps_until: Instant,
    /// It was slow at some time.
    pub(super) was_slow: bool,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl Reader {
    pub(super) fn new(client: &Client, feed: usize, kind: Kind, pace: Pace, now: Instant) -> Self {
        let mut request = Request::<Numbered>::new(format!("subscription f{feed} {{ n }}"));
        if kind.resumes {
            let after = kind.is_from_start.then_some(0_u64);
            request = request.variables(&json!({ "after": after }));
        }
        let mut builder = client
            .subscription_to(request)
            .overflow(kind.overflow)
            .capacity(kind.capacity.try_into().unwrap())
            .capacity_bytes(kind.capacity_bytes.try_into().unwrap());
        if kind.overflow == Overflow::LatestBy {
            builder = builder.latest_by(|item| key_of(item.n));
        }
        if kind.dedupes {
            builder = builder.dedupe_by(1_000.try_into().unwrap(), |item| item.n);
        }
        if kind.counts {
            builder = builder.sequence_by(|item| item.n);
        }
        if kind.resumes {
            builder = builder.resume_with(move |last, variables: &mut Value| {
                // What is missing is asked for from an earlier position.
                let known = variables["after"].as_u64().filter(|_| !kind.counts);
                variables["after"] = known.max(Some(last.n)).into();
            });
        }
        if kind.restarts {
            builder = builder.restart_if(|errors| errors.iter().any(|it| it.message == BACKEND));
        }
        if let Some(limit) = kind.idle_longer_than {
            builder = builder.idle_longer_than(limit);
        }
        if kind.reissues {
            builder = builder.reissue_stale();
        }
        if kind.is_shared {
            builder = builder.shared();
        }
        if kind.replays {
            builder = builder.replay_last();
        }
        Self {
            stream: builder.start().unwrap(),
            feed,
            seen: Seen::new(kind),
            kind,
            pace,
            naps_until: now,
            was_slow: matches!(pace, Pace::Slow { .. }),
            woken: Arc::new(Woken(AtomicBool::new(true))),
        }
    }

    /// Whether it reads what there is now, of its own accord.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.pace, Pace::Fast)
            && self.naps_until <= now
            && self.woken.0.swap(false, Relaxed)
    }

    /// Reads on as fast as it can from now on.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.pace = Pace::Fast;
        self.naps_until = now;
        self.woken.0.store(true, Relaxed);
    }

    pub(super) fn nap(&mut self, until: Instant) {
        self.naps_until = until;
        self.was_slow = true;
    }

    /// The nap is over.
    pub(super) fn wake_up(&self) {
        self.woken.0.store(true, Relaxed);
    }

    /// Reads so many items at most. `log` is told of each event.
    pub(super) fn read(&mut self, most: usize, mut log: impl FnMut(String)) -> Checked {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        let before = self.seen.items;
        while !self.seen.is_over && self.seen.items - before < most as u64 {
            let Poll::Ready(event) = Pin::new(&mut self.stream).poll_next(&mut cx) else {
                return Ok(());
            };
            match event {
                Some(Ok(Event::Next(response))) => match (response.data, &response.errors[..]) {
                    (Some(Numbered { n }), _) => {
                        log(format!("reads {n}"));
                        self.seen.item(n, true)?;
                    }
                    // What precedes an end that is none.
                    (None, [error]) if error.message == BACKEND => {}
                    (None, [error]) => {
                        log(format!("reads {} without data", error.message));
                        self.seen.item(error.message.parse().unwrap(), false)?;
                    }
                    (None, _) => unreachable!("the server says nothing else"),
                },
                Some(Ok(Event::Gap(gap))) => {
                    log(format!("reads {gap:?}, lossless: {}", gap.is_lossless()));
                    self.seen.gap(&gap)?;
                }
                Some(Ok(Event::Stale { idle_for })) => {
                    log(format!("is stale for {idle_for:?}"));
                    self.seen.stale(idle_for)?;
                }
                Some(Err(SubscriptionError::Decode(error))) => {
                    let words = error.to_string();
                    let number = words.split(UNDECODABLE).nth(1).unwrap().parse().unwrap();
                    log(format!("reads {number}, which does not decode"));
                    self.seen.item(number, false)?;
                }
                Some(Err(error)) => {
                    log(format!("ends: {error:?}"));
                    return self.seen.end(Some(&error), self.was_slow);
                }
                None => {
                    log("ends".into());
                    return self.seen.end(None, self.was_slow);
                }
            }
        }
        if !self.seen.is_over {
            // There may be more.
            self.wake_up();
        }
        Ok(())
    }
}

/// The message of an error that passes.
pub(super) const BACKEND: &str = "backend";

/// Stands around the number of an item that does not decode.
pub(super) const UNDECODABLE: char = '#';
