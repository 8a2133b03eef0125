//! What the driver does, without sockets and tasks: it carries out what the session wants done, and
//! gives items to their readers.
//!
//! Owns the session. It is as close to `client::driver` as can be, so that what holds here holds
//! there.

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Instant};

use tokio::sync::mpsc;

use crate::{
    client::driver::Command,
    delivery::{
        mailbox::Pushed,
        sharing::{Replay, Sharing},
        writer::{Continue, PushResult, Writer},
    },
    error::Disconnect,
    operation::OperationType,
    protocol::{Payload, Subprotocol, Transmit},
    response::{End, StreamEnd},
    session::{Backlog, Config, ConnectionId, Granted, HeldItem, Item, Output, Request, Session},
};

/// What is the outside's to do.
#[derive(Debug)]
pub(super) enum Act {
    Authorize(ConnectionId),
    Dial(ConnectionId, Subprotocol),
    Hangup(ConnectionId),
}

pub(super) struct Performer {
    session: Session<Arc<Writer>>,
    commands: mpsc::UnboundedReceiver<Command>,
    sharing: Sharing,
    /// The full mailboxes that the sockets wait for.
    blocked: Vec<Arc<Writer>>,
    pub(super) acts: VecDeque<Act>,
    /// How often an operation was to be sent again on the connection that it was on.
    pub(super) restarts: u32,
    /// How often a reader had no room under `Overflow::Rewind`.
    rewinds: u32,
    /// The most outputs that followed from one input.
    pub(super) most_outputs: usize,
}

impl Performer {
    pub(super) fn new(config: Config, commands: mpsc::UnboundedReceiver<Command>) -> Self {
        Self {
            session: Session::new(config),
            commands,
            sharing: Sharing::default(),
            blocked: Vec::new(),
            acts: VecDeque::new(),
            restarts: 0,
            rewinds: 0,
            most_outputs: 0,
        }
    }

    pub(super) fn handle_credentials(&mut self, now: Instant, id: ConnectionId, granted: Granted) {
        self.session.handle_credentials(now, id, Ok(granted));
        self.perform(now);
    }

    pub(super) fn handle_open(&mut self, now: Instant, id: ConnectionId) {
        self.session.handle_open(now, id);
        self.perform(now);
    }

    pub(super) fn handle_lost(&mut self, now: Instant, id: ConnectionId, cause: Disconnect) {
        self.session.handle_lost(now, id, cause);
        self.perform(now);
    }

    pub(super) fn handle_broken(&mut self, now: Instant, id: ConnectionId) {
        self.session.handle_broken(now, id, Disconnect::Reset(None));
        self.perform(now);
    }

    pub(super) fn handle_pong(&mut self, now: Instant, id: ConnectionId, number: u64) {
        self.session.handle_pong(now, id, Some(number));
        self.perform(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.perform(now);
    }

    pub(super) fn handle_frame(&mut self, now: Instant, id: ConnectionId, text: &str) {
        if let Some(Item { writer, payload }) = self.session.handle_frame(now, id, text) {
            let (writer, rewinds) = (Arc::clone(writer), self.rewinds);
            let id = writer.id;
            self.deliver(now, writer, text, payload.clone());
            if self.rewinds > rewinds {
                self.session.refused(id, text, payload);
            }
        }
        self.perform(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    pub(super) fn poll_transmit(&mut self, id: ConnectionId) -> Option<Transmit> {
        self.session.poll_transmit(id)
    }

    /// Whether what arrives on this connection waits for a reader.
    pub(super) fn is_blocked(&self, id: ConnectionId) -> bool {
        !self.blocked.is_empty() && self.session.is_live(id)
    }

    pub(super) fn is_live(&self, id: ConnectionId) -> bool {
        self.session.is_live(id)
    }

    /// Lets the sockets be read again once there is room. Whether that is so since now.
    pub(super) fn look_for_room(&mut self, now: Instant) -> bool {
        if self.blocked.is_empty() {
            return false;
        }
        self.blocked.retain(|writer| !writer.mailbox.has_room());
        if self.blocked.is_empty() {
            self.session.unstall(now);
        }
        self.blocked.is_empty()
    }

    /// Takes what the application wants. Whether there was anything.
    pub(super) fn take_commands(&mut self, now: Instant) -> bool {
        let mut taken = false;
        while let Ok(command) = self.commands.try_recv() {
            taken = true;
            match command {
                Command::Subscribe { kind, payload, timeout, watch_options, writer } => {
                    let is_resumable = writer.is_resumable();
                    let deadline = timeout.map(|timeout| now + *timeout);
                    let request = Request { kind, payload, deadline, watch_options, is_resumable };
                    self.session.subscribe(now, writer.id, request, writer);
                }
                Command::Share { request, operation, replay, reader } => {
                    self.share(now, request, operation, replay, reader);
                }
                Command::Cancel(id) => self.cancel(now, id),
                Command::Released(id) => self.session.catch_up(now, id),
                Command::AskAgain(asked) => {
                    let (writer, item, row) = *asked;
                    self.restarts += 1;
                    match writer.ask_after(&item, row) {
                        Ok(()) => self.session.ask_again(now, writer.id),
                        Err(error) => self.end(now, &writer, End::Stream(StreamEnd::Hook(error))),
                    }
                }
                Command::Connect(_) => self.session.connect(now),
                Command::Pause => self.session.pause(now),
                Command::Resume => self.session.resume(now),
                Command::Probe(id) => self.session.probe(self.sharing.operation_of(id)),
                Command::Rotate(_) => self.session.rotate(now),
                Command::ReconnectNow => self.session.reconnect_now(now),
                Command::NetworkChanged => self.session.network_changed(now),
                Command::Shutdown { within } => self.session.shutdown(now, now + within),
            }
            self.perform(now);
        }
        taken
    }

    fn perform(&mut self, now: Instant) {
        let mut outputs = 0;
        while let Some(output) = self.session.poll_output() {
            outputs += 1;
            match output {
                Output::Authorize(id, _) => self.acts.push_back(Act::Authorize(id)),
                Output::Dial(id, subprotocol) => self.acts.push_back(Act::Dial(id, subprotocol)),
                Output::Hangup(id, _) => self.acts.push_back(Act::Hangup(id)),
                Output::Reissue { writer, mut gap } => {
                    if self.resume(now, &writer) {
                        writer.reissued(&mut gap);
                        writer.push_gap(gap);
                    }
                }
                Output::Resume { writer } => {
                    self.resume(now, &writer);
                }
                Output::Gap { writer, mut gap } => {
                    writer.moved(&mut gap);
                    writer.push_gap(gap);
                }
                Output::Deliver { id, writer, backlog } => {
                    self.deliver_all(now, id, &writer, backlog);
                }
                Output::Established { writer } => writer.establish(),
                Output::Stale { writer, idle_for } => {
                    self.restarts += 1;
                    writer.push_stale(idle_for);
                }
                Output::AskIfTransient { writer, end } => match writer.is_transient(&end) {
                    Ok(true) => {
                        self.restarts += 1;
                        self.session.restart(now, writer.id);
                    }
                    Ok(false) => self.end(now, &writer, end),
                    Err(error) => self.end(now, &writer, End::Stream(StreamEnd::Hook(error))),
                },
                Output::Finish { writer, end } => {
                    self.sharing.forget(&writer);
                    writer.finish(end, || {});
                }
                Output::Connected(_)
                | Output::Rotated(_)
                | Output::Postponed(_)
                | Output::Refused(..)
                | Output::Unattributed(_)
                | Output::Status(_)
                | Output::Ended => {}
            }
        }
        self.most_outputs = self.most_outputs.max(outputs);
    }

    fn resume(&mut self, now: Instant, writer: &Writer) -> bool {
        match writer.position() {
            Ok(Continue::Anywhere) => self.session.resume_from_nowhere(writer.id, None),
            Ok(Continue::Anew(request)) => {
                self.session.resume_from_nowhere(writer.id, Some(request.into()));
            }
            Ok(Continue::Unchanged) => self.session.resume_from(writer.id, None),
            Ok(Continue::After(request)) => {
                self.session.resume_from(writer.id, Some(request.into()));
            }
            Err(error) => {
                self.end(now, writer, End::Stream(StreamEnd::Hook(error)));
                return false;
            }
        }
        true
    }

    fn deliver_all(&mut self, now: Instant, id: u64, writer: &Arc<Writer>, mut backlog: Backlog) {
        while let Some(item) = backlog.pop() {
            let HeldItem { frame, payload } = &item;
            let rewinds = self.rewinds;
            if !self.deliver(now, Arc::clone(writer), frame, payload.clone()) {
                // The end was behind it, and comes again with it.
                backlog.end = None;
                if self.rewinds > rewinds {
                    backlog.put_back(item);
                }
                break;
            }
        }
        self.session.delivered(now, id, backlog);
    }

    fn end(&mut self, now: Instant, writer: &Writer, end: End) {
        self.cancel(now, writer.id);
        writer.finish(end, || {});
    }

    fn deliver(
        &mut self,
        now: Instant,
        writer: Arc<Writer>,
        frame: &str,
        payload: Range<usize>,
    ) -> bool {
        if !writer.is_shared() {
            let given = writer.push(Payload::new(frame.to_owned(), payload), frame);
            return self.settle(now, writer, given);
        }
        let Some(mut readers) = writer.readers() else { return false };
        let mut wakers = VecDeque::new();
        let exceptions = readers.push_to_all(Payload::shared(frame, payload), &mut wakers);
        drop(readers);
        for (reader, given) in exceptions {
            self.settle(now, reader, given);
        }
        wakers.into_iter().for_each(std::task::Waker::wake);
        true
    }

    fn share(
        &mut self,
        now: Instant,
        request: Box<str>,
        operation: u64,
        replay: Replay,
        reader: Arc<Writer>,
    ) {
        let Some(operation) = self.sharing.join(&request, &reader) else {
            let writer = self.sharing.begin(operation, &request, reader);
            let kind = OperationType::Subscription;
            let request = Request {
                kind,
                payload: request,
                deadline: None,
                watch_options: None,
                is_resumable: false,
            };
            self.session.subscribe(now, writer.id, request, writer);
            return;
        };
        let last = match replay {
            Replay::Nothing => None,
            Replay::Last => operation.readers().and_then(|readers| readers.last()),
        };
        if let Some((last, missed)) = last {
            let given = reader.push(last.clone(), last.frame());
            self.settle(now, Arc::clone(&reader), given);
            if let Some(gap) = missed {
                reader.mailbox.push_gap(gap);
            }
        }
    }

    fn cancel(&mut self, now: Instant, reader: u64) {
        if let Some(operation) = self.sharing.leave(reader) {
            self.session.cancel(now, operation);
        }
    }

    fn settle(&mut self, now: Instant, writer: Arc<Writer>, given: PushResult) -> bool {
        let (pushed, waker) = match given {
            Ok(given) => given,
            Err(error) => {
                self.end(now, &writer, End::Stream(StreamEnd::Hook(error)));
                return false;
            }
        };
        let takes_more = match pushed {
            Pushed::Kept { .. } | Pushed::Dropped | Pushed::Repeated => true,
            Pushed::Closed => false,
            Pushed::Full => {
                self.blocked.push(writer);
                self.session.stall();
                true
            }
            Pushed::Overflowed => {
                self.end(now, &writer, End::Stream(StreamEnd::Overflow));
                false
            }
            Pushed::Rewind => {
                self.restarts += 1;
                self.rewinds += 1;
                self.session.rewind(writer.id);
                false
            }
        };
        waker.into_iter().for_each(std::task::Waker::wake);
        takes_more
    }
}
