//! The writer of an operation: the driver's side of one subscription or call, or of several shared
//! subscriptions.
//!
//! Owns the application's hooks that run in the driver: the position to resume from, the key of an
//! item, and whether to restart after an end. A panic in a hook ends only that subscription.

use std::{
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::{
    delivery::{
        Overflow,
        mailbox::{Limits, Mailbox, Pushed},
        position::{Progress, Resume},
        recent::Recent,
    },
    error::{GraphQlError, SharedError},
    protocol::Payload,
    response::{End, Gap, decode},
};

mod keys;
mod readers;

use self::keys::Replaces;
pub(crate) use self::{
    keys::{ByKey, Keys},
    readers::{PushResult, Readers},
};

/// Delivers the items and the end of an operation.
pub(crate) struct Writer {
    pub(crate) id: u64,
    /// Unused if the operation is shared, because each of its readers has a mailbox.
    pub(crate) mailbox: Mailbox<Payload, End>,
    /// Boxed, because most writers have only a mailbox.
    role: Option<Box<Role>>,
}

/// Only the driver locks these.
enum Role {
    Hooked(Mutex<Hooks>),
    Shared(Mutex<Readers>),
}

/// Where an operation continues when it is sent again.
#[derive(Debug)]
pub(crate) enum Continue {
    /// Where the server starts it: no item with a position was received, or there is no hook.
    Anywhere,
    /// At the position of the last request.
    Unchanged,
    /// After a received item. Send this request.
    After(Box<RawValue>),
    /// Where the server starts it, because it no longer has the position. Send this request.
    Anew(Box<RawValue>),
}

/// The application's hooks for one subscription, and the state that they need.
#[derive(Default)]
pub(crate) struct Hooks {
    resume: Option<Box<dyn Resume>>,
    keys: Option<Box<dyn Keys>>,
    restart: Option<RestartHook>,
    /// Set with `dedupe_by`.
    recent: Option<Recent>,
    progress: Progress,
    /// Whether the request contains a position.
    is_resumed: bool,
    /// The next request, if something other than the last received item decides about it.
    request: Option<Box<RawValue>>,
    /// The reader has asked for items again, and the operation was not sent again since.
    is_asked: bool,
    /// The errors of the last item received, if it had no data.
    errors: Vec<GraphQlError>,
    /// The errors with which the server ended the operation, if it is restarted.
    ended_with: Vec<GraphQlError>,
}

/// Returns whether an operation that ended with these errors is restarted.
pub(crate) type RestartHook = Box<dyn FnMut(&[GraphQlError]) -> bool + Send>;

impl Writer {
    pub(crate) fn new(id: u64, limits: Limits, hooks: Option<Hooks>) -> Self {
        let role = hooks.map(|hooks| Box::new(Role::Hooked(Mutex::new(hooks))));
        Self { id, mailbox: Mailbox::new(limits), role }
    }

    /// Creates the writer of an operation with these readers.
    pub(crate) fn shared(id: u64, readers: Readers) -> Self {
        let role = Some(Box::new(Role::Shared(Mutex::new(readers))));
        Self { id, mailbox: Mailbox::new(Limits::NONE), role }
    }

    /// Adds an item that arrived in this frame.
    ///
    /// # Errors
    ///
    /// Fails if a hook panicked. End the subscription with this error.
    pub(crate) fn push(
        &self,
        item: Payload,
        frame: &str,
    ) -> Result<(Pushed, Option<Waker>), SharedError> {
        let Some(mut hooks) = self.hooks() else { return Ok(self.mailbox.push(item, frame.len())) };
        let json = item.range();
        let is_repeated =
            hooks.recent.as_mut().is_some_and(|it| it.is_repeated(&frame[json.clone()]));
        if is_repeated || hooks.progress.is_repeated(&frame[json.clone()]) {
            hooks.look_for_data(frame, json);
            return Ok((Pushed::Repeated, None));
        }
        let pushed = match &mut hooks.keys {
            None => self.mailbox.push(item, frame.len()),
            Some(keys) => match guard("latest_by", || keys.replaces(&item))? {
                Replaces::NoKey => self.mailbox.push_or_drop(item, frame.len()),
                Replaces::Key(place) => {
                    let (pushed, waker, place) =
                        self.mailbox.push_instead(place, item, frame.len());
                    keys.kept_at(place);
                    (pushed, waker)
                }
            },
        };
        match pushed.0 {
            Pushed::Kept { dropped: 0 } | Pushed::Full => hooks.received(frame, json),
            Pushed::Kept { .. } | Pushed::Dropped => {
                hooks.received(frame, json);
                // The repetition of an item that was dropped may be the only one that is read.
                if let Some(recent) = &mut hooks.recent {
                    recent.forget();
                }
            }
            // The server will send the item again, or the subscription has ended.
            Pushed::Rewind | Pushed::Overflowed | Pushed::Closed | Pushed::Repeated => {}
        }
        Ok(pushed)
    }

    /// Returns where the operation continues when it is sent again.
    ///
    /// # Errors
    ///
    /// Fails if the hook panicked, or the request does not serialize. End the subscription with
    /// this error.
    pub(crate) fn position(&self) -> Result<Continue, SharedError> {
        let Some(mut hooks) = self.hooks() else { return Ok(Continue::Anywhere) };
        let Hooks { resume: Some(resume), progress, is_resumed, request, .. } = &mut *hooks else {
            return Ok(Continue::Anywhere);
        };
        let rewinds = self.mailbox.overflow() == Overflow::Rewind;
        if let Some(request) = request.take() {
            return Ok(if *is_resumed {
                Continue::After(request)
            } else {
                Continue::Anew(request)
            });
        }
        let Some(last) = progress.take(&**resume, rewinds) else {
            return Ok(if *is_resumed { Continue::Unchanged } else { Continue::Anywhere });
        };
        let request = guard("resume_with", || resume.request_after(&last, None))?;
        *is_resumed = true;
        Ok(Continue::After(request?))
    }

    /// The reader asks for the items after this row of an item again. They follow once the
    /// operation was sent again, behind a gap that says so.
    ///
    /// # Errors
    ///
    /// As [`position`](Self::position).
    pub(crate) fn ask_after(&self, item: &Payload, row: usize) -> Result<(), SharedError> {
        let Some(mut hooks) = self.hooks() else { return Ok(()) };
        hooks.is_asked = true;
        let Some(resume) = &mut hooks.resume else { return Ok(()) };
        let request = guard("resume_with", || resume.request_after(item, Some(row)))?;
        hooks.request = Some(request?);
        hooks.is_resumed = true;
        hooks.progress = Progress::default();
        if let Some(recent) = &mut hooks.recent {
            recent.forget();
        }
        Ok(())
    }

    /// Completes the gap of an operation that is about to be sent again.
    pub(crate) fn reissued(&self, gap: &mut Gap) {
        let Some(mut hooks) = self.hooks() else { return };
        gap.resumed = hooks.is_resumed;
        gap.errors = std::mem::take(&mut hooks.ended_with);
        gap.is_answer = std::mem::take(&mut hooks.is_asked);
        // Items from here on answer the new request.
        hooks.errors.clear();
    }

    /// Completes the gap of an operation that has moved to another connection.
    pub(crate) fn moved(&self, gap: &mut Gap) {
        gap.resumed = self.hooks().is_some_and(|hooks| hooks.is_resumed);
    }

    /// Asks the application whether to restart the operation after this end.
    ///
    /// # Errors
    ///
    /// Fails if the hook panicked. End the subscription with this error.
    pub(crate) fn is_transient(&self, end: &End) -> Result<bool, SharedError> {
        let Some(mut hooks) = self.hooks() else { return Ok(false) };
        let errors = match end {
            End::Rejected(payload) => GraphQlError::read(payload.as_deref()),
            End::Completed => std::mem::take(&mut hooks.errors),
            End::Connection(_) | End::Call(_) | End::Stream(_) => return Ok(false),
        };
        let is_transient = if hooks.loses_position(&errors)? {
            true
        } else {
            match &mut hooks.restart {
                Some(restart) => guard("restart_if", || restart(&errors))?,
                None => false,
            }
        };
        hooks.ended_with = errors;
        Ok(is_transient)
    }

    /// Adds a gap for every reader.
    pub(crate) fn push_gap(&self, gap: Gap) {
        if let Some(mut hooks) = self.hooks() {
            // Items from before the gap may repeat. A repetition must not replace a newer item.
            if let Some(keys) = &mut hooks.keys {
                keys.forget_places();
            }
            if let Some(recent) = &mut hooks.recent {
                recent.may_repeat();
            }
        }
        match self.readers().map(|mut readers| readers.missed(&gap)) {
            None => self.mailbox.push_gap(gap),
            Some(readers) => readers.iter().for_each(|reader| reader.push_gap(gap.clone())),
        }
    }

    /// Adds a marker for every reader that no item arrived for this long.
    pub(crate) fn push_stale(&self, idle_for: Duration) {
        match self.readers().map(|readers| readers.all()) {
            None => self.mailbox.push_stale(idle_for),
            Some(readers) => readers.iter().for_each(|reader| reader.mailbox.push_stale(idle_for)),
        }
    }

    /// Tells every reader that the server has read the operation.
    pub(crate) fn establish(&self) {
        match self.readers().map(|readers| readers.all()) {
            None => self.mailbox.establish(),
            Some(readers) => readers.iter().for_each(|reader| reader.mailbox.establish()),
        }
    }

    /// Ends the operation for every reader (I1). `freed` is called for each reader before it can
    /// see the end.
    pub(crate) fn finish(&self, end: End, freed: impl Fn()) {
        // In this order, because a reader that sees the end may want the free place.
        match self.readers().map(|mut readers| readers.take()) {
            None => self.mailbox.finish(end, freed),
            Some(readers) => {
                for reader in &readers {
                    reader.mailbox.finish(end.clone(), &freed);
                }
            }
        }
    }

    /// Whether the application has set `resume_with`.
    pub(crate) fn is_resumable(&self) -> bool {
        self.hooks().is_some_and(|hooks| hooks.resume.is_some())
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.role.as_deref(), Some(Role::Shared(_)))
    }

    /// Returns the readers, if the operation is shared. Call methods of a reader only after the
    /// lock is released, because they may wake it (I11).
    pub(crate) fn readers(&self) -> Option<MutexGuard<'_, Readers>> {
        match self.role.as_deref()? {
            Role::Hooked(_) => None,
            Role::Shared(readers) => Some(readers.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn hooks(&self) -> Option<MutexGuard<'_, Hooks>> {
        match self.role.as_deref()? {
            // Poisoning is ignored, because panics of hooks are caught.
            Role::Hooked(hooks) => Some(hooks.lock().unwrap_or_else(PoisonError::into_inner)),
            Role::Shared(_) => None,
        }
    }
}

impl Hooks {
    /// Returns `None` if no hook is set. `is_resumed` says whether the first request contains a
    /// position.
    pub(crate) fn new(
        resume: Option<Box<dyn Resume>>,
        keys: Option<Box<dyn Keys>>,
        restart: Option<RestartHook>,
        recent: Option<Recent>,
        is_resumed: bool,
    ) -> Option<Self> {
        let is_wanted = resume.is_some() || keys.is_some() || restart.is_some() || recent.is_some();
        is_wanted.then(|| Self { resume, keys, restart, recent, is_resumed, ..Self::default() })
    }

    /// Asks the application whether these errors mean that the server no longer has the position.
    /// If so, the next request has none.
    fn loses_position(&mut self, errors: &[GraphQlError]) -> Result<bool, SharedError> {
        let Some(resume) = self.resume.as_mut().filter(|_| self.is_resumed) else {
            return Ok(false);
        };
        let Some(request) = guard("position_lost", || resume.without_position(errors))? else {
            return Ok(false);
        };
        self.request = Some(request?);
        self.is_resumed = false;
        self.progress = Progress::default();
        Ok(true)
    }

    fn received(&mut self, frame: &str, json: Range<usize>) {
        // The reader skips it, and the server sends it again.
        if self.is_asked {
            return;
        }
        if let Some(recent) = &mut self.recent {
            recent.received(&frame[json.clone()]);
        }
        if self.resume.is_none() && self.restart.is_none() {
            return;
        }
        let has_data = self.look_for_data(frame, json.clone());
        if let Some(resume) = &self.resume {
            self.progress.received(&**resume, frame, json, has_data);
        }
    }

    /// Keeps the errors of an item without data. Returns whether there is data.
    fn look_for_data(&mut self, frame: &str, json: Range<usize>) -> bool {
        // Nearly every item begins like this and need not be parsed.
        let has_data = frame[json.clone()].starts_with(r#"{"data":{"#) || {
            let item = Payload::new(frame.to_owned(), json.clone());
            let response = decode::<IgnoredAny>(&item).ok();
            self.errors =
                response.as_ref().map(|response| response.errors.clone()).unwrap_or_default();
            response.is_some_and(|response| response.data.is_some())
        };
        if has_data {
            self.errors.clear();
        }
        has_data
    }
}

/// Runs a hook of the application and turns a panic into an error.
fn guard<R>(hook: &'static str, code: impl FnOnce() -> R) -> Result<R, SharedError> {
    catch_unwind(AssertUnwindSafe(code))
        .map_err(|_| Arc::from(Box::from(format!("`{hook}` panicked"))))
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
