//! What the server does, on either socket.

use super::{
    world::{Down, World},
    *,
};

impl World {
    /// The server publishes an event, wherever this is subscribed.
    pub(super) fn publish(&mut self, id: u64) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        reader.published += 1;
        let n = reader.published;
        for wire in &mut self.wires {
            for (wire_id, _) in wire.carried.iter().filter(|(_, carried)| **carried == id) {
                let item = json!({"type": "next", "id": wire_id, "payload": {"data": n}});
                wire.unsent.push_back((wire_id.clone(), item));
            }
        }
    }

    /// The server sends what it has to say there.
    pub(super) fn send(&mut self, on: ConnectionId) {
        let wire = &mut self.wires[on as usize];
        wire.down.extend(wire.unsent.drain(..).map(|(_, item)| Down::Text(item)));
    }

    pub(super) fn publish_all(&mut self) {
        let ids: Vec<_> = self.readers.keys().copied().collect();
        for id in ids {
            self.publish(id);
        }
    }

    /// The server ends what it carries there.
    pub(super) fn end(&mut self, on: ConnectionId, index: usize) {
        let wire = &mut self.wires[on as usize];
        let subscriptions = wire.carried.iter().filter(|(_, id)| self.readers.contains_key(id));
        let Some(wire_id) = subscriptions.map(|(wire_id, _)| wire_id.clone()).nth(index) else {
            return;
        };
        wire.carried.remove(&wire_id);
        self.send(on);
        let wire = &mut self.wires[on as usize];
        wire.down.push_back(Down::Text(json!({"type": "complete", "id": wire_id})));
    }

    /// The server reads a message.
    pub(super) fn up(&mut self, on: ConnectionId) -> Result<bool, TestCaseError> {
        let Some(transmit) = self.wires[on as usize].up.pop_front() else { return Ok(false) };
        let wire = &mut self.wires[on as usize];
        let message = match transmit {
            Transmit::Text(text) => serde_json::from_str::<Value>(&text).unwrap(),
            Transmit::Ping(_) => {
                wire.down.extend((!self.mute).then_some(Down::Pong));
                return Ok(true);
            }
            Transmit::Close(code, _) => {
                self.closes.push(code.0);
                wire.carried.clear();
                wire.pending.clear();
                wire.down.push_back(Down::Lost(closed(code.0)));
                return Ok(true);
            }
        };
        let wire_id = message["id"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().unwrap() {
            "connection_init" => {
                prop_assert!(
                    !std::mem::replace(&mut wire.init, true),
                    "rule 4: one init for each socket"
                );
                wire.down.push_back(Down::Text(json!({"type": "connection_ack"})));
                wire.down.extend(
                    self.farewell.then(|| Down::Text(json!({"type": "connection_terminate"}))),
                );
            }
            "ping" => wire.down.extend((!self.mute).then(|| Down::Text(json!({"type": "pong"})))),
            "subscribe" | "start" => {
                prop_assert!(wire.acked, "rule 5: nothing before the acknowledgement");
                prop_assert!(wire.ids.insert(wire_id.clone()), "rule 9: {wire_id} was used");
                let id: u64 = message["payload"]["query"].as_str().unwrap().parse().unwrap();
                prop_assert!(
                    !wire.carried.values().any(|carried| *carried == id),
                    "I2: once on each socket"
                );
                prop_assert!(
                    !wire.pending.iter().any(|(_, pending, _)| *pending == id),
                    "I2: once on each socket"
                );
                wire.read.insert(id);
                let after = message["payload"]["variables"]["after"].as_u64();
                wire.pending.push((wire_id, id, after));
                if !self.lazy {
                    self.begin(on);
                }
            }
            "complete" | "stop" => {
                prop_assert!(wire.ids.contains(&wire_id), "rule 12: {wire_id} is not known here");
                prop_assert!(wire.completed.insert(wire_id.clone()), "{wire_id} was completed");
                wire.carried.remove(&wire_id);
                wire.pending.retain(|(pending, ..)| *pending != wire_id);
                wire.unsent.retain(|(unsent, _)| *unsent != wire_id);
            }
            "pong" | "connection_terminate" => {}
            other => prop_assert!(false, "{other}"),
        }
        Ok(true)
    }

    /// The server answers the calls that it has there.
    pub(super) fn answer(&mut self, on: ConnectionId) {
        let wire = &mut self.wires[on as usize];
        let calls: Vec<_> =
            wire.carried.iter().filter(|(_, id)| !self.readers.contains_key(id)).collect();
        let calls: Vec<_> = calls.into_iter().map(|(wire_id, _)| wire_id.clone()).collect();
        for wire_id in calls {
            wire.carried.remove(&wire_id);
            wire.down.push_back(Down::Text(
                json!({"type": "next", "id": wire_id, "payload": {"data": 1}}),
            ));
            wire.down.push_back(Down::Text(json!({"type": "complete", "id": wire_id})));
        }
    }

    /// What was read is begun.
    pub(super) fn begin(&mut self, on: ConnectionId) {
        let mut is_call = false;
        for (wire_id, id, after) in std::mem::take(&mut self.wires[on as usize].pending) {
            let wire = &mut self.wires[on as usize];
            if let Some(reader) = self.readers.get_mut(&id) {
                let begins_after = after.unwrap_or(reader.published);
                reader.begin(wire_id.split('.').next().unwrap().parse().unwrap(), begins_after);
                for n in begins_after + 1..=reader.published {
                    let item = json!({"type": "next", "id": wire_id, "payload": {"data": n}});
                    wire.unsent.push_back((wire_id.clone(), item));
                }
            }
            wire.carried.insert(wire_id, id);
            if self.calls.contains_key(&id) || !self.readers.contains_key(&id) {
                *self.executed.entry(id).or_default() += 1;
                is_call = true;
            }
        }
        if is_call && !self.slow_calls {
            self.answer(on);
        }
    }

    /// The server says an item of the only subscription, which it may have said elsewhere.
    pub(super) fn say_item(&mut self, on: ConnectionId, n: u64) {
        let wire = &mut self.wires[on as usize];
        let (wire_id, id) = wire.carried.first_key_value().unwrap();
        let item = json!({"type": "next", "id": wire_id, "payload": {"data": n}});
        let reader = self.readers.get_mut(id).unwrap();
        reader.published = reader.published.max(n);
        wire.down.push_back(Down::Text(item));
    }

    /// The server says something that is about no operation.
    pub(super) fn say(&mut self, on: ConnectionId, down: Down) {
        let wire = &mut self.wires[on as usize];
        wire.down.extend(wire.acked.then_some(down));
    }
}
