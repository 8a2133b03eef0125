//! The client's side of the clock: what arrives is read, what is to be written is sent, and readers
//! read.

use super::{
    oracle::{Checked, broken},
    performer::Act,
    reader::{Pace, Reader},
    wire::{Down, Stage, Wire},
    world::{Event, Step, World},
};
use crate::session::ConnectionId;

impl World {
    pub(super) fn read_slowly(&mut self, reader: usize) -> Checked {
        let Some(Reader { pace: Pace::Slow { every, most }, naps_until, .. }) =
            self.readers[reader]
        else {
            return Ok(());
        };
        if naps_until <= self.now {
            self.read_some(reader, most)?;
        }
        self.schedule(self.now + every, Event::Read(reader));
        Ok(())
    }

    fn read_some(&mut self, index: usize, most: usize) -> Checked {
        let (mut lines, is_logged) = (Vec::new(), self.is_logged());
        let Some(reader) = &mut self.readers[index] else { return Ok(()) };
        let read = reader.read(most, |line| {
            if is_logged {
                lines.push(line);
            }
        });
        for line in lines {
            self.log(|| format!("reader {index} {line}"));
        }
        read
    }

    pub(super) fn arrive_all(&mut self) {
        for id in ConnectionId::ALL {
            self.arrive(id);
        }
    }

    /// What has arrived at the client is read, unless that waits for a reader.
    pub(super) fn arrive(&mut self, id: ConnectionId) {
        loop {
            let is_blocked = self.performer.is_blocked(id);
            let now = self.now;
            let Some(wire) = &mut self.wires[id as usize] else { return };
            let is_here = wire.down.front().is_some_and(|(at, _)| *at <= now);
            if !is_here || is_blocked || wire.stalled_until > now {
                return;
            }
            let Some((_, down)) = wire.down.pop_front() else { return };
            self.log(|| format!("{id:?} -> {down:?}"));
            match down {
                Down::Text(text) => self.performer.handle_frame(now, id, &text),
                Down::Pong(number) => self.performer.handle_pong(now, id, number),
                Down::Lost(cause) => {
                    self.losses += 1;
                    self.performer.handle_lost(now, id, cause);
                }
            }
            // A `Hangup` comes before anything else.
            self.carry_out();
        }
    }

    /// Everything that follows at once.
    pub(super) fn settle(&mut self) -> Checked {
        for _ in 0..1_000 {
            let mut is_busy = self.performer.take_commands(self.now);
            is_busy |= self.carry_out();
            is_busy |= self.transmit();
            for reader in 0..self.readers.len() {
                if self.readers[reader].as_ref().is_some_and(|it| it.is_due(self.now)) {
                    is_busy = true;
                    self.read_some(reader, usize::MAX)?;
                }
            }
            if self.performer.look_for_room(self.now) {
                is_busy = true;
                self.arrive_all();
            }
            if !is_busy {
                return match self.performer.most_outputs {
                    0..MAX_OUTPUTS => Ok(()),
                    most => broken("little follows from one input", most.to_string()),
                };
            }
        }
        broken("the client comes to rest", "it is busy without end")
    }

    fn carry_out(&mut self) -> bool {
        let acts = std::mem::take(&mut self.performer.acts);
        let is_busy = !acts.is_empty();
        for act in acts {
            self.log(|| format!("{act:?}"));
            match act {
                Act::Authorize(id) => {
                    let age = self.next_age();
                    self.wires[id as usize] = Some(Wire::new(age, self.now));
                    self.step(Step::Asked, id);
                    let at = self.soon(300);
                    self.schedule(at, Event::Granted(id, age));
                }
                Act::Dial(id, subprotocol) => {
                    debug_assert_eq!(subprotocol, self.setting.subprotocol);
                    let Some(wire) = &mut self.wires[id as usize] else { continue };
                    wire.stage = Stage::Dialing;
                    let age = wire.age;
                    self.step(Step::Dialing, id);
                    let at = self.soon(200);
                    self.schedule(at, Event::Dialed(id, age));
                }
                Act::Hangup(id) => self.wires[id as usize] = None,
            }
        }
        is_busy
    }

    fn transmit(&mut self) -> bool {
        let mut is_busy = false;
        for id in ConnectionId::ALL {
            while self.wires[id as usize].as_ref().is_some_and(|wire| {
                matches!(wire.stage, Stage::Open | Stage::Greeted) && wire.clogged_until <= self.now
            }) {
                let Some(transmit) = self.performer.poll_transmit(id) else { break };
                is_busy = true;
                self.send_up(id, transmit);
            }
        }
        is_busy
    }
}

/// Above what any number of streams that are here can say at once.
const MAX_OUTPUTS: usize = 5_000;
