//! The events of an operation and its end, independent of the type of its data.

use futures::stream::{self, BoxStream, StreamExt};
use resub::{Event, Gap, GraphQlError, Subscription, SubscriptionError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::show::Show;

/// An event of an operation.
pub(crate) enum Seen {
    Next(Item),
    Gap(Gap),
    /// An item that did not decode. The stream continues.
    Unreadable(SubscriptionError),
    /// The end. Without an error, the server completed the operation.
    End(Option<SubscriptionError>),
}

/// An item.
pub(crate) struct Item {
    pub(crate) data: Option<Box<dyn Show>>,
    pub(crate) errors: Vec<GraphQlError>,
    pub(crate) extensions: Option<Map<String, Value>>,
}

impl Item {
    /// Returns the first error if there is no data. Servers that send no `error` message report a
    /// failed operation like this.
    pub(crate) fn failure(&self) -> Option<&GraphQlError> {
        if self.data.is_none() { self.errors.first() } else { None }
    }
}

/// The events of an operation, each with the index of the operation.
pub(crate) type Events = BoxStream<'static, (usize, Seen)>;

/// Reads a subscription to its end.
pub(crate) fn events<T: Show + DeserializeOwned + 'static>(
    index: usize,
    subscription: Subscription<T>,
) -> Events {
    stream::unfold(Some(subscription), move |subscription| async move {
        let mut subscription = subscription?;
        loop {
            let seen = match subscription.next().await {
                None => return Some(((index, Seen::End(None)), None)),
                Some(Err(error)) if error.is_terminal() => {
                    return Some(((index, Seen::End(Some(error))), None));
                }
                Some(Err(error)) => Seen::Unreadable(error),
                Some(Ok(Event::Gap(gap))) => Seen::Gap(gap),
                Some(Ok(Event::Next(response))) => Seen::Next(Item {
                    data: response.data.map(|data| Box::new(data) as Box<dyn Show>),
                    errors: response.errors,
                    extensions: response.extensions,
                }),
                // An unknown kind of event, which a later version of the library may add.
                Some(Ok(_)) => continue,
            };
            return Some(((index, seen), Some(subscription)));
        }
    })
    .boxed()
}
