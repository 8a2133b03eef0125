//! What the session does, held against the model.

use super::*;
use crate::session::{connection::Phase, operations::Why};

impl History {
    pub(super) fn perform(&mut self) -> Result<(), TestCaseError> {
        let model = &mut self.model;
        while let Some(output) = self.rig.session.poll_output() {
            model.log.push(format!("{output:?}"));
            match output {
                Output::Authorize(..) => {
                    prop_assert!(
                        !model.asked && !model.dialing && !model.socket,
                        "one attempt at a time"
                    );
                    prop_assert!(
                        model.wanted || !model.live.is_empty(),
                        "I7: no dial without a reason"
                    );
                    prop_assert!(!self.rig.session.is_paused);
                    model.asked = true;
                    model.dials.push(self.rig.now);
                }
                Output::Dial(..) => model.dialing = true,
                Output::Hangup(..) => {
                    if model.acked {
                        model.lost(self.rig.now);
                    }
                    model.asked = false;
                    model.dialing = false;
                    model.socket = false;
                    model.init_sent = false;
                    model.acked = false;
                    model.sent.clear();
                    model.answered.clear();
                    model.expired.clear();
                    model.reissue_announced.clear();
                    model.watch.lost_socket();
                    model.pings.clear();
                    model.proven.clear();
                }
                Output::Reissue { writer, gap } => model.announce(self.rig.now, writer, &gap)?,
                Output::Gap { .. }
                | Output::Resume { .. }
                | Output::Deliver { .. }
                | Output::Rotated(_)
                | Output::Postponed(_) => {
                    prop_assert!(false, "nothing is handed over here");
                }
                Output::Established { writer } => {
                    let read = model
                        .sent
                        .iter()
                        .any(|(wire_id, id)| *id == writer && model.proven.contains(wire_id));
                    prop_assert!(model.live.contains(&writer));
                    prop_assert!(read, "read, as an answer or an item has shown");
                }
                Output::Finish { writer, end } => {
                    let is_call =
                        model.queries.contains(&writer) || model.mutations.contains(&writer);
                    match &end {
                        End::Answered(_) => {
                            prop_assert!(is_call);
                            let sent = model.sent.iter().find(|sent| *sent.1 == writer);
                            model.answered.extend(sent.map(|sent| sent.0.clone()));
                        }
                        End::TimedOut | End::Ambiguous(_) => {
                            prop_assert!(
                                is_call
                                    && (model.mutations.contains(&writer)
                                        || matches!(end, End::TimedOut))
                            );
                            let sent = model.sent.iter().find(|sent| *sent.1 == writer);
                            model.expired.extend(sent.map(|sent| sent.0.clone()));
                        }
                        End::Completed
                        | End::Rejected(_)
                        | End::Lost(_)
                        | End::GaveUp { .. }
                        | End::Overflow
                        | End::Hook(_)
                        | End::ShutDown => {}
                    }
                    if model.mutations.contains(&writer) {
                        let is_sure = matches!(
                            end,
                            End::TimedOut | End::Lost(_) | End::GaveUp { .. } | End::ShutDown
                        );
                        prop_assert!(
                            !(is_sure && model.issued_ever.contains(&writer)),
                            "rule 27: not executed, it says"
                        );
                    }
                    prop_assert!(
                        model.live.remove(&writer),
                        "I1: an operation finishes at most once"
                    );
                    prop_assert!(model.finished.insert(writer));
                    model.watch.finished(writer);
                    if !model.shut_down {
                        model.sent.retain(|_, id| *id != writer);
                    }
                }
                Output::Stale { writer, .. } => model.stale(self.rig.now, writer)?,
                Output::Judge { writer, end } => model.judge(writer, &end)?,
                Output::Connected(_) => {
                    prop_assert!(std::mem::take(&mut model.wanted), "answered once")
                }
                Output::Refused(..) | Output::Unattributed(_) => {}
                Output::Status(status) => {
                    if let Status::Open { .. } = status {
                        model.opened();
                    }
                    model.status = Some(status);
                }
                Output::Ended => {
                    prop_assert!(model.live.is_empty(), "I4: no operation is left behind")
                }
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, most: usize) -> Result<(), TestCaseError> {
        for _ in 0..most {
            let Some(transmit) = self.rig.session.poll_transmit(ConnectionId::A) else { break };
            let model = &mut self.model;
            model.log.push(format!("{transmit:?}"));
            prop_assert!(model.socket, "nothing is written without a socket");
            let message: Value = match transmit {
                Transmit::Text(text) => serde_json::from_str(&text).unwrap(),
                Transmit::Ping(_) => json!({"type": "ping"}),
                Transmit::Close(..) => continue,
            };
            let id = message["id"].as_str().map(str::to_owned);
            match message["type"].as_str().unwrap() {
                "connection_init" => {
                    prop_assert!(!model.init_sent, "rule 4: one init for each socket");
                    model.init_sent = true;
                }
                "subscribe" | "start" => {
                    let (wire_id, id) = (
                        id.unwrap(),
                        message["payload"]["query"].as_str().unwrap().parse().unwrap(),
                    );
                    prop_assert!(model.acked, "rule 5: nothing before the ack");
                    prop_assert!(model.live.contains(&id), "rule 12: never mentioned once dropped");
                    prop_assert!(
                        model.every_wire_id.insert(wire_id.clone()),
                        "rule 9: no id twice"
                    );
                    prop_assert!(
                        !model.sent.values().any(|sent| *sent == id),
                        "I2: under one id at a time"
                    );
                    if !model.issued_ever.insert(id) && !model.queries.contains(&id) {
                        prop_assert!(
                            !model.mutations.contains(&id),
                            "rule 27: a mutation is never sent twice"
                        );
                        prop_assert!(
                            model.reissue_announced.remove(&id),
                            "rule 28: sending again is never silent"
                        );
                    }
                    model.watch.issued(id)?;
                    model.sent.insert(wire_id, id);
                }
                "complete" | "stop" => {
                    let id = id.unwrap();
                    let owed = model.expired.remove(&id) || model.watch.completed(&id);
                    let runs = model.sent.remove(&id).is_some() || owed;
                    prop_assert!(
                        runs || model.answered.remove(&id),
                        "rules 12, 13, 15: only what runs, or was answered"
                    );
                }
                "ping" => model.pings.push_back(model.sent.keys().cloned().collect()),
                "pong" => prop_assert!(model.init_sent),
                "connection_terminate" => {}
                other => prop_assert!(false, "unexpected {}", other),
            }
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        let (session, model) = (&self.rig.session, &self.model);
        prop_assert_eq!(session.live_operations(), model.live.len());
        let waits = matches!(
            session.phase(),
            Some(
                Phase::Waiting
                    | Phase::Authorizing
                    | Phase::Dialing(_)
                    | Phase::Opening(_)
                    | Phase::Closing(_)
            )
        );
        prop_assert!(
            !waits || session.current().unwrap().timers.next().is_some(),
            "I6: every phase that waits has a deadline"
        );
        self.check_status()?;
        if session.current().is_none() && !session.has_ended {
            let rests = model.live.is_empty() && !model.wanted;
            prop_assert!(rests || session.is_paused, "nobody waits for a session that rests");
        }
        Ok(())
    }

    /// I2: once everything is written, every live operation that waits for nothing is on this
    /// socket, under one id, and no other id is left there.
    pub(super) fn settle(&mut self) -> Result<(), TestCaseError> {
        self.write(usize::MAX)?;
        if self.rig.session.is_open() {
            let Model { sent, live, watch, .. } = &self.model;
            let mut sent: Vec<_> = sent.values().copied().collect();
            sent.sort_unstable();
            let is_tried = |id: u64| self.rig.session.operations.waits(id, Why::Quarantine);
            let due =
                live.iter().copied().filter(|&id| watch.waits_for_nothing(id) && !is_tried(id));
            prop_assert_eq!((sent, watch.owes()), (due.collect(), 0), "I2");
        }
        Ok(())
    }
}
