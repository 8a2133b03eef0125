//! What the session does, held against the model.

use super::*;
use crate::session::operations::{Place, Why};

impl History {
    pub(super) fn perform(&mut self) -> Checked {
        let mut lost = Vec::new();
        while let Some(output) = self.rig.session.poll_output() {
            let (now, model) = (self.rig.now, &mut self.model);
            // No two histories begin at the same time.
            let line = format!("{output:?}");
            model.log.push(line.split("refused_since").next().unwrap_or_default().to_owned());
            match output {
                Output::Authorize(on, _) => self.begin_attempt(on)?,
                Output::Dial(on, _) => model.wires[on as usize].dialing = true,
                Output::Hangup(on, _) => {
                    if on == ConnectionId::A {
                        if model.wires[0].acked {
                            model.lost(now);
                        }
                        model.reissue_announced.clear();
                        model.batch.clear();
                    }
                    model.wires[on as usize] = Wire::default();
                }
                Output::Reissue { writer, gap } => model.announce(now, writer, &gap)?,
                Output::Gap { .. }
                | Output::Resume { .. }
                | Output::Deliver { .. }
                | Output::Rotated(_)
                | Output::Postponed(_) => prop_assert!(false, "nothing is handed over here"),
                Output::Established { writer } => {
                    let Wire { sent, proven, .. } = &model.wires[0];
                    let is_read =
                        |(wire_id, id): (&String, &u64)| *id == writer && proven.contains(wire_id);
                    prop_assert!(model.live.contains(&writer));
                    prop_assert!(
                        sent.iter().any(is_read),
                        "read, as an answer or an item has shown"
                    );
                }
                Output::Finish { writer, end } => {
                    if let End::Connection(ConnectionEnd::Lost(cause)) = &end {
                        lost.push((writer, cause.clone()));
                    }
                    model.finish(writer, &end)?;
                }
                Output::Stale { writer, .. } => model.stale(now, writer)?,
                Output::AskIfTransient { writer, end } => model.judge(writer, &end)?,
                Output::Connected(_) => {
                    prop_assert!(std::mem::take(&mut model.is_wanted), "answered once");
                }
                Output::Refused(..) | Output::Unattributed(_) => {}
                Output::Status(status) => {
                    match &status {
                        Status::Open { .. } => self.opened(),
                        // Only what ends everything ends that.
                        Status::Idle => model.is_kept = false,
                        _ => {}
                    }
                    self.model.status = Some(status);
                }
                Output::Ended => {
                    prop_assert!(model.live.is_empty(), "I4: no operation is left behind");
                }
            }
        }
        self.note_queries_that_left();
        self.check_blame(&lost)
    }

    /// No gap tells when a query leaves the second connection. What the server still says of it
    /// there is ignored (rule 12).
    fn note_queries_that_left(&mut self) {
        let (operations, model) = (&self.rig.session.operations, &mut self.model);
        for id in model.queries.intersection(&model.live) {
            if !operations.is_on(*id, ConnectionId::B) {
                model.wires[1].give_up(*id);
            }
        }
    }

    fn begin_attempt(&mut self, on: ConnectionId) -> Checked {
        let model = &mut self.model;
        prop_assert!(!model.wires[on as usize].is_used(), "one attempt at a time");
        prop_assert!(!self.rig.session.is_paused);
        let has_reason = match on {
            ConnectionId::A => model.is_wanted || model.is_kept || !model.live.is_empty(),
            ConnectionId::B => model.wires[0].acked && model.live.len() > 1,
        };
        prop_assert!(has_reason, "I7: no dial without a reason");
        model.wires[on as usize].asked = true;
        model.dials.push((on, self.rig.now));
        Ok(())
    }

    /// The current connection was acknowledged.
    fn opened(&mut self) {
        let model = &mut self.model;
        model.wires[0].acked = true;
        // Why those are not sent now is another reason.
        model.down_since.retain(|id, _| model.watch.is_sent_with_a_connection(*id));
        let is_due =
            |id: &u64| model.watch.is_sent_with_a_connection(*id) && !model.kept_away.contains(id);
        if self.rig.session.config.reissue_rate.is_none() {
            model.batch = model.live.iter().copied().filter(is_due).collect();
        }
    }

    pub(super) fn write(&mut self, on: ConnectionId, most: usize) -> Checked {
        for _ in 0..most {
            let Some(transmit) = self.rig.session.poll_transmit(on) else { break };
            let model = &mut self.model;
            model.log.push(format!("{on:?} {transmit:?}"));
            let wire = &mut model.wires[on as usize];
            prop_assert!(wire.socket, "nothing is written without a socket");
            let message: Value = match transmit {
                Transmit::Text(text) => serde_json::from_str(&text).unwrap(),
                Transmit::Ping(number) => json!({"type": "ping", "payload": {"n": number}}),
                Transmit::Close(..) => continue,
            };
            let wire_id = message["id"].as_str().map(str::to_owned);
            match message["type"].as_str().unwrap() {
                "connection_init" => {
                    prop_assert!(!wire.init_sent, "rule 4: one init for each socket");
                    wire.init_sent = true;
                }
                "subscribe" | "start" => {
                    let id = message["payload"]["query"].as_str().unwrap().parse().unwrap();
                    model.subscribed(on, wire_id.unwrap(), id)?;
                }
                "complete" | "stop" => {
                    let wire_id = wire_id.unwrap();
                    let ended = wire.sent.remove(&wire_id);
                    let is_owed = wire.owed.remove(&wire_id).is_some();
                    let is_known = ended.is_some() || is_owed || wire.answered.remove(&wire_id);
                    prop_assert!(is_known, "rules 12, 13, 15: only what runs, or was answered");
                    let runs_on = ended.is_some_and(|id| model.live.contains(&id));
                    prop_assert!(
                        !(runs_on && on == ConnectionId::A),
                        "rule 12: what is live goes on"
                    );
                }
                "ping" => {
                    let number = message["payload"]["n"].as_u64().unwrap();
                    wire.pings.push_back((number, wire.sent.keys().cloned().collect()));
                }
                "pong" => prop_assert!(wire.init_sent),
                "connection_terminate" => {}
                other => prop_assert!(false, "unexpected {}", other),
            }
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Checked {
        let (session, model) = (&self.rig.session, &self.model);
        prop_assert_eq!(session.live_operations(), model.live.len());
        for connection in session.connections.iter().flatten() {
            prop_assert!(
                connection.is_open() || connection.timers.next().is_some(),
                "I6: every phase that waits has a deadline"
            );
        }
        self.check_status()?;
        self.check_quarantine()?;
        if session.current().is_none() && !session.has_ended {
            let rests = model.live.is_empty() && !model.is_wanted && !model.is_kept;
            prop_assert!(rests || session.is_paused, "nobody waits for a session that rests");
        }
        Ok(())
    }

    /// I2: once everything is written, every live operation that waits for nothing is on the
    /// current connection, under one id, and no other id is left there, nor on the other one.
    pub(super) fn settle(&mut self) -> Checked {
        for on in ConnectionId::ALL {
            self.write(on, usize::MAX)?;
        }
        let (session, Model { wires, live, watch, .. }) = (&self.rig.session, &self.model);
        if self.rig.session.is_open() {
            let mut sent: Vec<_> = wires[0].sent.values().copied().collect();
            sent.sort_unstable();
            let is_due = |id: &u64| {
                watch.waits_for_nothing(*id)
                    && !is_tried(session, *id)
                    && !session.operations.waits(*id, Why::Pacing)
            };
            let due: Vec<_> = live.iter().copied().filter(is_due).collect();
            prop_assert_eq!((sent, wires[0].owed.len()), (due, 0), "I2");
        }
        if session.is_live(ConnectionId::B) {
            let is_on = |id: &u64| session.operations.is_on(*id, ConnectionId::B);
            let mut sent: Vec<_> = wires[1].sent.values().copied().collect();
            sent.sort_unstable();
            let tried: Vec<_> = live.iter().copied().filter(is_on).collect();
            prop_assert_eq!((sent, wires[1].owed.len()), (tried, 0), "I2");
        }
        Ok(())
    }
}

/// Whether an operation is kept away from the others.
pub(super) fn is_tried(session: &Session<u64>, id: u64) -> bool {
    match session.operations.place(id) {
        Some(Place::Waiting(why)) => *why == Why::Quarantine,
        Some(Place::Queued(on, _) | Place::On(on, _)) => *on == ConnectionId::B,
        Some(Place::Moving(_)) | None => false,
    }
}

impl Model {
    /// A `subscribe` was written.
    fn subscribed(&mut self, on: ConnectionId, wire_id: String, id: u64) -> Checked {
        prop_assert!(self.wires[on as usize].acked, "rule 5: nothing before the ack");
        prop_assert!(self.live.contains(&id), "rule 12: never mentioned once dropped");
        prop_assert!(self.every_wire_id.insert(wire_id.clone()), "rule 9: no id twice");
        prop_assert!(!self.sent().any(|sent| sent == id), "I2: under one id at a time");
        let is_first = self.issued_ever.insert(id);
        prop_assert!(
            is_first || !self.mutations.contains(&id),
            "rule 27: a mutation is never sent twice"
        );
        if on == ConnectionId::A {
            if !is_first && !self.queries.contains(&id) {
                prop_assert!(
                    self.reissue_announced.remove(&id),
                    "rule 28: sending again is never silent"
                );
            }
            match self.batch.front() {
                Some(next) if *next == id => drop(self.batch.pop_front()),
                None => {}
                Some(next) => prop_assert!(false, "rule 26: {} before {}", id, next),
            }
            self.watch.issued(id)?;
        } else {
            prop_assert!(!is_first, "only what was on a connection that was lost is tried");
            prop_assert!(!self.cleared.contains(&id), "rule 22b: what is cleared is not tried");
            prop_assert!(self.watch.waits_for_nothing(id));
        }
        self.wires[on as usize].sent.insert(wire_id, id);
        Ok(())
    }

    fn finish(&mut self, writer: u64, end: &End) -> Checked {
        let is_call = self.is_call(writer);
        match end {
            End::Call(CallEnd::Answered(_) | CallEnd::AnsweredInParts(_)) => {
                prop_assert!(is_call);
                for wire in &mut self.wires {
                    if wire.give_up(writer) {
                        let answered = wire.owed.extract_if(.., |_, id| *id == writer);
                        wire.answered.extend(answered.map(|(wire_id, _)| wire_id));
                    }
                }
            }
            End::Call(CallEnd::TimedOut | CallEnd::Ambiguous(_)) => {
                let is_ambiguous = matches!(end, End::Call(CallEnd::Ambiguous(_)));
                prop_assert!(is_call && (self.mutations.contains(&writer) || !is_ambiguous));
                for wire in &mut self.wires {
                    wire.give_up(writer);
                }
            }
            End::Call(CallEnd::Incomplete(_) | CallEnd::PartsTooLarge(_)) => {
                prop_assert!(false, "no server delivers in parts here");
            }
            End::Completed | End::Rejected(_) | End::Connection(_) | End::Stream(_) => {}
        }
        if self.mutations.contains(&writer) {
            let is_sure = matches!(end, End::Call(CallEnd::TimedOut) | End::Connection(_));
            prop_assert!(
                !(is_sure && self.issued_ever.contains(&writer)),
                "rule 27: not executed, it says"
            );
        }
        prop_assert!(self.live.remove(&writer), "I1: an operation finishes at most once");
        prop_assert!(self.finished.insert(writer));
        self.batch.retain(|id| *id != writer);
        self.watch.finished(writer);
        if !self.shut_down {
            for wire in &mut self.wires {
                wire.sent.retain(|_, id| *id != writer);
            }
        }
        Ok(())
    }
}
