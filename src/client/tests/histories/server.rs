//! An honest server that may be late, and what lies between it and the client.
//!
//! Owns the promise that the streams build on: what is published is sent in order, on every
//! connection on which it was begun, and a position is honoured. It may begin an operation long
//! after it has read it, and send an item long after it was published. It forgets what it has not
//! sent when it is told to stop, and answers a ping ahead of what waits.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    oracle::{Checked, broken},
    reader::{BACKEND, Reader},
    wire::{Down, Feed, Operation, Stage},
    world::{Event, Step, World},
};
use crate::{
    error::{CloseCode, Disconnect},
    protocol::{Subprotocol, Transmit},
    session::ConnectionId,
};

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: Option<&'a str>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Query<'a> {
    query: &'a str,
    variables: Option<Variables>,
}

#[derive(Deserialize)]
struct Variables {
    after: Option<u64>,
}

impl World {
    /// A socket is there; how late the server is on it is a matter of luck.
    pub(super) fn accept(&mut self, id: ConnectionId) {
        let habits = self.setting.server;
        let within = |rng: &mut fastrand::Rng, most: Duration| match rng.u8(..3) {
            0 => Duration::ZERO,
            1 => most / 10,
            _ => most,
        };
        let is_late = self.is_troubled();
        let (rng, Some(wire)) = (&mut self.rng, &mut self.wires[id as usize]) else { return };
        wire.stage = Stage::Open;
        if is_late {
            wire.begins_within = within(rng, habits.begins_within);
            wire.sends_within = within(rng, habits.sends_within);
        }
    }

    /// Something is on its way to the server.
    pub(super) fn send_up(&mut self, id: ConnectionId, transmit: Transmit) {
        let (latency, now) = (self.latency(), self.now);
        let Some(wire) = &mut self.wires[id as usize] else { return };
        wire.up.push_back(transmit);
        wire.last_up = wire.last_up.max(now + latency);
        let (at, age) = (wire.last_up, wire.age);
        self.schedule(at, Event::Up(id, age));
    }

    /// Something is on its way to the client.
    pub(super) fn send_down(&mut self, id: ConnectionId, down: Down) {
        let (latency, now) = (self.latency(), self.now);
        let Some(wire) = &mut self.wires[id as usize] else { return };
        wire.last_down = wire.last_down.max(now + latency);
        let (at, age) = (wire.last_down, wire.age);
        wire.down.push_back((at, down));
        self.schedule(at, Event::Down(id, age));
    }

    fn say(&mut self, id: ConnectionId, text: impl Into<String>) {
        self.send_down(id, Down::Text(text.into()));
    }

    /// The server reads the next message.
    pub(super) fn hear(&mut self, id: ConnectionId) -> Checked {
        let now = self.now;
        let Some(wire) = &mut self.wires[id as usize] else { return Ok(()) };
        if wire.is_dead {
            return Ok(());
        }
        if wire.stalled_until > now {
            let (at, age) = (wire.stalled_until, wire.age);
            self.schedule(at, Event::Up(id, age));
            return Ok(());
        }
        let Some(transmit) = wire.up.pop_front() else { return Ok(()) };
        match transmit {
            Transmit::Ping(number) => self.send_down(id, Down::Pong(number)),
            Transmit::Close(code, reason) => {
                wire.die();
                let cause = Disconnect::Closed { code, reason: reason.into() };
                self.send_down(id, Down::Lost(cause));
                self.step(Step::Closed, id);
            }
            Transmit::Text(text) => {
                self.log(|| format!("{id:?} <- {text}"));
                self.hear_text(id, &text)?;
            }
        }
        Ok(())
    }

    fn hear_text(&mut self, id: ConnectionId, text: &str) -> Checked {
        let Message { kind, id: wire_id, payload } = serde_json::from_str(text).unwrap();
        let Some(wire) = &mut self.wires[id as usize] else { return Ok(()) };
        let age = wire.age;
        match (kind, wire_id) {
            ("connection_init", None) => {
                if std::mem::replace(&mut wire.stage, Stage::Greeted) != Stage::Open {
                    return broken("one `connection_init` for each socket (rule 4)", text);
                }
                self.step(Step::Greeted, id);
                let at = self.soon(if self.is_troubled() { 2_000 } else { 50 });
                self.schedule(at, Event::Acknowledge(id, age));
            }
            ("ping", None) => self.say(id, r#"{"type":"pong"}"#),
            ("pong" | "connection_terminate", None) => {}
            ("subscribe" | "start", Some(wire_id)) => {
                let Query { query, variables } =
                    serde_json::from_str(payload.unwrap().get()).unwrap();
                let feed = query[14..].split(' ').next().unwrap().parse().unwrap();
                let after = variables.and_then(|variables| variables.after);
                self.hear_subscribe(id, wire_id, feed, after)?;
            }
            ("complete" | "stop", Some(wire_id)) => {
                if !wire.ids.contains(wire_id) {
                    return broken("only what was sent is completed (rule 12)", text);
                }
                if !wire.completed.insert(wire_id.to_owned()) {
                    return broken("nothing is completed twice (rule 13)", text);
                }
                let known = wire.operations.remove(wire_id).is_some();
                if known && self.setting.server.answers_complete {
                    self.say(id, format!(r#"{{"type":"complete","id":"{wire_id}"}}"#));
                }
                self.step(Step::Completed, id);
            }
            _ => return broken("the client says what the subprotocol knows", text),
        }
        Ok(())
    }

    fn hear_subscribe(
        &mut self,
        id: ConnectionId,
        wire_id: &str,
        feed: usize,
        after: Option<u64>,
    ) -> Checked {
        let said = format!("f{feed} as {wire_id} after {after:?} on {id:?}");
        let (now, restarts) = (self.now, self.performer.restarts + self.losses);
        let Some(wire) = &mut self.wires[id as usize] else { return Ok(()) };
        if !wire.ids.insert(wire_id.to_owned()) {
            return broken("an id is used once (rule 9)", said);
        }
        if wire.operations.values().any(|operation| operation.feed == feed) {
            return broken("an operation is on a connection once (I2)", said);
        }
        let Feed { position, request, ended, is_leaky, .. } = &mut self.feeds[feed];
        let serial = wire_id.split('.').next().unwrap().parse().unwrap();
        // One may come late, on another connection.
        if serial > *request {
            if *position > after && !*is_leaky {
                let said = format!("{said}, {position:?}");
                return broken("a position never goes back (rule 28a)", said);
            }
            (*request, *position) = (serial, after);
        }
        for reader in self.readers.iter_mut().flatten().filter(|reader| reader.feed == feed) {
            reader.seen.asked(after.is_some());
        }
        let subscribes = wire.subscribes.entry(feed).or_default();
        *subscribes += 1;
        // It was sent again for a reason.
        if *subscribes > 2 + *ended + restarts {
            return broken(
                "nothing is sent again and again",
                format!("{said}, {subscribes} times"),
            );
        }
        let operation =
            Operation { feed, after, begun: None, next: 0, last_sent: now, is_sending: false };
        wire.operations.insert(wire_id.to_owned(), operation);
        let (most, age) = (wire.begins_within, wire.age);
        self.step(Step::Subscribed, id);
        let at = self.now + self.part_of(most);
        self.schedule(at, Event::Begin(id, age, wire_id.to_owned()));
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, id: ConnectionId) {
        if self.wires[id as usize].as_ref().is_some_and(|wire| !wire.is_dead) {
            self.say(id, r#"{"type":"connection_ack"}"#);
            self.step(Step::Acknowledged, id);
        }
    }

    /// The server gets to an operation that it has read.
    pub(super) fn begin(&mut self, id: ConnectionId, wire_id: &str) {
        let (now, repeats) = (self.now, self.setting.server.repeats_position);
        let Some(wire) = &mut self.wires[id as usize] else { return };
        let age = wire.age;
        let Some(operation) = wire.operations.get_mut(wire_id) else { return };
        let head = self.feeds[operation.feed].head();
        operation.begun = Some(now);
        operation.next = match operation.after {
            Some(after) => after.saturating_sub(u64::from(repeats)),
            None => head,
        }
        .try_into()
        .unwrap();
        let feed = operation.feed;
        self.log(|| format!("{id:?} begins {wire_id}, f{feed} after {head}"));
        for reader in self.readers.iter_mut().flatten().filter(|reader| reader.feed == feed) {
            reader.seen.begin(head, age);
        }
        self.step(Step::Begun, id);
        self.send_next(id, wire_id);
    }

    /// Decides when the next item of an operation is sent, if there is any.
    fn send_next(&mut self, id: ConnectionId, wire_id: &str) {
        let Some(most) = self.wires[id as usize].as_ref().map(|wire| wire.sends_within) else {
            return;
        };
        let late = self.part_of(most);
        let now = self.now;
        let Some(wire) = &mut self.wires[id as usize] else { return };
        let Some(operation) = wire.operations.get_mut(wire_id) else { return };
        let published = self.feeds[operation.feed].published.get(operation.next);
        let (Some(begun), Some(published), false) =
            (operation.begun, published, operation.is_sending)
        else {
            return;
        };
        operation.is_sending = true;
        let at = (begun.max(*published) + late).max(operation.last_sent).max(now);
        let age = wire.age;
        self.schedule(at, Event::Send(id, age, wire_id.to_owned()));
    }

    /// The next item of an operation is sent.
    pub(super) fn send(&mut self, id: ConnectionId, wire_id: &str) {
        let (now, name) = (self.now, if self.is_legacy() { "data" } else { "next" });
        let leaks = self.is_troubled() && self.rng.u8(..100) < 15;
        let Some(wire) = &mut self.wires[id as usize] else { return };
        let Some(operation) = wire.operations.get_mut(wire_id) else { return };
        operation.next += 1;
        let feed = operation.feed;
        // Only numbers that follow a known one show a loss.
        let has_first = |reader: &Reader| reader.feed == feed && reader.seen.items > 0;
        if leaks && self.feeds[feed].is_leaky && self.readers.iter().flatten().any(has_first) {
            operation.is_sending = false;
            return self.send_next(id, wire_id);
        }
        let item = self.feeds[feed].item(operation.next as u64);
        operation.is_sending = false;
        operation.last_sent = now;
        self.say(id, format!(r#"{{"type":"{name}","id":"{wire_id}","payload":{item}}}"#));
        self.step(Step::Sent, id);
        self.send_next(id, wire_id);
    }

    /// Something is published.
    pub(super) fn publish(&mut self, feed: usize) {
        self.feeds[feed].published.push(self.now);
        for id in ConnectionId::ALL {
            let wire = self.wires[id as usize].iter();
            let ids: Vec<_> = wire
                .flat_map(|wire| &wire.operations)
                .filter(|(_, operation)| operation.feed == feed && operation.begun.is_some())
                .map(|(wire_id, _)| wire_id.clone())
                .collect();
            for wire_id in &ids {
                self.send_next(id, wire_id);
            }
        }
    }

    /// The server ends an operation for a reason that passes, and forgets what it has not sent.
    pub(super) fn end(&mut self, id: ConnectionId, feed: usize) {
        let (name, is_legacy) = (if self.is_legacy() { "data" } else { "next" }, self.is_legacy());
        let is_plain = self.rng.bool();
        let Some(wire) = self.wires[id as usize].as_mut().filter(|wire| !wire.is_dead) else {
            return;
        };
        let is_begun =
            |operation: &&mut Operation| operation.feed == feed && operation.begun.is_some();
        let found = wire.operations.iter_mut().find(|(_, operation)| is_begun(operation));
        let Some(wire_id) = found.map(|(wire_id, _)| wire_id.clone()) else { return };
        wire.operations.remove(&wire_id);
        let age = wire.age;
        self.feeds[feed].ended += 1;
        let error = format!(r#"{{"message":"{BACKEND}"}}"#);
        if is_plain {
            let payload = if is_legacy { error } else { format!("[{error}]") };
            self.say(id, format!(r#"{{"type":"error","id":"{wire_id}","payload":{payload}}}"#));
        } else {
            let payload = format!(r#"{{"data":null,"errors":[{error}]}}"#);
            self.say(id, format!(r#"{{"type":"{name}","id":"{wire_id}","payload":{payload}}}"#));
            let at = self.now + self.part_of(Duration::from_secs(5));
            self.schedule(at, Event::Complete(id, age, wire_id));
        }
    }

    /// The server completes an operation that it has ended.
    pub(super) fn complete(&mut self, id: ConnectionId, wire_id: &str) {
        let wire = self.wires[id as usize].as_ref();
        if wire.is_some_and(|wire| !wire.is_dead && !wire.completed.contains(wire_id)) {
            self.say(id, format!(r#"{{"type":"complete","id":"{wire_id}"}}"#));
        }
    }

    pub(super) fn terminate(&mut self, id: ConnectionId) {
        if self.performer.is_live(id) {
            self.say(id, r#"{"type":"connection_terminate"}"#);
        }
    }

    /// The connection ends with a close frame, behind what is under way.
    pub(super) fn close(&mut self, id: ConnectionId, code: u16) {
        if let Some(wire) = &mut self.wires[id as usize] {
            wire.die();
        }
        let cause = Disconnect::Closed { code: CloseCode(code), reason: String::new() };
        self.send_down(id, Down::Lost(cause));
    }

    fn is_legacy(&self) -> bool {
        self.setting.subprotocol == Subprotocol::GraphqlWs
    }
}
