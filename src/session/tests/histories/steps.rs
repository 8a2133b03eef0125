//! What can happen in a history.

use proptest::prelude::*;

use super::{Duration, OperationType, WatchOptions};
use crate::session::Verdict;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Subscribe,
    SubscribeWith(WatchOptions),
    /// The server closes a connection that carries it, with this code.
    SubscribeBad(u16),
    Call(OperationType),
    /// One of those ever made.
    Cancel(prop::sample::Index),
    Rewind(prop::sample::Index),
    CatchUp(prop::sample::Index),
    /// Restarts or cancels what the server has ended.
    AnswerJudge(bool),
    /// Of one of those ever made.
    Probe(prop::sample::Index),
    /// On the second connection, if there is one and this says so.
    On(bool, Event),
    /// The server does what is to be done on both connections.
    Serve,
    /// The server has an operation that it closes connections over, until it ends or for a while;
    /// and this happens during it.
    Search(u16, Vec<Step>),
    Silence,
    Pass(u64),
    Pause,
    Resume,
    ReconnectNow,
    NetworkChanged,
    /// Somebody waits for a connection.
    Want,
    /// The application wants no connection, or wants one again.
    Hold(bool),
    Shutdown,
}

/// What happens on one connection.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Answers whatever the session waits for.
    Answer,
    /// Answers all that it waits for, up to the acknowledgement.
    Connect,
    FailCredentials(bool),
    FailDial(u16),
    Receive(&'static str, prop::sample::Index),
    WebSocketPong,
    Garbage(Vec<u8>),
    Close(u16),
    Reset,
    /// Takes what is to be written; a socket that takes nothing is part of a history, too.
    Write(usize),
}

/// How many steps are as wanted, and how many there are, those during others included.
pub(super) fn count(steps: &[Step], is_wanted: impl Fn(&&Step) -> bool + Copy) -> (usize, usize) {
    let inner = steps.iter().filter_map(|step| match step {
        Step::Search(_, meanwhile) => Some(meanwhile),
        _ => None,
    });
    let (mut wanted, mut all) = (steps.iter().filter(is_wanted).count(), steps.len());
    for meanwhile in inner {
        wanted += meanwhile.iter().filter(is_wanted).count();
        all += meanwhile.len();
    }
    (wanted, all)
}

pub(super) fn verdict() -> impl Strategy<Value = Verdict> {
    prop::sample::select(vec![
        Verdict::Default,
        Verdict::Retry,
        Verdict::RetryAfter(Duration::from_secs(7)),
        Verdict::NewCredentials,
        Verdict::Fatal,
    ])
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let search = (bad_code(), prop::collection::vec(simple(), 0..12));
    prop_oneof![
        160 => simple(),
        3 => search.prop_map(|(code, meanwhile)| Step::Search(code, meanwhile)),
    ]
}

fn bad_code() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![1000, 1002, 1006, 1009, 1011, 4400, 4500])
}

fn simple() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => Just(Step::Subscribe),
        8 => super::watch::watch_options().prop_map(Step::SubscribeWith),
        1 => bad_code().prop_map(Step::SubscribeBad),
        4 => prop::sample::select(vec![OperationType::Query, OperationType::Mutation])
            .prop_map(Step::Call),
        4 => index().prop_map(Step::Cancel),
        4 => index().prop_map(Step::Rewind),
        4 => index().prop_map(Step::CatchUp),
        4 => any::<bool>().prop_map(Step::AnswerJudge),
        4 => index().prop_map(Step::Probe),
        4 => Just(Step::Serve),
        1 => Just(Step::Silence),
        6 => (1..2_000_u64).prop_map(Step::Pass),
        2 => (1..40_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::ReconnectNow),
        1 => Just(Step::NetworkChanged),
        1 => Just(Step::Want),
        2 => any::<bool>().prop_map(Step::Hold),
        80 => (any::<bool>(), event()).prop_map(|(is_second, event)| Step::On(is_second, event)),
        // Most of what can happen happens before.
        1 => prop::bool::weighted(0.2)
            .prop_map(|ends| if ends { Step::Shutdown } else { Step::Silence }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(vec![
        "next",
        "next",
        "next",
        "next",
        "next",
        "data",
        "complete",
        "error",
        "complete",
        "ping",
        "pong",
        "ka",
        "connection_ack",
        "connection_error",
        "odd",
    ]);
    let code = prop::sample::select(vec![
        1000, 1001, 1002, 1005, 1006, 1008, 1009, 1011, 1012, 1013, 3000, 4400, 4401, 4403, 4406,
        4409, 4429, 4500, 4999,
    ]);
    let status = prop::sample::select(vec![0, 400, 401, 404, 429, 503]);
    prop_oneof![
        18 => Just(Event::Answer),
        12 => Just(Event::Connect),
        1 => any::<bool>().prop_map(Event::FailCredentials),
        2 => status.prop_map(Event::FailDial),
        24 => (kind, any::<prop::sample::Index>())
            .prop_map(|(kind, index)| Event::Receive(kind, index)),
        1 => Just(Event::WebSocketPong),
        1 => any::<Vec<u8>>().prop_map(Event::Garbage),
        2 => code.prop_map(Event::Close),
        3 => Just(Event::Reset),
        16 => (1..20_usize).prop_map(Event::Write),
    ]
}
