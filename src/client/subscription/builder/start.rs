//! Starting a subscription, unless its options conflict.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Start, SubscriptionBuilder};
use crate::{
    client::{Plan, subscription::Subscription},
    delivery::{Overflow, sharing::Replay, writer::Hooks},
    error::SubscribeError,
    operation::{Operation, OperationType},
    session::WatchOptions,
};

impl<O: Operation, T: DeserializeOwned> SubscriptionBuilder<O, T> {
    /// Starts the subscription. Never blocks, and works offline: the client sends the operation
    /// once it is connected.
    ///
    /// # Errors
    ///
    /// Fails if the client was shut down, the operation cannot be sent, or the options conflict;
    /// see [`SubscribeError`].
    pub fn start(self) -> Result<Subscription<T>, SubscribeError> {
        self.check()?;
        let Self {
            client,
            operation,
            limits,
            watch_options,
            resume,
            position_lost,
            keys,
            restart,
            mut items,
            recent,
            start,
            conflict: _,
            is_shared,
            replay,
            is_unchecked,
            is_dedicated,
        } = self;
        items.has_missed = is_shared;
        let name = operation.name().map(str::to_owned);
        let mut payload = operation.payload().map_err(SubscribeError::Serialize)?;
        let mut resume = resume.map(|resume| resume(operation, position_lost, items.rows.clone()));
        let is_resumed = !matches!(start, Start::Anywhere);
        if let (Start::After(position), Some(resume)) = (start, &mut resume) {
            let (item, row) = (position.item(), position.row);
            items.start_after(position).map_err(SubscribeError::Position)?;
            payload = resume.request_after(&item, Some(row)).map_err(SubscribeError::Position)?;
        }
        let keys = keys.filter(|_| limits.overflow == Overflow::LatestBy);
        let keys = keys.map(|keys| keys(limits, items.rows.clone()));
        let hooks = Hooks::new(resume, keys, restart, recent, is_resumed);
        let plan = Plan {
            kind: OperationType::Subscription,
            is_unchecked,
            limits: Some(limits),
            timeout: None,
            watch_options,
            hooks,
            near: None,
            sharing: is_shared.then_some(replay),
            is_dedicated,
        };
        let (connection, writer) = client.begin(payload, name.as_deref(), plan)?;
        let items = items.is_wanted().then_some(items);
        Ok(Subscription::new(connection, writer, items))
    }

    fn check(&self) -> Result<(), SubscribeError> {
        let conflict = |text| Err(SubscribeError::Option(text));
        if let Some(text) = self.conflict {
            return conflict(text);
        }
        if self.keys.is_some() && self.items.rows.split.is_some() {
            return conflict("latest_by does not go with flatten: an item has several keys");
        }
        if self.limits.overflow == Overflow::LatestBy && self.items.number.is_some() {
            return conflict("sequence_by does not go with latest_by, which changes the order");
        }
        if self.resume.is_none() {
            if self.position_lost.is_some() {
                return conflict("position_lost needs resume_with");
            }
            match self.start {
                Start::Anywhere => {}
                Start::AtVariables => return conflict("starting_at_variables needs resume_with"),
                Start::After(_) => return conflict("starting_after needs resume_with"),
            }
        }
        if self.is_shared {
            if self.is_dedicated {
                return conflict("dedicated needs an operation of its own, not a shared one");
            }
            check_shared(self.limits.overflow, self.watch_options, self.resume.is_some())?;
        } else if self.replay == Replay::Last {
            return conflict(
                "replay_last needs shared: nothing comes before an operation of its own",
            );
        }
        let (resumes, has_key) = (self.resume.is_some(), self.keys.is_some());
        check(self.limits.overflow, self.watch_options, resumes, has_key)
    }
}

fn check(
    overflow: Overflow,
    watch_options: WatchOptions,
    resumes: bool,
    has_key: bool,
) -> Result<(), SubscribeError> {
    if overflow == Overflow::Rewind && !resumes {
        return Err(SubscribeError::Option(
            "Overflow::Rewind needs resume_with, or it would lose what it does not hold",
        ));
    }
    if overflow == Overflow::LatestBy && !has_key {
        return Err(SubscribeError::Option("Overflow::LatestBy has no key: use latest_by"));
    }
    let WatchOptions { first_item_within, idle_longer_than, reissue_stale, restart: _ } =
        watch_options;
    if first_item_within.or(idle_longer_than).is_none() && reissue_stale {
        return Err(SubscribeError::Option(
            "reissue_stale needs idle_longer_than or first_item_within",
        ));
    }
    if [first_item_within, idle_longer_than].contains(&Some(Duration::ZERO)) {
        return Err(SubscribeError::Option(
            "a subscription that may not be idle for any time is always stale",
        ));
    }
    Ok(())
}

/// Checks that a shared subscription sets no option that concerns the operation itself.
fn check_shared(
    overflow: Overflow,
    watch_options: WatchOptions,
    resumes: bool,
) -> Result<(), SubscribeError> {
    if overflow == Overflow::Rewind {
        return Err(SubscribeError::Option(
            "Overflow::Rewind needs an operation of its own, not a shared one",
        ));
    }
    if resumes {
        return Err(SubscribeError::Option(
            "resume_with needs an operation of its own, not a shared one",
        ));
    }
    if watch_options.restart {
        return Err(SubscribeError::Option(
            "restart_if needs an operation of its own, not a shared one",
        ));
    }
    if watch_options != WatchOptions::default() {
        return Err(SubscribeError::Option(
            "what looks for silence needs an operation of its own, not a shared one",
        ));
    }
    Ok(())
}
