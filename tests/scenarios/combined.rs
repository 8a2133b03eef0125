//! Random combinations of options and faults, against a server that keeps a log: it sends what
//! follows a position, one item or a list at a time. The application is killed now and then and
//! continues after the position that it has stored.
//!
//! `RESUB_COMBINATION=17` replays one with its log.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::{Arc, Mutex},
};

use fastrand::Rng;
use futures::FutureExt;
use resub::{Overflow, Position, SubscriptionBuilder};

use super::*;

/// What the options and the server of one run are.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
struct Setting {
    overflow: Overflow,
    capacity: usize,
    counts: bool,
    dedupes: bool,
    flattens: bool,
    is_dedicated: bool,
    restarts: bool,
    reissues: bool,
    reissue_rate: Option<u32>,
    /// How many items before the position the server repeats.
    repeats: u64,
    /// The server leaves items out.
    leaks: bool,
    /// It says so.
    notices: bool,
    /// It forgets old items, and refuses older positions.
    trims: bool,
    crashes: bool,
    /// Other operations on the same connection.
    others: usize,
}

impl Setting {
    fn random(rng: &mut Rng) -> Self {
        let overflow = [
            Overflow::DropOldest,
            Overflow::DropOldest,
            Overflow::DropNewest,
            Overflow::Latest,
            Overflow::Rewind,
            Overflow::Rewind,
            Overflow::Block,
        ][rng.usize(..7)];
        let capacity = match overflow {
            Overflow::DropOldest => [4, 1_000][rng.usize(..2)],
            _ => 8,
        };
        let counts = rng.u8(..10) < 6;
        let leaks = counts && rng.bool();
        Self {
            overflow,
            capacity,
            counts,
            dedupes: rng.u8(..10) < 4,
            flattens: rng.bool(),
            is_dedicated: rng.u8(..10) < 3,
            restarts: rng.bool(),
            reissues: rng.u8(..10) < 3,
            reissue_rate: (rng.u8(..10) < 3).then(|| rng.u32(1..5)),
            repeats: rng.u64(..4),
            leaks,
            notices: leaks && rng.bool(),
            trims: rng.u8(..10) < 3,
            crashes: rng.bool(),
            others: [0, 0, 3][rng.usize(..3)],
        }
    }

    fn may_drop(self) -> bool {
        match self.overflow {
            Overflow::DropOldest => self.capacity < 1_000,
            Overflow::DropNewest | Overflow::Latest => true,
            _ => false,
        }
    }
}

/// What the server knows, and what it may do wrong.
struct World {
    setting: Setting,
    rng: Rng,
    head: u64,
    /// Items up to this one are forgotten.
    trimmed: u64,
    is_troubled: bool,
    /// A number is known, so that a loss can be seen.
    has_first: bool,
    /// How often the server has closed a connection as if for an operation.
    blames: u32,
    log: Vec<String>,
}

type Shared = Arc<Mutex<World>>;

fn say(world: &Shared, line: &str) {
    world.lock().unwrap().log.push(format!("{:?} {line}", Instant::now()));
}

async fn accept_all(server: Server, world: Shared) {
    loop {
        let peer = server.accept().await;
        tokio::spawn(serve(peer, Arc::clone(&world)));
    }
}

/// One connection of the server.
async fn serve(mut peer: Peer, world: Shared) {
    if peer.serve_pings().await.is_none() {
        return;
    }
    let mut peer = peer.ack().await;
    let mut operations = BTreeMap::<String, u64>::new();
    loop {
        match timeout(Duration::from_millis(20), peer.serve_pings()).await {
            Ok(None) => return,
            Ok(Some(message)) => {
                say(&world, &format!("hears {message}"));
                let Some(id) = message["id"].as_str() else { continue };
                if message["type"] == "complete" {
                    operations.remove(id);
                    continue;
                }
                let after = message["payload"]["variables"]["after"].as_u64();
                let (setting, trimmed) = {
                    let world = world.lock().unwrap();
                    (world.setting, world.trimmed)
                };
                match after {
                    Some(after) if after < trimmed => {
                        peer.error(id, json!([{"message": "expired"}])).await;
                    }
                    after => {
                        let next = after.map_or(0, |after| after.saturating_sub(setting.repeats));
                        operations.insert(id.to_owned(), next.max(trimmed) + 1);
                    }
                }
            }
            Err(_) => {
                let is_lost = {
                    let mut world = world.lock().unwrap();
                    world.is_troubled && world.rng.u8(..200) == 0
                };
                let is_blamed = {
                    let mut world = world.lock().unwrap();
                    let is_blamed =
                        world.is_troubled && world.blames < 2 && world.rng.u8(..250) == 0;
                    world.blames += u32::from(is_blamed);
                    is_blamed
                };
                if is_blamed {
                    say(&world, "closes the connection with 4500");
                    return peer.close(4500, "").await;
                }
                if is_lost {
                    say(&world, "vanishes");
                    return peer.vanish();
                }
                let ids: Vec<_> = operations.keys().cloned().collect();
                for id in ids {
                    send_some(&mut peer, &world, &mut operations, &id).await;
                }
            }
        }
    }
}

async fn send_some(
    peer: &mut Peer,
    world: &Shared,
    operations: &mut BTreeMap<String, u64>,
    id: &str,
) {
    let (payloads, is_ended) = {
        let mut world = world.lock().unwrap();
        let World { setting, ref mut rng, head, is_troubled, has_first, .. } = *world;
        let next = operations.get_mut(id).unwrap();
        let mut payloads = Vec::new();
        for _ in 0..rng.usize(..12) {
            if *next > head {
                break;
            }
            if setting.leaks && is_troubled && has_first && rng.u8(..100) < 8 {
                let count = rng.u64(1..4).min(head + 1 - *next);
                *next += count;
                if setting.notices {
                    payloads.push(vec![json!({"lagged": count})]);
                }
                continue;
            }
            payloads.push(vec![json!({"n": *next})]);
            *next += 1;
        }
        if setting.flattens {
            let mut lists = Vec::<Vec<Value>>::new();
            for payload in payloads {
                match lists.last_mut().filter(|_| rng.u8(..3) > 0) {
                    Some(list) => list.extend(payload),
                    None => lists.push(payload),
                }
            }
            payloads = lists;
        }
        let is_ended = is_troubled && setting.restarts && rng.u8(..150) == 0;
        (payloads, is_ended)
    };
    let flattens = world.lock().unwrap().setting.flattens;
    for rows in payloads {
        say(world, &format!("sends {id} {rows:?}"));
        let data = if flattens { json!({"rows": rows}) } else { rows[0].clone() };
        peer.next(id, json!({"data": data})).await;
    }
    if is_ended {
        say(world, &format!("ends {id}"));
        operations.remove(id);
        peer.error(id, json!([{"message": "backend"}])).await;
    }
}

/// What the application has seen, and what gaps have said since the last item.
#[derive(Default)]
struct Seen {
    last: u64,
    known: BTreeSet<u64>,
    is_lossy: bool,
    was_sent: bool,
    missing: u64,
    dropped: u64,
    replaced: u64,
}

impl Seen {
    fn gap(&mut self, setting: Setting, gap: &Gap) {
        let Setting { counts, dedupes, .. } = setting;
        assert!(!(counts || dedupes && !setting.may_drop()) || gap.overlaps == 0, "{gap:?}");
        self.is_lossy |= !gap.is_lossless();
        self.was_sent |= gap.reconnects + gap.restarts + gap.overlaps > 0;
        self.missing += gap.missing;
        self.dropped += gap.dropped;
        self.replaced += gap.replaced;
        assert!(gap.dropped == 0 || setting.may_drop() || gap.missing > 0, "{gap:?}");
    }

    fn item(&mut self, setting: Setting, n: u64) {
        let Self { last, is_lossy, was_sent, missing, dropped, replaced, .. } = *self;
        let said = format!(
            "{n} after {last}: lossy {is_lossy}, missing {missing}, dropped {dropped}, \
             replaced {replaced}, sent {was_sent}"
        );
        if setting.dedupes {
            assert!(self.known.insert(n), "twice: {said}");
        }
        if setting.counts {
            assert!(n > last, "twice or late: {said}");
            if last > 0 && !setting.may_drop() {
                // What was left out and said to be may come after all.
                let is_counted = n - last - 1 <= missing + dropped;
                assert!(is_counted, "not counted: {said}");
                let is_exact = n - last - 1 == missing + dropped;
                assert!(is_exact || setting.notices, "not counted exactly: {said}");
            }
        }
        // Nothing before the first item is owed by a server that forgets.
        if n > last + 1 && !(last == 0 && (setting.counts || setting.trims)) {
            assert!(is_lossy || replaced > 0, "a silent loss: {said}");
        }
        if n <= last && setting.dedupes {
            assert!(is_lossy || setting.may_drop(), "late: {said}");
        }
        if n <= last {
            assert!(was_sent, "repeated without a word: {said}");
        }
        let known = std::mem::take(&mut self.known);
        *self = Self { last: n.max(last), known, ..Self::default() };
        // What is repeated again behind a repetition was announced by the same gap.
        self.was_sent = was_sent && n <= last;
        self.is_lossy = is_lossy && n <= last;
    }
}

fn subscription(
    client: &Client,
    setting: Setting,
    position: Option<Position>,
) -> Subscription<Value> {
    let request = Request::new("subscription Log($after: Int) { rows { n } }");
    let builder: SubscriptionBuilder<Request<Value>> =
        client.subscription_to(request.variables(&json!({})));
    let builder = if setting.flattens {
        builder.flatten(|data: Value| data["rows"].as_array().unwrap().clone())
    } else {
        builder
    };
    let mut builder = builder
        .overflow(setting.overflow)
        .capacity(items(setting.capacity))
        .resume_with(move |last: &Value, variables| {
            let n = last["n"].as_u64().expect("a notice has no position");
            let known = variables["after"].as_u64().filter(|_| !setting.counts);
            variables["after"] = known.max(Some(n)).into();
        })
        .position_lost(|errors, variables| {
            let is_lost = errors.iter().any(|error| error.message == "expired");
            if is_lost {
                *variables = json!({});
            }
            is_lost
        });
    if setting.counts {
        builder = builder.sequence_by(|row| row["n"].as_u64().unwrap());
    }
    if setting.dedupes {
        builder = builder.dedupe_by(items(1_000), |row| row["n"].as_u64().unwrap());
    }
    if setting.notices {
        builder = builder.gap_if(|row| row["lagged"].as_u64());
    }
    if setting.restarts {
        builder = builder.restart_if(|errors| errors.iter().any(|it| it.message == "backend"));
    }
    if setting.reissues {
        builder = builder.idle_longer_than(secs(2)).reissue_stale();
    }
    if setting.is_dedicated {
        builder = builder.dedicated();
    }
    if let Some(position) = position {
        builder = builder.starting_after(position);
    }
    builder.start().unwrap()
}

/// Operations that are nobody's concern, but make a queue under `reissue_rate` and in quarantine.
fn others(client: &Client, setting: Setting) -> Vec<Subscription<Value>> {
    let other = || client.subscription_to(request("other")).restart_if(|_| true).start().unwrap();
    (0..setting.others).map(|_| other()).collect()
}

fn client_of(setting: Setting) -> (Client, Server) {
    let server = Server::in_memory();
    server.set_deadline(secs(1_000_000));
    let builder = builder(&server).backoff(Duration::from_millis(20), Duration::from_millis(200));
    let builder = match setting.reissue_rate.and_then(NonZeroU32::new) {
        Some(rate) => builder.reissue_rate(rate),
        None => builder,
    };
    (builder.build().unwrap(), server)
}

/// Reads one event, if there is one within the time. Returns whether there was.
async fn read(
    stream: &mut Subscription<Value>,
    within: Duration,
    world: &Shared,
    seen: &mut Seen,
) -> bool {
    let setting = world.lock().unwrap().setting;
    let Ok(event) = timeout(within, stream.next()).await else { return false };
    match event.expect("the stream does not end").expect("and has no error") {
        Event::Next(row) => {
            let n = row.data.unwrap()["n"].as_u64().expect("no notice is read");
            say(world, &format!("reads {n}"));
            seen.item(setting, n);
            world.lock().unwrap().has_first = true;
        }
        Event::Gap(gap) => {
            say(world, &format!("reads lossless {} {gap:?}", gap.is_lossless()));
            seen.gap(setting, &gap);
        }
        other => say(world, &format!("reads {other:?}")),
    }
    true
}

async fn run(mut rng: Rng, world: Shared) {
    let setting = world.lock().unwrap().setting;
    let mut seen = Seen::default();
    let mut position: Option<Position> = None;
    let (mut client, server) = client_of(setting);
    let mut acceptor = tokio::spawn(accept_all(server, Arc::clone(&world)));
    let mut siblings = others(&client, setting);
    let mut stream = subscription(&client, setting, None);
    let mut rotations = Vec::new();
    for _ in 0..300 {
        {
            let mut world = world.lock().unwrap();
            world.head += rng.u64(..4);
            if setting.trims && rng.u8(..40) == 0 {
                world.trimmed = rng.u64(world.trimmed..=world.head);
            }
        }
        match rng.u8(..120) {
            0 | 1 => {
                say(&world, "rotates");
                rotations.push(tokio::spawn(rotated(client.clone())));
            }
            2 => client.pause(),
            3..6 => client.resume(),
            6 => client.reconnect_now(),
            7 => client.network_changed(),
            8 if setting.crashes => {
                say(&world, "is killed");
                drop((stream, siblings, client));
                acceptor.abort();
                let server;
                (client, server) = client_of(setting);
                acceptor = tokio::spawn(accept_all(server, Arc::clone(&world)));
                siblings = others(&client, setting);
                stream = subscription(&client, setting, position.clone());
                let Seen { last, known, .. } = seen;
                seen = Seen { last, known, was_sent: true, ..Seen::default() };
                if position.is_none() {
                    seen = Seen::default();
                }
            }
            _ => {}
        }
        let most = [0, 0, 1, 3, 50][rng.usize(..5)];
        for _ in 0..most {
            if !read(&mut stream, Duration::from_millis(30), &world, &mut seen).await {
                break;
            }
            position = stream.position();
        }
        if most == 0 {
            tokio::time::sleep(Duration::from_millis(rng.u64(..100))).await;
        }
    }
    say(&world, "from here on all is well");
    client.resume();
    world.lock().unwrap().is_troubled = false;
    let begun = Instant::now();
    let (mut more, mut head) = (20, world.lock().unwrap().head);
    while more > 0 || seen.last < head {
        let has_read = read(&mut stream, secs(1), &world, &mut seen).await;
        if !has_read && more > 0 {
            more -= 1;
            head += 1;
            world.lock().unwrap().head = head;
        }
        assert!(begun.elapsed() < secs(600), "stuck at {} of {head}", seen.last);
    }
    drop(siblings);
    acceptor.abort();
    rotations.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn rotated(client: Client) {
    let _ = client.rotate().await;
}

#[test]
fn no_combination_of_options_loses_or_repeats_anything_in_silence() {
    let one: Option<u64> =
        std::env::var("RESUB_COMBINATION").ok().map(|seed| seed.parse().unwrap());
    let count = std::env::var("RESUB_COMBINATIONS").map_or(100, |count| count.parse().unwrap());
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let mut broken = 0;
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let mut rng = Rng::with_seed(seed);
        let world = World {
            setting: Setting::random(&mut rng),
            rng,
            head: 0,
            trimmed: 0,
            is_troubled: true,
            has_first: false,
            blames: 0,
            log: Vec::new(),
        };
        let setting = world.setting;
        let world = Arc::new(Mutex::new(world));
        let end = runtime.block_on(
            std::panic::AssertUnwindSafe(run(Rng::with_seed(seed), Arc::clone(&world)))
                .catch_unwind(),
        );
        if end.is_err() {
            broken += 1;
            println!("seed {seed}: {setting:?}");
            if one.is_some() {
                println!("{}", world.lock().unwrap().log.join("\n"));
            }
        }
    }
    assert_eq!(broken, 0);
}
