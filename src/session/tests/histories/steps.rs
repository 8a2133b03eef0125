//! What can happen in a history.

use proptest::prelude::*;

use super::{Duration, OperationType, WatchOptions};
use crate::session::Verdict;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Subscribe,
    SubscribeWith(WatchOptions),
    Call(OperationType),
    /// One of those ever made.
    Cancel(prop::sample::Index),
    Rewind(prop::sample::Index),
    CatchUp(prop::sample::Index),
    /// Restarts or cancels what the server has ended.
    AnswerJudge(bool),
    /// Of one of those ever made.
    Probe(prop::sample::Index),
    WebSocketPong,
    /// Answers whatever the session waits for.
    Answer,
    /// Answers all that it waits for, up to the acknowledgement.
    Connect,
    FailCredentials(bool),
    FailDial(u16),
    Receive(&'static str, prop::sample::Index),
    Garbage(Vec<u8>),
    Close(u16),
    /// Closes over what was written twice, so that a trial begins, and once in that, with the time
    /// that it takes; and this happens during it.
    Trial(u16, Vec<Step>),
    Reset,
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
    /// Takes what is to be written; a socket that takes nothing is part of a history, too.
    Write(usize),
    Shutdown,
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
    let trial = prop::sample::select(vec![1011, 4400, 4500]);
    let trial = (trial, prop::collection::vec(simple(), 0..5));
    prop_oneof![
        160 => simple(),
        3 => trial.prop_map(|(code, meanwhile)| Step::Trial(code, meanwhile)),
    ]
}

fn simple() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
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
    prop_oneof![
        6 => Just(Step::Subscribe),
        8 => super::watch::watch_options().prop_map(Step::SubscribeWith),
        4 => prop::sample::select(vec![OperationType::Query, OperationType::Mutation]).prop_map(Step::Call),
        4 => index().prop_map(Step::Cancel),
        4 => index().prop_map(Step::Rewind),
        4 => index().prop_map(Step::CatchUp),
        4 => any::<bool>().prop_map(Step::AnswerJudge),
        6 => Just(Step::Answer),
        12 => Just(Step::Connect),
        4 => index().prop_map(Step::Probe),
        1 => Just(Step::WebSocketPong),
        12 => Just(Step::Answer),
        1 => any::<bool>().prop_map(Step::FailCredentials),
        2 => prop::sample::select(vec![0, 400, 401, 404, 429, 503]).prop_map(Step::FailDial),
        24 => (kind, index()).prop_map(|(kind, index)| Step::Receive(kind, index)),
        1 => any::<Vec<u8>>().prop_map(Step::Garbage),
        2 => code.prop_map(Step::Close),
        3 => Just(Step::Reset),
        1 => Just(Step::Silence),
        6 => (1..2_000_u64).prop_map(Step::Pass),
        2 => (1..40_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::ReconnectNow),
        1 => Just(Step::NetworkChanged),
        1 => Just(Step::Want),
        2 => any::<bool>().prop_map(Step::Hold),
        16 => (1..20_usize).prop_map(Step::Write),
        // Most of what can happen happens before.
        1 => prop::bool::weighted(0.2).prop_map(|ends| if ends { Step::Shutdown } else { Step::Silence }),
    ]
}
