//! The writing end of one subscription or call, or of an operation that many subscriptions share,
//! as the driver uses it.
//!
//! Owns the application's code that runs in the driver: where to resume, what key an item has,
//! whether an end is one. A panic in it is an error of that subscription, and of nothing else.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    marker::PhantomData,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    delivery::mailbox::{Limits, Mailbox, Pushed},
    error::{GraphQlError, SharedError},
    protocol::Payload,
    response::{End, Gap, Response},
};

mod readers;

pub(crate) use self::readers::{Given, Readers};

/// Where the items and the end of an operation go.
pub(crate) struct Writer {
    pub(crate) id: u64,
    /// Of a shared operation nobody reads it: its readers have their own.
    pub(crate) mailbox: Mailbox<Payload, End>,
    /// Few are more than a mailbox.
    role: Option<Box<Role>>,
}

/// Locked by the driver alone.
enum Role {
    Hooked(Mutex<Hooks>),
    Shared(Mutex<Readers>),
}

/// Where an operation goes on.
#[derive(Debug)]
pub(crate) enum Position {
    /// Wherever the server begins: nothing was received that has a position, or nobody says so.
    None,
    /// Where the last request says.
    Unchanged,
    /// After the last item that was received, by this request.
    After(Box<RawValue>),
}

/// The application's code for one subscription, and what it needs to know.
#[derive(Default)]
pub(crate) struct Hooks {
    resume: Option<ResumeHook>,
    keys: Option<Box<dyn Keys>>,
    restart: Option<RestartHook>,
    /// The last item received that has data.
    last: Option<Payload>,
    /// The request has a position already.
    is_resumed: bool,
    /// The errors of the last item received, if it had no data.
    errors: Vec<GraphQlError>,
    /// The errors with which the server ended the operation, which is to be sent again.
    ended_with: Vec<GraphQlError>,
}

/// From the last item, the request that goes on after it; `None` if that item says no position.
pub(crate) type ResumeHook =
    Box<dyn FnMut(&Payload) -> Result<Option<Box<RawValue>>, serde_json::Error> + Send>;

/// Whether the end of an operation, with these errors, is to be followed by another try.
pub(crate) type RestartHook = Box<dyn FnMut(&[GraphQlError]) -> bool + Send>;

/// Where the newest item of each key waits.
pub(crate) trait Keys: Send {
    /// Reads the key of an item. Returns the place of the one before it with that key; it may have
    /// been read since.
    fn replaces(&mut self, item: &Payload) -> Option<u64>;

    /// The item whose key was read is kept there. Runs none of the application's code, as the
    /// reader has yet to be told.
    fn kept_at(&mut self, place: u64);

    /// Items that were kept so far are not replaced any more.
    fn forget_places(&mut self);
}

impl Writer {
    pub(crate) fn new(id: u64, limits: Limits, hooks: Option<Hooks>) -> Self {
        let role = hooks.map(|hooks| Box::new(Role::Hooked(Mutex::new(hooks))));
        Self { id, mailbox: Mailbox::new(limits), role }
    }

    /// Of an operation with these readers.
    pub(crate) fn shared(id: u64, readers: Readers) -> Self {
        let role = Some(Box::new(Role::Shared(Mutex::new(readers))));
        Self { id, mailbox: Mailbox::new(Limits::NONE), role }
    }

    /// Adds an item that came in this frame.
    ///
    /// # Errors
    ///
    /// If the application's code panicked; the subscription is to be ended with this.
    pub(crate) fn push(
        &self,
        item: Payload,
        frame: &str,
    ) -> Result<(Pushed, Option<Waker>), SharedError> {
        let Some(mut hooks) = self.hooks() else { return Ok(self.mailbox.push(item, frame.len())) };
        let json = item.range();
        let pushed = match &mut hooks.keys {
            None => self.mailbox.push(item, frame.len()),
            Some(keys) => {
                let place = guard("latest_by", || keys.replaces(&item))?;
                let (pushed, waker, place) = self.mailbox.push_instead(place, item, frame.len());
                keys.kept_at(place);
                (pushed, waker)
            }
        };
        match pushed.0 {
            Pushed::Kept { .. } | Pushed::Full | Pushed::Dropped => hooks.received(frame, json),
            // It will come again, or nobody wants it.
            Pushed::Rewind | Pushed::Overflowed | Pushed::Closed => {}
        }
        Ok(pushed)
    }

    /// Where the operation goes on when it is sent the next time.
    ///
    /// # Errors
    ///
    /// If the application's code panicked, or what it made does not serialize.
    pub(crate) fn position(&self) -> Result<Position, SharedError> {
        let Some(mut hooks) = self.hooks() else { return Ok(Position::None) };
        let Hooks { resume, last, is_resumed, .. } = &mut *hooks;
        let request = match (resume, last.take()) {
            (Some(resume), Some(last)) => {
                let request = guard("resume_with", || resume(&last))?;
                request.map_err(|error| Arc::new(error) as SharedError)?
            }
            (Some(_) | None, _) => None,
        };
        *is_resumed |= request.is_some();
        Ok(match request {
            Some(request) => Position::After(request),
            None if *is_resumed => Position::Unchanged,
            None => Position::None,
        })
    }

    /// The operation is about to be sent again, which this gap announces.
    pub(crate) fn reissued(&self, gap: &mut Gap) {
        let Some(mut hooks) = self.hooks() else { return };
        gap.resumed = hooks.is_resumed;
        gap.errors = std::mem::take(&mut hooks.ended_with);
        // What arrives from here on is another answer.
        hooks.errors.clear();
    }

    /// What follows came on another connection, which this gap says.
    pub(crate) fn moved(&self, gap: &mut Gap) {
        gap.resumed = self.hooks().is_some_and(|hooks| hooks.is_resumed);
    }

    /// Whether an end that the server gave the operation is none.
    ///
    /// # Errors
    ///
    /// If the application's code panicked.
    pub(crate) fn is_transient(&self, end: &End) -> Result<bool, SharedError> {
        let Some(mut hooks) = self.hooks() else { return Ok(false) };
        let errors = match end {
            End::Rejected(payload) => GraphQlError::read(payload.as_deref()),
            End::Completed => std::mem::take(&mut hooks.errors),
            End::Answered(_)
            | End::Ambiguous(_)
            | End::TimedOut
            | End::Lost(_)
            | End::GaveUp { .. }
            | End::Overflow
            | End::Hook(_)
            | End::ShutDown => return Ok(false),
        };
        let Some(restart) = &mut hooks.restart else { return Ok(false) };
        let is_transient = guard("restart_if", || restart(&errors))?;
        hooks.ended_with = errors;
        Ok(is_transient)
    }

    /// Marks a place for everyone who reads here.
    pub(crate) fn push_gap(&self, gap: Gap) {
        // What lies before the mark may come again. It must not take the place of something newer.
        if let Some(keys) = self.hooks().as_mut().and_then(|hooks| hooks.keys.as_mut()) {
            keys.forget_places();
        }
        match self.readers().map(|mut readers| readers.missed(&gap)) {
            None => self.mailbox.push_gap(gap),
            Some(readers) => readers.iter().for_each(|reader| reader.mailbox.push_gap(gap.clone())),
        }
    }

    /// Nothing arrived for so long.
    pub(crate) fn push_stale(&self, idle_for: Duration) {
        match self.readers().map(|readers| readers.all()) {
            None => self.mailbox.push_stale(idle_for),
            Some(readers) => readers.iter().for_each(|reader| reader.mailbox.push_stale(idle_for)),
        }
    }

    /// The server is known to have the operation.
    pub(crate) fn establish(&self) {
        match self.readers().map(|readers| readers.all()) {
            None => self.mailbox.establish(),
            Some(readers) => readers.iter().for_each(|reader| reader.mailbox.establish()),
        }
    }

    /// Nothing will follow, for anyone who reads here (I1). `freed` is called for each of them,
    /// before the reader knows.
    pub(crate) fn finish(&self, end: End, freed: impl Fn()) {
        // Before the reader knows, who may want the place.
        match self.readers().map(|mut readers| readers.take()) {
            None => self.mailbox.finish(end, freed),
            Some(readers) => {
                for reader in &readers {
                    reader.mailbox.finish(end.clone(), &freed);
                }
            }
        }
    }

    /// Whether the application may say from where to go on.
    pub(crate) fn is_resumable(&self) -> bool {
        self.hooks().is_some_and(|hooks| hooks.resume.is_some())
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.role.as_deref(), Some(Role::Shared(_)))
    }

    /// Who reads, if the operation is shared. To be told of things once this is unlocked, as they
    /// may be woken (I11).
    pub(crate) fn readers(&self) -> Option<MutexGuard<'_, Readers>> {
        match self.role.as_deref()? {
            Role::Hooked(_) => None,
            Role::Shared(readers) => Some(readers.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn hooks(&self) -> Option<MutexGuard<'_, Hooks>> {
        match self.role.as_deref()? {
            // What panics in it is caught.
            Role::Hooked(hooks) => Some(hooks.lock().unwrap_or_else(PoisonError::into_inner)),
            Role::Shared(_) => None,
        }
    }
}

impl Hooks {
    /// `None` if there is nothing to do.
    pub(crate) fn new(
        resume: Option<ResumeHook>,
        keys: Option<Box<dyn Keys>>,
        restart: Option<RestartHook>,
    ) -> Option<Self> {
        let is_wanted = resume.is_some() || keys.is_some() || restart.is_some();
        is_wanted.then(|| Self { resume, keys, restart, ..Self::default() })
    }

    fn received(&mut self, frame: &str, json: Range<usize>) {
        if self.resume.is_none() && self.restart.is_none() {
            return;
        }
        // What nearly every item begins with needs no other look.
        let has_data = frame[json.clone()].starts_with(r#"{"data":{"#) || {
            let item = Payload::new(frame.to_owned(), json.clone());
            let response = item.decode::<Response<IgnoredAny>>().ok();
            self.errors =
                response.as_ref().map(|response| response.errors.clone()).unwrap_or_default();
            response.is_some_and(|response| response.data.is_some())
        };
        if has_data {
            self.errors.clear();
            if self.resume.is_some() {
                let mut buffer =
                    self.last.take().and_then(Payload::into_buffer).unwrap_or_default();
                buffer.clear();
                // One large item is not paid for as long as the operation lives.
                if buffer.capacity() > KEPT_CAPACITY.max(4 * frame.len()) {
                    buffer = String::new();
                }
                buffer.push_str(frame);
                self.last = Some(Payload::new(buffer, json));
            }
        }
    }
}

/// The capacity of a buffer for the last item that is kept whatever that item's size, in bytes.
const KEPT_CAPACITY: usize = 4 * 1024;

/// Runs the application's code.
fn guard<R>(hook: &'static str, code: impl FnOnce() -> R) -> Result<R, SharedError> {
    catch_unwind(AssertUnwindSafe(code))
        .map_err(|_| Arc::from(Box::from(format!("`{hook}` panicked"))))
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Keys of this type, read from data of that.
pub(crate) struct ByKey<T, K, F> {
    key: F,
    /// By key, an index into `places`.
    known: HashMap<K, usize>,
    /// `None` for an item that is not kept yet.
    places: Vec<Option<u64>>,
    /// Of the item at hand.
    current: Option<usize>,
    newest: u64,
    /// So far back can an item be that is held.
    horizon: u64,
    data: PhantomData<fn(T)>,
}

impl<T, K, F> ByKey<T, K, F> {
    pub(crate) fn new(key: F, limits: Limits) -> Self {
        // Between two items there are at most three marks.
        let horizon = u64::try_from(limits.items.get()).unwrap_or(u64::MAX).saturating_mul(4);
        Self {
            key,
            known: HashMap::new(),
            places: Vec::new(),
            current: None,
            newest: 0,
            horizon,
            data: PhantomData,
        }
    }
}

impl<T, K: Hash + Eq, F> ByKey<T, K, F> {
    /// Forgets the keys of items that cannot be held any more, once those are as many as can be
    /// held, which pays for it.
    fn sweep(&mut self) {
        if self.places.len() as u64 / 2 <= self.horizon {
            return;
        }
        let (oldest, places) =
            (self.newest.saturating_sub(self.horizon), std::mem::take(&mut self.places));
        self.known.retain(|_, index| {
            let place = places[*index].filter(|place| *place >= oldest);
            *index = self.places.len();
            self.places.extend(place.map(Some));
            place.is_some()
        });
    }
}

impl<T, K, F> Keys for ByKey<T, K, F>
where
    T: DeserializeOwned,
    K: Hash + Eq + Send,
    F: FnMut(&T) -> K + Send,
{
    fn replaces(&mut self, item: &Payload) -> Option<u64> {
        self.current = None;
        self.sweep();
        // What has no data has no key, and is kept as it is.
        let data = item.decode::<Response<T>>().ok()?.data?;
        let index = *self.known.entry((self.key)(&data)).or_insert(self.places.len());
        if index == self.places.len() {
            self.places.push(None);
        }
        self.current = Some(index);
        self.places[index]
    }

    fn kept_at(&mut self, place: u64) {
        if let Some(index) = self.current.take() {
            self.newest = self.newest.max(place);
            self.places[index] = Some(place);
        }
    }

    fn forget_places(&mut self) {
        self.places.fill(None);
    }
}

#[cfg(test)]
mod tests;
