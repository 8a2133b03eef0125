//! What lies between the client and the server, and what the server knows of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::{reader::UNDECODABLE, setting::Kind};
use crate::{error::Disconnect, protocol::Transmit};

/// What is published under one name.
pub(super) struct Feed {
    /// When each item was published; the first has the number 1.
    pub(super) published: Vec<Instant>,
    /// The mean time between two items.
    pub(super) pace: Duration,
    pub(super) quiet_until: Instant,
    pub(super) is_odd: bool,
    /// The server leaves items out, and may be asked for them again.
    pub(super) is_leaky: bool,
    /// The highest position that was asked for.
    pub(super) position: Option<u64>,
    /// The request that asked for it, in the order in which the client made them.
    pub(super) request: u64,
    /// How often the server has ended it, though it goes on.
    pub(super) ended: u32,
    /// Whether anybody reads it: otherwise nothing is to be asked of the server.
    pub(super) is_read: bool,
}

/// One connection, or an attempt at one.
pub(super) struct Wire {
    /// Rises with every attempt.
    pub(super) age: u64,
    pub(super) stage: Stage,
    pub(super) up: VecDeque<Transmit>,
    pub(super) down: VecDeque<(Instant, Down)>,
    /// Nothing moves in either direction before.
    pub(super) stalled_until: Instant,
    /// The client's socket takes nothing before.
    pub(super) clogged_until: Instant,
    /// The server does not do anything any more.
    pub(super) is_dead: bool,
    pub(super) begins_within: Duration,
    pub(super) sends_within: Duration,
    pub(super) last_up: Instant,
    pub(super) last_down: Instant,
    pub(super) operations: BTreeMap<String, Operation>,
    pub(super) ids: BTreeSet<String>,
    pub(super) completed: BTreeSet<String>,
    pub(super) subscribes: BTreeMap<usize, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Asking,
    Dialing,
    /// The socket is there.
    Open,
    /// The server has read `connection_init`.
    Greeted,
}

/// What is on its way to the client.
#[derive(Debug)]
pub(super) enum Down {
    Text(String),
    Pong(u64),
    Lost(Disconnect),
}

/// An operation as the server knows it.
pub(super) struct Operation {
    pub(super) feed: usize,
    pub(super) after: Option<u64>,
    pub(super) begun: Option<Instant>,
    /// How many items come before the one to be sent next.
    pub(super) next: usize,
    pub(super) last_sent: Instant,
    pub(super) is_sending: bool,
}

impl Feed {
    pub(super) fn new(now: Instant, pace: Duration, kind: Kind) -> Self {
        Self {
            published: Vec::new(),
            pace,
            quiet_until: now,
            is_odd: kind.is_odd,
            is_leaky: kind.counts && !kind.is_shared && !kind.is_calm,
            position: None,
            request: 0,
            ended: 0,
            is_read: true,
        }
    }

    /// The number of the last item.
    pub(super) fn head(&self) -> u64 {
        self.published.len() as u64
    }

    pub(super) fn item(&self, number: u64) -> String {
        match number % 7 {
            3 if self.is_odd => {
                format!(r#"{{"data":null,"errors":[{{"message":"{number}"}}]}}"#)
            }
            5 if self.is_odd => {
                format!(r#"{{"data":{{"n":"{UNDECODABLE}{number}{UNDECODABLE}"}}}}"#)
            }
            // They differ in size.
            0 | 4 => format!(r#"{{"data":{{"n":{number},"pad":"{PAD:.<500}"}}}}"#),
            _ => format!(r#"{{"data":{{"n":{number}}}}}"#),
        }
    }
}

impl Wire {
    pub(super) fn new(age: u64, now: Instant) -> Self {
        Self {
            age,
            stage: Stage::Asking,
            up: VecDeque::new(),
            down: VecDeque::new(),
            stalled_until: now,
            clogged_until: now,
            is_dead: false,
            begins_within: Duration::ZERO,
            sends_within: Duration::ZERO,
            last_up: now,
            last_down: now,
            operations: BTreeMap::new(),
            ids: BTreeSet::new(),
            completed: BTreeSet::new(),
            subscribes: BTreeMap::new(),
        }
    }

    /// From now on it is as fast as can be.
    pub(super) fn hurry(&mut self) {
        (self.begins_within, self.sends_within) = (Duration::ZERO, Duration::ZERO);
    }

    /// The server side is gone, with all it had to say.
    pub(super) fn die(&mut self) {
        self.is_dead = true;
        self.operations.clear();
    }
}

/// Filled up to the size of a large item.
const PAD: &str = "";
