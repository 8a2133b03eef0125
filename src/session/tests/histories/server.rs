//! What a server does, on either connection.

use super::{steps::Event, *};

impl History {
    pub(super) fn happen(&mut self, on: ConnectionId, event: &Event) -> Checked {
        let (now, wire) = (self.rig.now, &mut self.model.wires[on as usize]);
        let session = &mut self.rig.session;
        match event {
            Event::Answer => self.answer(on)?,
            Event::Connect => self.connect(on)?,
            Event::Write(most) => self.write(on, *most)?,
            Event::FailCredentials(is_fatal) if wire.asked => {
                let error = if *is_fatal {
                    CredentialsError::fatal("f")
                } else {
                    CredentialsError::transient("t")
                };
                session.handle_credentials(now, on, Err(error));
            }
            Event::FailDial(status) if wire.dialing => {
                let error = match status {
                    0 => ConnectError::Timeout(secs(1)),
                    &status => refused(status),
                };
                session.handle_lost(now, on, Disconnect::Connect(error));
            }
            Event::Receive(kind, index) if wire.socket => {
                let sent: Vec<_> = wire.sent.keys().cloned().collect();
                // Half of them known to the server.
                let every = &self.model.every_wire_id;
                let ids: Vec<_> =
                    every.iter().chain(sent.iter().cycle().take(every.len())).collect();
                let id =
                    if ids.is_empty() { None } else { Some(ids[index.index(ids.len())].clone()) };
                self.receive(on, kind, id)?;
            }
            Event::WebSocketPong if wire.socket => self.pong(on, LEGACY)?,
            Event::Garbage(bytes) if wire.socket => match std::str::from_utf8(bytes) {
                Ok(text) => {
                    let item = session.handle_frame(now, on, text);
                    prop_assert!(item.is_none(), "I3: deliveries only for live ids");
                }
                Err(_) => session.handle_unreadable(now, on),
            },
            Event::Close(code) if wire.socket => self.lose(on, closed(*code)),
            Event::Reset if wire.socket => self.lose(on, Disconnect::Reset(None)),
            // There is nothing to which that could happen.
            Event::FailCredentials(_)
            | Event::FailDial(_)
            | Event::Receive(..)
            | Event::WebSocketPong
            | Event::Garbage(_)
            | Event::Close(_)
            | Event::Reset => {}
        }
        Ok(())
    }

    /// From asking the provider to the acknowledgement, as far as it has to go.
    pub(super) fn connect(&mut self, on: ConnectionId) -> Checked {
        for _ in 0..2 {
            self.answer(on)?;
            self.perform()?;
        }
        if !self.model.wires[on as usize].init_sent {
            self.write(on, 1)?;
        }
        self.answer(on)
    }

    pub(super) fn answer(&mut self, on: ConnectionId) -> Checked {
        let (now, wire) = (self.rig.now, &mut self.model.wires[on as usize]);
        if std::mem::take(&mut wire.asked) {
            self.rig.session.handle_credentials(now, on, Ok(granted()));
        } else if std::mem::take(&mut wire.dialing) {
            wire.socket = true;
            self.rig.session.handle_open(now, on);
        } else if wire.init_sent && !wire.acked {
            self.receive(on, "connection_ack", None)?;
        }
        Ok(())
    }

    /// Does what is to be done on both connections, and closes those that carry an operation that
    /// the server closes connections over.
    pub(super) fn serve(&mut self) -> Checked {
        for on in ConnectionId::ALL {
            self.connect(on)?;
            self.perform()?;
            self.write(on, usize::MAX)?;
            let wire = &self.model.wires[on as usize];
            let code = wire.sent.values().find_map(|id| self.model.bad.get(id).copied());
            match code {
                Some(code) if self.rig.session.is_live(on) => self.lose(on, closed(code)),
                Some(_) | None => self.answer_pings(on)?,
            }
            self.perform()?;
        }
        Ok(())
    }

    /// An operation is new that the server closes connections over. Time for finding it; other
    /// things happen meanwhile.
    pub(super) fn search(&mut self, code: u16, meanwhile: &[Step]) -> Checked {
        self.run(&Step::Subscribe)?;
        self.run(&Step::SubscribeBad(code))?;
        self.run(&Step::Subscribe)?;
        for turn in 0..30 {
            self.run(&Step::Serve)?;
            self.run(&Step::Pass(300))?;
            if turn % 2 == 0
                && let Some(step) = meanwhile.get(turn / 2)
            {
                self.run(step)?;
            }
        }
        Ok(())
    }

    pub(super) fn answer_pings(&mut self, on: ConnectionId) -> Checked {
        while !self.model.wires[on as usize].pings.is_empty() {
            let before = self.model.wires[on as usize].pings.len();
            for subprotocol in [MODERN, LEGACY] {
                if self.is_spoken(on, subprotocol) {
                    self.pong(on, subprotocol)?;
                    self.perform()?;
                }
            }
            if self.model.wires[on as usize].pings.len() == before {
                break;
            }
            self.write(on, usize::MAX)?;
        }
        Ok(())
    }

    /// A pong of the kind that answers pings on this subprotocol.
    fn pong(&mut self, on: ConnectionId, subprotocol: Subprotocol) -> Checked {
        let is_spoken = self.is_spoken(on, subprotocol);
        let wire = &mut self.model.wires[on as usize];
        let mut number = None;
        if is_spoken && let Some((of, sent)) = wire.pings.pop_front() {
            wire.proven.extend(sent);
            number = self.echoes.then_some(of);
        }
        match (subprotocol, number) {
            (MODERN, number) => {
                let pong = match number {
                    Some(number) => json!({"type": "pong", "payload": {"n": number}}),
                    None => json!({"type": "pong"}),
                };
                let item = self.rig.session.handle_frame(self.rig.now, on, &pong.to_string());
                prop_assert!(item.is_none());
            }
            (LEGACY, number) => self.rig.session.handle_pong(self.rig.now, on, number),
        }
        Ok(())
    }

    pub(super) fn lose(&mut self, on: ConnectionId, cause: Disconnect) {
        self.note_loss(on, &cause);
        self.rig.session.handle_lost(self.rig.now, on, cause);
    }

    pub(super) fn receive(&mut self, on: ConnectionId, kind: &str, id: Option<String>) -> Checked {
        if kind == "pong" {
            return self.pong(on, MODERN);
        }
        let mut message = json!({"type": kind, "payload": {"data": self.model.log.len()}});
        if let Some(id) = &id {
            message["id"] = id.clone().into();
        }
        let was_open = self.rig.session.is_live(on);
        self.model.kept_away = self.kept_away();
        let model = &mut self.model;
        let of = id.as_ref().and_then(|id| model.wires[on as usize].sent.get(id)).copied();
        let item = self.rig.session.handle_frame(self.rig.now, on, &message.to_string());
        let delivered = item.map(|item| *item.writer);
        if let Some(writer) = delivered {
            model.log.push(format!("{writer} gets an item"));
            prop_assert!(model.live.contains(&writer), "I3: deliveries only for live ids");
            prop_assert_eq!(on, ConnectionId::A, "what is tried delivers nothing");
            prop_assert_eq!(of, Some(writer), "I3: under their own id");
            model.wires[on as usize].proven.extend(id.clone());
            model.watch.received(self.rig.now, writer);
        }
        if let (true, Some(id)) = (was_open, id) {
            match kind {
                "next" | "data" => self.item_arrived(on, of, delivered)?,
                "complete" | "error" => self.end_arrived(on, &id),
                _ => {}
            }
        }
        let is_open = self.rig.session.is_live(on);
        // A violation loses the connection at once; its `Hangup` is yet to be performed.
        if was_open && !is_open && on == ConnectionId::A {
            self.model.lost(self.rig.now);
        }
        self.model.wires[on as usize].acked = is_open;
        Ok(())
    }

    fn item_arrived(
        &mut self,
        on: ConnectionId,
        of: Option<u64>,
        delivered: Option<u64>,
    ) -> Checked {
        let Some(id) = of.filter(|id| self.model.live.contains(id)) else { return Ok(()) };
        self.model.cleared.insert(id);
        if self.model.is_call(id) {
            return Ok(());
        }
        if on == ConnectionId::A {
            prop_assert_eq!(delivered, Some(id), "I4: every item is read");
        } else {
            // It does not close connections: it goes on where all others are.
            self.model.wires[on as usize].give_up(id);
        }
        Ok(())
    }

    /// Also of an operation that was dropped, whose `complete` may not be written yet (rule 13).
    fn end_arrived(&mut self, on: ConnectionId, wire_id: &str) {
        let model = &mut self.model;
        let wire = &mut model.wires[on as usize];
        let (sent, owed) = (wire.sent.remove(wire_id), wire.owed.remove(wire_id));
        // What comes for a request that was given up is ignored (rule 12), so it clears nothing.
        model.cleared.extend(sent.filter(|id| model.live.contains(id)));
        let Some(id) = sent.or(owed) else { return };
        // On legacy a call is stopped all the same (rule 15).
        if model.is_call(id) {
            model.wires[on as usize].answered.insert(wire_id.to_owned());
        }
    }

    pub(super) fn is_spoken(&self, on: ConnectionId, subprotocol: Subprotocol) -> bool {
        let connection = self.rig.session.connection(on);
        connection.is_some_and(|it| it.phase == super::super::super::Phase::Open(subprotocol))
    }
}
