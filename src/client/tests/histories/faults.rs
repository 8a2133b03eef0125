//! What goes wrong, and what the application does meanwhile.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;

use super::{
    wire::{Down, Stage},
    world::{Event, Step, World},
};
use crate::{
    error::{ConnectError, DialError, Disconnect, ResponseHeaders},
    session::ConnectionId,
};

#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// What is under way is lost as well.
    Reset(ConnectionId),
    /// Writing fails at once; reading does some time later.
    Break(ConnectionId),
    Close(ConnectionId, u16),
    /// Nothing comes any more, and nobody says so.
    Silence(ConnectionId),
    Stall(ConnectionId, Duration),
    /// The client's socket takes nothing.
    Clog(ConnectionId, Duration),
    /// All connections die, and none is to be had for a while.
    Outage(Duration),
    /// None is to be had for a while.
    Refuse(Duration),
    Rotate,
    ReconnectNow,
    Pause(Duration),
    Resume,
    NetworkChanged,
    Terminate(ConnectionId),
    Subscribe,
    /// One more reader of what others read.
    Join,
    Drop,
    /// A reader reads nothing for a while.
    Nap(Duration),
    /// The server ends an operation for a reason that passes.
    End(ConnectionId),
}

/// How dials fail for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    until: Instant,
    how: Refusal,
}

/// What is retried without end on every endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    Http(u16),
    NoRoute,
    /// The socket is never there.
    NoAnswer,
    NoAcknowledgement,
    CloseBeforeAcknowledgement(u16),
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for _ in 0..self.setting.faults {
            let at = self.now + self.part_of(self.setting.trouble);
            let fault = match self.rng.u8(..24) {
                _ if self.setting.is_calm => Fault::Rotate,
                0..5 => Fault::Rotate,
                5 => Fault::ReconnectNow,
                6 => Fault::Pause(Duration::from_millis(self.rng.u64(..20_000))),
                7 => Fault::NetworkChanged,
                8 => Fault::Subscribe,
                9 => {
                    if self.rng.bool() {
                        Fault::Drop
                    } else {
                        Fault::Join
                    }
                }
                10 => Fault::Outage(Duration::from_secs(self.rng.u64(1..40))),
                11 => Fault::Nap(Duration::from_secs(self.rng.u64(1..40))),
                12 => Fault::Terminate(self.some_id()),
                13..17 => Fault::End(self.some_id()),
                _ => self.some_fault(),
            };
            self.schedule(at, Event::Fault(fault));
        }
    }

    /// A step of a connection's life is done: something may go wrong right here, or soon.
    pub(super) fn step(&mut self, step: Step, id: ConnectionId) {
        let is_handover = self.wires.iter().all(Option::is_some);
        let percent = if is_handover { self.setting.traps } else { self.setting.traps / 8 };
        if !self.is_troubled() || percent == 0 || self.rng.u8(..100) >= percent {
            return;
        }
        // So often is nothing else done.
        if step == Step::Sent && self.rng.u8(..10) > 0 {
            return;
        }
        let delay = match self.rng.u8(..4) {
            0 => Duration::ZERO,
            1 => Duration::from_millis(self.rng.u64(..100)),
            2 => Duration::from_millis(self.rng.u64(..3_000)),
            _ => Duration::from_millis(self.rng.u64(..14_000)),
        };
        let fault = self.some_fault();
        self.log(|| format!("{step:?} on {id:?}, so in {delay:?}: {fault:?}"));
        self.schedule(self.now + delay, Event::Fault(fault));
    }

    fn some_id(&mut self) -> ConnectionId {
        ConnectionId::ALL[self.rng.usize(..2)]
    }

    /// What befalls one connection.
    fn some_fault(&mut self) -> Fault {
        let id = self.some_id();
        let duration = Duration::from_millis(self.rng.u64(..25_000));
        match self.rng.u8(..20) {
            0..4 => Fault::Reset(id),
            4 => Fault::Break(id),
            5..9 => {
                let code = [1001, 1012, 1006, 1013, 1000, 1011, 4500][self.rng.usize(..7)];
                // A server that closes one connection after the other with such a code, and
                // each one that an operation is tried on, blames that operation (rule 22d).
                self.strong_closes += u32::from(code == 4500);
                Fault::Close(id, if self.strong_closes > 2 { 1012 } else { code })
            }
            9 | 10 => Fault::Silence(id),
            11..14 => Fault::Stall(id, duration),
            14 => Fault::Clog(id, duration),
            15 => Fault::End(id),
            16 => Fault::Refuse(duration),
            17 => Fault::Nap(duration),
            18 => Fault::ReconnectNow,
            _ => Fault::Rotate,
        }
    }

    pub(super) fn strike(&mut self, fault: &Fault) {
        let resumes = matches!(fault, Fault::Resume);
        if !self.is_troubled() && !resumes {
            return;
        }
        self.log(|| format!("{fault:?}"));
        match *fault {
            Fault::Reset(id) => self.reset(id, Duration::ZERO),
            Fault::Break(id) => {
                if self.is_connected(id) {
                    self.performer.handle_broken(self.now, id);
                    let delay = self.part_of(Duration::from_secs(15));
                    self.reset(id, delay);
                }
            }
            Fault::Close(id, code) => {
                if self.is_connected(id) {
                    self.close(id, code);
                }
            }
            Fault::Silence(id) => {
                if self.is_connected(id) {
                    self.wires[id as usize].as_mut().unwrap().die();
                }
            }
            Fault::Stall(id, duration) => {
                let until = self.in_trouble(self.now + duration);
                if let Some(wire) = &mut self.wires[id as usize] {
                    wire.stalled_until = until;
                    self.schedule(until, Event::GoOn);
                }
            }
            Fault::Clog(id, duration) => {
                let until = self.in_trouble(self.now + duration);
                if let Some(wire) = &mut self.wires[id as usize] {
                    wire.clogged_until = until;
                    self.schedule(until, Event::GoOn);
                }
            }
            Fault::Outage(duration) => {
                self.refuse(duration);
                for id in ConnectionId::ALL {
                    self.reset(id, Duration::ZERO);
                }
            }
            Fault::Refuse(duration) => self.refuse(duration),
            // It is answered when there is another.
            Fault::Rotate => drop(self.client.rotate().now_or_never()),
            Fault::ReconnectNow => self.client.reconnect_now(),
            Fault::Pause(duration) => {
                self.client.pause();
                self.schedule(self.now + duration, Event::Fault(Fault::Resume));
            }
            Fault::Resume => self.client.resume(),
            Fault::NetworkChanged => self.client.network_changed(),
            Fault::Terminate(id) => self.terminate(id),
            Fault::Subscribe => self.subscribe(),
            Fault::Join => {
                let shared = self.readers.iter().flatten().find(|reader| reader.kind.is_shared);
                if let Some((feed, kind)) = shared.map(|reader| (reader.feed, reader.kind)) {
                    self.read(feed, kind);
                }
            }
            Fault::Drop => {
                let reader = self.rng.usize(..self.readers.len());
                self.readers[reader] = None;
            }
            Fault::Nap(duration) => {
                let until = self.in_trouble(self.now + duration);
                let index = self.rng.usize(..self.readers.len());
                if let Some(reader) = &mut self.readers[index] {
                    reader.nap(until);
                    self.schedule(until, Event::WakeUp(index));
                }
            }
            Fault::End(id) => {
                let restarts = self.readers.iter().flatten().filter(|reader| reader.kind.restarts);
                let feeds: Vec<_> = restarts.map(|reader| reader.feed).collect();
                for feed in feeds {
                    self.end(id, feed);
                }
            }
        }
    }

    fn is_connected(&self, id: ConnectionId) -> bool {
        self.wires[id as usize]
            .as_ref()
            .is_some_and(|wire| matches!(wire.stage, Stage::Open | Stage::Greeted) && !wire.is_dead)
    }

    /// The connection is gone, with what is under way.
    fn reset(&mut self, id: ConnectionId, delay: Duration) {
        let (now, is_connected) = (self.now, self.is_connected(id));
        let Some(wire) = self.wires[id as usize].as_mut().filter(|_| is_connected) else { return };
        wire.die();
        wire.down.clear();
        wire.down.push_back((now + delay, Down::Lost(Disconnect::Reset(None))));
        let age = wire.age;
        self.schedule(now + delay, Event::Down(id, age));
    }

    fn refuse(&mut self, duration: Duration) {
        let how = match self.rng.u8(..6) {
            0 => Refusal::Http(503),
            1 => Refusal::Http(429),
            2 => Refusal::NoRoute,
            3 => Refusal::NoAnswer,
            4 => Refusal::NoAcknowledgement,
            _ => Refusal::CloseBeforeAcknowledgement(1012),
        };
        self.outage = Some(Outage { until: self.now + duration, how });
    }

    fn refusal(&self) -> Option<Refusal> {
        self.outage.filter(|outage| outage.until > self.now).map(|outage| outage.how)
    }

    /// The dial is over.
    pub(super) fn dialed(&mut self, id: ConnectionId) {
        let error = match self.refusal() {
            Some(Refusal::NoAnswer) => return,
            Some(Refusal::Http(status)) => ConnectError::Http {
                status,
                retry_after: None,
                headers: ResponseHeaders::default(),
                body: String::new(),
            },
            Some(Refusal::NoRoute) => {
                let error = io::Error::from(io::ErrorKind::ConnectionRefused);
                ConnectError::Dial(DialError::Connect(Arc::new(error)))
            }
            Some(Refusal::NoAcknowledgement | Refusal::CloseBeforeAcknowledgement(_)) | None => {
                self.accept(id);
                self.step(Step::Open, id);
                return self.performer.handle_open(self.now, id);
            }
        };
        self.performer.handle_lost(self.now, id, Disconnect::Connect(error));
    }

    /// Whether the server does not acknowledge for now.
    pub(super) fn swallows_acknowledgement(&mut self, id: ConnectionId) -> bool {
        match self.refusal() {
            Some(Refusal::CloseBeforeAcknowledgement(code)) => {
                self.close(id, code);
                true
            }
            Some(Refusal::NoAcknowledgement) => true,
            Some(Refusal::Http(_) | Refusal::NoRoute | Refusal::NoAnswer) | None => false,
        }
    }
}
