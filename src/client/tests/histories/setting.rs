//! What differs between histories: the client's options, each stream's, and the server's habits.

use std::{num::NonZeroU32, time::Duration};

use fastrand::Rng;

use crate::{delivery::Overflow, protocol::Subprotocol, session::Config};

/// The options of one stream.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Kind {
    pub(super) overflow: Overflow,
    pub(super) capacity: usize,
    pub(super) capacity_bytes: usize,
    pub(super) dedupes: bool,
    pub(super) resumes: bool,
    /// The first request has a position already: what was published before is owed, too.
    pub(super) is_from_start: bool,
    pub(super) restarts: bool,
    pub(super) idle_longer_than: Option<Duration>,
    pub(super) reissues: bool,
    pub(super) is_shared: bool,
    pub(super) replays: bool,
    /// Some items have no data, or data that does not decode.
    pub(super) is_odd: bool,
    /// The items are numbered, so that the server may leave some out.
    pub(super) counts: bool,
    /// Nothing goes wrong, and items come all the time.
    pub(super) is_calm: bool,
}

/// What holds for a whole history.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) config: Config,
    /// The subprotocol that the server takes.
    pub(super) subprotocol: Subprotocol,
    pub(super) lifetime: Option<Duration>,
    pub(super) server: Habits,
    /// How likely a step of a handover is followed by a fault, of 100.
    pub(super) traps: u8,
    pub(super) faults: usize,
    /// For how long there are faults.
    pub(super) trouble: Duration,
    /// Nothing goes wrong but that connections are replaced; the server is prompt and busy.
    pub(super) is_calm: bool,
}

/// What servers do differently.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// The longest time from reading an operation until it is begun. Each connection has its own.
    pub(super) begins_within: Duration,
    /// The longest time from an event until it is sent.
    pub(super) sends_within: Duration,
    /// A position is answered with the item at it, too.
    pub(super) repeats_position: bool,
    /// A `complete` is answered with one.
    pub(super) answers_complete: bool,
}

impl Kind {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let chance = |rng: &mut Rng, percent: u8| rng.u8(..100) < percent;
        let resumes = chance(rng, 45);
        let policies = [
            Overflow::DropOldest,
            Overflow::DropOldest,
            Overflow::DropNewest,
            Overflow::Latest,
            Overflow::LatestBy,
            Overflow::Fail,
            Overflow::Block,
            Overflow::Rewind,
        ];
        let overflow = policies[rng.usize(..policies.len() - usize::from(!resumes))];
        let dedupes = chance(rng, 40);
        let watched = chance(rng, 30);
        let mut kind = Self {
            overflow,
            capacity: [2, 4, 16, 1_000][rng.usize(..4)],
            capacity_bytes: [1_000, 1 << 20, 1 << 20][rng.usize(..3)],
            dedupes,
            resumes,
            is_from_start: resumes && chance(rng, 50),
            restarts: chance(rng, 25),
            idle_longer_than: watched.then(|| Duration::from_secs(rng.u64(6..30))),
            reissues: watched && rng.bool(),
            is_shared: false,
            replays: false,
            // What has no data is never left out, and has no key.
            is_odd: !dedupes && overflow != Overflow::LatestBy && chance(rng, 10),
            counts: false,
            is_calm: false,
        };
        kind.counts = !kind.is_odd && overflow != Overflow::LatestBy && chance(rng, 25);
        if overflow == Overflow::Rewind {
            // Above what the server repeats.
            kind.capacity = kind.capacity.max(8);
        }
        kind
    }

    /// Whether there is room for all that may come at once.
    pub(super) fn is_roomy(self) -> bool {
        self.capacity >= 1_000 && self.capacity_bytes >= 1 << 20
    }

    /// As one that has room for all that comes, and is not looked after.
    pub(super) fn calm(self) -> Self {
        Self {
            capacity: 1_000,
            capacity_bytes: 1 << 20,
            restarts: false,
            idle_longer_than: None,
            reissues: false,
            is_odd: false,
            is_calm: true,
            ..self
        }
    }

    /// As a reader of an operation that others read as well.
    pub(super) fn shared(self, rng: &mut Rng) -> Self {
        let overflow = match self.overflow {
            Overflow::Rewind => Overflow::Block,
            overflow => overflow,
        };
        Self {
            overflow,
            resumes: false,
            is_from_start: false,
            restarts: false,
            idle_longer_than: None,
            reissues: false,
            is_shared: true,
            replays: rng.bool(),
            is_odd: false,
            ..self
        }
    }
}

impl Setting {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let chance = |rng: &mut Rng, percent: u8| rng.u8(..100) < percent;
        let subprotocol =
            if chance(rng, 25) { Subprotocol::GraphqlWs } else { Subprotocol::GraphqlTransportWs };
        let is_fixed = subprotocol == Subprotocol::GraphqlWs || rng.bool();
        let mut config = Config::new(rng.u64(..));
        config.subprotocol = is_fixed.then_some(subprotocol);
        config.max_connection_age = chance(rng, 15).then(|| Duration::from_secs(rng.u64(15..60)));
        config.reissue_rate = NonZeroU32::new(rng.u32(1..20)).filter(|_| chance(rng, 10));
        let late =
            |rng: &mut Rng| Duration::from_millis([0, 50, 1_000, 4_000, 9_000][rng.usize(..5)]);
        Self {
            config,
            subprotocol,
            lifetime: chance(rng, 15).then(|| Duration::from_secs(rng.u64(15..60))),
            server: Habits {
                begins_within: late(rng),
                sends_within: late(rng),
                repeats_position: rng.bool(),
                answers_complete: rng.bool(),
            },
            traps: [0, 5, 20, 40][rng.usize(..4)],
            faults: rng.usize(1..7),
            trouble: Duration::from_secs(rng.u64(10..80)),
            is_calm: false,
        }
    }

    /// Without faults, and with a server that is not late.
    pub(super) fn calm(self) -> Self {
        let Habits { begins_within, sends_within, .. } = self.server;
        let server = Habits {
            begins_within: begins_within / 9,
            sends_within: sends_within / 9,
            ..self.server
        };
        Self { traps: 0, is_calm: true, server, ..self }
    }
}

/// The key of an item under [`Overflow::LatestBy`].
pub(super) fn key_of(number: u64) -> usize {
    usize::try_from(number).unwrap() % KEYS
}

/// How many keys there are.
pub(super) const KEYS: usize = 3;
